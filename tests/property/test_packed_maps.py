"""What a row keeps packed is what a dict would have kept, whatever happens to it, and is stored without loss."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from librt.strings import BytesWriter
from librt.vecs import vec
from mypy_extensions import i64

from app.core import longs, panes
from app.core.id_map import IdMap
from app.core.name_map import NameMap
from app.core.packed_map import PairMap
from app.core.profile import Profile, decode_profile, encode_profile
from app.core.row_heads import HEAD_BYTES, BadRow
from app.core.whole_row import decode_whole
from app.core.window_map import AHEAD, TOTAL_MAX, WindowMap

IDS = st.integers(0, 5) | st.integers(0, 2**32 - 1)
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from(
    [sign * 2**bits + step for bits in (4, 5, 7, 8, 15, 16, 31, 32) for sign in (1, -1) for step in (-1, 0, 1)]
)
TIMES = st.integers(-(2**62), 2**62)
STORED = st.sets(st.integers(0, 30))
"""Before which changes a map is stored, and read again as a part of an array."""
CHANGES = st.lists(st.tuples(IDS, TIMES | st.none()), max_size=30)
SIZE = 4


def packed(numbers: list[int]) -> bytes:
    writer = BytesWriter()
    longs.write(vec[i64]([*numbers[:2], 7]), len(numbers[:2]), vec[i64]([7, *numbers[2:]]), 1, writer)
    return writer.getvalue()


@given(st.lists(NUMBERS, max_size=40))
@example([*range(65_535)])
@example([*range(65_536)])
def test_numbers_are_packed_as_msgspec_packs_them(numbers: list[int]) -> None:
    raw = packed(numbers)
    assert raw == msgspec.msgpack.encode(numbers)
    assert list(longs.read(b"x" + raw + b"y", 1, 1 + len(raw))) == numbers


@given(st.binary(max_size=40) | st.lists(NUMBERS, max_size=5).map(msgspec.msgpack.encode).map(lambda raw: raw[:-1]))
def test_what_is_no_array_of_numbers_is_refused(raw: bytes) -> None:
    try:
        expected: Any = msgspec.msgpack.decode(raw, type=list[int])
    except msgspec.DecodeError:
        expected = None
    if expected is not None and all(-(2**63) <= number < 2**63 for number in expected):
        assert list(longs.read(raw, 0, len(raw))) == expected
    else:
        with pytest.raises(msgspec.DecodeError):
            longs.read(raw, 0, len(raw))


@pytest.mark.parametrize("numbers", [[1], [1, 2, 3], [1, -1], [1, 5, 0], [1, 2**62], [1, 0, 1]])
def test_numbers_that_are_no_windows_are_refused(numbers: list[int]) -> None:
    with pytest.raises(msgspec.DecodeError):
        WindowMap.taken(vec[i64]([7, *numbers]), 1)


def change(known: Any, found: Any, key: int | str, value: Any) -> None:
    """Set or, without a value, delete a key of both; they are alike after it."""
    if value is not None:
        known[key] = value
        found[key] = value
    elif key in known:
        del known[key], found[key]
    else:
        with pytest.raises(KeyError):
            del found[key]
    assert (found, list(found), len(found), bool(found)) == (known, list(known), len(known), bool(known))


def among_others(known: PairMap, base: int = 0) -> tuple[vec[i64], int]:
    """Its numbers with others around them, and where its own begin."""
    numbers = vec[i64]([7] * (2 + 2 * known.size()))
    assert known.give(numbers, 1, base) == 1 + 2 * known.size()
    return numbers, 1


@given(CHANGES, STORED)
def test_an_id_map_is_a_dict(changes: list[tuple[int, int | None]], stored: set[int]) -> None:
    known: dict[int, int] = {}
    found = IdMap()
    others = vec[i64]()
    for number_of_change, (key, number) in enumerate(changes):
        if number_of_change in stored:
            others, begin = among_others(found)
            found = IdMap.taken(others, begin, found.size(), 0)
        change(known, found, key, number)
        assert not len(others) or others[0] == others[len(others) - 1] == 7
        assert found.get(key) == known.get(key)
        assert found.number(key, -7) == known.get(key, -7)
        assert (key in found) is found.has(key) is (key in known)
    assert found.items() == list(known.items())
    base = min((abs(number) for number in known.values()), default=0) // 2
    numbers, _ = among_others(found, base)
    assert IdMap.taken(numbers, 1, found.size(), base) == found == IdMap.of(known) == copy.deepcopy(found)
    assert (numbers[0], numbers[len(numbers) - 1]) == (7, 7)


@given(st.lists(st.tuples(st.text("aé\0", max_size=3), TIMES | st.none()), max_size=30), STORED)
def test_a_name_map_is_a_dict(changes: list[tuple[str, int | None]], stored: set[int]) -> None:
    known: dict[str, int] = {}
    found = NameMap()
    for number_of_change, (key, number) in enumerate(changes):
        if number_of_change in stored:
            others, begin = among_others(found)
            found = NameMap.taken(others, begin, found.size(), found.text())
        change(known, found, key, number)
        assert (found.get(key), key in found) == (known.get(key), key in known)
    numbers, _ = among_others(found)
    assert NameMap.taken(numbers, 1, found.size(), found.text()) == found == NameMap.of(known) == copy.deepcopy(found)
    if known:
        found.forget_least()
        assert found == {name: number for name, number in known.items() if name != min(known, key=known.__getitem__)}


@pytest.mark.parametrize(("numbers", "text"), [([-1, 0], b""), ([2, 0], b"a"), ([1, 0], b"ab"), ([2, 0], b"\xff\xff")])
def test_numbers_that_are_of_no_names_are_refused(numbers: list[int], text: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        NameMap.taken(vec[i64](numbers), 0, 1, text)


def behind_others(known: WindowMap) -> WindowMap:
    """The same, as it is in a row that was decoded."""
    return WindowMap.taken(vec[i64]([7, *list(known.numbers())[known.begin() :]]), 1)


@given(st.lists(st.tuples(IDS, st.none() | st.lists(NUMBERS, max_size=5)), max_size=20), STORED)
def test_a_window_map_is_a_dict(changes: list[tuple[int, list[int] | None]], stored: set[int]) -> None:
    known: dict[int, list[int]] = {}
    found = WindowMap()
    for number, (key, state) in enumerate(changes):
        if number in stored:
            found = behind_others(found)
        change(known, found, key, state)
        assert (found.get(key), key in found) == (known.get(key), key in known)
    assert behind_others(found) == found == WindowMap.of(known) == copy.deepcopy(found)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12), st.integers(0, 4), st.integers(0, 9)), max_size=40),
    STORED,
)
def test_windows_count_in_place_as_their_lists_do(events: list[tuple[int, int, int, int]], stored: set[int]) -> None:
    """Of each: the feature, the clock's pane, how late the event is, and what it adds; some are ahead of the clock."""
    known: dict[int, panes.Panes] = {}
    found = WindowMap()
    for number, (feature, now, late, value) in enumerate(events):
        if number in stored:
            found = behind_others(found)
        pane = now - late + 1
        if pane <= now - SIZE:
            continue
        state = known.setdefault(feature, [])
        if state and state[-2] == pane:  # what is too old waits for the next pane
            state[0] += value
            state[-1] += value
        else:
            panes.add(state, pane, value, current=now, size=SIZE)
        total = found.add(feature, pane, value, now, SIZE)
        assert total == (AHEAD if state[-2] > now else panes.total(state, current=now, size=SIZE))
        assert found == known
        for current in (now - 1, now, now + 1, now + SIZE):
            for key in range(4):
                assert found.total(key, current, SIZE) == panes.total(known.get(key), current=current, size=SIZE)


