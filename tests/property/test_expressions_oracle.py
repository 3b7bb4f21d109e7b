"""Compiled expressions against a brute-force reading of the raw events: same truth now, and no change unannounced.

The oracle knows nothing of panes, rows or code generation: it walks the list of events with the written definition of
each function. A count's window of n panes is the last n whole panes including the present one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.core import marks
from app.core.expression_errors import ExpressionErrors
from app.core.expressions import compile_expression
from app.core.index import mark_op
from app.core.panes import NEVER_MS
from app.core.plan import Feature, event_id
from app.core.profile import Profile
from schemas.events import Event

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
NOW = 1_710_054_000_000 - 9 * HOUR - 43 * MINUTE  # the evening before New York's clocks go forward
WINDOWS = {"10m": MINUTE, "1h": MINUTE, "6h": HOUR, "48h": HOUR, "3d": DAY, "30d": DAY}
LENGTHS = {"10m": 10 * MINUTE, "1h": HOUR, "6h": 6 * HOUR, "48h": 48 * HOUR, "3d": 3 * DAY, "30d": 30 * DAY}
ZONES = ["", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu", "no such zone"]
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b, "!=": lambda a, b: a != b,
}  # fmt: skip


@dataclass(frozen=True)
class Happened:
    """A raw event."""

    at_ms: int
    name: str
    properties: dict[str, Any]


@dataclass(frozen=True)
class World:
    """What the oracle reads."""

    events: tuple[Happened, ...]
    zone: str
    traits: dict[str, Any]


Oracle = Callable[[World, int], bool]
Case = tuple[str, Oracle]


def _in_window(world: World, now_ms: int, name: str, window: str) -> list[Happened]:
    pane_ms = WINDOWS[window]
    newest = now_ms // pane_ms
    oldest = newest - LENGTHS[window] // pane_ms
    return [event for event in world.events if event.name == name and oldest < event.at_ms // pane_ms <= newest]


def _last_ms(world: World, name: str) -> float:
    return max((event.at_ms for event in world.events if event.name == name), default=float("-inf"))


def _local(world: World, now_ms: int) -> datetime:
    zone = world.zone if world.zone in ZONES[1:-1] else "UTC"
    return datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(ZoneInfo(zone))


names = st.sampled_from(["A", "B", "Order Completed"])
windows = st.sampled_from(sorted(WINDOWS))
operators = st.sampled_from(sorted(COMPARE))
orderings = st.sampled_from(["<", "<=", ">", ">="])


@st.composite
def counts(draw: st.DrawFn) -> Case:
    name, window, op, limit = draw(names), draw(windows), draw(operators), draw(st.integers(-1, 4))
    minimum = draw(st.none() | st.integers(0, 3))
    where = "" if minimum is None else f", where=size >= {minimum}"

    def oracle(world: World, now_ms: int) -> bool:
        found = _in_window(world, now_ms, name, window)
        if minimum is not None:
            sizes = [event.properties.get("size") for event in found]
            found_sizes = [size for size in sizes if type(size) is int and size >= minimum]
            return COMPARE[op](len(found_sizes), limit)
        return COMPARE[op](len(found), limit)

    return f'count("{name}", "{window}"{where}) {op} {limit}', oracle


@st.composite
def sums(draw: st.DrawFn) -> Case:
    name, window, op = draw(names), draw(windows), draw(operators)
    limit = draw(st.sampled_from([0, 0.5, 2, 2.25, 5]))

    def oracle(world: World, now_ms: int) -> bool:
        sizes = [event.properties.get("size") for event in _in_window(world, now_ms, name, window)]
        return COMPARE[op](sum(size for size in sizes if type(size) is int), limit)

    return f'sum("{name}.size", "{window}") {op} {limit}', oracle


@st.composite
def ratios(draw: st.DrawFn) -> Case:
    first, second, window, op = draw(names), draw(names), draw(windows), draw(orderings)

    def oracle(world: World, now_ms: int) -> bool:
        divisor = len(_in_window(world, now_ms, second, window))
        return divisor > 0 and COMPARE[op](len(_in_window(world, now_ms, first, window)) / divisor, 0.6)

    return f'count("{first}", "{window}") / count("{second}", "{window}") {op} 0.6', oracle


@st.composite
def recencies(draw: st.DrawFn) -> Case:
    name, other, window, op = draw(names), draw(names), draw(windows), draw(orderings)
    if draw(st.booleans()):
        return f'did("{name}", "{window}")', lambda world, now_ms: now_ms - _last_ms(world, name) < LENGTHS[window]
    if draw(st.booleans()):
        return (
            f'since("{name}") + since("{other}") {op} "{window}"',
            lambda world, now_ms: COMPARE[op](
                now_ms - _last_ms(world, name) + now_ms - _last_ms(world, other), LENGTHS[window]
            ),
        )
    return (
        f'"{window}" {op} since("{name}")',
        lambda world, now_ms: COMPARE[op](LENGTHS[window], now_ms - _last_ms(world, name)),
    )


@st.composite
def distincts(draw: st.DrawFn) -> Case:
    name, window, op, limit = draw(names), draw(windows), draw(operators), draw(st.integers(-1, 4))

    def oracle(world: World, now_ms: int) -> bool:
        sizes = [event.properties.get("size") for event in _in_window(world, now_ms, name, window)]
        return COMPARE[op](len({size for size in sizes if type(size) in (int, str)}), limit)

    return f'distinct("{name}.size", "{window}") {op} {limit}', oracle


@st.composite
def sequences(draw: st.DrawFn) -> Case:
    first, second, within, window = draw(names), draw(names), draw(windows), draw(windows)

    def oracle(world: World, now_ms: int) -> bool:
        return any(
            second_event.at_ms > now_ms - LENGTHS[window]
            and 0 <= second_event.at_ms - first_event.at_ms <= LENGTHS[within]
            for second_event in world.events
            for first_event in world.events
            if (first_event.name, second_event.name) == (first, second) and first_event is not second_event
        )

    return f'followed_by("{first}", "{second}", "{within}", "{window}")', oracle


@st.composite
def local_times(draw: st.DrawFn) -> Case:
    op, hour = draw(operators), draw(st.integers(1, 22))
    if draw(st.booleans()):
        return f"hour() {op} {hour}", lambda world, now_ms: COMPARE[op](_local(world, now_ms).hour, hour)
    if draw(st.booleans()):
        return f"hour() + 1 {op} {hour}", lambda world, now_ms: COMPARE[op](_local(world, now_ms).hour + 1, hour)
    days = draw(st.sets(st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]), min_size=1, max_size=6))
    listed = ", ".join(f'"{day}"' for day in sorted(days))
    return f"weekday() in [{listed}]", lambda world, now_ms: f"{_local(world, now_ms):%a}".lower() in days


@st.composite
def scores(draw: st.DrawFn) -> Case:
    op, score = draw(st.sampled_from(["==", "!=", "<", ">="])), draw(st.integers(2, 4))
    cuts = (7 * DAY, 30 * DAY, 90 * DAY, 180 * DAY)

    def oracle(world: World, now_ms: int) -> bool:
        elapsed = now_ms - _last_ms(world, "Order Completed")
        return COMPARE[op](max(1, 5 - sum(elapsed >= cut for cut in cuts)), score)

    return f"rfm_recency() {op} {score}", oracle


@st.composite
def stages(draw: st.DrawFn) -> Case:
    stage = draw(st.sampled_from(["new", "active", "at_risk", "dormant", "lost"]))

    def oracle(world: World, now_ms: int) -> bool:
        times = [event.at_ms for event in world.events]
        idle, tenure = now_ms - max(times, default=0), now_ms - min(times, default=0)
        if idle >= 14 * DAY:
            return stage == ("lost" if idle >= 90 * DAY else "dormant" if idle >= 30 * DAY else "at_risk")
        return stage == ("new" if tenure < 14 * DAY else "active")

    return f'stage() == "{stage}"', oracle


traits = st.sampled_from(["x", "y", 3, None]).map(
    lambda value: (
        f'trait("t") == {value!r}'.replace("None", '"none"'),
        lambda world, now_ms: "t" in world.traits and world.traits["t"] == ("none" if value is None else value),
    )
)
atoms = (
    counts()
    | sums()
    | distincts()
    | sequences()
    | ratios()
    | recencies()
    | local_times()
    | scores()
    | stages()
    | traits
)


def _both(how: str, left: Case, right: Case) -> Case:
    if how == "and":
        return f"({left[0]}) and ({right[0]})", lambda world, now_ms: left[1](world, now_ms) and right[1](world, now_ms)
    return f"({left[0]}) or ({right[0]})", lambda world, now_ms: left[1](world, now_ms) or right[1](world, now_ms)


conditions = st.recursive(
    atoms,
    lambda inner: (
        st.builds(_both, st.sampled_from(["and", "or"]), inner, inner)
        | inner.map(lambda case: (f"not ({case[0]})", lambda world, now_ms: not case[1](world, now_ms)))
    ),
    max_leaves=5,
)
ages = st.one_of(
    st.integers(0, 20 * MINUTE), st.integers(0, 3 * HOUR), st.integers(0, 4 * DAY), st.integers(0, 200 * DAY)
)
happened = st.builds(
    lambda age, name, size: Happened(NOW - age, name, {} if size is None else {"size": size}),
    ages,
    names,
    st.sampled_from([None, 0, 1, 2, 5, "2", True]),
)
worlds = st.builds(
    World,
    st.lists(happened, max_size=12).map(tuple),
    st.sampled_from(ZONES),
    st.sampled_from([{}, {"t": "x"}, {"t": 3}]),
)


def fold(world: World, features: tuple[Feature, ...]) -> Profile:
    """The row that the engine would hold at `NOW`, events in the order given."""
    profile = Profile(timezone=world.zone, traits=world.traits)
    for event in world.events:
        profile.seen_ms = max(profile.seen_ms, event.at_ms)
        profile.first_ms = min(profile.first_ms or event.at_ms, event.at_ms)
        key = event_id(event.name)
        profile.last[key] = max(profile.last.get(key, 0), event.at_ms)
        if event.name == "Order Completed":
            profile.order_ms = max(profile.order_ms, event.at_ms)
        for feature in features:
            if feature.event == event.name and (feature.where is None or feature.where(event.properties)):
                if feature.kind in ("count", "sum"):
                    _add(profile, feature, event)
                else:
                    seen = Event(type="track", event=event.name, properties=event.properties)
                    marks.fold(profile.features, (mark_op(feature),), seen, event.at_ms, NOW)
    return profile


def _add(profile: Profile, feature: Feature, event: Happened) -> None:
    size = event.properties.get(feature.property_path)
    value = 1 if feature.kind == "count" else size * 1000 if type(size) is int else 0
    pane, current = event.at_ms // feature.pane_ms, NOW // feature.pane_ms
    if value and pane > current - feature.size:
        profile.features.add(feature.id, pane, value, current, feature.size)


def _instants(world: World, until_ms: int) -> list[int]:
    """Instants before `until_ms` at which something might change: ends of panes, quarters of hours, anniversaries."""
    lengths = {*LENGTHS.values(), 7 * DAY, 14 * DAY, 30 * DAY, 90 * DAY, 180 * DAY}
    near = {NOW + quarter * 15 * MINUTE // 15 for quarter in (1, 2, 15, 30, 61)}
    near |= {(NOW // HOUR + hours) * HOUR + minute * MINUTE for hours in range(60) for minute in (0, 15, 30, 45)}
    near |= {(NOW // DAY + days) * DAY for days in range(1, 200, 3)}
    for event in world.events:
        for length in lengths:
            for pane_ms in (1, MINUTE, HOUR, DAY):
                expiry = (event.at_ms // pane_ms) * pane_ms + length
                near |= {expiry - 1, expiry, expiry + 1}
    return sorted(at_ms for at_ms in near if NOW < at_ms < until_ms)


@settings(max_examples=400)
@given(conditions, worlds)
@example(("hour() == 3", lambda world, now_ms: _local(world, now_ms).hour == 3), World((), "America/New_York", {}))
def test_truth_equals_the_raw_events_and_never_changes_before_it_is_announced(case: Case, world: World) -> None:
    text, oracle = case
    expression = compile_expression(text)
    profile = fold(world, expression.features)
    truth = expression.evaluate(profile, NOW, "u")
    assert truth is oracle(world, NOW)
    due_ms = expression.next_change(profile, NOW, "u")
    assert due_ms > NOW
    assert expression.clocked or due_ms == NEVER_MS
    for at_ms in _instants(world, min(due_ms, NOW + 400 * DAY)):
        assert oracle(world, at_ms) is truth, f"changed {at_ms - NOW} ms from now, {due_ms - at_ms} ms unannounced"


@settings(max_examples=200)
@given(conditions, worlds)
def test_following_the_announced_instants_finds_the_truth_at_every_instant(case: Case, world: World) -> None:
    """The engine's loop: evaluate, sleep until the next change, evaluate; in between nothing is asked."""
    text, oracle = case
    expression = compile_expression(text)
    profile = fold(world, expression.features)
    now_ms, wakes = NOW, 0
    while (now_ms := expression.next_change(profile, now_ms, "u")) < NOW + 60 * DAY and wakes < 300:
        assert expression.evaluate(profile, now_ms, "u") is oracle(world, now_ms)
        wakes += 1


@settings(max_examples=200)
@given(st.text(alphabet="()[]'\"andornotinwhere=<>!,.+-*/ 0123456789\n\t#ä\\", max_size=60) | st.text(max_size=40))
def test_no_text_does_anything_but_compile_or_be_refused(text: str) -> None:
    refused: ExpressionErrors | None = None
    truth = None
    try:
        truth = compile_expression(text).evaluate(Profile(), NOW, "u")
    except ExpressionErrors as exc:
        refused = exc
    if refused is None:
        assert truth in (True, False)
    else:
        assert refused.errors
        assert all(0 <= error.offset <= len(text) for error in refused.errors)
