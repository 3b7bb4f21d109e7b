"""Windows equal a brute-force count of raw events, whatever is late, shuffled or expired."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core import panes
from app.core.plan import Feature
from app.core.profile import Profile
from schemas.events import ORDER_COMPLETED, PRODUCT_VIEWED
from tests.support.plans import DAY, HOUR, MINUTE, at_least, count_feature, make_plan
from tests.support.streams import START, USER, Stream, track

VIEWS = count_feature(PRODUCT_VIEWED, 10 * MINUTE, MINUTE)
HOURS = count_feature(PRODUCT_VIEWED, 2 * HOUR, HOUR, where=lambda properties: properties["category"] == "a")
SPENT = Feature("spent", ORDER_COMPLETED, "sum", 3 * DAY, DAY, property_path="revenue")
FEATURES = (VIEWS, HOURS, SPENT)

# (clock advance, age of the event when it arrives, name, category, amount)
arrivals = st.lists(
    st.tuples(
        st.integers(0, 40 * MINUTE),
        st.one_of(st.just(0), st.integers(0, 15 * MINUTE), st.integers(0, 4 * DAY)),
        st.sampled_from([PRODUCT_VIEWED, ORDER_COMPLETED]),
        st.sampled_from("ab"),
        st.integers(0, 50),
    ),
    max_size=25,
)


def brute_force(feature: Feature, events: list[tuple[int, str, str, int]], now_ms: int) -> int:
    """Sum over the raw events whose pane is among the newest of the window."""
    oldest = now_ms // feature.pane_ms - feature.size
    return sum(
        1 if feature.kind == "count" else 1000 * amount
        for at_ms, name, category, amount in events
        if name == feature.event
        and at_ms // feature.pane_ms > oldest
        and (feature.where is None or feature.where({"category": category}))
    )


def window(profile: Profile, feature: Feature, now_ms: int) -> int:
    return panes.total(profile.features.get(feature.id), current=now_ms // feature.pane_ms, size=feature.size)


@settings(max_examples=150)
@given(arrivals, st.lists(st.integers(0, 5 * DAY), max_size=4))
def test_windows_equal_brute_force_at_every_arrival_and_as_they_expire(
    stream_of: list[tuple[int, int, str, str, int]], later: list[int]
) -> None:
    stream = Stream(make_plan(features=FEATURES))
    events = []
    for advance, age, name, category, amount in stream_of:
        stream.now_ms += advance
        at_ms = stream.now_ms - age
        events.append((at_ms, name, category, amount))
        stream.send(track(name, at_ms, category=category, revenue=amount))
        for feature in FEATURES:
            assert window(stream.row, feature, stream.now_ms) == brute_force(feature, events, stream.now_ms)
    for advance in later:
        stream.now_ms += advance
        row = stream.rows.get(USER.encode(), Profile())
        for feature in FEATURES:
            assert window(row, feature, stream.now_ms) == brute_force(feature, events, stream.now_ms)


@settings(max_examples=100)
@given(st.data())
def test_order_within_the_grace_does_not_matter(data: st.DataObject) -> None:
    ages = data.draw(st.lists(st.integers(0, DAY), min_size=1, max_size=20))
    events = [
        track(PRODUCT_VIEWED if age % 3 else ORDER_COMPLETED, START - age, category="ab"[age % 2], revenue=age % 50)
        for age in ages
    ]
    keen = at_least(VIEWS, 2)
    one = Stream(make_plan([keen], FEATURES))
    other = Stream(make_plan([keen], FEATURES))
    one.send(*events)
    other.send(*data.draw(st.permutations(events)))
    for feature in FEATURES:
        assert window(one.row, feature, START) == window(other.row, feature, START)
    for name in ("events", "first_ms", "seen_ms", "last", "orders", "order_ms", "revenue_milli", "segments"):
        assert getattr(one.row, name) == getattr(other.row, name)


@settings(max_examples=150)
@given(arrivals)
def test_membership_is_right_at_every_instant_when_timers_are_fired_on_time(
    stream_of: list[tuple[int, int, str, str, int]],
) -> None:
    """An oracle that recounts at each minute agrees with a processor that only looks when something is due."""
    keen = at_least(VIEWS, 2, "keen")
    stream = Stream(make_plan([keen], [VIEWS]))
    events: list[tuple[int, str, str, int]] = []
    due = panes.NEVER_MS
    for advance, age, name, category, amount in [*stream_of, (40 * MINUTE, 0, "Other", "a", 0)]:
        until = stream.now_ms + advance
        while due <= until:
            stream.now_ms = due
            effects = stream.fire()
            due = min((at_ms for at_ms, _ in effects.due), default=panes.NEVER_MS)
            inside = keen.id in stream.row.segments
            assert inside == (brute_force(VIEWS, events, stream.now_ms) >= 2)
        stream.now_ms = until
        if events:
            assert (keen.id in stream.row.segments) == (brute_force(VIEWS, events, until) >= 2)
        events.append((until - age, name, category, amount))
        effects = stream.send(track(name, until - age, category=category, revenue=amount))
        due = min([due, *(at_ms for at_ms, _ in effects.due)])
