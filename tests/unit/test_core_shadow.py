"""A policy on trial: it decides for itself, about a share of the users, and nothing follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from app.core.ids import BUCKETS, bucket
from app.core.processor import Processor
from app.core.profile import encode_profile
from app.core.shadow import ShadowedProcessor
from app.policy.load import load_policy_text
from app.sender.jobs import read_jobs
from schemas.erasures import Subjects
from schemas.events import encode_event
from schemas.topics import DECISIONS
from tests.support.plans import FixedScorer, campaign_only
from tests.support.streams import START, FakeRecord, Stream, track

MINUTE = 60_000
LIVE = """
version: 1
name: shop
defaults: {consent: assumed, caps: [{limit: 2, window: 1d}]}
campaigns:
  - {name: thanks, category: orders, trigger: {event: Order Completed}, template: {title: T, body: B}}
"""
TRIAL = """
version: 2
name: shop
defaults: {consent: assumed, caps: [{limit: 1, window: 1d}]}
segments:
  - {name: buyer, when: did("Order Completed")}
campaigns:
  - {name: thanks, category: orders, trigger: {event: Order Completed}, template: {title: T, body: B}}
  - name: cart
    category: promo
    trigger: {absence: {after: Product Added, without: [Order Completed], for: 15m}}
    template: {title: T, body: B}
"""
SUBJECTS = Subjects(b"secret")


class Shadowed(Stream):
    """A stream whose processor has a policy on trial beside it."""

    def __init__(self, share: float = 1.0, **fields: Any) -> None:
        super().__init__(load_policy_text(LIVE))
        live = Processor(self.plan, FixedScorer(), campaign_only, SUBJECTS)
        trial = load_policy_text(TRIAL)
        self.processor = ShadowedProcessor(live, trial, campaign_only, SUBJECTS, share=share, **fields)  # type: ignore[assignment]

    def said(self, *, shadow: bool) -> list[tuple[str, str, str]]:
        return [(made.campaign, made.action, made.reason) for made in self.decisions if made.shadow is shadow]


def order(minute: int, user: str = "u1") -> dict[str, Any]:
    return track("Order Completed", START + minute * MINUTE, user)


def run(stream: Stream, messages: Iterable[dict[str, Any]]) -> Stream:
    for minute, message in enumerate(messages):
        stream.at(minute * MINUTE).send(message)
    return stream


def test_the_trial_has_caps_of_its_own_and_the_live_policy_decides_as_alone() -> None:
    stream = run(Shadowed(), [order(n) for n in range(3)])
    assert stream.said(shadow=False) == [
        ("thanks", "send", ""),
        ("thanks", "send", ""),
        ("thanks", "suppress", "frequency_cap"),
    ]
    assert stream.said(shadow=True) == [("thanks", "send", "")] + [("thanks", "suppress", "frequency_cap")] * 2
    alone = run(Stream(load_policy_text(LIVE)), [order(n) for n in range(3)])
    assert encode_profile(stream.row) == encode_profile(alone.row)
    assert stream.changes == [], "segments of a trial are nobody's business"
    assert stream.effects.counts["shadow_decisions", "suppress", "frequency_cap"] == 1


def test_ids_differ_and_the_sender_passes_the_trial_by() -> None:
    stream = run(Shadowed(), [order(0)])
    assert len({made.id for made in stream.decisions}) == 2
    records = [
        FakeRecord(out.key, out.value, n, 0, tuple(out.headers))
        for n, out in enumerate(stream.outputs)
        if out.topic == DECISIONS
    ]
    for headers_too in (True, False):
        given = [rec if headers_too else FakeRecord(rec.key, rec.value, rec.offset) for rec in records]
        jobs, refused = read_jobs(DECISIONS, 0, given, 0)
        assert [job.decision.shadow for job in jobs] == [False]
        assert refused == []


def test_a_wait_of_the_trial_ends_by_the_clock() -> None:
    stream = Shadowed()
    stream.send(track("Product Added", START))
    assert any(due == START + 15 * MINUTE for due, _ in stream.effects.due), "the index must know"
    stream.at(15 * MINUTE).fire()
    assert stream.said(shadow=True) == [("cart", "send", "")]
    assert stream.said(shadow=False) == []


def test_only_the_sample_is_watched() -> None:
    users = [f"u{n}" for n in range(200)]
    stream = Shadowed(share=0.1)
    stream.send(*[order(0, user) for user in users])
    watched = {made.user for made in stream.decisions if made.shadow}
    assert watched == {user for user in users if bucket(user, "shadow") < BUCKETS // 10}
    assert watched


def test_a_row_that_was_forgotten_begins_anew_as_a_copy() -> None:
    stream = Shadowed(rows_max=1)
    stream.send(order(0, "a"))
    stream.send(order(0, "b"))
    stream.send(order(0, "a"))
    shadow = [made for made in stream.decisions if made.shadow and made.user == "a"]
    assert [made.action for made in shadow] == ["send", "suppress"], "the copy has the live row's send"
    assert len(stream.processor._rows) == 1  # type: ignore[attr-defined]


def test_an_erased_user_leaves_no_shadow() -> None:
    stream = Shadowed()
    stream.send(order(0))
    request = encode_event(SUBJECTS.request("u1", "r1"))
    effects = stream.send(request, key=b"u1")
    assert stream.processor._rows == {}  # type: ignore[attr-defined]
    assert effects.counts["events", "applied"] == 1
    assert sum(made.reason == "erased" for made in stream.decisions) == 1
