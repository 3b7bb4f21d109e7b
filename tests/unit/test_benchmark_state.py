"""Rows of the restore and scale benchmarks are those of a worker that has just begun; the ratios are the right way."""

from __future__ import annotations

from app.core.profile import decode_profile
from app.core.row_heads import peek
from benchmarks import restore, rows, scale
from benchmarks.common import Result
from benchmarks.nudge_worker import POLICIES


def test_rows_owe_nothing_and_have_applied_nothing() -> None:
    found = rows.sample(POLICIES[8], users=5)
    assert len(found) == 5
    assert not any(peek(row).has_outbox for row in found)
    profiles = [decode_profile(row) for row in found]
    assert {profile.offset for profile in profiles} == {-1}
    assert sum(profile.events for profile in profiles) == 5 * rows.EVENTS_PER_USER


def test_every_user_has_a_row() -> None:
    assert [key for key, _ in rows.spread([b"a", b"b"], 3)] == [b"user-0000000", b"user-0000001", b"user-0000002"]
    assert [row for _, row in rows.spread([b"a", b"b"], 3)] == [b"a", b"b", b"a"]


def test_a_restore_is_compared_with_faust_by_rows_a_second() -> None:
    def result(number: int, seconds: float) -> Result:
        return Result("it", number, number, seconds, rss_mb_max=1.0, cpu_s=1.0, detail={"rows": number})

    found = {"cold": result(1_000, 2.0), "warm": result(1_000, 1.0), "faust": result(100, 2.0)}
    made = restore.summary(restore.chosen(["--rows", "1000"]), found)
    assert (made["rows_per_second"], made["ratio_vs_faust"], made["warm_seconds"]) == (500, 10.0, 1.0)


def test_scale_compares_workers_at_one_number_of_users_and_users_with_one_worker() -> None:
    options = scale.chosen(["--users", "10,100,1000", "--workers-users", "100"])
    runs = [(10, 1, 20.0), (100, 1, 24.0), (1_000, 1, 30.0), (100, 2, 25.2)]
    found = [
        {"users": users, "workers": number, "cpu_us_per_event": cost, "events_per_second": 100_000 / cost}
        for users, number, cost in runs
    ]
    made = scale.summary(options, found)
    assert made["rate_ratio_most_users"] == 0.667
    assert (made["cpu_ratio_2_workers"], made["cpu_ratio_most_users"]) == (1.05, 1.5)
