"""Brokers of a cluster of three are killed and come back: partitions, groups and controllers move, under load."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient

from app.stream.started import started
from tests.chaos.broker_away import LOST_BY_A_SENDER_MAX, all_at_work, keeping
from tests.chaos.ends import ends_of
from tests.chaos.harness import feeding, verdict
from tests.chaos.pauses import longest_pauses_s
from tests.support.kafka import KafkaCluster
from tests.support.site import CLIENT, Site, eventually

_IN_SYNC_S_MAX: Final = 60.0


async def run(
    site: Site, *, seed: int = 1, kills: int = 3, rate: int = 300, away_s: float = 15.0, quiet_s: float = 10.0
) -> dict[str, Any]:
    """A broker that leads partitions is killed (SIGKILL) and started again `away_s` later, `kills` times.

    The next one is killed when all replicas are in sync again and `quiet_s` have passed. Two workers and a sender: one
    that ends itself is started again.
    """
    cluster = site.cluster
    assert cluster is not None, "this recipe needs a cluster"
    dice = random.Random(seed)
    killed: list[int] = []
    led: list[int] = []
    at_work_meanwhile = 0
    spans: list[tuple[int, int]] = []
    async with keeping(site, ("one", "two")) as fleet:
        async with feeding(site, seed, rate) as feed:
            await all_at_work(site, fleet)
            for _ in range(kills):
                before, began_ms = feed.fed, _now_ms()
                leaders = await _leaders(site)
                node = dice.choice(sorted(leaders))  # one that came back leads nothing for some minutes
                killed.append(node)
                led.append(leaders[node])
                cluster.brokers[node].kill()
                await asyncio.sleep(away_s)
                await asyncio.to_thread(cluster.brokers[node].start)
                await _in_sync(site, cluster)
                await fleet.all_say(200, 60.0)
                await all_at_work(site, fleet)
                at_work_meanwhile += feed.fed > before
                await asyncio.sleep(quiet_s)
                spans.append((began_ms, _now_ms()))
        found = await verdict(site, [])
        await fleet.all_say(200, 60.0)
        ends = await ends_of(site, site.lines)
    pauses, idle = await longest_pauses_s(site, spans)
    return {
        "seed": seed, "events": feed.fed, "brokers_killed": killed, "partitions_led": led, "pause_s": pauses,
        "pause_s_max": max(pauses), "longest_gap_of_the_feed_s": idle, "restarts": fleet.restarts,
        "sender_restarts": fleet.sender_restarts, "fired": int(at_work_meanwhile == kills), **found, **ends,
        "sent_twice": sum(count - 1 for count in site.lines().values()),
        "too_many_unknown": int(ends["unknown"] > LOST_BY_A_SENDER_MAX * fleet.sender_restarts),
    }  # fmt: skip


async def _topics(site: Site) -> list[dict[str, Any]]:
    async with started(AIOKafkaAdminClient(bootstrap_servers=site.bootstrap, client_id=CLIENT)) as admin:
        return list(await admin.describe_topics())


async def _leaders(site: Site) -> Counter[int]:
    """How many partitions each broker leads."""
    return Counter(partition["leader"] for topic in await _topics(site) for partition in topic["partitions"])


async def _in_sync(site: Site, cluster: KafkaCluster) -> None:
    async def complete() -> bool:
        partitions = [partition for topic in await _topics(site) for partition in topic["partitions"]]
        return all(len(partition["isr"]) == cluster.replicas for partition in partitions)

    await eventually(complete, "every replica is in sync", _IN_SYNC_S_MAX)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
