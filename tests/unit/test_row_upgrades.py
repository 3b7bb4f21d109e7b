"""Rows of earlier versions are read as what they say. Those of 2 to 4 are bytes that their last builds wrote."""

from __future__ import annotations

import msgspec
import pytest

from app.core import timers
from app.core.ids import decision_id, full_id, short_id
from app.core.interest import HALF_LIFE_MS, added, level_at, level_of, worth
from app.core.logged import unpack
from app.core.profile import Profile, decode_profile, encode_profile
from app.core.row_heads import BadRow, peek
from app.core.row_parts import EMITTED, Pending, PendingReward, Timer
from tests.support.old_rows import stored_rows
from tests.support.plans import DAY
from tests.support.streams import START

STORED = stored_rows(2)
FIRST, SECOND = "5590cb8a-ea61-51d3-9dce-3fbef8e80ea8", "50694944-e59a-59ff-b201-89e40759d4d3"
T = 1_772_463_600_000


@pytest.mark.parametrize("name", STORED)
def test_a_row_of_version_2_is_read_and_stored_again_in_fewer_bytes(name: str) -> None:
    row = decode_profile(STORED[name])
    again = encode_profile(row)
    assert (STORED[name][0], again[0]) == (2, 5)
    assert len(again) < len(STORED[name])
    assert decode_profile(again) == row


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("name", STORED)
def test_a_row_of_a_later_version_is_the_row_of_version_2_that_it_was_made_of(name: str, version: int) -> None:
    raw = stored_rows(version)[name]
    assert raw[0] == version
    assert decode_profile(raw) == decode_profile(STORED[name])
    assert encode_profile(decode_profile(raw)) == encode_profile(decode_profile(STORED[name]))
    assert peek(raw) == peek(encode_profile(decode_profile(raw)))


def test_of_a_row_of_version_2_nothing_is_lost_but_what_is_worth_nothing() -> None:
    row = decode_profile(STORED["full"])
    assert (row.events, row.traits, row.labels, row.weariness, row.policy) == (12, {"city": "Ghent"}, 0b1101, 0.75, 77)
    assert {name: round(worth(level, T), 4) for name, level in row.affinity.items()} == {
        "shoes": 3.0,
        "hats": round(1.5 * 0.5 ** (DAY / HALF_LIFE_MS), 4),
    }
    first, second = row.pending
    assert (full_id(first.id), first.propensity, first.events) == (FIRST, 1, 9)
    assert list(unpack(first.features))[:2] == ["open_logit", "open_slow_logit"]
    assert (full_id(second.id), second.propensity, second.answered) == (SECOND, 0.5, EMITTED)
    assert [(one.kind, one.key, one.propensity) for one in row.timers] == [
        (timers.HORIZON, first.id, 1),
        (timers.HORIZON, second.id, 1),
        (timers.REWARD, first.id, 1),
        (timers.SEND_TIME, "c-1", 0.25),
        (timers.ABSENCE, "c-2", 1),
    ]
    assert row.rewards == [PendingReward(first.id, 2, "a", T - 3000, 8, 1, b"", 9, T - 2500, 0.5, 0)]
    assert row.propensity is not None
    assert unpack(row.propensity.watches["buy"].features) == {"h=3": 1.0}


@pytest.mark.parametrize("field", [20, 27, 28, 40, 49])
def test_what_is_no_row_of_version_2_is_a_bad_row(field: int) -> None:
    raw = STORED["new"]
    fields = msgspec.msgpack.decode(raw[11:])
    fields[field] = [7, "x"]
    with pytest.raises(BadRow):
        _ = decode_profile(raw[:11] + msgspec.msgpack.encode(fields)).weariness


def test_what_is_nearly_always_0_or_1_takes_a_byte_however_often_the_row_is_stored() -> None:
    row = Profile(
        pending=[Pending("d", "c", "a", 1, 0, 0.5, 0, 1, b"")],
        timers=[Timer(1, timers.HORIZON)],
        rewards=[PendingReward("d", 1, "a", 1, 2, 1)],
    )
    raw = encode_profile(row)
    assert encode_profile(decode_profile(raw)) == raw
    assert raw.count(b"\xcb") == 1, "the score is the one float"


def test_a_short_id_is_that_of_its_decision_and_of_no_other() -> None:
    ids = [decision_id("kim", "hello", "", number) for number in range(300)]
    assert [full_id(short_id(one)) for one in ids] == ids
    assert {len(short_id(one)) for one in ids} == {22}


@pytest.mark.parametrize(
    "text", ["", "d", FIRST.upper(), FIRST.replace("-", "x"), FIRST.replace("-", "") + "0000", "é" * 36]
)
def test_what_is_no_decision_s_id_stays_as_it_is(text: str) -> None:
    assert short_id(text) == text
    assert full_id(text) == text


@pytest.mark.parametrize("gap_ms", [0, 999, DAY, HALF_LIFE_MS, 60 * HALF_LIFE_MS, START])
def test_two_events_are_worth_what_each_is_worth(gap_ms: int) -> None:
    one, other = level_at(START), level_at(START - gap_ms)
    together = worth(added(one, other), START)
    assert together == pytest.approx(worth(one, START) + worth(other, START), rel=1e-6)
    assert added(one, other) == added(other, one)


def test_an_interest_is_worth_a_half_after_two_weeks_and_finite_at_any_time() -> None:
    level = level_of(8.0, START)
    assert worth(level, START + HALF_LIFE_MS) == pytest.approx(4.0, rel=1e-6)
    assert 0.0 <= worth(level, 10 * START) < worth(level, -(10**15)) < 1e22
