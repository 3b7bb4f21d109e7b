"""Percentiles over the users of two workers: one threshold, and rows on both that follow it."""

from __future__ import annotations

import json
import re
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from schemas.events import Event
from schemas.percentiles import Percentiles, decode_percentiles
from schemas.segments import decode_membership
from schemas.topics import PERCENTILES, SEGMENTS
from tests.support.site import Site, eventually

pytestmark = pytest.mark.broker

POLICY = """
version: 1
name: percents
defaults: {consent: assumed}
segments:
  - {name: best, when: 'top(10, sum("Order Completed.revenue", "30d"))', minimum_size: 10}
"""
USERS = 60


def order(user: int, revenue: float) -> Event:
    now_ms = time.time_ns() // 1_000_000
    return Event(
        type="track",
        event="Order Completed",
        user_id=f"u{user}",
        message_id=f"{user}-{revenue}",
        timestamp=now_ms,
        properties={"revenue": revenue},
    )


async def inside(site: Site) -> set[str]:
    found: set[str] = set()
    for _, _, value, _ in await site.read(SEGMENTS):
        change = decode_membership(value or b"")
        (found.add if change.change == "enter" else found.discard)(change.user)
    return found


async def thresholds(site: Site) -> list[Percentiles]:
    found = [decode_percentiles(value or b"") for _, _, value, _ in await site.read(PERCENTILES)]
    return [record for record in found if record.partition < 0]


async def test_two_workers_serve_one_threshold_and_idle_users_leave_on_both(site: Site, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    settings = {"NUDGE_POLICY": str(policy), "NUDGE_PERCENTILES_INTERVAL_S": "0.5"}
    with ExitStack() as stack:
        workers = [stack.enter_context(site.process("worker", f"worker-{at}", **settings)) for at in range(2)]
        for worker in workers:
            await site.ready(worker)
        await site.happen([order(user, user + 1) for user in range(USERS)])

        async def largest() -> bool:
            return await inside(site) == {f"u{user}" for user in range(54, 60)}

        await eventually(largest, "the six with the most are in")
        await site.happen([order(user, 1000) for user in range(6)])

        async def passed() -> bool:
            return await inside(site) == {f"u{user}" for user in range(6)}

        await eventually(passed, "those who were passed have left without an event of their own")

        async def agreed() -> bool:
            seen = {
                tuple(re.findall(r"^nudge_percentile_threshold\{.*\} (\S+)$", site.get(worker, "/metrics")[1], re.M))
                for worker in workers
            }
            newest = (await thresholds(site))[-1]
            return seen == {(str(newest.cuts[0].value),)}

        await eventually(agreed, "both show the newest threshold of the topic")
        assert (await thresholds(site))[-1].users == USERS
        told = await site.command(
            "segments", "sizes", "--since", "1h", "--step", "30m", "--json", NUDGE_POLICY=str(policy)
        )
        (size,) = json.loads(told.stdout)
        assert (size["segment"], size["users"][0], size["users"][-1], size["users_min"]) == ("best", 0, 6, 10)
        assert "smaller than its minimum" in told.stderr
