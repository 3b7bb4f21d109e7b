"""When `events` is lifted, and how far."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from app.core.ids import message_word
from app.core.profile import Profile, encode_profile
from app.core.row_parts import OutboxEntry, Output
from app.operate.lift import LOOKS, Lift, Seen, plan, remembered
from schemas.events import Event, encode_event


def seen(end: int, **offsets: int) -> Seen:
    """What rows have seen: of each user the last offset."""
    found = Seen(end)
    for user, offset in offsets.items():
        found.add(user.encode(), encode_profile(Profile(offset=offset)))
    return found


def test_a_log_of_the_rows_own_is_left_alone() -> None:
    rows = seen(10, ann=7, bob=9)
    assert plan(0, 0, 10, rows, {9: b"bob", 7: b"ann"}) is None
    assert plan(0, 8, 10, rows, {9: b"bob", 7: None}) is None, "retention has taken the other"


def test_what_rows_have_seen_beyond_the_end_is_used_up() -> None:
    assert plan(0, 0, 3, seen(3, ann=7, bob=9), {}) == Lift(0, begin=0, end=3, seen=10, keep=0)


def test_in_a_log_that_has_grown_longer_nothing_need_be_used_up() -> None:
    lift = plan(0, 0, 50, seen(50, ann=7, bob=9), {9: b"cid", 7: b"ann2"})
    assert lift == Lift(0, begin=0, end=50, seen=10, keep=0)
    assert lift.filler == 0


def test_of_a_log_that_has_lost_its_end_the_rest_is_kept_in_front() -> None:
    lift = plan(0, 2, 8, seen(8, ann=4, bob=6, cid=12), {4: b"ann", 6: b"dot"})
    assert lift == Lift(0, begin=2, end=8, seen=13, keep=5)


def test_a_log_that_was_lifted_is_not_lifted_again() -> None:
    assert plan(0, 10, 14, seen(14, ann=7, bob=9), {}) is None


def test_a_mirror_is_not_the_rows_own_log_whatever_its_offsets() -> None:
    assert plan(0, 20, 40, seen(40, ann=7, bob=9), {}, mirrored=True) == Lift(0, begin=20, end=40, seen=10, keep=20)
    assert plan(0, 0, 40, seen(40, ann=7, bob=9), {9: b"bob", 7: b"ann"}, mirrored=True) is None


def test_workers_go_on_behind_what_rows_have_seen_and_behind_what_a_mirror_holds_of_it() -> None:
    lift = Lift(0, begin=0, end=40, seen=10, keep=0)
    assert (lift.behind, replace(lift, keep=25).behind) == (10, 25)


def test_an_event_is_remembered_by_the_row_of_its_own_user() -> None:
    rows = Seen(100)
    rows.add(b"ann", encode_profile(Profile(offset=120, recent=message_word("m1") + message_word("m2"))))

    def record(user: str, message_id: str) -> SimpleNamespace:
        event = Event(type="track", event="x", user_id=user, message_id=message_id)
        return SimpleNamespace(key=user.encode(), value=encode_event(event))

    told = [record("ann", "m2"), record("bob", "m2"), record("ann", "m3"), SimpleNamespace(key=b"ann", value=b"{")]
    assert [remembered(each, rows.recent) for each in told] == [True, False, False, False]


def test_what_a_row_owes_counts_marks_have_no_user_and_what_is_no_row_is_passed_by() -> None:
    rows = Seen(10)
    owing = Profile(offset=3, outbox=[OutboxEntry(12, Output("decisions", b"ann", b""))])
    rows.add(b"ann", encode_profile(owing))
    rows.add(b"\xffe" + bytes(16), encode_profile(Profile(offset=5, erased_ms=1)))
    rows.add(b"bob", b"no row")
    assert (rows.next_offset, rows.newest) == (12, [(3, b"ann")])


@pytest.mark.parametrize("order", [1, -1])
def test_the_newest_rows_are_looked_for(order: int) -> None:
    offsets = list(range(LOOKS + 10))[::order]
    rows = seen(1000, **{f"u{offset}": offset for offset in offsets})
    assert rows.newest == [(offset, b"u%d" % offset) for offset in range(LOOKS + 9, 9, -1)]
