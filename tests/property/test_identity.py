"""Traits and consent by event time: whatever order identifies arrive in, the newest word on a thing stands."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.profile import Profile
from app.core.traits import fold_traits, merge_traits
from app.policy.load import load_policy_text
from tests.support.streams import START, Stream, identify

PLAN = load_policy_text("version: 1\nname: who\nsegments:\n  - {name: pro, when: trait('plan') == 'pro'}\n")
PLANS = ["free", "pro", "team"]

words = st.lists(
    st.fixed_dictionaries({"plan": st.sampled_from(PLANS), "age": st.integers(1, 99), "push_consent": st.booleans()}),
    min_size=1,
    max_size=6,
)


@settings(max_examples=100)
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


partial = st.dictionaries(st.sampled_from("abcde"), st.one_of(st.none(), st.integers(0, 9)), max_size=4)
dated = st.lists(st.tuples(st.integers(0, 4), partial), min_size=1, max_size=8)


def in_order_of_time(said: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    """The traits that identifies leave which come in the order of their times, those of one instant as they came."""
    traits: dict[str, Any] = {}
    for _at, told in sorted(said, key=lambda one: one[0]):
        traits |= told
    return {name: value for name, value in traits.items() if value is not None}


@settings(max_examples=200)
@given(dated)
def test_each_trait_is_what_the_newest_identify_that_spoke_of_it_said(said: list[tuple[int, dict[str, Any]]]) -> None:
    stream = Stream(PLAN)
    for at, told in said:
        stream.send(identify(START - 1000 * (9 - at), **told))
    assert stream.row.traits == in_order_of_time(said)


@settings(max_examples=100)
@given(dated, st.lists(st.booleans(), min_size=8, max_size=8))
def test_two_rows_merged_have_the_traits_of_one_that_heard_it_all(
    said: list[tuple[int, dict[str, Any]]], first: list[bool]
) -> None:
    said = [(10 * at + n, told) for n, (at, told) in enumerate(said)]  # at one instant the row's own word would stand
    rows = [Profile(), Profile()]
    for (at, told), side in zip(said, first, strict=False):
        fold_traits(rows[side], told, START + at)
    merge_traits(*rows)
    assert rows[0].traits == in_order_of_time(said)
    fold_traits(rows[0], dict.fromkeys("abcde", 7), START - 1)
    spoken_of = {name for _at, told in said for name in told}
    assert rows[0].traits == in_order_of_time(said) | {name: 7 for name in "abcde" if name not in spoken_of}
