"""Two rows of one person made one: what each field of the row becomes.

Counts add up, the newest fact wins, what is bounded stays bounded. Windowed totals are sums of panes, so the merged
row's windows are those that one row would have had all along.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Final, TypeVar

from app.core import interest, items, label_history, marks, open_rates, timers, traits, wishes
from app.core.choose import SHOWN_MAX
from app.core.devices import DEVICES_MAX
from app.core.fold import AFFINITIES_MAX, LAST_MAX
from app.core.guardrails import SENDS_MAX
from app.core.id_map import IdMap
from app.core.identity import ALIASES_MAX, CATEGORIES_MAX
from app.core.ids import RECENT_BYTES
from app.core.name_map import NameMap
from app.core.plan import Feature
from app.core.profile import Profile
from app.core.row_parts import Pending, PendingReward

Waiting = TypeVar("Waiting", Pending, PendingReward)

OF_THE_ROW: Final = frozenset(
    {"offset", "outbox", "owed", "policy", "erased_ms", "merged_into", "absorbed", "segments"}
)
"""What has been done to a row, and not what is known of the user: the other row's are dropped."""


def merge_rows(row: Profile, other: Profile, features: Mapping[int, Feature], now_ms: int) -> int:
    """Add everything that `other` knows to `row`. Segments are not touched: they must be judged anew.

    Parameters
    ----------
    features
        Of the policy in force, by id; windows of others are dropped.

    Returns
    -------
    int
        How many timers gave way, since a row keeps so many of each kind.
    """
    newer = other.seen_ms > row.seen_ms
    _windows(row, other, features, now_ms)
    _facts(row, other)
    _consent(row, other)
    _answers(row, other, newer=newer)
    _learning(row, other)
    dropped = _waiting(row, other)
    row.recent = (other.recent + row.recent)[-RECENT_BYTES:]
    row.events += other.events
    row.first_ms = min(filter(None, (row.first_ms, other.first_ms)), default=0)
    row.seen_ms = max(row.seen_ms, other.seen_ms)
    row.missing = sorted({*row.missing, *other.missing} & features.keys())
    return dropped


def _windows(row: Profile, other: Profile, features: Mapping[int, Feature], now_ms: int) -> None:
    for feature_id, state in other.features.items():
        feature = features.get(feature_id)
        if feature is not None and state:
            row.features[feature_id] = _window(feature, row.features.get(feature_id), state, now_ms)


