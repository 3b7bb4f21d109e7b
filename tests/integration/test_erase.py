"""A user is erased while a timer runs and a decision waits; nothing of them is sent, kept, or brought back."""

from __future__ import annotations

import asyncio
import json
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiokafka.partitioner import murmur2

from app.core.erasure import is_mark
from app.core.profile import decode_profile
from app.stream.stores import StoreFactory
from schemas.decisions import decode_decision
from schemas.events import Event
from schemas.topics import DECISIONS, ERASURES, LEDGER_CHANGELOG, PROFILES_CHANGELOG, SEGMENTS
from tests.support.site import PARTITIONS, Site, eventually

pytestmark = pytest.mark.broker

HOURS_IN_A_SECOND = 3_600


def named(word: str) -> str:
    """A user whose number says the partition, as the site has it, and whose hash does, as every producer has it."""
    names = (f"{word}-{n}" for n in count())
    return next(
        name
        for name in names
        if (murmur2(name.encode()) & 0x7FFFFFFF) % PARTITIONS == int(name.rpartition("-")[2]) % PARTITIONS
    )


GONE, STAYS = named("canary"), named("neighbour")


def life(user: str) -> list[Event]:
    """What leaves a trace everywhere: traits, a token, a segment, a decision, a timer."""
    device: dict[str, Any] = {"device": {"type": "ios", "token": f"token-of-{user}"}}
    return [
        Event(type="identify", user_id=user, traits={"email": f"{user}@example.org"}),
        Event(type="track", event="Product Viewed", user_id=user, context=device),
        Event(type="track", event="Order Completed", user_id=user, properties={"order_id": f"order-of-{user}"}),
        Event(type="track", event="Product Added", user_id=user, properties={"title": f"title-of-{user}"}),
    ]


def holding(path: Path, text: bytes) -> list[str]:
    """The files that hold `text`."""
    return [str(file) for file in path.rglob("*") if file.is_file() and text in file.read_bytes()]


def compact(path: Path) -> None:
    """What RocksDB does within a day."""
    for table in ("profiles", "ledger"):
        for rows in path.rglob(f"rows/{table}"):
            for partition in rows.iterdir():
                for _ in range(2):  # the second opening writes a manifest that names no boundary of a file before
                    store = StoreFactory(rows.parent).open(table, int(partition.name))
                    store.compact()
                    store.close()


async def newest(site: Site, topic: str) -> dict[bytes, bytes]:
    """A changelog as a compaction leaves it."""
    found = {record.key: record.value for record in await site.records(topic)}
    return {key: value for key, value in found.items() if value is not None}


async def test_an_erased_user_is_nowhere_and_is_not_brought_back_by_the_log(site: Site) -> None:
    clock = {"NUDGE_CLOCK": f"scaled:{time.time_ns() // 1_000_000}:{time.time_ns() // 1_000_000}:{HOURS_IN_A_SECOND}"}
    await site.happen([*life(GONE), *life(STAYS)])
    with site.worker(policy="waiting.yaml") as worker:
        await site.ready(worker)

        async def decided() -> bool:
            return len(await site.records(DECISIONS)) == 2

        await eventually(decided, "both orders led to a decision")
        asked = await site.command("erase", "--user", GONE, "--json")
        assert asked.returncode == 0, asked.stderr
        assert json.loads(asked.stdout)["complete"] is False, "no sender runs: a decision is waiting"

        async def marked() -> bool:
            return any(is_mark(key) for key in await newest(site, PROFILES_CHANGELOG))

        await eventually(marked, "the row has become a mark")
        await asyncio.to_thread(worker.stop)
        assert worker.returncode == 0, worker.log_tail()
    # Another group with an empty disk restores the rows and reads the whole log again. An hour of event time passes in
    # a second: the neighbour's cart comes due, and the mark is tidied.
    again = clock | {"NUDGE_APP_ID": f"again-{site.run}"}
    with (
        site.worker("second", policy="waiting.yaml", **again) as worker,
        site.process("sender", "data", **clock) as sender,
    ):
        await site.ready(worker)
        await site.ready(sender)

        async def reported() -> bool:
            return len({record.key for record in await site.records(ERASURES)}) == 2

        await eventually(reported, "worker and sender have reported")

        async def neighbour_told() -> bool:
            return sum(site.lines().values()) == 2

        await eventually(neighbour_told, "the neighbour has both notifications")

        async def tidied() -> bool:
            rows = await newest(site, PROFILES_CHANGELOG)
            return all(not decode_profile(row).outbox for key, row in rows.items() if is_mark(key))

        await eventually(tidied, "the mark owes nothing any more")
        await site.happen(life(GONE))

        async def barred() -> bool:
            return site.metric(worker, "nudge_events_total", topic="events", outcome="erased") >= 4

        await eventually(barred, "what the user does afterwards leaves no trace")
        status = await site.command("erase", "--user", GONE, "--status", "--json")
        assert json.loads(status.stdout)["complete"], status.stderr
        assert json.loads(status.stdout)["receipts"]["profile"]["erased"]["pending_labels"] == 1
        assert GONE not in site.output.read_text()
        for child in (worker, sender):
            await asyncio.to_thread(child.stop)
            assert child.returncode == 0, child.log_tail()
            assert GONE not in site.log(child)
    for topic in (PROFILES_CHANGELOG, LEDGER_CHANGELOG):
        assert not [key for key, row in (await newest(site, topic)).items() if b"canary" in key + row]
    assert STAYS.encode() in await newest(site, PROFILES_CHANGELOG)
    for disk in (site.directory / "second", site.directory / "data"):
        compact(disk)
        assert holding(disk, b"canary") == []
    assert holding(site.directory / "second", b"neighbour")
    told = [decode_decision(value or b"") for _, key, value, _ in await site.read(DECISIONS) if key == GONE.encode()]
    assert [(decision.action, decision.reason) for decision in told][:2] == [("send", ""), ("suppress", "erased")]
    assert len({decision.id for decision in told}) == 2, (
        "the second worker repeats what the mark owed, under the same id"
    )
    left = {b"leave" in (value or b"") for _, key, value, _ in await site.read(SEGMENTS) if key == GONE.encode()}
    assert left == {False, True}
