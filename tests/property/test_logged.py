"""Logged features come back as they were, in their order, whatever their names; rows of version 1 are read."""

from __future__ import annotations

import struct

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.core.activity import Activity
from app.core.activity import features as activity_features
from app.core.campaign import Trigger
from app.core.features import open_features
from app.core.ids import WORD_BYTES, message_word
from app.core.logged import NAMES, ROOM, RUN, pack, rounded, unpack
from app.core.profile import Profile, decode_profile, encode_profile
from app.core.row_heads import BadRow
from app.core.row_parts import Pending, Propensity, Watch
from tests.support import old_rows
from tests.support.plans import campaign, make_plan

values = st.sampled_from([0.0, 1.0, -1.0]) | st.floats(width=32, allow_nan=False)
names = st.sampled_from(NAMES) | st.text(st.characters(exclude_categories=("Cs",)), max_size=300)
features = st.dictionaries(names, values, max_size=40)
of_a_run = st.lists(values | st.just(-1.5), max_size=len(RUN)).map(lambda made: dict(zip(RUN, made, strict=False)))


@settings(max_examples=300)
@given(features)
@example({"x" * 254: 1.0, "y" * 255: 0.5, "z" * 300: 0.0, "": 2.0})
def test_packed_features_come_back_in_their_order(made: dict[str, float]) -> None:
    assert list(unpack(pack(made)).items()) == list(made.items())


@settings(max_examples=300)
@given(of_a_run, features)
def test_so_do_those_that_begin_as_a_decision_s_do(run: dict[str, float], more: dict[str, float]) -> None:
    made = run | more
    assert list(unpack(pack(made)).items()) == list(made.items())


@given(st.dictionaries(names, st.floats(-1e30, 1e30), max_size=10))
def test_rounding_is_what_logging_keeps(made: dict[str, float]) -> None:
    once = rounded(made)
    assert unpack(pack(once)) == once == rounded(once)
    assert list(once) == list(made)
    assert all(once[name] == pytest.approx(value, rel=1e-6, abs=1e-37) for name, value in made.items())


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_other_bytes_are_refused_or_read_but_nothing_else(raw: bytes) -> None:
    try:
        unpack(raw)
    except ValueError as exc:
        assert exc.args  # noqa: PT017 - either outcome is fine


def test_every_feature_that_we_compute_has_a_place_in_the_table() -> None:
    one = campaign("x", Trigger("event", event="A"))
    ours = {*open_features(Profile(device="ios"), one, 1_772_884_800_000, make_plan(campaigns=[one])), "weekend="}
    for hour in range(24):
        ours |= set(activity_features(Activity(), 1, hour))
    assert ours - set(NAMES) == {"c=x", "k=promo"}
    assert len(set(NAMES)) == len(NAMES) <= ROOM


def test_a_decision_s_features_begin_with_the_whole_run_and_cost_it_little_more_than_their_values() -> None:
    one = campaign("x", Trigger("event", event="A"))
    ours = rounded(open_features(Profile(device="ios"), one, 1_772_884_800_000, make_plan(campaigns=[one])))
    assert tuple(ours)[: len(RUN)] == RUN
    others = {name: value for name, value in ours.items() if name not in RUN}
    told = {value for name, value in ours.items() if name in RUN and value not in (0.0, 1.0)}
    assert len(pack(ours)) - len(pack(others)) <= 4 * (len(told) + 1) + 9


def test_the_run_is_only_appended_to() -> None:
    stored = struct.pack("<H", 4) + bytes((242, 5, 0b11_01_00_10, 0b10)) + struct.pack("<2f", -1.5, 0.25)
    assert unpack(stored) == {
        "open_logit": -1.5,
        "open_slow_logit": 0.0,
        "open_middle_logit": 1.0,
        "open_fast_logit": -1.5,
        "open_run_log": 0.25,
    }
    stored = struct.pack("<H", 9) + bytes((242, 26, *[0] * 6, 0b0100)) + b""
    assert list(unpack(stored).items())[-2:] == [("hour_sin", 0.0), ("hour_cos", 1.0)]


@pytest.mark.parametrize("codes", [bytes((243,)), bytes((242, 255, *[0] * 64)), bytes((242, 4, 2))])
def test_a_code_of_a_newer_build_or_a_run_without_its_values_is_refused(codes: bytes) -> None:
    with pytest.raises(ValueError, match="features"):
        unpack(struct.pack("<H", len(codes)) + codes)


def test_the_table_is_only_appended_to() -> None:
    """Rows hold indexes into it: these must mean what they meant."""
    stored = struct.pack("<H", 4) + bytes((0, 80 + 22, 160 + 23, 64)) + struct.pack("<2f", -1.5, 0.25)
    assert unpack(stored) == {"open_logit": -1.5, "hour_cos": 0.0, "weekend=": 1.0, "h=23": 0.25}


def version_1(row: Profile, pending: dict[str, float], watch: dict[str, float], recent: bytes) -> bytes:
    """The row as a build of version 1 would have stored it."""
    head, body = old_rows.version_3(row)
    body[4], body[27][0][8], body[42][1]["buy"][4] = recent, pending, watch
    return b"\x01" + head[1:] + msgspec.msgpack.encode(body)


def test_a_row_of_version_1_is_read() -> None:
    words = [bytes(range(at, at + 8)) for at in range(3)]
    row = Profile(events=3, pending=[Pending("d", "c", "a", 1, 0, 0.1, 0, 1.0, b"")])
    row.propensity = Propensity(Activity(), {"buy": Watch(1, 2, 0.1, 0, b"")})
    old = version_1(row, {"open_logit": 0.1, "c=x": 1.0}, {"h=3": 1.0}, b"".join(words))
    read = decode_profile(old)
    assert unpack(read.pending[0].features) == rounded({"open_logit": 0.1, "c=x": 1.0})
    assert read.propensity is not None
    assert unpack(read.propensity.watches["buy"].features) == {"h=3": 1.0}
    assert read.recent == b"".join(word[:WORD_BYTES] for word in words)
    assert decode_profile(encode_profile(read)) == read


def test_a_message_s_hash_is_the_start_of_that_of_version_1() -> None:
    assert len(message_word("m-1")) == WORD_BYTES
    assert decode_profile(version_1_of_recent(b"12345678")).recent == b"123456"


def version_1_of_recent(recent: bytes) -> bytes:
    """An otherwise empty row of version 1, as short as the fields that it had first."""
    return b"\x01" + encode_profile(Profile())[1:11] + msgspec.msgpack.encode([0, 0, 0, 0, recent])


@pytest.mark.parametrize("body", [b"", b"\xc0", msgspec.msgpack.encode([1]), msgspec.msgpack.encode([0, 0, 0, 0, "x"])])
def test_what_is_no_row_of_version_1_is_a_bad_row(body: bytes) -> None:
    with pytest.raises(BadRow):
        decode_profile(b"\x01" + encode_profile(Profile())[1:11] + body)


def test_a_row_of_a_later_version_is_a_bad_row() -> None:
    with pytest.raises(BadRow, match="row version 9"):
        decode_profile(b"\x09" + encode_profile(Profile())[1:])


def test_what_is_beyond_float32_becomes_infinite() -> None:
    assert rounded({"a": 1e300, "b": -1e300, "c": 0.5}) == {"a": float("inf"), "b": float("-inf"), "c": 0.5}
