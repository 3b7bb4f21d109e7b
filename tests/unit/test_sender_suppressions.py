from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sender.suppressions import AGE_MS_MAX, AHEAD_MS_MAX, Suppressions
from schemas.events import NOTIFICATIONS_DISABLED, NOTIFICATIONS_ENABLED, Event

WALL = 1_000_000


def made(**bounds: int) -> Suppressions:
    feed = Suppressions(b"key", **bounds)
    feed.caught_up(WALL)
    return feed


def tell(
    feed: Suppressions,
    user: str,
    *,
    on: bool,
    at_ms: int | None = 0,
    category: str = "",
    wall_ms: int = WALL,
    received_ms: int = 1_000,
) -> None:
    name = NOTIFICATIONS_ENABLED if on else NOTIFICATIONS_DISABLED
    properties = {"category": category} if category else {}
    event = Event(type="track", event=name, user_id=user, timestamp=at_ms, properties=properties)
    feed.feed(event, received_ms=received_ms, wall_ms=wall_ms)


def test_an_opt_out_is_seen_at_once_and_an_opt_in_ends_it() -> None:
    feed = made()
    tell(feed, "a", on=False, at_ms=1)
    assert feed.check("a", "news", WALL) is True
    assert feed.check("b", "news", WALL) is False
    tell(feed, "a", on=True, at_ms=2)
    assert feed.check("a", "news", WALL) is False


def test_an_opt_out_of_a_category_concerns_that_category() -> None:
    feed = made()
    tell(feed, "a", on=False, category="news")
    assert [feed.check("a", category, WALL) for category in ("news", "orders")] == [True, False]


def test_an_opt_in_that_comes_late_does_not_undo_a_newer_opt_out() -> None:
    feed = made()
    tell(feed, "a", on=False, at_ms=10)
    tell(feed, "a", on=True, at_ms=9)
    assert feed.check("a", "", WALL) is True


def test_an_older_opt_out_that_comes_late_does_not_make_the_newer_one_older() -> None:
    feed = made()
    tell(feed, "a", on=False, at_ms=10)
    tell(feed, "a", on=False, at_ms=5)
    tell(feed, "a", on=True, at_ms=7)
    assert feed.check("a", "", WALL) is True


def test_a_clock_that_is_set_back_does_not_make_a_stale_feed_fresh() -> None:
    feed = made(stale_ms=60_000)
    hour_ms = 3_600_000
    feed.caught_up(WALL - hour_ms - 60_001)  # 60 s after the feed broke off, by a clock that now says an hour less
    assert feed.check("a", "news", WALL - hour_ms) is None


NOW_MS = 1_500_000_000_000
AHEAD = NOW_MS + AHEAD_MS_MAX + 1
LONG_AGO = NOW_MS - AGE_MS_MAX - 1


@pytest.mark.parametrize("wrong_ms", [AHEAD, LONG_AGO, 2**60])
def test_an_opt_out_of_a_device_with_a_wrong_clock_counts_as_of_now(wrong_ms: int) -> None:
    feed = made()
    tell(feed, "a", on=False, at_ms=wrong_ms, received_ms=NOW_MS)
    assert feed.check("a", "", WALL) is True
    tell(feed, "a", on=True, at_ms=NOW_MS - 1, received_ms=NOW_MS + 9)
    assert feed.check("a", "", WALL) is True, "from before"
    tell(feed, "a", on=True, at_ms=NOW_MS + 9, received_ms=NOW_MS + 9)
    assert feed.check("a", "", WALL) is False, "not for good: the user has come back"


@pytest.mark.parametrize("wrong_ms", [AHEAD, LONG_AGO])
def test_an_opt_in_of_a_device_with_a_wrong_clock_undoes_no_opt_out(wrong_ms: int) -> None:
    feed = made()
    tell(feed, "a", on=False, at_ms=NOW_MS, received_ms=NOW_MS)
    tell(feed, "a", on=True, at_ms=wrong_ms, received_ms=NOW_MS)
    assert feed.check("a", "", WALL) is True


def test_other_events_change_nothing() -> None:
    feed = made()
    feed.feed(Event(type="track", event="Order Completed", user_id="a"), received_ms=0, wall_ms=WALL)
    assert len(feed) == 0


def test_a_feed_that_never_caught_up_knows_nothing() -> None:
    assert Suppressions(b"key").check("a", "", WALL) is None


def test_a_stale_feed_does_not_know_but_keeps_what_it_knew() -> None:
    feed = made()
    tell(feed, "a", on=False)
    assert feed.check("b", "", WALL + 60_000) is False
    assert feed.check("b", "", WALL + 60_001) is None
    assert feed.check("a", "", WALL + 60_001) is True
    feed.caught_up(WALL + 60_001)
    assert feed.check("b", "", WALL + 60_001) is False


def test_beyond_the_bound_the_answer_is_unknown_and_not_no() -> None:
    feed = made(entries_max=2, retention_ms=10_000)
    for user in "abc":
        tell(feed, user, on=False)
    assert len(feed) == 2
    assert [feed.check(user, "", WALL) for user in "abcd"] == [True, True, None, None]


def test_an_opt_out_lives_at_least_its_retention_and_at_most_twice() -> None:
    feed = made(retention_ms=1_000, stale_ms=10**9)
    tell(feed, "first", on=False, wall_ms=WALL)
    tell(feed, "late", on=False, wall_ms=WALL + 1_000)
    assert feed.check("late", "", WALL + 2_000) is True
    assert feed.check("first", "", WALL + 1_000) is True
    assert feed.check("late", "", WALL + 3_003) is False
    assert len(feed) == 0


def test_the_memory_holds_no_user() -> None:
    feed = made()
    tell(feed, "canary-user", on=False)
    assert "canary" not in repr(vars(feed))


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(["", "x"]), st.booleans(), st.integers(0, 5)), max_size=30
    )
)
def test_the_answer_is_that_of_a_plain_list_of_events(told: list[tuple[str, str, bool, int]]) -> None:
    feed = made()
    out: dict[tuple[str, str], int] = {}
    for user, category, on, at_ms in told:
        tell(feed, user, on=on, at_ms=at_ms, category=category)
        if not on:
            out[user, category] = max(at_ms, out.get((user, category), 0))
        elif out.get((user, category), at_ms) < at_ms:
            del out[user, category]
    for user in "ab":
        for category in "xy":
            assert feed.check(user, category, WALL) is ((user, "") in out or (user, category) in out)
