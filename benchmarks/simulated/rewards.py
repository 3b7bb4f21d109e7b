"""Which wording wins hangs on what is rewarded: the whole core, with answers that come hours late.

Three wordings of known truth: `bait` is opened most and clicked least, `loud` is clicked most and drives people away,
`calm` is clicked nearly as much and drives nobody away. So opens should choose `bait`, clicks `loud`, and clicks that
pay for opt-outs `calm`. Each person is asked once. Labels and rewards mature in their rows after a day; what has been
learned reaches the worker every six hours.
"""

from __future__ import annotations

import heapq
from collections import Counter
from random import Random
from types import SimpleNamespace
from typing import Any, Final

from app.core.campaign import Campaign, Reward, Trigger, Variant
from app.core.choices import NOTHING_KNOWN
from app.core.plan import EventPlan, Plan
from app.core.processor import Processor
from app.core.profile import Profile
from app.learning.arms import ArmLearner
from app.learning.served_choices import read_choices
from benchmarks.simulated.stand_ins import Even, Record
from schemas.decisions import decode_decision
from schemas.events import (
    NOTIFICATION_CLICKED,
    NOTIFICATION_OPENED,
    NOTIFICATION_SENT,
    NOTIFICATIONS_DISABLED,
    Event,
    encode_event,
)
from schemas.outcomes import decode_outcome
from schemas.topics import DECISIONS, OUTCOMES

START_MS: Final = 1_772_409_600_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
DAYS: Final = 40
GO: Final = "Article Published"
PENALTY: Final = 5.0
"""Clicks that an opt-out costs."""
TRUTH: Final = {"bait": (0.45, 0.03, 0.004), "loud": (0.30, 0.14, 0.030), "calm": (0.30, 0.11, 0.002)}
"""Rates of opens, clicks and opt-outs a send."""
REWARDS: Final[dict[str, Reward | None]] = {
    "open": None,
    "click": Reward("click", DAY_MS),
    "click_less_opt_outs": Reward("click", DAY_MS, opt_out_penalty=PENALTY),
}


def _plan(reward: Reward | None) -> Plan:
    def render(_context: object) -> Any:
        return SimpleNamespace(title="", body="", deep_link="")

    variants = tuple(Variant(name, 1.0, render) for name in TRUTH)
    hello = Campaign(
        "hello", "news", Trigger("event", event=GO), variants, choose="thompson", explore=0.05, reward=reward
    )
    return Plan(
        version="simulation",
        campaigns=(hello,),
        label_horizon_ms=DAY_MS,
        opens_wait=True,
        events={GO: EventPlan(triggers=(hello,))},
        campaign_by_id={hello.id: hello},
    )


class _World:
    def __init__(self, seed: int, reward: str, people: int) -> None:
        self.seed = seed
        self.processor = Processor(_plan(REWARDS[reward]), Even(), lambda _row, _campaign, _now_ms, _plan: {})
        self.learner = ArmLearner("open")
        self.rows: dict[bytes, Profile] = {}
        self.offset = 0
        self.agenda: list[tuple[int, int, Event | bytes | None]] = []
        """What happens when: an event, a row that is due, or (None) a snapshot."""
        self.planned = 0
        self.shown: list[str] = []
        self.people = people

    def plan(self, at_ms: int, what: Event | bytes | None) -> None:
        self.planned += 1
        heapq.heappush(self.agenda, (at_ms, self.planned, what))

    def run(self) -> None:
        for n in range(self.people):
            self.plan(START_MS + n * DAYS * DAY_MS // self.people, Event(type="track", event=GO, user_id=f"u{n}"))
        for at in range(1, DAYS * 4):
            self.plan(START_MS + at * 6 * HOUR_MS, None)
        self.processor.choices = NOTHING_KNOWN
        while self.agenda:
            at_ms, _, what = heapq.heappop(self.agenda)
            if what is None:
                self.processor.choices = read_choices(self.learner.snapshot(0, at_ms, 0))
                continue
            self.offset += 1
            times = {"now_ms": at_ms, "acked_offset": self.offset}
            if isinstance(what, bytes):
                effects = self.processor.fire([what], self.rows, mark=self.offset, **times)
            else:
                record = Record((what.user_id or "").encode(), encode_event(what), self.offset)
                effects = self.processor.process([record], "events", 0, self.rows, **times)
            for due_ms, key in effects.due:
                self.plan(due_ms, key)
            for output in effects.outputs:
                if output.topic == OUTCOMES:
                    self.learner.learn(decode_outcome(output.value or b""))
                elif output.topic == DECISIONS:
                    self._deliver(decode_decision(output.value or b""), at_ms)

    def _deliver(self, made: Any, at_ms: int) -> None:
        self.shown.append(made.variant)
        luck = Random(f"{self.seed} {made.user}")  # the same person, whatever is chosen
        rates = TRUTH[made.variant]
        names = (NOTIFICATION_OPENED, NOTIFICATION_CLICKED, NOTIFICATIONS_DISABLED)
        answers = [(NOTIFICATION_SENT, 0)]
        for name, rate in zip(names, rates, strict=True):
            delay_ms = int(luck.uniform(0, 20 * HOUR_MS))
            if luck.random() < rate:
                answers.append((name, delay_ms))
        for name, delay_ms in answers:
            properties = {"decisionId": made.id}
            when_ms = at_ms + delay_ms
            self.plan(
                when_ms, Event(type="track", event=name, user_id=made.user, timestamp=when_ms, properties=properties)
            )


def run(seed: int, reward: str, people: int) -> dict[str, float]:
    """Of the last fifth of the decisions: the share of each wording, and what these would earn, in 1,000 sends."""
    world = _World(seed, reward, people)
    world.run()
    last = Counter(world.shown[-(people // 5) :])
    shares = {name: last[name] / last.total() for name in TRUTH}
    earned = [sum(shares[name] * rates[at] for name, rates in TRUTH.items()) for at in range(3)]
    return {f"share_{name}": share for name, share in shares.items()} | {
        "opens_per_1000": 1000 * earned[0],
        "clicks_per_1000": 1000 * earned[1],
        "opt_outs_per_1000": 1000 * earned[2],
    }
