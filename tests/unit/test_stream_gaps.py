from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from faust.types import TP

from app.stream.gaps import GapCheck

EVENTS = TP("events", 0)


def records(*offsets: int) -> list[Any]:
    return [SimpleNamespace(offset=offset) for offset in offsets]


def offsets(found: list[Any]) -> list[int]:
    return [record.offset for record in found]


def started(at: int = 0) -> GapCheck:
    check = GapCheck()
    check.start({EVENTS: at})
    return check


def test_unbroken_records_pass() -> None:
    check = started()
    assert check.check(EVENTS, records(0, 1, 2))[1] is None
    found, missing = check.check(EVENTS, records(3, 4))
    assert (offsets(found), missing) == ([3, 4], None)


def test_a_gap_before_a_fetch_sends_the_reader_back() -> None:
    check = started()
    check.check(EVENTS, records(0, 1))
    found, missing = check.check(EVENTS, records(5, 6))
    assert (offsets(found), missing) == ([], 2)
    found, missing = check.check(EVENTS, records(2, 3, 4, 5, 6))
    assert (offsets(found), missing) == ([2, 3, 4, 5, 6], None)


def test_what_stands_before_a_gap_inside_a_fetch_is_delivered() -> None:
    check = started()
    found, missing = check.check(EVENTS, records(0, 1, 4, 5))
    assert (offsets(found), missing) == ([0, 1], 2)


def test_a_gap_that_is_there_twice_is_the_logs_own() -> None:
    check = started()
    check.check(EVENTS, records(0, 1))
    check.check(EVENTS, records(5, 6))
    found, missing = check.check(EVENTS, records(5, 6))
    assert (offsets(found), missing) == ([5, 6], None)


def test_a_second_gap_in_the_same_fetch_is_looked_at_too() -> None:
    check = started()
    check.check(EVENTS, records(0, 2, 4))
    found, missing = check.check(EVENTS, records(2, 4))
    assert (offsets(found), missing) == ([2], 3)
    found, missing = check.check(EVENTS, records(4))
    assert (offsets(found), missing) == ([4], None)


def test_reading_anew_forgets_what_was_expected() -> None:
    check = started()
    check.check(EVENTS, records(0, 1))
    check.start({EVENTS: 0})
    assert offsets(check.check(EVENTS, records(0, 1))[0]) == [0, 1]
