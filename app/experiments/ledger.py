"""From decisions and answers to units: who was assigned to which variant first, and what came of it.

The unit is the user's first decision of a campaign; later ones of the same user are not independent of it. Everyone
who was assigned counts, delivered or not (intention to treat), so that a variant that fails to arrive cannot look
better for it. What happens later than `window_ms` after the decision does not count, and a decision younger than that
is not counted yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from schemas.decisions import Decision
from schemas.events import (
    NOTIFICATION_CLICKED,
    NOTIFICATION_OPENED,
    NOTIFICATIONS_DISABLED,
    ORDER_COMPLETED,
    Event,
)

OPEN: Final = "open"
CLICK: Final = "click"
CONVERSION: Final = "conversion"
OPT_OUT: Final = "opt_out"
METRICS: Final = (OPEN, CLICK, CONVERSION, OPT_OUT)
HOLDOUT: Final = "holdout"
"""The variant of those who were held out: they have no notification to open."""
HOLDOUT_REASON: Final = "campaign_holdout"


class Unit(msgspec.Struct):
    """A user's first decision of a campaign, and what the user did within the window."""

    user: str
    campaign: str
    variant: str
    decision_id: str
    decided_ms: int
    propensity: float
    chooser: str
    segments: tuple[str, ...]
    done: set[str] = set()


class Answer(msgspec.Struct):
    """Something a user did that a metric may count. `decision_id` is empty where the event names none."""

    metric: str
    at_ms: int
    decision_id: str


class Ledger:
    """Collects decisions and events in any order; `units` joins them.

    Parameters
    ----------
    window_ms
        How long after the decision an answer counts, above 0.
    conversion
        The event that is a conversion.
    """

    def __init__(self, window_ms: int, conversion: str = ORDER_COMPLETED) -> None:
        self.window_ms = window_ms
        self._metric_of = {
            NOTIFICATION_OPENED: OPEN,
            NOTIFICATION_CLICKED: CLICK,
            NOTIFICATIONS_DISABLED: OPT_OUT,
            conversion: CONVERSION,
        }
        self._first: dict[tuple[str, str], Unit] = {}
        self._answers: dict[str, list[Answer]] = {}
        self._newest_ms = 0
        self.immature = 0

    def add_decision(self, decision: Decision) -> None:
        """A record of `decisions`. Those not to send count only when they hold the user out of the campaign."""
        self._newest_ms = max(self._newest_ms, decision.decided_ms)
        held_out = decision.reason == HOLDOUT_REASON
        if decision.action != "send" and not held_out:
            return
        key = (decision.campaign, decision.user)
        known = self._first.get(key)
        if known is not None and (known.decided_ms, known.decision_id) <= (decision.decided_ms, decision.id):
            return
        segments = tuple(name[2:] for name in decision.features if name.startswith("s="))
        self._first[key] = Unit(
            user=decision.user,
            campaign=decision.campaign,
            variant=HOLDOUT if held_out else decision.variant,
            decision_id=decision.id,
            decided_ms=decision.decided_ms,
            propensity=decision.propensity,
            chooser=decision.chooser,
            segments=segments,
        )

    def add_event(self, event: Event, user: str, at_ms: int) -> None:
        """A record of `events`, keyed by `user`, that happened at `at_ms`."""
        self._newest_ms = max(self._newest_ms, at_ms)
        metric = self._metric_of.get(event.event)
        if metric is not None and event.type == "track":
            decision_id = event.properties.get("decisionId")
            answer = Answer(metric, at_ms, decision_id if isinstance(decision_id, str) else "")
            self._answers.setdefault(user, []).append(answer)

    def units(self) -> list[Unit]:
        """Every unit whose window has passed, in the order of decisions; `immature` counts the others."""
        mature = [unit for unit in self._first.values() if unit.decided_ms + self.window_ms <= self._newest_ms]
        self.immature = len(self._first) - len(mature)
        mature.sort(key=lambda unit: (unit.decided_ms, unit.decision_id))
        for unit in mature:
            unit.done = set(self._done(unit, self._answers.get(unit.user, ())))
        return mature

    def _done(self, unit: Unit, answers: Iterable[Answer]) -> Iterable[str]:
        for answer in answers:
            if not unit.decided_ms <= answer.at_ms < unit.decided_ms + self.window_ms:
                continue
            about_it = answer.decision_id == unit.decision_id
            if about_it or (answer.metric in (CONVERSION, OPT_OUT) and not answer.decision_id):
                yield answer.metric
