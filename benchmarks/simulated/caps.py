"""Adaptive caps against fixed ones: the whole core and the demo's audience, who tire, dismiss and leave.

Everybody could be written to six times a day. Compared are a fixed cap, the same cap made adaptive, and lower fixed
caps: for fewer sends lose fewer people whoever gets them; the adaptive cap has to do better than that.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final

from app.core.campaign import Campaign, Trigger, Variant
from app.core.plan import AdaptiveCaps, Cap, EventPlan, Plan
from app.core.processor import Processor
from app.core.profile import Profile
from app.demo.audience import Audience, Sent
from benchmarks.simulated.stand_ins import Even, Record
from schemas.decisions import decode_decision
from schemas.events import NOTIFICATION_OPENED, NOTIFICATION_SENT, NOTIFICATIONS_DISABLED, Event, encode_event
from schemas.topics import DECISIONS

START_MS: Final = 1_772_409_600_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
GO: Final = "Article Published"
PER_DAY: Final = 6
HORIZON_MS: Final = 12 * HOUR_MS
ADAPTIVE: Final = AdaptiveCaps(floor=0.2, half_life_ms=14 * DAY_MS)


@dataclass
class Outcome:
    """What came of a run, a user."""

    sends: float
    opens: float
    left: float
    """Share of the users who switched notifications off."""


def _plan(limit: int, adaptive: AdaptiveCaps | None) -> Plan:
    def render(_context: object) -> Any:
        return SimpleNamespace(title="", body="", deep_link="")

    trigger = Trigger("event", event=GO)
    news = Campaign("news", "news", trigger, (Variant("a", 1.0, render),), expires_ms=HOUR_MS)
    return Plan(
        version="simulation",
        campaigns=(news,),
        caps=(Cap(limit, DAY_MS),),
        label_horizon_ms=HORIZON_MS,
        adaptive=adaptive,
        events={GO: EventPlan(triggers=(news,))},
        campaign_by_id={news.id: news},
    )


@dataclass
class _World:
    processor: Processor
    audience: Audience
    rows: dict[bytes, Profile] = field(default_factory=dict)
    agenda: list[tuple[int, int, bytes, bytes]] = field(default_factory=list)
    planned: int = 0
    offset: int = 0
    sends: int = 0
    opens: int = 0
    left: set[str] = field(default_factory=set)

    def happen(self, at_ms: int, event: Event) -> None:
        assert event.user_id is not None, "everybody is known"
        self.planned += 1
        heapq.heappush(self.agenda, (at_ms, self.planned, event.user_id.encode(), encode_event(event)))
        self.opens += event.event == NOTIFICATION_OPENED
        if event.event == NOTIFICATIONS_DISABLED:
            self.left.add(event.user_id)

    def run(self, until_ms: int) -> None:
        due: list[tuple[int, bytes]] = []
        while self.agenda and self.agenda[0][0] < until_ms:
            at_ms, _, key, value = heapq.heappop(self.agenda)
            self.offset += 1
            offset = self.offset
            while due and due[0][0] <= at_ms:
                due_ms, due_key = heapq.heappop(due)
                self._settle(
                    self.processor.fire([due_key], self.rows, now_ms=due_ms, mark=offset, acked_offset=offset), due
                )
            record = Record(key, value, offset)
            effects = self.processor.process([record], "events", 0, self.rows, now_ms=at_ms, acked_offset=offset)
            self._settle(effects, due, at_ms)

    def _settle(self, effects: Any, due: list[tuple[int, bytes]], at_ms: int = 0) -> None:
        for entry in effects.due:
            heapq.heappush(due, entry)
        for output in effects.outputs:
            if output.topic == DECISIONS and at_ms:
                decision = decode_decision(output.value)
                if decision.action == "send":
                    self._deliver(decision.id, decision.user, at_ms)

    def _deliver(self, decision_id: str, user: str, at_ms: int) -> None:
        self.sends += 1
        made = {"decisionId": decision_id, "campaign": "news"}
        receipt = Event(type="track", event=NOTIFICATION_SENT, user_id=user, timestamp=at_ms, properties=made)
        self.happen(at_ms, receipt)
        for answer_ms, event in self.audience.receive(Sent(decision_id, user, "news", "news", "a", at_ms)):
            self.happen(answer_ms, event)


def run(seed: int, *, users: int, days: int, limit: int, adaptive: AdaptiveCaps | None) -> Outcome:
    """One world under one rule; the same seed is the same world."""
    processor = Processor(_plan(limit, adaptive), Even(), lambda _profile, _campaign, _now_ms, _plan: {})
    world = _World(processor, Audience(seed))
    step_ms = DAY_MS // PER_DAY
    for n in range(users):
        for at in range(days * PER_DAY):
            at_ms = START_MS + at * step_ms + n * 1000
            article = Event(type="track", event=GO, user_id=f"u{n}", timestamp=at_ms, message_id=f"{n}:{at}")
            world.happen(at_ms, article)
    world.run(START_MS + days * DAY_MS)
    return Outcome(world.sends / users, world.opens / users, len(world.left) / users)
