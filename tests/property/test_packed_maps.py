"""What a row keeps packed is what a dict would have kept, whatever happens to it, and is stored without loss."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from librt.vecs import vec
from mypy_extensions import i64

from app.core import longs, panes
from app.core.id_map import IdMap
from app.core.window_map import AHEAD, TOTAL_MAX, WindowMap

IDS = st.integers(0, 5) | st.integers(0, 2**32 - 1)
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from(
    [sign * 2**bits + step for bits in (4, 5, 7, 8, 15, 16, 31, 32) for sign in (1, -1) for step in (-1, 0, 1)]
)
CHANGES = st.lists(st.tuples(IDS, NUMBERS | st.none()), max_size=30)
SIZE = 4


@given(st.lists(NUMBERS, max_size=40))
@example([*range(65_535)])
@example([*range(65_536)])
def test_numbers_are_packed_as_msgspec_packs_them(numbers: list[int]) -> None:
    raw = longs.pack(vec[i64](numbers))
    assert raw == msgspec.msgpack.encode(numbers)
    assert list(longs.unpack(raw)) == numbers


@given(st.binary(max_size=40) | st.lists(NUMBERS, max_size=5).map(msgspec.msgpack.encode).map(lambda raw: raw[:-1]))
def test_what_is_no_array_of_numbers_is_refused(raw: bytes) -> None:
    try:
        expected: Any = msgspec.msgpack.decode(raw, type=list[int])
    except msgspec.DecodeError:
        expected = None
    if expected is not None and all(-(2**63) <= number < 2**63 for number in expected):
        assert list(longs.unpack(raw)) == expected
    else:
        with pytest.raises(msgspec.DecodeError):
            longs.unpack(raw)


@pytest.mark.parametrize("of", [IdMap, WindowMap])
@pytest.mark.parametrize("numbers", [[1], [1, 2, 3], [1, -1], [1, 5, 0], [1, 2**62]])
def test_packed_numbers_that_are_no_such_map_are_refused(of: type[IdMap | WindowMap], numbers: list[int]) -> None:
    if of is WindowMap or len(numbers) % 2:
        with pytest.raises(msgspec.DecodeError):
            of(msgspec.msgpack.encode(numbers))


@given(CHANGES)
def test_an_id_map_is_a_dict(changes: list[tuple[int, int | None]]) -> None:
    known: dict[int, int] = {}
    packed = IdMap()
    for key, number in changes:
        if number is not None:
            known[key] = number
            packed[key] = number
        elif key in known:
            del known[key], packed[key]
        else:
            with pytest.raises(KeyError):
                del packed[key]
        assert (packed, list(packed), len(packed), bool(packed)) == (known, list(known), len(known), bool(known))
        assert packed.get(key) == known.get(key)
        assert packed.number(key, -7) == known.get(key, -7)
        assert (key in packed) is packed.has(key) is (key in known)
    assert packed.items() == list(known.items())
    assert IdMap(packed.pack()) == packed == IdMap.of(known)
    assert packed.pack() or not known


@given(st.lists(st.tuples(IDS, st.none() | st.lists(NUMBERS, max_size=5)), max_size=20))
def test_a_window_map_is_a_dict(changes: list[tuple[int, list[int] | None]]) -> None:
    known: dict[int, list[int]] = {}
    packed = WindowMap()
    for key, state in changes:
        if state is not None:
            known[key] = state
            packed[key] = state
        elif key in known:
            del known[key], packed[key]
        else:
            with pytest.raises(KeyError):
                del packed[key]
        assert (packed, list(packed), len(packed), bool(packed)) == (known, list(known), len(known), bool(known))
        assert (packed.get(key), key in packed) == (known.get(key), key in known)
    assert WindowMap(packed.pack()) == packed == WindowMap.of(known)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12), st.integers(0, 4), st.integers(0, 9)), max_size=40))
def test_windows_count_in_place_as_their_lists_do(events: list[tuple[int, int, int, int]]) -> None:
    """Of each: the feature, the clock's pane, how late the event is, and what it adds; some are ahead of the clock."""
    known: dict[int, panes.Panes] = {}
    packed = WindowMap()
    for feature, now, late, value in events:
        pane = now - late + 1
        if pane <= now - SIZE:
            continue
        state = known.setdefault(feature, [])
        if state and state[-2] == pane:  # what is too old waits for the next pane
            state[0] += value
            state[-1] += value
        else:
            panes.add(state, pane, value, current=now, size=SIZE)
        total = packed.add(feature, pane, value, now, SIZE)
        assert total == (AHEAD if state[-2] > now else panes.total(state, current=now, size=SIZE))
        assert packed == known
        for current in (now - 1, now, now + 1, now + SIZE):
            for key in range(4):
                assert packed.total(key, current, SIZE) == panes.total(known.get(key), current=current, size=SIZE)


def test_a_total_that_would_not_fit_any_more_stays() -> None:
    packed = WindowMap.of({1: [TOTAL_MAX - 5, 10, TOTAL_MAX - 5]})
    assert packed.add(1, 10, 5, 10, SIZE) == TOTAL_MAX
    assert packed.add(1, 10, 1, 10, SIZE) == TOTAL_MAX
    assert packed == {1: [TOTAL_MAX, 10, TOTAL_MAX]}