def _window(feature: Feature, ours: list[int] | None, theirs: list[int], now_ms: int) -> list[int]:
    if not ours:
        return list(theirs)
    if feature.kind == "times":
        return sorted(ours + theirs)[-marks.TIMES_MAX :]
    if feature.kind == "session":
        return list(ours if ours[1] >= theirs[1] else theirs)
    if feature.kind == "sessions":
        return [max(ours[0], theirs[0]), *_panes(ours[1:], theirs[1:])]
    if feature.kind == "distinct":
        merged = list(ours)
        for digest, pane in zip(theirs[::2], theirs[1::2], strict=True):
            marks.add_distinct(merged, digest, pane, current=now_ms // feature.pane_ms, size=feature.size)
        return merged
    return _panes(ours, theirs)


def _panes(ours: list[int], theirs: list[int]) -> list[int]:
    """The sum of two windows, pane by pane."""
    if not ours or not theirs:
        return ours or theirs
    values = dict(zip(ours[1::2], ours[2::2], strict=True))
    for pane, value in zip(theirs[1::2], theirs[2::2], strict=True):
        values[pane] = values.get(pane, 0) + value
    return [ours[0] + theirs[0], *(number for pane in sorted(values) for number in (pane, values[pane]))]


def _facts(row: Profile, other: Profile) -> None:
    """Traits, device, zone and language: the newest says it; an older one fills gaps."""
    traits.merge_traits(row, other)
    old, new = (row, other) if other.seen_ms > row.seen_ms else (other, row)
    row.timezone, row.device = new.timezone or old.timezone, new.device or old.device
    row.locale = new.locale or old.locale
    row.browsing = items.merged(row.browsing, other.browsing)
    if row.browsing is not None and other.browsing is not None and row.browsing is not other.browsing:
        row.browsing.wishes = wishes.merged(row.browsing.wishes, other.browsing.wishes)
        row.browsing.told_affine = max(row.browsing.told_affine, other.browsing.told_affine)
    devices = {**old.devices, **new.devices}
    row.devices = dict(list(devices.items())[-DEVICES_MAX:])
    row.aliases = [*other.aliases, *(name for name in row.aliases if name not in other.aliases)][-ALIASES_MAX:]
    for name, at_ms in other.last.items():
        row.last.put(name, max(row.last.number(name, 0), at_ms))
    row.last = IdMap.of(dict(heapq.nlargest(LAST_MAX, row.last.items(), key=lambda item: item[1])))
    row.orders += other.orders
    row.revenue_milli += other.revenue_milli
    row.order_ms = max(row.order_ms, other.order_ms)
    for category, level in other.affinity.items():
        ours = row.affinity.get(category)
        row.affinity[category] = level if ours is None else interest.added(ours, level)
    row.affinity = NameMap.of(dict(heapq.nlargest(AFFINITIES_MAX, row.affinity.items(), key=lambda item: item[1])))


def _consent(row: Profile, other: Profile) -> None:
    """The newest answer; of two at one instant, the refusal."""
    if (other.consent_ms, other.consent == 0) > (row.consent_ms, row.consent == 0):
        row.consent, row.consent_ms = other.consent, other.consent_ms
    for category, at_ms in other.category_consent.items():
        ours_ms = row.category_consent.get(category, -1)
        refused = category in other.opted_out
        if at_ms < ours_ms or (at_ms == ours_ms and not refused):
            continue
        if ours_ms < 0 and len(row.category_consent) >= CATEGORIES_MAX and not refused:
            continue
        row.category_consent[category] = at_ms
        if refused and category not in row.opted_out:
            row.opted_out = [*row.opted_out, category]
        elif not refused:
            row.opted_out = [name for name in row.opted_out if name != category]


def _answers(row: Profile, other: Profile, *, newer: bool) -> None:
    """What was sent, and what became of it."""
    row.sent += other.sent
    row.opened += other.opened
    row.clicked += other.clicked
    row.dismissed += other.dismissed
    if newer:
        row.ignored_run = other.ignored_run
    row.labels = label_history.joined(row.labels, other.labels)
    row.open_rates = open_rates.joined(row.open_rates, other.open_rates)
    for ours, theirs in (
        (row.hours, other.hours),
        (row.hour_sends, other.hour_sends),
        (row.hour_opens, other.hour_opens),
    ):
        for hour, number in theirs.items():
            ours[hour] = ours.get(hour, 0) + number
    if other.weariness > row.weariness:
        row.weariness, row.weariness_ms = other.weariness, other.weariness_ms
    for variant, at_ms in other.shown.items():
        row.shown[variant] = max(row.shown.get(variant, 0), at_ms)
    row.shown = dict(heapq.nlargest(SHOWN_MAX, row.shown.items(), key=lambda item: item[1]))
    row.sends = sorted([*row.sends, *other.sends], key=lambda send: send.at_ms)[-SENDS_MAX:]


def _learning(row: Profile, other: Profile) -> None:
    """Of two propensities the one with the newest activity: a label that waits is of one row's behaviour."""
    ours, theirs = row.propensity, other.propensity
    if theirs is not None and (ours is None or theirs.activity.at_ms > ours.activity.at_ms):
        row.propensity = theirs
    if other.examples:
        count, at_ms = row.examples or (0.0, 0.0)
        row.examples = [count + other.examples[0], max(at_ms, other.examples[1])]


def _waiting(row: Profile, other: Profile) -> int:
    """Labels and rewards that have not matured, and timers: of two that wait for the same, the row's own.

    What waits without its timer would wait for ever, so it gives way with it.
    """
    dropped = 0
    for timer in other.timers:
        if timers.find(row, timer.kind, timer.ref, timer.key) is None:
            dropped += timers.put(row, timer) is not None
    if row.pending or other.pending:
        pending = {one.id: one for one in (*other.pending, *row.pending)}
        row.pending = sorted(_timed(row, timers.HORIZON, pending), key=lambda one: one.decided_ms)
    if row.rewards or other.rewards:
        rewards = {one.id: one for one in (*other.rewards, *row.rewards)}
        row.rewards = sorted(_timed(row, timers.REWARD, rewards), key=lambda one: one.decided_ms)
    return dropped


def _timed(row: Profile, kind: int, waiting: Mapping[str, Waiting]) -> list[Waiting]:
    """Of what waits for a timer of that kind, by id, what has one."""
    return [waiting[timer.key] for timer in row.timers if timer.kind == kind and timer.key in waiting]
