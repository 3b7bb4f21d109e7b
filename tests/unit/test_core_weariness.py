"""Adaptive caps: tighter for those who tire, back to the hard cap with opens and with time."""

from __future__ import annotations

import pytest

from app.core import weariness
from app.core.plan import AdaptiveCaps, Cap
from app.core.profile import Profile
from schemas.events import NOTIFICATION_DISMISSED, NOTIFICATION_OPENED, NOTIFICATION_SENT
from tests.support.plans import DAY, HOUR, campaign, make_plan, on_event
from tests.support.streams import START, Stream, track

ADAPTIVE = AdaptiveCaps(floor=0.2, half_life_ms=10 * DAY)
CAPS = (Cap(4, DAY),)


def tired(level: float) -> Profile:
    return Profile(weariness=level, weariness_ms=START)


def share(profile: Profile, at_ms: int = START) -> float:
    return weariness.share_of_caps(profile, ADAPTIVE, at_ms)


def test_a_new_user_has_the_whole_cap() -> None:
    assert share(Profile()) == 1.0


def test_dismissals_tighten_more_than_silence_and_a_longer_run_more_than_a_short_one() -> None:
    dismissed, ignored, often = Profile(), Profile(ignored_run=1), Profile(ignored_run=9)
    weariness.dismissed(dismissed, ADAPTIVE, START)
    weariness.ignored(ignored, ADAPTIVE, START)
    weariness.ignored(often, ADAPTIVE, START)
    assert share(dismissed) < share(often) < share(ignored) < 1.0
    assert often.weariness == pytest.approx(5 * weariness.IGNORED)


def test_an_open_relaxes_and_rest_restores() -> None:
    profile = tired(3.0)
    assert share(profile) == 0.25
    assert share(profile, START + 10 * DAY) == pytest.approx(1 / 2.5)
    assert share(profile, START + 200 * DAY) == pytest.approx(1.0, abs=1e-4)
    weariness.opened(profile, ADAPTIVE, START)
    assert share(profile) == pytest.approx(1 / 2.5)


def test_the_share_is_never_below_the_floor_and_the_level_bounded() -> None:
    profile = Profile()
    for _ in range(200):
        weariness.dismissed(profile, ADAPTIVE, START)
    assert profile.weariness == weariness.LEVEL_MAX
    assert share(profile) == 0.2


def test_the_risk_of_an_opt_out_tightens_long_after_the_level_has_faded() -> None:
    profile = Profile(sent=30, dismissed=15)
    assert share(profile) < 0.5


def test_an_answer_that_comes_late_counts_when_it_comes() -> None:
    profile = tired(1.0)
    weariness.dismissed(profile, ADAPTIVE, START - DAY)
    assert (profile.weariness, profile.weariness_ms) == (2.0, START)


def sends_in(days: int, stream: Stream, per_day: int = 8) -> int:
    before = len(stream.sends)
    for step in range(days * per_day):
        at_ms = stream.now_ms - START + DAY // per_day
        stream.at(at_ms).send(track("Go", START + at_ms, n=step))
    return len(stream.sends) - before


def stream_of(adaptive: AdaptiveCaps | None = ADAPTIVE, caps: tuple[Cap, ...] = CAPS) -> Stream:
    plan = make_plan(campaigns=[campaign("hello", on_event("Go"))], caps=caps, adaptive=adaptive, label_horizon_ms=HOUR)
    stream = Stream(plan)
    stream.send(track("Seen", START))
    return stream


def test_a_tired_user_gets_the_share_of_the_cap() -> None:
    calm, weary, off = stream_of(), stream_of(AdaptiveCaps(0.2, 10_000 * DAY)), stream_of(None)
    for stream in (weary, off):
        stream.row.weariness, stream.row.weariness_ms = 7.0, START  # an eighth, above it the floor: 0.8 a day
    assert sends_in(10, calm) == sends_in(10, off) == 40
    assert 7 <= sends_in(10, weary) <= 9
    assert set(weary.reasons) == {"adaptive_cap"}


def test_the_hard_cap_is_named_first() -> None:
    for limit, reason in ((2, "adaptive_cap"), (1, "frequency_cap")):
        stream = stream_of(caps=(Cap(limit, DAY),))
        stream.row.weariness, stream.row.weariness_ms = 7.0, START
        stream.send(*[track("Go", START, n=n) for n in range(2)])
        assert stream.reasons == [reason]


def test_answers_move_the_level_only_where_the_policy_asks_for_it() -> None:
    levels = []
    for adaptive in (ADAPTIVE, None):
        stream = stream_of(adaptive)
        stream.send(track("Go", START))
        decision_id = stream.sends[0].id
        stream.send(track(NOTIFICATION_SENT, START, decisionId=decision_id))
        stream.send(track(NOTIFICATION_DISMISSED, START, decisionId=decision_id))
        levels.append(stream.row.weariness)
        stream.at(2 * HOUR).fire()
        levels.append(stream.row.weariness)
        stream.send(track(NOTIFICATION_OPENED, START + 2 * HOUR, decisionId="older"))
        levels.append(stream.row.weariness)
    assert levels[0] == 1.0
    assert levels[1] == pytest.approx(1.0 + weariness.IGNORED, abs=0.01)
    assert levels[2] == pytest.approx(levels[1] / 2, abs=0.01)
    assert levels[3:] == [0.0, 0.0, 0.0]
