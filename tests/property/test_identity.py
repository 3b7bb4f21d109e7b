"""Traits and consent by event time: whatever order identifies arrive in, the newest word on a thing stands."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from app.policy.load import load_policy_text
from tests.support.streams import START, Stream, identify, track

PLAN = load_policy_text("version: 1\nname: who\nsegments:\n  - {name: pro, when: trait('plan') == 'pro'}\n")
PLANS = ["free", "pro", "team"]

words = st.lists(
    st.fixed_dictionaries({"plan": st.sampled_from(PLANS), "age": st.integers(1, 99), "push_consent": st.booleans()}),
    min_size=1,
    max_size=6,
)


@settings(max_examples=100, deadline=None)
@given(words, st.data())
def test_the_newest_identify_stands_in_whatever_order_they_come_and_however_often(
    said: list[dict[str, Any]], data: st.DataObject
) -> None:
    messages = [identify(START - 1000 * (len(said) - at), **traits) for at, traits in enumerate(said)]
    order = data.draw(st.permutations(range(len(said))))
    again = data.draw(st.lists(st.sampled_from(order), max_size=3))
    stream = Stream(PLAN)
    for at in [*order, *again]:
        stream.send(messages[at])
    newest = said[-1]
    assert {name: stream.row.traits[name] for name in ("plan", "age")} == {
        name: newest[name] for name in ("plan", "age")
    }
    assert stream.row.consent == int(newest["push_consent"])
    assert bool(stream.row.segments) is (newest["plan"] == "pro")


@settings(max_examples=50, deadline=None)
@given(st.permutations(["a", "b", "c", "d"]))
def test_what_only_one_identify_says_is_kept_in_whatever_order_they_come(order: list[str]) -> None:
    stream = Stream(PLAN)
    for name in order:
        stream.send(identify(START - 1000 * ord(name), **{name: 1}))
    stream.send(track("Ping", START))
    assert stream.row.traits == dict.fromkeys("abcd", 1)
