"""Folding one event into a row: totals, recency, windows, interests.

Everything here commutes within the grace: whatever the order of arrival, the row's windows and totals end the same.
Answers to notifications are in `app.core.answers`, traits and consent in `app.core.identity`.
"""

from __future__ import annotations

from typing import Any, Final

from mypy_extensions import i64

from app.core import interest, marks, panes
from app.core.batch import ALL_SUSPECT, Batch
from app.core.id_map import IdMap
from app.core.index import EventOps, FeatureOp
from app.core.name_map import NameMap
from app.core.packed_map import NOWHERE
from app.core.profile import Profile
from app.core.values import NAME_CHARS_MAX, milli, property_at
from app.core.window_map import AHEAD, WindowMap
from schemas.events import Event

LAST_MAX: Final = 64
"""Event names whose newest time a row keeps."""
AFFINITIES_MAX: Final = 8
ORDER_MILLI_MAX: Final = 1_000_000_000
"""The largest order that counts towards lifetime revenue, in thousandths: one million units."""


def fold_track(batch: Batch, profile: Profile, ops: EventOps, event: Event, at_ms: int) -> int:
    """Apply a track event that is neither a replay nor a duplicate. `at_ms` is at most the batch's time.

    Returns the newest time of the event's name before it, `AGES_AGO_MS` if there was none. `batch.suspects` are the
    segments that a count may have changed, by reaching a level.
    """
    profile.events += 1
    if ops.own:  # as `fold_activity`
        if at_ms > profile.seen_ms:
            profile.seen_ms = at_ms
        first_ms = profile.first_ms
        if at_ms < first_ms or not first_ms:
            profile.first_ms = at_ms
    last = profile.last
    event_id = ops.event_id
    newest: int = last.number(event_id, panes.AGES_AGO_MS)
    if newest == panes.AGES_AGO_MS and len(last) >= LAST_MAX:
        _forget_one(last, batch.index.known_ids)
    if at_ms > newest:
        last.put(event_id, at_ms)
    properties = batch.properties
    batch.suspects = 0
    if ops.features:
        _fold_features(batch, profile.features, ops.features, properties, at_ms)
    if ops.marks:
        marks.fold(profile.features, ops.marks, event, at_ms, batch.now_ms)
    if ops.handler is not None:
        ops.handler(batch, profile, event, at_ms)
    if ops.interest:
        category = properties.get("category")
        if isinstance(category, str) and 0 < len(category) <= NAME_CHARS_MAX:
            _fold_affinity(profile.affinity, category, at_ms)
    return newest


def _forget_one(last: IdMap, known: frozenset[int]) -> None:
    """The oldest name that the policy does not mention, or else the oldest: segments may ask for the others."""
    last.remove(min(last.keys(), key=lambda event_id: (event_id in known, last[event_id])))


def fold_activity(profile: Profile, at_ms: int) -> None:
    """Count a user's own event that is not a track."""
    profile.events += 1
    if at_ms > profile.seen_ms:
        profile.seen_ms = at_ms
    if at_ms < profile.first_ms or not profile.first_ms:
        profile.first_ms = at_ms


def _fold_features(
    batch: Batch,
    windows: WindowMap,
    features: tuple[tuple[int, tuple[FeatureOp, ...]], ...],
    properties: dict[str, Any],
    at_ms: i64,
) -> None:
    now_ms: i64 = batch.now_ms
    for width_ms, ops in features:
        pane_ms: i64 = width_ms
        pane: i64 = at_ms // pane_ms
        current: i64 = now_ms // pane_ms
        for op in ops:
            if current - pane >= op.size:
                continue
            value: i64 = 1 if op.plain else _value(batch, op, properties)
            if not value:
                continue
            total = windows.add(op.id, pane, value, current, op.size)
            if not op.shows:
                continue
            if total == AHEAD:
                batch.suspects = ALL_SUSPECT
            elif total < len(op.low):
                batch.suspects |= op.low[total]
            elif op.high:
                batch.suspects |= op.levels.get(total, 0)


def _value(batch: Batch, op: FeatureOp, properties: dict[str, Any]) -> i64:
    """What an event adds to a window; 0 where it does not count."""
    known, where = op.known, op.where
    if known is not None:
        if not known.holds(properties):
            return 0
    elif where is not None and not where(properties):
        return 0
    if op.path is None:
        return 1
    amount = milli(property_at(properties, op.path))
    if amount is None:
        batch.count("ignored_values")
        return 0
    return amount


def _fold_affinity(affinity: NameMap, category: str, at_ms: int) -> None:
    """One more event of a category; the least interest gives way to a new one."""
    name = category.encode()
    level = interest.level_at(at_ms)
    place = affinity.find(name)
    if place != NOWHERE:
        affinity.set_at(place, interest.added(affinity.at(place), level))
        return
    if affinity.size() >= AFFINITIES_MAX:
        affinity.forget_least()
    affinity.add(name, level)


def fold_order(batch: Batch, profile: Profile, event: Event, at_ms: int) -> None:
    """Recency, frequency and monetary value; an amount that is none, or absurd, counts as an order of 0."""
    profile.orders += 1
    profile.order_ms = max(profile.order_ms, at_ms)
    amount = event.properties.get("revenue", event.properties.get("total"))
    value = milli(amount)
    if value is not None and value <= ORDER_MILLI_MAX:
        profile.revenue_milli += value
    elif amount is not None:
        batch.count("ignored_values")
