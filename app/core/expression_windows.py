"""The functions of the expression language that look back on events: windows, recency, sequences, sessions."""

from __future__ import annotations

import ast
from typing import Final, Literal

from app.core.durations import UNITS_MS, format_duration, parse_duration_ms
from app.core.expression_builder import Builder, Call
from app.core.expression_compare import whole_steps
from app.core.expression_context import ANY_EVENT
from app.core.expression_errors import Mismatch
from app.core.expression_ir import Atom, Scalar, Suspect, Truth, Value, quote
from app.core.expression_known import LongAgo, Opposite, TotalAtLeast
from app.core.ids import stable_id
from app.core.marks import DISTINCT_MAX
from app.core.panes import NEVER_MS
from app.core.plan import Feature

PANES: Final = (
    (UNITS_MS["h"], UNITS_MS["m"]),
    (48 * UNITS_MS["h"], UNITS_MS["h"]),
    (90 * UNITS_MS["d"], UNITS_MS["d"]),
)
_PANE_LOCALS: Final = {UNITS_MS["m"]: "minute", UNITS_MS["h"]: "hour", UNITS_MS["d"]: "day"}

_OfEvents = Literal["count", "sum", "distinct"]


def _window_ms(call: Call, at: int) -> tuple[int, int]:
    text = call.text(at, "a window such as '7d'")
    try:
        window_ms = parse_duration_ms(text)
    except ValueError as exc:
        raise call.fail(str(exc), at) from None
    for longest_ms, pane_ms in PANES:
        if window_ms <= longest_ms:
            if window_ms % pane_ms == 0:
                return window_ms, pane_ms
            lower = window_ms // pane_ms * pane_ms
            near = " or ".join(format_duration(ms) for ms in (lower, lower + pane_ms) if ms)
            raise call.fail(f"a window of {text} is not a whole number of {format_duration(pane_ms)} panes; "
                            f"use {near}", at)  # fmt: skip
    raise call.fail(f"a window is at most 90d; {text} is longer", at)


def _feature(call: Call, kind: _OfEvents, event: str, property_path: str, window_at: int) -> Feature:
    window_ms, pane_ms = _window_ms(call, window_at)
    where, where_text = call.where()
    name = f"{event}.{property_path}" if property_path else event
    text = f"{kind}({name!r}, {format_duration(window_ms)!r}{', where=' + where_text if where else ''})"
    call.reads(event)
    return call.feature(
        Feature(
            text=text,
            event=event,
            kind=kind,
            window_ms=window_ms,
            pane_ms=pane_ms,
            property_path=property_path,
            where=where,
        )
    )


def _total_parts(feature: Feature) -> dict[str, ast.expr | Scalar]:
    return {
        "ID": feature.id,
        "PANE": ast.Name(_PANE_LOCALS[feature.pane_ms], ast.Load()),
        "SIZE": feature.size,
        "PANE_MS": feature.pane_ms,
    }


def _at_least(feature: Feature, threshold: int) -> Truth:
    parts = _total_parts(feature)
    return Atom(
        quote("total(ID, PANE, SIZE) >= T", T=threshold, **parts),
        quote("crossing_ms(ID, T, PANE, SIZE, PANE_MS)", T=threshold, **parts),
        events=frozenset({feature.event}),
        postponed=True,
        # An event counts 1, but may add any amount, or take it away.
        flipped=quote(f"total(ID, PANE, SIZE) {'==' if feature.kind == 'count' else '>='} T", T=threshold, **parts),
        suspect=Suspect(feature.id, threshold) if feature.kind == "count" else None,
        known=TotalAtLeast(feature.id, threshold, feature.pane_ms, feature.size),
    )


def _total(feature: Feature, scale: int) -> Value:
    parts = _total_parts(feature)
    code = quote("total(ID, PANE, SIZE)", **parts)
    return Value(
        kind="number",
        code=code if scale == 1 else quote("TOTAL / SCALE", TOTAL=code, SCALE=scale),
        step=quote("total_step_ms(get(ID), PANE, SIZE, PANE_MS)", **parts),
        compare=whole_steps(lambda threshold: _at_least(feature, threshold), scale),
    )


def _count(call: Call) -> Value:
    return _total(_feature(call, "count", call.event(0), "", 1), 1)


def _of_property(call: Call, kind: _OfEvents) -> Feature:
    name = call.text(0, "an event and a property such as 'Order Completed.revenue'")
    event, dot, property_path = name.partition(".")
    if not dot or not property_path:
        raise call.fail(f"{kind}() needs an event and a property, such as '{event}.revenue'", 0)
    call.check_event(event, 0)
    return _feature(call, kind, event, property_path, 1)


def _sum(call: Call) -> Value:
    return _total(_of_property(call, "sum"), 1000)


def _did(call: Call) -> Truth:
    event = call.event(0)
    window = call.optional_text(1, "a window such as '7d'")
    where, _ = call.where()
    if where is not None:
        if window is None:
            raise call.fail("did() with where= needs a window, such as did('Event', '7d', where=...)")
        return _at_least(_feature(call, "count", event, "", 1), 1)
    if event == ANY_EVENT:
        raise call.fail("did() needs an event's name; since() reads the time of any event", 0)
    call.reads(event)
    if window is None:
        return Atom(quote("ID in p.last", ID=stable_id(event)))
    try:
        window_ms = parse_duration_ms(window)
    except ValueError as exc:
        raise call.fail(str(exc), 1) from None
    return Atom(
        quote("now_ms - last(ID, BOTTOM) < W", ID=stable_id(event), W=window_ms, BOTTOM=float("-inf")),
        quote("did_change(last(ID), W, now_ms)", ID=stable_id(event), W=window_ms),
        events=frozenset({event}),
        postponed=True,
        suspect=Suspect(pause_ms=window_ms),
        known=Opposite(LongAgo(stable_id(event), window_ms)),
    )


