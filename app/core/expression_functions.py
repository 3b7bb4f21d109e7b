"""The functions of the expression language.

Each builder checks its arguments and returns the value or condition that the call stands for, telling the parser
what it reads: features, and the events that can change it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Final, Literal, Protocol

from app.core.durations import UNITS_MS, format_duration, parse_duration_ms
from app.core.expression_compare import over_domain, whole_steps
from app.core.expression_context import ANY_EVENT, TRAITS_EVENT, ExpressionContext
from app.core.expression_errors import ExpressionError, Mismatch
from app.core.expression_ir import Atom, Scalar, Truth, Value, quote
from app.core.ids import BUCKETS, stable_id
from app.core.marks import DISTINCT_MAX
from app.core.panes import NEVER_MS
from app.core.plan import Feature, Where
from app.core.profile import HOURS_PER_WEEK
from app.core.rfm import SCORES, STAGES, days_to_ms
from app.core.schedule import WEEKDAYS, waits
from schemas import events as names

PANES: Final = (
    (UNITS_MS["h"], UNITS_MS["m"]),
    (48 * UNITS_MS["h"], UNITS_MS["h"]),
    (90 * UNITS_MS["d"], UNITS_MS["d"]),
)
_PANE_LOCALS: Final = {UNITS_MS["m"]: "minute", UNITS_MS["h"]: "hour", UNITS_MS["d"]: "day"}

# A failure takes a send back, and an open stands for the receipt that has not come yet.
_SENDS: Final = (names.NOTIFICATION_SENT, names.NOTIFICATION_FAILED, names.NOTIFICATION_OPENED)


class Call(Protocol):
    """A call in an expression, as the parser hands it to a builder. The readers raise `ExpressionError`."""

    context: ExpressionContext

    def text(self, at: int, what: str) -> str:
        """The positional argument `at`, which must be a text literal."""
        ...

    def optional_text(self, at: int, what: str) -> str | None:
        """As `text`, or None when the call has fewer arguments."""
        ...

    def event(self, at: int) -> str:
        """The positional argument `at`, an event's name."""
        ...

    def check_event(self, event: str, at: int) -> None:
        """Raise when the policy lists its events and this is none of them."""
        ...

    def flag(self, name: str) -> float:
        """The share of users who have a feature flag of the policy."""
        ...

    def segment(self, name: str) -> Truth:
        """Membership of another segment."""
        ...

    def number(self, at: int, what: str, default: float) -> float:
        """The positional argument `at`, a number literal."""
        ...

    def literal(self, at: int) -> Scalar | None:
        """The positional argument `at`, any scalar literal; None when the call has fewer arguments."""
        ...

    def value(self, at: int, what: str) -> Value:
        """The positional argument `at`, any value."""
        ...

    def where(self) -> tuple[Where | None, str]:
        """The keyword `where` compiled, and its canonical text."""
        ...

    def feature(self, feature: Feature) -> Feature:
        """Note that the expression reads this feature; returns it with its id."""
        ...

    def reads(self, *events: str) -> None:
        """Note that these events can change the expression."""
        ...

    def fail(self, message: str, at: int = -1) -> ExpressionError:
        """An error that stands at the argument `at`, or at the call."""
        ...


_OfEvents = Literal["count", "sum", "distinct"]
Builder = Callable[[Call], "Value | Truth"]


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
        quote("total(get(ID), PANE, SIZE) >= T", T=threshold, **parts),
        quote("crossing_ms(get(ID), T, PANE, SIZE, PANE_MS)", T=threshold, **parts),
        events=frozenset({feature.event}),
        postponed=True,
        # An event counts 1, but may add any amount.
        flipped=quote(
            f"total(get(ID), PANE, SIZE) {'==' if feature.kind == 'count' else '>='} T", T=threshold, **parts
        ),
    )


def _total(feature: Feature, scale: int) -> Value:
    parts = _total_parts(feature)
    code = quote("total(get(ID), PANE, SIZE)", **parts)
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
        postponed=True,
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
    return Value(kind="duration", code=code, slope=1, recency=True)


def _tenure(call: Call) -> Value:
    call.reads(ANY_EVENT)
    return Value(kind="duration", code=quote("now_ms - p.first_ms if p.first_ms else -INFINITE"), slope=1)


def _trait(call: Call) -> Value:
    name = call.text(0, "a trait's name")
    default = call.literal(1)
    call.reads(TRAITS_EVENT)
    return trait_value(name, call.context.traits.get(name) if default is None else default)


