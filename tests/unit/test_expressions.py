"""The expression language: what conditions mean, what they read, and what is refused."""

from __future__ import annotations

import time

import pytest

from app.core import panes
from app.core.expression_codegen import never_changes
from app.core.expression_context import Expression, ExpressionContext
from app.core.expression_errors import ExpressionErrors
from app.core.expression_known import PropertyIs
from app.core.expressions import compile_expression, compile_where, referenced_segments
from app.core.ids import bucket
from app.core.panes import NEVER_MS
from app.core.plan import event_id
from app.core.profile import Profile
from app.core.window_map import WindowMap

NOW = 1_700_000_123_456
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
CONTEXT = ExpressionContext(default_timezone="UTC", traits={"age": None, "household_size": "1"})


def holds(text: str, profile: Profile | None = None, now_ms: int = NOW, user: str = "u") -> bool:
    return compile_expression(text, CONTEXT).evaluate(profile or Profile(), now_ms, user)


def change(text: str, profile: Profile, now_ms: int = NOW) -> int:
    return compile_expression(text, CONTEXT).next_change(profile, now_ms, "u")


def with_total(text: str, *at_and_value: tuple[int, int]) -> tuple[Expression, Profile]:
    """An expression with one feature, and a profile in which that feature has these values at these times."""
    expression = compile_expression(text, CONTEXT)
    (feature,) = expression.features
    state: panes.Panes = []
    for at_ms, value in at_and_value:
        panes.add(state, at_ms // feature.pane_ms, value, current=NOW // feature.pane_ms, size=feature.size)
    return expression, Profile(features={feature.id: state})


def errors(text: str, context: ExpressionContext = CONTEXT) -> list[tuple[int, str, str]]:
    with pytest.raises(ExpressionErrors) as caught:
        compile_expression(text, context)
    return [(error.offset, error.message, error.suggestion) for error in caught.value.errors]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("orders() == 3", True),
        ("orders() > 3 or revenue() >= 99.5", True),
        ("not orders() < 3", True),
        ("2 < orders() <= 3", True),
        ("orders() in [1, 2]", False),
        ("revenue() / orders() > 33", True),
        ("revenue() / sent() > 0", False),
        ("-orders() < 0", True),
        ("orders() * 2 - 1 == 5", True),
        ('trait("age") == "45-54"', True),
        ('age in ["35-44", "45-54"]', True),
        ('age not in ["35-44"]', True),
        ('trait("income") != "50-74K"', False),
        ('not trait("income") == "50-74K"', True),
        ('trait("income", "none") == "none"', True),
        ('household_size == "1"', True),
        ('trait("vip")', True),
        ('trait("age")', False),
        ('trait("vip") == true', True),
        ('trait("vip") == 1', False),
        ('trait("age") > 3', False),
        ('number(trait("kids"), 0) >= 2', True),
        ('trait("address.city") == "Bonn"', True),
        ('contains(trait("likes"), "tea")', True),
        ('"tea" in trait("likes")', True),
        ('"milk" not in trait("likes")', True),
        ('starts_with(lower(trait("name")), "an")', True),
        ('device == "ios"', True),
        ('timezone != "Europe/Berlin"', False),
        ("opened() / sent() > 0", False),
        ("open_rate() == 0", True),
    ],
)
def test_a_condition_over_counters_and_traits_means_what_it_says(text: str, expected: bool) -> None:
    traits = {
        "age": "45-54", "vip": True, "kids": "2", "address": {"city": "Bonn"}, "likes": ["tea", 3], "name": "Ann"
    }  # fmt: skip
    assert holds(text, Profile(orders=3, revenue_milli=99_500, traits=traits, device="ios")) is expected


def test_a_count_holds_until_the_pane_that_made_it_leaves_the_window() -> None:
    #   now in pane 0: [-6 ........ -2 .. 0], a window of 7 days; the third newest event decides.
    expression, profile = with_total('count("Viewed", "7d") >= 3', (NOW - 6 * DAY, 1), (NOW - 2 * DAY, 2), (NOW, 1))
    today = NOW // DAY
    assert expression.evaluate(profile, NOW, "u")
    end_ms = (today - 2 + 7) * DAY
    assert expression.next_change(profile, NOW, "u") == end_ms
    assert expression.evaluate(profile, end_ms - 1, "u")
    assert not expression.evaluate(profile, end_ms, "u")


def test_a_count_that_is_too_low_cannot_change_by_the_clock() -> None:
    expression, profile = with_total('count("Viewed", "1h") >= 3', (NOW, 2))
    assert expression.next_change(profile, NOW, "u") == NEVER_MS


