"""A segment with hysteresis against its definition, at every instant that the engine would look and in between."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.expressions import compile_expression
from app.core.hysteresis import with_hysteresis
from app.core.profile import Profile

MINUTE, HOUR = 60_000, 3_600_000
START = 1_700_000_000_000
SEGMENT = 7
WHEN, UNTIL = "count('A', '6h') >= 3", "count('A', '6h') < 1"


@settings(max_examples=150)
@given(
    st.lists(st.integers(0, 12 * 60), max_size=25).map(sorted),
    st.sampled_from([None, UNTIL]),
    st.sampled_from([0, 90 * MINUTE, 8 * HOUR]),
)
def test_membership_is_the_definition_step_by_step(minutes: list[int], until: str | None, stay_ms: int) -> None:
    when = compile_expression(WHEN)
    segment = with_hysteresis(SEGMENT, when, compile_expression(until) if until else None, stay_ms)
    (feature,) = segment.features
    row = Profile()
    inside_since: int | None = None
    due_ms = START
    for minute in range(26 * 60):
        now_ms = START + minute * MINUTE
        events = minutes.count(minute)
        if events:
            before = row.features.get(feature.id) or [0]
            row.features[feature.id] = [before[0] + events, *before[1:], now_ms // HOUR, events]
        panes = row.features.get(feature.id) or [0]
        total = sum(panes[at + 1] for at in range(1, len(panes), 2) if panes[at] > now_ms // HOUR - 6)
        # The definition, asked each minute.
        if inside_since is None:
            inside_since = now_ms if total >= 3 and not (until and total < 1) else None
        elif now_ms >= inside_since + stay_ms and (total < 1 if until else total < 3):
            inside_since = None
        # The engine, asked at events and when it said that it should be.
        if events or now_ms >= due_ms:
            inside = segment.evaluate(row, now_ms, "u")
            due_ms = segment.next_change(row, now_ms, "u")  # before the row knows of the change
            assert due_ms > now_ms
            if inside and SEGMENT not in row.segments:
                row.segments[SEGMENT] = now_ms
            elif not inside and SEGMENT in row.segments:
                del row.segments[SEGMENT]
        assert (SEGMENT in row.segments) is (inside_since is not None)
