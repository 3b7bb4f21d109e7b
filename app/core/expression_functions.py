"""The functions of the expression language.

Each builder checks its arguments and returns the value or condition that the call stands for, telling the parser
what it reads: features, and the events that can change it.
"""

from __future__ import annotations

from typing import Final, cast

from app.core.expression_builder import Builder, Call
from app.core.expression_compare import known_number, over_domain, within
from app.core.expression_context import ANY_EVENT, TRAITS_EVENT
from app.core.expression_ir import Atom, CompareWith, Scalar, Truth, Value, quote
from app.core.expression_known import Number, OpenRate, OrderRecency, Orders, Revenue, UpwardScore
from app.core.expression_percentiles import OF_PERCENTILES
from app.core.expression_windows import OF_EVENTS
from app.core.ids import BUCKETS, stable_id
from app.core.profile import HOURS_PER_WEEK
from app.core.rfm import SCORES, STAGES, days_to_ms
from app.core.schedule import WEEKDAYS, waits
from app.core.scores import OPEN
from app.core.timers import PERSONAS
from schemas import events as names

# A failure takes a send back, and an open stands for the receipt that has not come yet.
_SENDS: Final = (names.NOTIFICATION_SENT, names.NOTIFICATION_FAILED, names.NOTIFICATION_OPENED)


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
            known=OrderRecency(cuts, cast("frozenset[int]", accepted)),
        )

    return Value(
        kind="number",
        code=quote("recency_score(p.order_ms, now_ms, CUTS)", CUTS=cuts),
        step=quote("recency_step(p.order_ms, now_ms, CUTS)", CUTS=cuts),
        compare=over_domain(SCORES, truth_of, ordered=True),
    )


def _rfm_frequency(call: Call) -> Value:
    call.reads(names.ORDER_COMPLETED)
    cuts = call.context.rfm.frequency
    code = quote("upward_score(p.orders, CUTS)", CUTS=cuts)
    return Value(kind="number", code=code, compare=known_number(code, UpwardScore(Orders(), cuts)))


def _rfm_monetary(call: Call) -> Value:
    call.reads(names.ORDER_COMPLETED)
    cuts = call.context.rfm.monetary
    code = quote("upward_score(p.revenue_milli / 1000, CUTS)", CUTS=cuts)
    return Value(kind="number", code=code, compare=known_number(code, UpwardScore(Revenue(), cuts)))


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


def _counter(template: str, *events: str, number: Number | None = None, compare: CompareWith | None = None) -> Builder:
    def build(call: Call) -> Value:
        call.reads(*events)
        code = quote(template)
        if number is None:
            return Value(kind="number", code=code, compare=compare)
        return Value(kind="number", code=code, compare=known_number(code, number, compare))

    return build


def _propensity(model: str = "") -> Builder:
    def build(call: Call) -> Value:
        name = model or call.text(0, "a model's name")
        call.check_model(name)
        call.reads(ANY_EVENT)
        return Value(
            kind="number",
            code=quote("score_of(p, MODEL)", MODEL=name),
            nullable=True,
            step=quote("score_step(p, REF)", REF=stable_id(name)),
            compare=within(0.0, 1.0),
        )

    return build


def _open_probability(call: Call) -> Value:
    score = call.open_score(call.optional_text(0, "a campaign or a category") or "")
    call.reads(ANY_EVENT)
    return Value(
        kind="number",
        code=quote("score_of(p, SCORE)", SCORE=score),
        nullable=True,
        step=quote("score_step(p, REF)", REF=stable_id(OPEN)),
        compare=within(0.0, 1.0),
    )


def _persona(call: Call) -> Value:
    if not call.context.personas:
        raise call.fail("persona() needs the policy to have `personas`")
    call.reads(ANY_EVENT)
    return Value(
        kind="text", code=quote("persona_of(p)"), nullable=True, step=quote("score_step(p, REF)", REF=PERSONAS)
    )


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
    salt = call.text(0, "a salt")
    return Value(kind="number", code=quote("bucket(user, SALT) / 100", SALT=salt), compare=within(0.0, 100.0))


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


# Name to (fewest arguments, most arguments, whether where= is allowed, builder).
OF_PROFILE: Final[dict[str, tuple[int, int, bool, Builder]]] = {
    **OF_EVENTS,
    **OF_PERCENTILES,
    "tenure": (0, 0, False, _tenure),
    "trait": (1, 2, False, _trait),
    "hour": (0, 0, False, lambda call: _local(call, "hour")),
    "weekday": (0, 0, False, lambda call: _local(call, "weekday")),
    "rfm_recency": (0, 0, False, _rfm_recency),
    "rfm_frequency": (0, 0, False, _rfm_frequency),
    "rfm_monetary": (0, 0, False, _rfm_monetary),
    "stage": (0, 0, False, _stage),
    "orders": (0, 0, False, _counter("p.orders", names.ORDER_COMPLETED, number=Orders())),
    "revenue": (0, 0, False, _counter("p.revenue_milli / 1000", names.ORDER_COMPLETED, number=Revenue())),
    "sent": (0, 0, False, _counter("p.sent", *_SENDS)),
    "opened": (0, 0, False, _counter("p.opened", names.NOTIFICATION_OPENED)),
    "clicked": (0, 0, False, _counter("p.clicked", names.NOTIFICATION_CLICKED)),
    "dismissed": (0, 0, False, _counter("p.dismissed", names.NOTIFICATION_DISMISSED)),
    "open_rate": (
        0,
        0,
        False,
        _counter("p.opened / p.sent if p.sent else 0.0", *_SENDS, number=OpenRate(), compare=within(0.0, 1.0)),
    ),
    "propensity": (1, 1, False, _propensity()),
    "purchase_propensity": (0, 0, False, _propensity("purchase")),
    "churn_risk": (0, 0, False, _propensity("churn")),
    "open_probability": (0, 1, False, _open_probability),
    "persona": (0, 0, False, _persona),
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