@pytest.mark.parametrize(
    ("operator", "threshold", "due_minutes"),
    [("<", 3, 60), ("<=", 2, 60), (">", 2, 60), ("==", 3, 60), ("!=", 3, 60), ("<", 2, 61), ("==", 2, 60)],
)
def test_each_operator_on_a_count_knows_its_own_instant(operator: str, threshold: int, due_minutes: int) -> None:
    first = NOW // MINUTE * MINUTE
    expression, profile = with_total(f'count("Viewed", "1h") {operator} {threshold}', (first, 1), (first + MINUTE, 2))
    profile.features = WindowMap.of({key: [3, first // MINUTE, 1, first // MINUTE + 1, 2] for key in profile.features})
    assert expression.next_change(profile, first + MINUTE, "u") == first + due_minutes * MINUTE


def test_a_sum_is_compared_in_units_and_kept_in_thousandths() -> None:
    expression, profile = with_total('sum("Order Completed.revenue", "30d") > 50', (NOW, 50_000))
    assert not expression.evaluate(profile, NOW, "u")
    expression, profile = with_total('sum("Order Completed.revenue", "30d") > 50', (NOW, 50_001))
    assert expression.evaluate(profile, NOW, "u")
    (feature,) = expression.features
    assert (feature.kind, feature.event, feature.property_path) == ("sum", "Order Completed", "revenue")


@pytest.mark.parametrize(
    ("window", "pane_ms", "size"),
    [("5m", MINUTE, 5), ("1h", MINUTE, 60), ("2h", HOUR, 2), ("48h", HOUR, 48), ("3d", DAY, 3), ("90d", DAY, 90)],
)
def test_a_window_takes_the_finest_panes_that_its_length_allows(window: str, pane_ms: int, size: int) -> None:
    (feature,) = compile_expression(f'count("A", "{window}") > 1').features
    assert (feature.pane_ms, feature.size) == (pane_ms, size)


def test_equal_windows_are_one_feature_however_they_are_written() -> None:
    expression = compile_expression("count('A', '1d', where=x==1) > 1 or count(\"A\", '24h', where=(x == 1)) < 9")
    assert len(expression.features) == 1


def test_recency_is_exact_to_the_millisecond() -> None:
    profile = Profile(last={event_id("Opened"): NOW - 48 * HOUR})
    assert not holds('since("Opened") > "48h"', profile)
    assert change('since("Opened") > "48h"', profile) == NOW + 1
    assert holds('since("Opened") > "48h"', profile, NOW + 1)
    assert holds('since("Opened") > "48h"', Profile())
    assert change('since("Opened") > "48h"', Profile()) == NEVER_MS
    assert change('since("Opened") >= "2d" and orders() > 0', profile) == NEVER_MS


def test_did_within_a_window_ends_by_the_clock_and_did_ever_does_not() -> None:
    profile = Profile(last={event_id("Bought"): NOW - DAY})
    assert holds('did("Bought", "7d")', profile)
    assert change('did("Bought", "7d")', profile) == NOW + 6 * DAY
    assert not holds('did("Bought", "7d")', profile, NOW + 6 * DAY)
    assert compile_expression('did("Bought")').next_change is never_changes


def test_durations_add_up_and_equal_speeds_cancel() -> None:
    profile = Profile(last={event_id("A"): NOW - 5 * HOUR, event_id("B"): NOW - HOUR}, first_ms=NOW - DAY)
    assert holds('since("A") - since("B") >= "4h"', profile)
    assert change('since("A") - since("B") >= "4h"', profile) == NEVER_MS
    assert change('tenure() > "2d"', profile) == NOW + DAY + 1


def test_local_hours_follow_the_users_zone_and_the_change_of_the_clocks() -> None:
    spring_night = 1_710_054_000_000  # 2024-03-10 07:00 UTC: 02:00 in New York becomes 03:00
    profile = Profile(timezone="America/New_York")
    assert holds("hour() == 1", profile, spring_night - 1)
    assert holds("hour() == 3", profile, spring_night)
    assert change("hour() == 3", profile, spring_night - HOUR) == spring_night
    assert change("hour() >= 9", profile, spring_night) == spring_night + 6 * HOUR
    assert holds('weekday() == "sun" and hour() in [3, 4]', profile, spring_night)
    assert holds("hour() == 7", Profile(timezone="Not/AZone"), spring_night)


def test_rfm_scores_and_stages_step_at_their_cut_points() -> None:
    profile = Profile(orders=8, order_ms=NOW - 10 * DAY, revenue_milli=151_000, seen_ms=NOW, first_ms=NOW - DAY)
    assert holds("rfm_recency() == 4 and rfm_frequency() == 4 and rfm_monetary() == 3", profile)
    assert change("rfm_recency() >= 4", profile) == NOW + 20 * DAY
    assert change("rfm_recency() >= 2", profile) == NOW + 170 * DAY
    assert holds("rfm_recency() == 1", Profile())
    assert holds('stage() == "new"', profile)
    assert change('stage() in ["new", "active"]', profile) == NOW + 14 * DAY
    assert change('stage() == "lost"', profile) == NOW + 90 * DAY


def test_a_random_bucket_is_a_stable_percentage() -> None:
    expression = compile_expression('random_bucket("salt") < 10')
    inside = [user for user in map(str, range(5_000)) if expression.evaluate(Profile(), NOW, user)]
    assert inside == [user for user in map(str, range(5_000)) if bucket(user, "salt") < 1_000]
    assert 400 < len(inside) < 600


def test_another_segments_membership_brings_its_features_events_and_changes() -> None:
    inner, profile = with_total('count("Viewed", "1h") >= 1', (NOW, 1))
    context = ExpressionContext(segments={"lookers": inner}, segment_names=frozenset({"lookers"}))
    outer = compile_expression('in_segment("lookers") and orders() == 0', context)
    assert outer.evaluate(profile, NOW, "u")
    assert outer.next_change(profile, NOW, "u") == inner.next_change(profile, NOW, "u")
    assert outer.features == inner.features
    assert outer.events == {"Viewed", "Order Completed"}
    assert errors('in_segment("loker")', context)[0][2] == "lookers"
    assert referenced_segments('in_segment("a") and not in_segment("b")') == {"a", "b"}


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ('count("A", "1h") > 1 and trait("x") == 1', {"A", "$traits"}),
        ('since("A") > "1h"', {"A"}),
        ("hour() > 3", {"*", "$traits"}),
        ('device == "ios"', {"*", "$traits"}),
        ('random_bucket("s") < 5', {"*"}),
        ("opened() > 1", {"Notification Opened"}),
        ("rfm_monetary() > 1", {"Order Completed"}),
    ],
)
def test_an_expression_names_the_events_that_can_change_it(text: str, events: set[str]) -> None:
    assert compile_expression(text, CONTEXT).events == events


def test_what_blocks_for_good_leaves_no_timer() -> None:
    """A user whose trait rules a segment out has nothing to wait for, whatever the windows do."""
    expression, profile = with_total('trait("plan") == "paid" and count("A", "1h") >= 1', (NOW, 1))
    assert expression.next_change(profile, NOW, "u") == NEVER_MS
    profile.traits = {"plan": "paid"}
    assert expression.next_change(profile, NOW, "u") < NEVER_MS


PROPERTIES = {
    "category": "shoes", "price": 20, "sale": True, "name": None, "seller": {"id": "s1"},
    "products": [{"department": "MEAT"}, {"department": "DELI"}, 7], "count": "3", "a b": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('category == "shoes" and price < 50', True),
        ("price * 2 == 40", True),
        ("price / missing > 0", False),
        ("missing == 1 or missing != 1 or missing < 1 or missing >= 1", False),
        ("category > 3", False),
        ("sale", True),
        ("sale == 1", False),
        ("price", False),
        ('seller.id == "s1"', True),
        ("seller.id.deeper == 1", False),
        ('"DELI" in products.department', True),
        ('"FISH" not in products.department', True),
        ("number(count) == 3", True),
        ("count == 3", False),
        ('property("a b") == 1', True),
        ('name == "x"', False),
        ("10 <= price <= 20", True),
        ('category in ["shoes", "hats"]', True),
        ("price in [20.0]", True),
        ("sale in [1]", False),
    ],
)
def test_where_reads_properties_and_never_raises(text: str, expected: bool) -> None:
    assert compile_where(text)(PROPERTIES) is expected


