"""Conditions that the core judges by itself: windowed totals and numbers against a bound, and the time since an event.

Most segments ask nothing else. The functions that the policy's conditions are made into are interpreted, at a few
microseconds a call; these are compiled with the core. They say the same: a condition that is made of them alone is
judged by them where one segment is asked by itself, and by its function everywhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.core.panes import AGES_AGO_MS, NEVER_MS
from app.core.profile import Profile
from app.core.rfm import Cuts, CutsMs, recency_change, recency_score, upward_score


class Known:
    """A condition on a row."""

    def holds(self, profile: Profile, now_ms: int) -> bool:
        """Whether it is true."""
        raise NotImplementedError

    def change_ms(self, profile: Profile, now_ms: int) -> int:
        """The earliest instant at which the clock alone may change that, as the condition's `next_change`."""
        raise NotImplementedError


class TotalAtLeast(Known):
    """The total of a window of `size` panes is `threshold` or more."""

    def __init__(self, feature_id: int, threshold: int, pane_ms: int, size: int) -> None:
        self.feature_id = feature_id
        self.threshold = threshold
        self.pane_ms = pane_ms
        self.size = size

    def holds(self, profile: Profile, now_ms: int) -> bool:
        """Whether it is true."""
        return profile.features.total(self.feature_id, now_ms // self.pane_ms, self.size) >= self.threshold

    def change_ms(self, profile: Profile, now_ms: int) -> int:
        """When the oldest panes leave too little, unless more comes."""
        return profile.features.crossing_ms(
            self.feature_id, self.threshold, now_ms // self.pane_ms, self.size, self.pane_ms
        )


class LongAgo(Known):
    """The newest event of a name is `bound_ms` old or older, or there was none."""

    def __init__(self, event_id: int, bound_ms: int) -> None:
        self.event_id = event_id
        self.bound_ms = bound_ms

    def holds(self, profile: Profile, now_ms: int) -> bool:
        """Whether it is true."""
        return now_ms >= profile.last.number(self.event_id, AGES_AGO_MS) + self.bound_ms

    def change_ms(self, profile: Profile, now_ms: int) -> int:
        """When it becomes true, unless there is such an event before."""
        at_ms = profile.last.number(self.event_id, AGES_AGO_MS) + self.bound_ms
        return NEVER_MS if now_ms >= at_ms else at_ms


class OrderRecency(Known):
    """The recency score of the last order (`app.core.rfm`) is one of some."""

    def __init__(self, cuts_ms: CutsMs, accepted: frozenset[int]) -> None:
        self.cuts_ms = cuts_ms
        self.accepted = accepted

    def holds(self, profile: Profile, now_ms: int) -> bool:
        """Whether it is true."""
        return recency_score(profile.order_ms, now_ms, self.cuts_ms) in self.accepted

    def change_ms(self, profile: Profile, now_ms: int) -> int:
        """When the score enters or leaves those, unless there is an order before."""
        return recency_change(profile.order_ms, now_ms, self.cuts_ms, self.accepted)


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

    def holds(self, profile: Profile, now_ms: int) -> bool:
        """Whether it is true."""
        number = self.number.of(profile)
        if number < self.bound:
            return self.less
        return self.same if number == self.bound else self.more

    def change_ms(self, profile: Profile, now_ms: int) -> int:
        """Never by the clock."""
        return NEVER_MS


class Opposite(Known):
    """Another condition is not true."""

    def __init__(self, item: Known) -> None:
        self.item = item

    def holds(self, profile: Profile, now_ms: int) -> bool:
        """Whether it is true."""
        return not self.item.holds(profile, now_ms)

    def change_ms(self, profile: Profile, now_ms: int) -> int:
        """When the other changes."""
        return self.item.change_ms(profile, now_ms)


class Several(Known):
    """All of the items are true (`everything`), or at least one of them."""

    def __init__(self, items: list[Known], everything: bool) -> None:
        self.items = items
        self.everything = everything

    def holds(self, profile: Profile, now_ms: int) -> bool:
        """Whether it is true; no more items are asked than needed."""
        everything = self.everything
        for item in self.items:
            if item.holds(profile, now_ms) != everything:
                return not everything
        return everything

    def change_ms(self, profile: Profile, now_ms: int) -> int:
        """The earliest change of the items; while some stand in the way, the latest of those (`expression_codegen`)."""
        latest_ms = -1
        for item in self.items:
            if item.holds(profile, now_ms) != self.everything:
                at_ms = item.change_ms(profile, now_ms)
                if at_ms >= NEVER_MS:
                    return NEVER_MS
                latest_ms = max(latest_ms, at_ms)
        if latest_ms >= 0:
            return latest_ms
        soonest_ms = NEVER_MS
        for item in self.items:
            soonest_ms = min(soonest_ms, item.change_ms(profile, now_ms))
        return soonest_ms


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
