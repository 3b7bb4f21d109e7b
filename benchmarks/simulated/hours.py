"""Are the hours found at which people answer? The demo's audience has a favourite hour each; the engine is not told.

One candidate a day for each user, at any hour of it; the send-time rule may wait up to a day. Opens are drawn from the
audience's truth without fatigue, so that only the hour matters; or from another truth, narrower or with two good hours
a day, whose shape no rule has. The parameters of the drawn rule were chosen on three seeds of each.
"""

from __future__ import annotations

import math
from random import Random
from typing import Final, Literal

from app.core.campaign import SendTime
from app.core.local_time import hour_of_week
from app.core.profile import Profile
from app.core.send_time import FLAT, choose_slot, curve_of
from app.demo import audience
from app.demo.audience import Person, Sent
from app.policy.campaign_parts import SLOT_EXPLORE

START_MS: Final = 1_772_409_600_000  # 2026-03-02 00:00 UTC, a Monday
DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000
RULES: Final = {
    "best": SendTime(DAY_MS, SLOT_EXPLORE["best"]),
    "thompson": SendTime(DAY_MS, SLOT_EXPLORE["thompson"], "thompson"),
}
Truth = Literal["demo", "narrow", "two"]


def run(seed: int, *, users: int, days: int, rule: str = "best", truth: Truth = "demo") -> dict[str, float]:
    """Open rates of three ways to choose the hour, and how far the learned one is from the truth.

    Returns
    -------
    dict
        Over the last third of the days: `at_once`, `learned`, `oracle` (open rates that are expected by the truth), and
        `distance_h_at_once`, `distance_h` (mean hours between sending and the favourite hour, explored sends included).
        Over all days: `regret_per_1000`, the opens lost to the oracle in 1,000 sends.
    """
    people = [audience.meet(f"u{n}", seed) for n in range(users)]
    rows = [Profile(timezone=person.timezone) for person in people]
    sends, opens = [0] * 168, [0] * 168
    luck = Random(f"luck {seed}")
    when = Random(f"when {seed}")
    found: dict[str, list[float]] = {name: [] for name in ("at_once", "learned", "oracle", "far_at_once", "far")}
    lost = 0.0
    for day in range(days):
        curve = curve_of(sends, opens) if day else FLAT  # of yesterday: labels mature within the day
        for n, (person, row) in enumerate(zip(people, rows, strict=True)):
            now_ms = START_MS + day * DAY_MS + when.randrange(DAY_MS)
            slot = choose_slot(
                row,
                RULES[rule],
                curve,
                decision_id=f"{seed}:{n}:{day}",
                default_timezone="UTC",
                now_ms=now_ms,
                quiet=None,
            )
            assert slot is not None, "no quiet hours"
            rate = _rate(person, slot.due_ms, seed, truth)
            oracle = max(_rate(person, now_ms + hour * HOUR_MS, seed, truth) for hour in range(24))
            lost += oracle - rate
            _learn(row, sends, opens, slot.due_ms, opened=luck.random() < rate)
            if day >= days * 2 // 3:
                found["learned"].append(rate)
                found["at_once"].append(_rate(person, now_ms, seed, truth))
                found["oracle"].append(oracle)
                found["far"].append(_distance_h(person, slot.due_ms))
                found["far_at_once"].append(_distance_h(person, now_ms))
    mean = {name: math.fsum(values) / len(values) for name, values in found.items()}
    return {
        "at_once": mean["at_once"],
        "learned": mean["learned"],
        "oracle": mean["oracle"],
        "distance_h_at_once": mean["far_at_once"],
        "distance_h": mean["far"],
        "regret_per_1000": 1000 * lost / (users * days),
    }


def _rate(person: Person, at_ms: int, seed: int, truth: Truth) -> float:
    if truth != "demo":
        hour = audience.local_hour(person.timezone, at_ms)
        peak = _peak(hour - person.favourite_hour)
        if truth == "two":
            peak = max(peak, 0.8 * _peak(hour - person.favourite_hour - 10))
        return 1.0 / (1.0 + math.exp(2.0 - person.engagement - 1.8 * peak))
    return audience.open_probability(person, Sent("", person.user, "hello", "promo", "", at_ms), 0.0, seed)


def _peak(hours: float) -> float:
    """1 at the favourite hour, a half 2.7 hours from it, next to nothing on the other side of the clock."""
    return math.exp(3.0 * (math.cos(hours / 24 * math.tau) - 1.0))


def _distance_h(person: Person, at_ms: int) -> float:
    apart = abs(audience.local_hour(person.timezone, at_ms) - person.favourite_hour) % 24
    return min(apart, 24 - apart)


def _learn(row: Profile, sends: list[int], opens: list[int], at_ms: int, *, opened: bool) -> None:
    hour = hour_of_week(row.timezone, "UTC", at_ms)
    sends[hour] += 1
    row.hour_sends[hour] = row.hour_sends.get(hour, 0) + 1
    if opened:
        opens[hour] += 1
        row.hour_opens[hour] = row.hour_opens.get(hour, 0) + 1