def _since(call: Call) -> Value:
    if call.optional_text(0, "an event's name") is None:
        call.reads(ANY_EVENT)
        return Value(
            kind="duration", code=quote("now_ms - p.seen_ms if p.seen_ms else INFINITE"), slope=1, recency=True
        )
    event = call.event(0)
    call.reads(event)
    code = quote("now_ms - last(ID, BOTTOM)", ID=stable_id(event), BOTTOM=float("-inf"))
    return Value(kind="duration", code=code, slope=1, recency=True, event=event)


def _distinct(call: Call) -> Value:
    feature = _of_property(call, "distinct")
    parts = _total_parts(feature)

    def at_least(threshold: int) -> Truth:
        if threshold > DISTINCT_MAX:
            raise Mismatch(f"a row tells {DISTINCT_MAX} different values apart; {threshold} is more")
        return Atom(
            quote("distinct(get(ID), PANE, SIZE) >= T", T=threshold, **parts),
            quote("distinct_crossing_ms(get(ID), T, PANE, SIZE, PANE_MS)", T=threshold, **parts),
            events=frozenset({feature.event}),
            postponed=True,
            flipped=quote("distinct(get(ID), PANE, SIZE) == T", T=threshold, **parts),
        )

    return Value(
        kind="number",
        code=quote("distinct(get(ID), PANE, SIZE)", **parts),
        step=quote("distinct_step_ms(get(ID), PANE, SIZE, PANE_MS)", **parts),
        compare=whole_steps(at_least, 1),
    )


def _duration_ms(call: Call, at: int, what: str) -> int:
    try:
        return parse_duration_ms(call.text(at, what))
    except ValueError as exc:
        raise call.fail(str(exc), at) from None


def _times(call: Call, event: str) -> Feature:
    call.reads(event)
    return call.feature(Feature(text=f"times({event!r})", event=event, kind="times", window_ms=0, pane_ms=1))


def _followed_by(call: Call) -> Truth:
    first, second = call.event(0), call.event(1)
    if ANY_EVENT in (first, second):
        raise call.fail("followed_by() needs the names of two events")
    within_ms = _duration_ms(call, 2, "how soon, such as '30m'")
    parts: dict[str, ast.expr | Scalar] = {"W": within_ms}
    parts |= {"FIRST": _times(call, first).id, "SECOND": _times(call, second).id}
    once = "repeated_ms(get(SECOND), W)" if first == second else "followed_ms(get(FIRST), get(SECOND), W)"
    found = quote(once, **parts)
    if call.optional_text(3, "how long ago at most, such as '7d'") is None:
        return Atom(quote("FOUND is not None", FOUND=found))
    window_ms = _duration_ms(call, 3, "how long ago at most, such as '7d'")
    return Atom(
        quote("did_change(FOUND, L, now_ms) != NEVER", FOUND=found, L=window_ms, NEVER=NEVER_MS),
        quote("did_change(FOUND, L, now_ms)", FOUND=found, L=window_ms),
    )


def _session(template: str) -> Builder:
    def build(call: Call) -> Value:
        event = call.optional_text(0, "an event's name")
        if event is not None:
            call.check_event(event, 0)
        call.reads(ANY_EVENT)
        text = f"session({event!r})" if event else "session()"
        feature = Feature(text=text, event=ANY_EVENT, kind="session", window_ms=0, pane_ms=1, named=event or "")
        parts: dict[str, ast.expr | Scalar] = {"ID": call.feature(feature).id}
        step = quote("session_end_ms(get(ID), now_ms)", **parts)
        return Value(kind="number", code=quote(template, **parts), step=step)

    return build


def _sessions(call: Call) -> Value:
    window_ms, pane_ms = _window_ms(call, 0)
    call.reads(ANY_EVENT)
    text = f"sessions({format_duration(window_ms)!r})"
    feature = call.feature(Feature(text, ANY_EVENT, "sessions", window_ms, pane_ms))
    parts = _total_parts(feature)
    return Value(
        kind="number",
        code=quote("sessions(get(ID), PANE, SIZE)", **parts),
        step=quote("sessions_step_ms(get(ID), PANE, SIZE, PANE_MS)", **parts),
    )


# Name to (fewest arguments, most arguments, whether where= is allowed, builder).
OF_EVENTS: Final[dict[str, tuple[int, int, bool, Builder]]] = {
    "count": (2, 2, True, _count),
    "sum": (2, 2, True, _sum),
    "distinct": (2, 2, True, _distinct),
    "did": (1, 2, True, _did),
    "since": (0, 1, False, _since),
    "followed_by": (3, 4, False, _followed_by),
    "sessions": (1, 1, False, _sessions),
    "session_events": (0, 1, False, _session("session_events(get(ID), now_ms)")),
    "session_minutes": (0, 0, False, _session("session_minutes(get(ID), now_ms)")),
}
