"""Personas on a broker: rows teach the learner, its snapshot comes back to all workers, and users are told apart."""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.clock import ScaledClock
from schemas.events import Event
from schemas.segments import decode_membership
from schemas.topics import SEGMENTS
from tests.support.site import Site, eventually

pytestmark = pytest.mark.broker

POLICY = """
version: 1
name: alike
defaults: {consent: assumed}
personas: {count_min: 2, count_max: 2, names: {p1: one, p2: two}}
segments:
  - {name: ones, when: persona() == "one"}
  - {name: twos, when: persona() == "two"}
"""
USERS = 120
HOUR_MS = 3_600_000
DAYS_BEFORE = 6
RATE = 60_000.0


def did(user: int, at_ms: int) -> Event:
    """Even users look at food, odd ones order shoes."""
    name, category = ("Product Viewed", "FOOD") if user % 2 == 0 else ("Order Completed", "SHOES")
    return Event(
        type="track",
        event=name,
        user_id=f"u{user}",
        message_id=f"{user}-{at_ms}",
        timestamp=at_ms,
        properties={"category": category, "revenue": 20.0},
    )


async def persona_of(site: Site) -> dict[str, str]:
    found: dict[str, str] = {}
    for _, _, value, _ in await site.read(SEGMENTS):
        change = decode_membership(value or b"")
        if change.change == "enter":
            found[change.user] = change.segment
        elif found.get(change.user) == change.segment:
            del found[change.user]
    return found


async def test_users_who_are_alike_have_one_persona_whichever_worker_has_them(site: Site, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    now_ms = time.time_ns() // 1_000_000
    clock = ScaledClock(now_ms, now_ms, RATE)
    settings = {
        "NUDGE_POLICY": str(policy),
        "NUDGE_CLOCK": clock.spec(),
        "NUDGE_SNAPSHOT_INTERVAL_S": "0.3",
    }
    with ExitStack() as stack:
        workers = [stack.enter_context(site.process("worker", f"worker-{at}", **settings)) for at in range(2)]
        for worker in workers:
            await site.ready(worker)
        days = range(-DAYS_BEFORE, 0)
        await site.happen([did(user, clock.now_ms() + day * 24 * HOUR_MS) for day in days for user in range(USERS)])

        async def told_apart() -> bool:
            await site.happen([did(user, clock.now_ms()) for user in range(USERS)])  # a day is over in 1.4 s
            return len(await persona_of(site)) == USERS

        await eventually(told_apart, "everybody has a persona")
        found = await persona_of(site)
        groups = Counter((int(user[1:]) % 2, segment) for user, segment in found.items())
        assert sorted(groups.values()) == [USERS // 2, USERS // 2], groups
        seen = [site.metric(worker, "nudge_model_version", model="open.personas") for worker in workers]
        assert all(seen), "both workers serve a snapshot"

        async def told() -> bool:
            # Without events all users come to be alike: seventeen hours pass in a second.
            await site.happen([did(user, clock.now_ms()) for user in range(USERS)])
            answer = await site.command("segments", "personas", "--json", NUDGE_POLICY=str(policy))
            assert answer.returncode == 0, answer.stderr
            return len(json.loads(answer.stdout)["personas"]) == 2

        await eventually(told, "the command tells two personas")