@pytest.mark.parametrize(
    "value", [None, True, 3, -1.5, "x", [], [[1]], {}, {"a": 1}, 10**400, float("inf"), float("nan")]
)
def test_no_value_of_a_property_makes_where_raise(value: object) -> None:
    text = (
        "(a < 3 or a >= 'x' or a + 1 > a * a or a / a > 0 or -a < 0 or a.b.c == 1 or a in [1, 'x'] or 'x' in a"
        " or lower(a) == 'x' or starts_with(a, 'x') or number(a) > 1 or contains(a, a) or a == a) or a != 3"
    )
    assert compile_where(text)({"a": value}) in (True, False)
    assert compile_where(text)({"a": {"b": value}}) in (True, False)


@pytest.mark.parametrize("value", ["x", "y", "", None, True, 3, ["x"], {"x": 1}])
def test_whether_a_property_is_a_text_is_known_to_the_core(value: object) -> None:
    known = compile_where("a == 'x'")
    assert isinstance(known, PropertyIs)
    assert known.holds({"a": value}) is known({"a": value}) is (value == "x")
    assert known.holds({}) is known({}) is False
    others = ("a == 3", "a == 'x' or b == 'x'", "a.b == 'x'", "not a == 'x'", "lower(a) == 'x'")
    assert not any(isinstance(compile_where(text), PropertyIs) for text in others)


