"""Short, seeded runs of the fault tests; `python -m tests.chaos NAME` makes long ones."""

from __future__ import annotations

import os
import signal
from typing import Any

import psutil
import pytest

from tests.chaos import bad_input, disk_full, points, slow_provider, soak, suspend
from tests.chaos.harness import ECHO, WRONG, put, verdict
from tests.chaos.victim import RESTORE, VARIABLE
from tests.support.crowd import crowd
from tests.support.site import Site, eventually

pytestmark = [pytest.mark.broker, pytest.mark.slow]


def nothing_wrong(figures: dict[str, Any]) -> None:
    print(figures)
    assert figures["fired"], f"the fault did not fire: {figures}"
    assert not any(figures[name] for name in WRONG), figures


async def test_poison_is_buried_and_duplicates_change_nothing(site: Site) -> None:
    figures = await bad_input.run(site, seed=3, events=2000, poison_every=200)
    nothing_wrong(figures)
    assert figures["buried_with_reason_and_place"] == figures["poisoned"] == figures["buried"]
    assert figures["decisions"] == figures["decisions_of_the_clean_stream"]


async def test_workers_killed_at_named_points_lose_nothing_and_do_nothing_twice(site: Site) -> None:
    figures = await points.run(site, seed=5, lives=2)
    nothing_wrong(figures)
    assert figures["fired"] == figures["lives"]


async def test_a_suspended_worker_and_a_suspended_sender_do_no_harm_when_they_wake(site: Site) -> None:
    figures = await suspend.run(site, seed=7, times=1.5)
    nothing_wrong(figures)
    assert figures["sent_twice"] == 0


async def test_decisions_do_not_wait_for_a_slow_provider_and_nothing_expired_is_sent(site: Site) -> None:
    figures = await slow_provider.run(site, seed=2, phase_s=5.0, phases=("slow",))
    print(figures)
    assert figures["fired"]
    assert (figures["decisions_missing"], figures["sent_expired"]) == (0, 0)
    assert figures["slow: p99_ms"] < 1_000  # a shared machine: `python -m tests.chaos slow_provider` compares


async def test_a_soak_with_a_killed_worker_loses_nothing_sends_nothing_twice_and_looks_at_every_process(
    site: Site,
) -> None:
    figures = await soak.run(site, seed=4, minutes=0.1, rate=300, quiet_s=2.0, only=("kill",))
    nothing_wrong(figures)
    assert figures["restarts"] >= 1
    assert 0 < figures["sent"] == figures["to_send"]
    assert (figures["sent_twice"], figures["untold"], figures["missing_sends"]) == (0, 0, 0)
    assert {f"{name}: trend" for name in ("steady", "guest", "post", "console")} <= figures.keys()


async def test_a_worker_whose_event_loop_is_blocked_ends_itself_and_says_why(site: Site) -> None:
    settings = {"NUDGE_POLICY": str(ECHO), "NUDGE_WATCHDOG_BLOCK_S": "2", VARIABLE: "batch durable:1:block"}
    with site.process("worker", "blocked", "tests.chaos.victim", **settings) as worker:
        await site.ready(worker)
        await put(site, crowd(50, users=10, seed=1))

        async def ended() -> bool:
            return worker.returncode is not None

        await eventually(ended, "the worker ends itself", 30)
        assert worker.returncode == 70
        words = worker.log_tail()
    assert "the worker is wedged: the event loop has been blocked" in words
    assert "victim.py" in words, "the stacks show where"


async def test_a_worker_that_lost_its_partitions_as_it_began_to_restore_them_restores_them_when_it_has_them_again(
    site: Site,
) -> None:
    settings = {"NUDGE_POLICY": str(ECHO), VARIABLE: f"{RESTORE}:1:suspend"}
    with site.process("worker", "asleep", "tests.chaos.victim", **settings) as asleep:

        async def suspended() -> bool:
            return psutil.Process(asleep.pid).status() == psutil.STATUS_STOPPED

        await eventually(suspended, "the worker is suspended as it begins to restore")
        with site.worker("other") as other:
            await site.ready(other)  # the group has taken the partitions away
            os.kill(asleep.pid, signal.SIGCONT)
            await site.ready(asleep)
            await put(site, crowd(300, users=50, seed=1))
            nothing_wrong({"fired": 1} | await verdict(site, [asleep, other]))


if disk_full.can_mount():

    async def test_a_full_disk_ends_the_worker_with_its_path_and_loses_nothing(site: Site) -> None:
        figures = await disk_full.run(site, seed=9)
        nothing_wrong(figures)
        assert figures["exit_code"] == 70
        assert figures["path_named"]