def trait_value(name: str, default: Scalar | None) -> Value:
    """A trait of the user; a missing one (or null) is its default."""
    if "." in name:
        code = quote("path(p.traits, NAMES)", NAMES=tuple(name.split(".")))
    else:
        code = quote("p.traits.get(NAME)", NAME=name)
    if default is not None:
        code = quote("CODE if CODE is not None else DEFAULT", CODE=code, DEFAULT=default)
    return Value(kind="any", code=code, nullable=default is None)


def property_value(names: tuple[str, ...]) -> Value:
    """A property of the event, by the names that lead to it."""
    code = quote("q.get(NAME)", NAME=names[0]) if len(names) == 1 else quote("path(q, NAMES)", NAMES=names)
    return Value(kind="any", code=code, nullable=True)


def _local(call: Call, kind: str) -> Value:
    call.reads(ANY_EVENT, TRAITS_EVENT)
    zone = call.context.default_timezone
    hourly = kind == "hour"
    domain: tuple[Scalar, ...] = tuple(range(24)) if hourly else WEEKDAYS
    by_hour = tuple(domain[hour % 24 if hourly else hour // 24] for hour in range(HOURS_PER_WEEK))

    def truth_of(accepted: frozenset[Scalar]) -> Truth:
        table = tuple(value in accepted for value in by_hour)
        return Atom(
            quote("TABLE[hour_of_week(p.timezone, ZONE, now_ms)]", TABLE=table, ZONE=zone),
            quote("schedule_change(p.timezone, ZONE, now_ms, WAITS)", WAITS=waits(table), ZONE=zone),
        )

    return Value(
        kind="number" if hourly else "text",
        code=quote("TABLE[hour_of_week(p.timezone, ZONE, now_ms)]", TABLE=by_hour, ZONE=zone),
        step=quote("schedule_change(p.timezone, ZONE, now_ms, WAITS)", WAITS=waits(by_hour), ZONE=zone),
        compare=over_domain(domain, truth_of, ordered=hourly),
    )


def _rfm_recency(call: Call) -> Value:
    call.reads(names.ORDER_COMPLETED)
    cuts = days_to_ms(call.context.rfm.recency_days)

    def truth_of(accepted: frozenset[Scalar]) -> Truth:
        return Atom(
            quote("recency_score(p.order_ms, now_ms, CUTS) in ACCEPTED", CUTS=cuts, ACCEPTED=accepted),
            quote("recency_change(p.order_ms, now_ms, CUTS, ACCEPTED)", CUTS=cuts, ACCEPTED=accepted),
        )

    return Value(
        kind="number",
        code=quote("recency_score(p.order_ms, now_ms, CUTS)", CUTS=cuts),
        step=quote("recency_step(p.order_ms, now_ms, CUTS)", CUTS=cuts),
        compare=over_domain(SCORES, truth_of, ordered=True),
    )


def _rfm_frequency(call: Call) -> Value:
    call.reads(names.ORDER_COMPLETED)
    return Value(kind="number", code=quote("upward_score(p.orders, CUTS)", CUTS=call.context.rfm.frequency))


def _rfm_monetary(call: Call) -> Value:
    call.reads(names.ORDER_COMPLETED)
    return Value(
        kind="number", code=quote("upward_score(p.revenue_milli / 1000, CUTS)", CUTS=call.context.rfm.monetary)
    )


def _stage(call: Call) -> Value:
    call.reads(ANY_EVENT)
    code = tuple(call.context.lifecycle)

    def truth_of(accepted: frozenset[Scalar]) -> Truth:
        return Atom(
            quote("stage(p, now_ms, CUTS) in ACCEPTED", CUTS=code, ACCEPTED=accepted),
            quote("stage_change(p, now_ms, CUTS, ACCEPTED)", CUTS=code, ACCEPTED=accepted),
        )

    return Value(
        kind="text",
        code=quote("stage(p, now_ms, CUTS)", CUTS=code),
        step=quote("stage_change(p, now_ms, CUTS, (stage(p, now_ms, CUTS),))", CUTS=code),
        compare=over_domain(STAGES, truth_of, ordered=False),
    )


def _counter(template: str, *events: str) -> Builder:
    def build(call: Call) -> Value:
        call.reads(*events)
        return Value(kind="number", code=quote(template))

    return build


def _propensity(model: str = "") -> Builder:
    def build(call: Call) -> Value:
        name = model or call.text(0, "a model's name")
        call.reads(ANY_EVENT)
        return Value(
            kind="number",
            code=quote("score_of(p, MODEL)", MODEL=name),
            nullable=True,
            step=quote("score_step(p, REF)", REF=stable_id(name)),
        )

    return build


def _in_segment(call: Call) -> Truth:
    return call.segment(call.text(0, "a segment's name"))


def _flag(call: Call) -> Truth:
    """A feature flag: the same users for as long as its name stays, and more when its share grows."""
    call.reads(ANY_EVENT)
    name = call.text(0, "a flag's name")
    threshold = round(call.flag(name) * BUCKETS)
    return Atom(quote("bucket(user, SALT) < N", SALT=f"flag\x1f{name}", N=threshold))


def _random_bucket(call: Call) -> Value:
    call.reads(ANY_EVENT)
    return Value(kind="number", code=quote("bucket(user, SALT) / 100", SALT=call.text(0, "a salt")))


def _number(call: Call) -> Value:
    value = call.value(0, "a trait or a property")
    default = call.number(1, "a number for a value that is none", 0)
    return Value(kind="number", code=quote("number(V, D)", V=value.code, D=default), step=value.step)


def _lower(call: Call) -> Value:
    value = call.value(0, "a text")
    return Value(kind="text", code=quote("lower(V)", V=value.code), nullable=True, step=value.step)


def _contains(call: Call) -> Truth:
    container, item = call.value(0, "a list or a text"), call.value(1, "what it may contain")
    return Atom(quote("contains(C, I)", C=container.code, I=item.code))


def _starts_with(call: Call) -> Truth:
    value = call.value(0, "a text")
    return Atom(quote("starts_with(V, P)", V=value.code, P=call.text(1, "a text")))


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
    found = quote("followed_ms(get(FIRST), get(SECOND), W)", **parts)
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
OF_PROFILE: Final[dict[str, tuple[int, int, bool, Builder]]] = {
    "count": (2, 2, True, _count),
    "sum": (2, 2, True, _sum),
    "distinct": (2, 2, True, _distinct),
    "did": (1, 2, True, _did),
    "followed_by": (3, 4, False, _followed_by),
    "sessions": (1, 1, False, _sessions),
    "session_events": (0, 1, False, _session("session_events(get(ID), now_ms)")),
    "session_minutes": (0, 0, False, _session("session_minutes(get(ID), now_ms)")),
    "since": (0, 1, False, _since),
    "tenure": (0, 0, False, _tenure),
    "trait": (1, 2, False, _trait),
    "hour": (0, 0, False, lambda call: _local(call, "hour")),
    "weekday": (0, 0, False, lambda call: _local(call, "weekday")),
    "rfm_recency": (0, 0, False, _rfm_recency),
    "rfm_frequency": (0, 0, False, _rfm_frequency),
    "rfm_monetary": (0, 0, False, _rfm_monetary),
    "stage": (0, 0, False, _stage),
    "orders": (0, 0, False, _counter("p.orders", names.ORDER_COMPLETED)),
    "revenue": (0, 0, False, _counter("p.revenue_milli / 1000", names.ORDER_COMPLETED)),
    "sent": (0, 0, False, _counter("p.sent", *_SENDS)),
    "opened": (0, 0, False, _counter("p.opened", names.NOTIFICATION_OPENED)),
    "clicked": (0, 0, False, _counter("p.clicked", names.NOTIFICATION_CLICKED)),
    "dismissed": (0, 0, False, _counter("p.dismissed", names.NOTIFICATION_DISMISSED)),
    "open_rate": (
        0,
        0,
        False,
        _counter("p.opened / p.sent if p.sent else 0.0", *_SENDS),
    ),
    "propensity": (1, 1, False, _propensity()),
    "purchase_propensity": (0, 0, False, _propensity("purchase")),
    "churn_risk": (0, 0, False, _propensity("churn")),
    "in_segment": (1, 1, False, _in_segment),
    "random_bucket": (1, 1, False, _random_bucket),
    "flag": (1, 1, False, _flag),
}
OF_PROPERTIES: Final[dict[str, tuple[int, int, bool, Builder]]] = {
    "property": (1, 1, False, lambda call: property_value(tuple(call.text(0, "a property's name").split(".")))),
}
OF_VALUES: Final[dict[str, tuple[int, int, bool, Builder]]] = {
    "number": (1, 2, False, _number),
    "lower": (1, 1, False, _lower),
    "contains": (2, 2, False, _contains),
    "starts_with": (2, 2, False, _starts_with),
}