@pytest.mark.parametrize(
    ("text", "offset", "message", "suggestion"),
    [
        ('cuont("A", "7d") > 1', 0, "unknown function 'cuont'", "count"),
        ("orders() > 1 and devise == 'ios'", 17, "unknown name 'devise'", "device"),
        ("orders() > '3'", 11, "a number is compared with a text", ""),
        ("since('A') > 3", 13, "a duration is compared with a number", ""),
        ("since('A') == '1h'", 14, "exact to the millisecond", ""),
        ("since('A') > '3 fortnights'", 13, "is not a duration", ""),
        ("count('A', '90m') > 1", 11, "not a whole number of 1h panes; use 1h or 2h", ""),
        ("count('A', '91d') > 1", 11, "at most 90d", ""),
        ("count('A') > 1", 0, "takes 2 arguments", ""),
        ("count('A', '1h', were=x == 1) > 1", 17, "takes where= only", "where"),
        ("sum('A', '1h') > 1", 4, "needs an event and a property", ""),
        ("count('A', '1h', where=orders() > 1) > 1", 23, "reads the profile", ""),
        ("orders()", 0, "not a condition", ""),
        ("orders > 1", 0, "is a function", ""),
        ("did('A') > 1", 0, "a condition already", ""),
        ("(orders() > 1) + 1 > 2", 1, "a condition, not a value", ""),
        ("stage() == 'dorment'", 11, "is not one of new, active", ""),
        ("hour() > 30", 9, "never true", ""),
        ("rfm_recency() >= 1", 17, "always true", ""),
        ("orders() is 3", 12, "write ==", ""),
        ("orders() ** 2 > 1", 0, "operators are", ""),
        ("orders() > 1 # many", 13, "comment", ""),
        ("orders() > ", 10, "not an expression", ""),
        ("", 0, "empty", ""),
        ("orders() > 1e999", 11, "literal", ""),
        ("ärger() > 1 and örders() > 1", 16, "unknown function 'örders'", "orders"),
    ],
)
def test_a_mistake_is_found_at_its_place(text: str, offset: int, message: str, suggestion: str) -> None:
    found = errors(text)
    assert any(message in error[1] and error[0] == offset and error[2] == suggestion for error in found), found


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "().__class__ == 1",
        "(lambda: 1)() == 1",
        "[x for x in [1]] == 1",
        "f'{1}' == 'x'",
        "(y := 3) > 1",
        "orders(*[1]) > 1",
        "b'x' == 1",
        "1 if true else 2",
        "trait('x')[0] == 1",
        "count(event='A') > 1",
        "1==1 or " * 200 + "true",
        "not " * 60 + "true",
        "(" * 300 + "1" + ")" * 300,
        "x" * 3_000,
        "\0",
        "p.offset == 1",
        "open('/etc/passwd') == 1",
    ],
)
def test_what_is_not_of_the_language_is_refused(text: str) -> None:
    assert errors(text)


def test_all_mistakes_of_an_expression_are_reported() -> None:
    assert [error[0] for error in errors("aa() > 1 and (bb() > 1 or orders() == 1 or cc == 2)")] == [0, 14, 43]


def test_an_unknown_event_is_a_mistake_when_the_policy_lists_its_events() -> None:
    context = ExpressionContext(event_names=frozenset({"Order Completed"}))
    assert errors('did("Order Complete")', context) == [
        (4, "unknown event 'Order Complete' (the policy lists its events)", "Order Completed")
    ]


def test_a_typical_segment_is_evaluated_in_a_few_microseconds() -> None:
    expression, profile = with_total(
        'count("V", "7d", where=category == "shoes") > 3 and not did("O", "7d") and age in ["25-34", "35-44"]',
        (NOW, 5),
    )
    profile.traits = {"age": "25-34"}
    best_ns = min(_nanoseconds(expression, profile) for _ in range(20))
    assert best_ns < 15_000  # measured 0.6 µs; ten times that and more is a defect, less is a busy machine


def _nanoseconds(expression: Expression, profile: Profile) -> float:
    started = time.perf_counter_ns()
    for _ in range(500):
        expression.evaluate(profile, NOW, "u")
    return (time.perf_counter_ns() - started) / 500
