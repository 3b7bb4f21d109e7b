"""Traits, aliases, device, time zone, consent."""

from __future__ import annotations

import pytest

from app.core.expressions import compile_expression
from app.core.profile import encode_profile
from app.core.traits import REMOVED_MAX, TRAITS_BYTES_MAX, TRAITS_MAX, times_of
from schemas.events import NOTIFICATIONS_DISABLED, NOTIFICATIONS_ENABLED
from tests.support.plans import make_plan
from tests.support.streams import START, Stream, identify, track


@pytest.fixture
def stream() -> Stream:
    return Stream(make_plan())


def test_the_newest_identify_wins_whatever_arrives_last(stream: Stream) -> None:
    stream.send(identify(START, age="25-34"), identify(START - 1000, age="18-24", city="Ulm"))
    assert stream.row.traits == {"age": "25-34", "city": "Ulm"}


def test_null_removes_a_trait(stream: Stream) -> None:
    stream.send(identify(START, age="25-34"), identify(START + 1, age=None))
    assert stream.row.traits == {}


def test_traits_that_a_row_cannot_hold_are_left_out(stream: Stream) -> None:
    stream.send(identify(START, ok=1, big=10**40, deep={"a": {"b": 1}}, text="x" * 10_000, tags=["a", {"b": 1}]))
    assert stream.row.traits == {"ok": 1, "tags": ["a"]}


def test_the_fields_of_an_object_are_kept_and_conditions_read_them(stream: Stream) -> None:
    stream.send(identify(START, address={"city": "Ulm", "geo": {"lat": 48}, "floor": 2}))
    assert stream.row.traits == {"address": {"city": "Ulm", "floor": 2}}
    assert compile_expression("trait('address.city') == 'Ulm'").evaluate(stream.row, START, "u")


def test_a_row_whose_traits_one_identify_said_keeps_no_other_times(stream: Stream) -> None:
    stream.send(identify(START - 5, age=1, city="Ulm"), identify(START - 3, age=2, city="Bonn"))
    stream.send(identify(START - 9, age=3))
    assert stream.row.older_traits is None
    stream.send(identify(START, age=4))
    assert times_of(stream.row) == {"city": START - 3, "age": START}
    size = len(encode_profile(stream.row))
    stream.row.older_traits = None
    assert size - len(encode_profile(stream.row)) <= 6


def test_a_late_word_on_a_trait_that_is_gone_does_not_bring_it_back(stream: Stream) -> None:
    stream.send(identify(START, **{f"t{n}": None for n in range(REMOVED_MAX)}), identify(START - 1, t0=1, t99=2))
    assert stream.row.traits == {"t99": 2}
    stream.send(identify(START, **{f"u{n}": None for n in range(1000)}))
    assert stream.row.older_traits is not None
    assert len(stream.row.older_traits.removed) == REMOVED_MAX


def test_a_late_time_zone_counts_unless_a_newer_identify_said_one(stream: Stream) -> None:
    stream.send(identify(START, age=1), identify(START - 1, timezone="Europe/Berlin"))
    assert stream.row.timezone == "Europe/Berlin"
    stream.send(identify(START - 2, timezone="Asia/Tokyo"))
    assert stream.row.timezone == "Europe/Berlin"


def test_traits_are_bounded_in_number_and_bytes(stream: Stream) -> None:
    stream.send(identify(START, **{f"t{n}": n for n in range(1000)}))
    assert len(stream.row.traits) == TRAITS_MAX
    stream.send(identify(START + 1, **{f"t{n}": ["x" * 500] * 24 for n in range(TRAITS_MAX)}))
    assert len(encode_profile(stream.row)) < TRAITS_BYTES_MAX + 2000


def test_the_context_gives_zone_device_and_token(stream: Stream) -> None:
    context = {"timezone": "Europe/Berlin", "device": {"type": "ios", "token": "abc"}}
    stream.send(track("Seen", START, context=context))
    assert (stream.row.timezone, stream.row.device) == ("Europe/Berlin", "ios")
    assert stream.row.devices == {"abc": ["ios", START]}


def test_an_old_context_does_not_replace_a_newer_one(stream: Stream) -> None:
    stream.send(track("Seen", START, context={"timezone": "Asia/Tokyo"}))
    stream.send(track("Seen", START - 1, context={"timezone": "Europe/Berlin"}))
    assert stream.row.timezone == "Asia/Tokyo"


@pytest.mark.parametrize("context", [{"timezone": 5}, {"device": "ios"}, {"device": {"type": 1, "token": []}}])
def test_a_context_of_wrong_types_is_ignored(stream: Stream, context: dict[str, object]) -> None:
    effects = stream.send(track("Seen", START, context=context))
    assert effects.counts["events", "applied"] == 1
    assert (stream.row.timezone, stream.row.device, stream.row.devices) == ("", "", {})


def test_an_alias_is_remembered_once(stream: Stream) -> None:
    stream.send(*[{"type": "alias", "userId": "u1", "previousId": "anonymous"}] * 2)
    assert stream.row.aliases == ["anonymous"]


def test_a_back_dated_consent_does_not_undo_a_refusal(stream: Stream) -> None:
    stream.send(track(NOTIFICATIONS_DISABLED, START), track(NOTIFICATIONS_ENABLED, START - 1))
    assert stream.row.consent == 0
    stream.send(track(NOTIFICATIONS_ENABLED, START))
    assert stream.row.consent == 0, "at equal times the refusal wins"
    stream.at(1000).send(track(NOTIFICATIONS_ENABLED, START + 1))
    assert stream.row.consent == 1


def test_a_category_is_refused_and_allowed_apart_from_the_rest(stream: Stream) -> None:
    stream.send(track(NOTIFICATIONS_DISABLED, START, category="promo"))
    assert (stream.row.consent, stream.row.opted_out) == (-1, ["promo"])
    stream.at(10).send(track(NOTIFICATIONS_ENABLED, START + 5, category="promo"))
    assert stream.row.opted_out == []


def test_a_refusal_of_a_category_that_cannot_be_read_refuses_everything(stream: Stream) -> None:
    stream.send(track(NOTIFICATIONS_DISABLED, START, category=["promo"]))
    assert stream.row.consent == 0


def test_more_refused_categories_than_a_row_keeps_refuse_everything(stream: Stream) -> None:
    stream.send(*[track(NOTIFICATIONS_DISABLED, START, category=f"c{n}") for n in range(65)])
    assert len(stream.row.opted_out) == 64
    assert stream.row.consent == 0


def test_identify_carries_consent(stream: Stream) -> None:
    stream.send(identify(START, push_consent=False))
    assert stream.row.consent == 0
