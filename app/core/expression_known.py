"""Conditions that the core judges by itself: windowed totals and numbers against a bound, and the time since an event.

Most segments ask nothing else. The functions that the policy's conditions are made into are interpreted, at a few
microseconds a call; these are compiled with the core. They say the same: a condition that is made of them alone is
judged by them where one segment is asked by itself, and by its function everywhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mypy_extensions import i64

from app.core.panes import AGES_AGO_MS, NEVER_MS
from app.core.profile import Profile
from app.core.rfm import Cuts, CutsMs, recency_change, recency_score, upward_score
from app.core.window_map import within


class Known:
    """A condition on a row."""

    def ask(self, profile: Profile, now_ms: i64) -> tuple[bool, i64]:
        """Whether it is true, and the earliest instant at which the clock alone may change that, as the condition's
        `next_change`.
        """
        raise NotImplementedError


class TotalAtLeast(Known):
    """The total of a window of `size` panes is `threshold` or more, until the oldest panes leave too little."""

    def __init__(self, feature_id: int, threshold: int, pane_ms: int, size: int) -> None:
        self.feature_id: i64 = feature_id
        self.threshold: i64 = within(threshold)
        self.pane_ms: i64 = pane_ms
        self.size: i64 = size

    def ask(self, profile: Profile, now_ms: i64) -> tuple[bool, i64]:
        """See `Known.ask`."""
        pane_ms = self.pane_ms
        return profile.features.at_least(self.feature_id, self.threshold, now_ms // pane_ms, self.size, pane_ms)


class LongAgo(Known):
    """The newest event of a name is `bound_ms` old or older, or there was none. The clock makes it true."""

    def __init__(self, event_id: int, bound_ms: int) -> None:
        self.event_id: i64 = event_id
        self.bound_ms: i64 = bound_ms

    def ask(self, profile: Profile, now_ms: i64) -> tuple[bool, i64]:
        """See `Known.ask`."""
        at_ms = profile.last.number(self.event_id, AGES_AGO_MS) + self.bound_ms
        if now_ms >= at_ms:
            return True, NEVER_MS
        return False, at_ms


class OrderRecency(Known):
    """The recency score of the last order (`app.core.rfm`) is one of some."""

    def __init__(self, cuts_ms: CutsMs, accepted: frozenset[int]) -> None:
        self.cuts_ms = cuts_ms
        self.accepted = accepted

    def ask(self, profile: Profile, now_ms: i64) -> tuple[bool, i64]:
        """See `Known.ask`."""
        order_ms = profile.order_ms
        inside = recency_score(order_ms, now_ms, self.cuts_ms) in self.accepted
        return inside, recency_change(order_ms, now_ms, self.cuts_ms, self.accepted)


class Number:
    """A number of a row that only events change."""

    def of(self, profile: Profile) -> float:
        """What it is now."""
        raise NotImplementedError


class Orders(Number):
    """How many orders there were."""

    def of(self, profile: Profile) -> float:
        """What it is now."""
        return float(profile.orders)


class Revenue(Number):
    """What they were worth."""

    def of(self, profile: Profile) -> float:
        """What it is now."""
        return profile.revenue_milli / 1000


class OpenRate(Number):
    """Notifications opened of those sent."""

    def of(self, profile: Profile) -> float:
        """What it is now; 0 before the first."""
        sent = profile.sent
        return profile.opened / sent if sent else 0.0


class UpwardScore(Number):
    """The score of another number (`app.core.rfm`)."""

    def __init__(self, number: Number, cuts: Cuts) -> None:
        self.number = number
        self.cuts = cuts

    def of(self, profile: Profile) -> float:
        """What it is now."""
        return float(upward_score(self.number.of(profile), self.cuts))


class Compared(Known):
    """A number is less than a bound, the same, or more: whichever of these are allowed."""

    def __init__(self, number: Number, op: str, bound: float) -> None:
        self.number = number
        self.bound = float(bound)
        self.less = op in ("<", "<=", "!=")
        self.same = op in ("<=", ">=", "==")
        self.more = op in (">", ">=", "!=")

    def ask(self, profile: Profile, now_ms: i64) -> tuple[bool, i64]:
        """See `Known.ask`; the clock changes no number."""
        number = self.number.of(profile)
        if number < self.bound:
            return self.less, NEVER_MS
        return self.same if number == self.bound else self.more, NEVER_MS


class Opposite(Known):
    """Another condition is not true."""

    def __init__(self, item: Known) -> None:
        self.item = item

    def ask(self, profile: Profile, now_ms: i64) -> tuple[bool, i64]:
        """See `Known.ask`."""
        inside, change_ms = self.item.ask(profile, now_ms)
        return not inside, change_ms


class Several(Known):
    """All of the items are true (`everything`), or at least one of them.

    It changes with the first of them; while some stand in the way, with the last of those (`expression_codegen`).
    """

    def __init__(self, items: list[Known], everything: bool) -> None:
        self.items = items
        self.everything = everything

    def ask(self, profile: Profile, now_ms: i64) -> tuple[bool, i64]:
        """See `Known.ask`."""
        everything = self.everything
        soonest_ms: i64 = NEVER_MS
        latest_ms: i64 = -1
        for item in self.items:
            inside, change_ms = item.ask(profile, now_ms)
            if inside != everything:
                latest_ms = max(latest_ms, change_ms)
            else:
                soonest_ms = min(soonest_ms, change_ms)
        if latest_ms < 0:
            return everything, soonest_ms
        return not everything, latest_ms


class PropertyIs:
    """An event's property is this text: what nearly every `where` asks."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text

    def __call__(self, properties: Mapping[str, Any]) -> bool:
        """As any other `where`."""
        return bool(properties.get(self.name) == self.text)

    def holds(self, properties: dict[str, Any]) -> bool:
        """The same, for the compiled core."""
        value = properties.get(self.name)
        return isinstance(value, str) and value == self.text
