"""The gates: their order, their edges, and what passes them by."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.campaign import Campaign
from app.core.guardrails import SENDS_MAX
from app.core.ids import BUCKETS, bucket
from app.core.plan import Cap, QuietHours
from app.core.processor import make_index
from schemas.decisions import SUPPRESS_REASONS
from schemas.events import NOTIFICATIONS_DISABLED, NOTIFICATIONS_ENABLED
from tests.support.plans import DAY, HOUR, MINUTE, campaign, make_plan, on_event
from tests.support.streams import START, Stream, track

NOW_QUIET = QuietHours(9 * 60, 10 * 60)  # the stream starts at 09:00 UTC
EVERYBODY_OUT = 1.0


def hello(**fields: Any) -> Campaign:
    return campaign("hello", on_event("Go"), **fields)


def stream_of(part: Campaign, **fields: Any) -> Stream:
    return Stream(make_plan(campaigns=[part], **fields))


def go(stream: Stream, at_ms: int = 0) -> Stream:
    stream.at(at_ms).send(track("Go", START + at_ms))
    return stream


def test_without_guardrails_it_is_sent() -> None:
    assert len(go(stream_of(hello())).sends) == 1


def test_a_candidate_whose_moment_has_passed_is_expired() -> None:
    stream = stream_of(hello(expires_ms=HOUR))
    stream.at(HOUR + 1).send(track("Go", START))
    assert stream.reasons == ["expired"]


@pytest.mark.parametrize("transactional", [False, True])
def test_a_refusal_binds_everything(transactional: bool) -> None:
    stream = stream_of(hello(transactional=transactional))
    stream.send(track(NOTIFICATIONS_DISABLED, START))
    assert go(stream).reasons == ["consent"]


def test_consent_may_be_required_and_given() -> None:
    stream = stream_of(hello(), consent_required=True)
    assert go(stream).reasons == ["consent"]
    stream.send(track(NOTIFICATIONS_ENABLED, START))
    assert len(go(stream).sends) == 1


def test_a_category_may_be_refused() -> None:
    stream = stream_of(hello())
    stream.send(track(NOTIFICATIONS_DISABLED, START, category="promo"))
    assert go(stream).reasons == ["category_opt_out"]


def test_quiet_hours_drop_or_are_ignored_as_the_campaign_says() -> None:
    assert go(stream_of(hello(quiet_hours="drop"), quiet_hours=NOW_QUIET)).reasons == ["quiet_hours"]
    assert len(go(stream_of(hello(quiet_hours="ignore"), quiet_hours=NOW_QUIET)).sends) == 1


def test_a_deferred_candidate_is_decided_when_quiet_hours_end_under_its_own_id() -> None:
    prompt, patient = go(stream_of(hello())), go(stream_of(hello(), quiet_hours=NOW_QUIET))
    assert patient.decisions == []
    patient.at(HOUR).fire()
    assert [decision.id for decision in patient.sends] == [prompt.sends[0].id]
    assert patient.sends[0].decided_ms == START + HOUR


def test_a_newer_deferred_candidate_takes_the_place_of_an_older_one() -> None:
    stream = stream_of(hello(), quiet_hours=NOW_QUIET)
    go(go(stream), MINUTE)
    stream.at(HOUR).fire()
    assert [decision.source_ms for decision in stream.sends] == [START + MINUTE]


def test_a_deferred_candidate_expires_when_the_morning_is_missed() -> None:
    stream = go(stream_of(hello(expires_ms=HOUR), quiet_hours=NOW_QUIET))
    stream.at(2 * HOUR + 1).fire()
    assert stream.reasons == ["expired"]


def test_quiet_hours_are_the_users() -> None:
    stream = stream_of(hello(quiet_hours="drop"), quiet_hours=NOW_QUIET)
    stream.send(track("Seen", START, context={"timezone": "Asia/Tokyo"}))
    assert len(go(stream).sends) == 1


def test_holdout_keeps_promotions_from_a_stable_share() -> None:
    stream = stream_of(hello(), holdout_share=0.1)
    users = [f"user{n}" for n in range(2000)]
    stream.send(*[track("Go", START, user=user) for user in users])
    held = {decision.user for decision in stream.decisions if decision.reason == "holdout"}
    assert held == {user for user in users if bucket(user, "holdout") < 0.1 * BUCKETS}
    assert 150 < len(held) < 250


def test_holdout_does_not_keep_transactional_messages() -> None:
    stream = stream_of(hello(transactional=True), holdout_share=EVERYBODY_OUT)
    assert len(go(stream).sends) == 1


def test_a_cap_counts_a_rolling_window() -> None:
    stream = stream_of(hello(), caps=(Cap(2, DAY),))
    for at_ms in (0, HOUR, 2 * HOUR, DAY - 1, DAY):
        go(stream, at_ms)
    assert [decision.decided_ms - START for decision in stream.sends] == [0, HOUR, DAY]
    assert stream.reasons == ["frequency_cap"] * 2


def test_a_category_cap_counts_its_category() -> None:
    news = campaign("news", on_event("News"), "news")
    stream = Stream(make_plan(campaigns=[hello(), news], caps=(Cap(1, DAY, "promo"),)))
    stream.send(track("News", START), track("Go", START), track("News", START), track("Go", START))
    assert [decision.campaign for decision in stream.sends] == ["news", "hello", "news"]


def test_transactional_messages_pass_caps_and_do_not_fill_them() -> None:
    receipt = campaign("receipt", on_event("Paid"), "service", transactional=True)
    stream = Stream(make_plan(campaigns=[hello(), receipt], caps=(Cap(1, DAY),)))
    stream.send(*[track("Paid", START)] * 3, track("Go", START), *[track("Paid", START)] * 2)
    assert [decision.campaign for decision in stream.sends] == ["receipt"] * 3 + ["hello"] + ["receipt"] * 2


@pytest.mark.parametrize("transactional", [False, True])
def test_a_campaign_cools_down(transactional: bool) -> None:
    stream = stream_of(hello(cool_down_ms=HOUR, transactional=transactional))
    for at_ms in (0, HOUR - 1, HOUR):
        go(stream, at_ms)
    assert [decision.decided_ms - START for decision in stream.sends] == [0, HOUR]
    assert stream.reasons == ["cool_down"]


def test_a_clock_that_goes_back_does_not_open_a_cap() -> None:
    stream = stream_of(hello(), caps=(Cap(2, HOUR),))
    for at_ms in (10 * HOUR, 0, 10 * HOUR + MINUTE):
        go(stream, at_ms)
    assert len(stream.sends) == 2
    assert stream.reasons == ["frequency_cap"]


def test_a_full_memory_of_sends_stops_promotions_and_not_receipts() -> None:
    receipt = campaign("receipt", on_event("Paid"), transactional=True)
    stream = Stream(make_plan(campaigns=[hello(), receipt], caps=(Cap(10_000, DAY),)))
    stream.send(*[track("Go", START)] * (SENDS_MAX + 1), track("Paid", START))
    assert stream.reasons == ["frequency_cap"]
    assert stream.sends[-1].campaign == "receipt"
    assert len(stream.row.sends) == SENDS_MAX


def test_the_first_gate_that_refuses_gives_the_reason() -> None:
    """Every gate refuses; opening one after another must give the reasons in their declared order."""
    part = campaign("hello", on_event("Go"), quiet_hours="drop", cool_down_ms=DAY, expires_ms=HOUR)
    closed: dict[str, Any] = {"quiet_hours": NOW_QUIET, "holdout_share": EVERYBODY_OUT, "caps": (Cap(0, DAY),)}
    stream = Stream(make_plan(campaigns=[part], version="0", **closed))
    stream.send(track(NOTIFICATIONS_DISABLED, START - 9), track(NOTIFICATIONS_DISABLED, START, category="promo"))
    stream.send(track("Go", START - 2 * HOUR))
    go(stream)
    stream.at(1).send(track(NOTIFICATIONS_ENABLED, START - 8))
    go(stream, 1)
    stream.at(2).send(track(NOTIFICATIONS_ENABLED, START + 1, category="promo"))
    go(stream, 2)
    for opened in ("quiet_hours", "holdout_share", "caps"):
        del closed[opened]
        stream.processor.switch(make_index(make_plan(campaigns=[part], version=opened, **closed)))
        go(stream, 3)
    assert len(stream.sends) == 1
    go(stream, 4)
    gates = SUPPRESS_REASONS[: SUPPRESS_REASONS.index("no_variant")]  # the rest are given after the gates
    assert stream.reasons == [reason for reason in gates if reason != "adaptive_cap"]