def test_a_total_that_would_not_fit_any_more_stays() -> None:
    found = WindowMap.of({1: [TOTAL_MAX - 5, 10, TOTAL_MAX - 5]})
    assert found.add(1, 10, 5, 10, SIZE) == TOTAL_MAX
    assert found.add(1, 10, 1, 10, SIZE) == TOTAL_MAX
    assert found == {1: [TOTAL_MAX, 10, TOTAL_MAX]}


@pytest.mark.parametrize("changed", [{20: 1, 22: -2}, {19: 1 + 2**62, 20: 2**62}])
def test_counts_that_only_seem_to_add_up_are_refused(changed: dict[int, int]) -> None:
    raw = encode_profile(Profile(last={3: 9}))
    end = HEAD_BYTES + int.from_bytes(raw[-4:], "big")
    numbers = dict(enumerate(msgspec.msgpack.decode(raw[HEAD_BYTES:end])))
    packed = msgspec.msgpack.encode([*(numbers | changed).values()])
    with pytest.raises(BadRow):
        decode_profile(raw[:HEAD_BYTES] + packed + raw[end:-4] + len(packed).to_bytes(4, "big"))


@given(st.binary(max_size=60), st.integers(0, 2**32), st.sampled_from(["cut", "changed", "grown"]))
def test_bytes_that_are_no_row_any_more_are_a_row_or_a_bad_row(noise: bytes, at: int, how: str) -> None:
    row = Profile(
        offset=7, first_ms=5, seen_ms=9, recent=b"abcdef", timezone="Europe/Ghent", last={3: 9}, segments={4: 8},
        affinity={"shoes": 2}, features={1: [2, 10, 2]}, missing=[6], consent=1,
    )  # fmt: skip
    raw = encode_profile(row)
    at %= len(raw)
    broken = raw[:at] + {"cut": b"", "changed": noise + raw[at + len(noise) :], "grown": noise + raw[at:]}[how]
    try:
        decode_whole(broken)
    except BadRow:
        return
