"""The load of `benchmarks.latency`: events at times that were fixed beforehand, whatever becomes of the earlier ones.

An open loop, a process of its own. Arrivals are a Poisson process. Of each partition one batch is on its way at a time;
what falls due meanwhile goes with the next. An event carries the time for which it was scheduled, so that a wait in
here counts as well.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import uvloop
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner

from app.stream.started import started
from benchmarks.common import write_report
from benchmarks.workload import BATCH_BYTES, NAMES, user_key
from schemas.events import ORDER_COMPLETED, PRODUCT_ADDED
from schemas.topics import EVENTS

TRIGGERS: Final = frozenset({ORDER_COMPLETED, PRODUCT_ADDED})
"""Events that cause a decision each, by latency.yaml."""
WRITING_S_MAX: Final = 50e-6
"""How long the JSON of an event may take to write."""
LINGER_S: Final = 0.005
"""How long an event may wait for company, as with Kafka's own producer since 4.0. The wait counts."""


class Due(NamedTuple):
    """One event: seconds after the start, its user, its name."""

    at_s: float
    user: int
    name: str


def schedule(rate: float, seconds: float, users: int, seed: int) -> Iterator[Due]:
    """Events of a Poisson process, in the order of their times."""
    rng = random.Random(seed)
    names, shares = [name for name, _ in NAMES], [share for _, share in NAMES]
    at_s = rng.expovariate(rate)
    while at_s < seconds:
        yield Due(at_s, int(rng.random() * users), rng.choices(names, shares)[0])
        at_s += rng.expovariate(rate)


def value(due: Due, number: int, start_us: int, run: str) -> bytes:
    """The event as JSON."""
    at_us = start_us + round(due.at_s * 1e6)
    user = user_key(due.user).decode()
    return (
        f'{{"type":"track","event":"{due.name}","userId":"{user}","messageId":"l-{run}-{number}",'
        f'"timestamp":{at_us // 1_000},"properties":{{"category":"grocery","product_id":"p-{number % 5000}",'
        f'"revenue":20.5,"scheduled_us":"{run}:{at_us}"}}}}'
    ).encode()


class Lane:
    """One partition's way to the broker: a batch at a time."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, partition: int) -> None:
        self._producer = producer
        self._topic = topic
        self._partition = partition
        self._waiting: list[tuple[bytes, bytes]] = []
        self._some = asyncio.Event()
        self._closed = False
        self.task = asyncio.create_task(self._run())

    def put(self, key: bytes, message: bytes) -> None:
        """Queue a record."""
        self._waiting.append((key, message))
        self._some.set()

    async def close(self) -> None:
        """Return when everything is acknowledged."""
        self._closed = True
        self._some.set()
        await self.task

    async def _run(self) -> None:
        while self._waiting or not self._closed:
            await self._some.wait()
            self._some.clear()
            while self._waiting:
                batch, rest = self._producer.create_batch(), 0
                for key, message in self._waiting:
                    if batch.append(key=key, value=message, timestamp=None) is None:
                        break
                    rest += 1
                del self._waiting[:rest]
                await (await self._producer.send_batch(batch, self._topic, partition=self._partition))


async def offer(options: argparse.Namespace) -> dict[str, Any]:
    """Send the whole schedule; what was sent and how late the sending itself was at most."""
    producer = AIOKafkaProducer(bootstrap_servers=options.broker, acks="all", max_batch_size=BATCH_BYTES)
    async with started(producer):
        return await _offer(producer, options)


async def _offer(producer: AIOKafkaProducer, options: argparse.Namespace) -> dict[str, Any]:
    partitions = list(range(options.partitions))
    choose = DefaultPartitioner()
    planned = list(schedule(options.rate, options.seconds, options.users, options.seed))
    place = {user: choose(user_key(user), partitions, partitions) for user in {due.user for due in planned}}
    await producer.partitions_for(options.topic)
    lanes = [Lane(producer, options.topic, partition) for partition in partitions]
    # All is written beforehand, as if by many producers: the processor is for those who are measured.
    ahead_s = 1.0 + WRITING_S_MAX * len(planned)
    start_us, start_s = time.time_ns() // 1_000 + round(ahead_s * 1e6), time.monotonic() + ahead_s
    written = [
        (due.at_s, lanes[place[due.user]], user_key(due.user), value(due, number, start_us, options.run))
        for number, due in enumerate(planned)
    ]
    assert time.monotonic() < start_s, "the events were not written in time"
    late_s = 0.0
    for number, (at_s, lane, key, message) in enumerate(written):
        early_s = start_s + at_s - time.monotonic()
        if early_s > 0:  # a little late rather than early: the wait counts
            await asyncio.sleep(max(LINGER_S, early_s))
        late_s = max(late_s, -early_s)
        lane.put(key, message)
        if not number % 64:
            await asyncio.sleep(0)  # when everything is overdue, the lanes must run all the same
    for lane in lanes:
        await lane.close()
    measured = [due for due in planned if due.at_s >= options.warm_up_s]
    return {
        "events": len(planned),
        "expected": sum(due.name in TRIGGERS for due in measured),
        "from_us": start_us + round(options.warm_up_s * 1e6),
        "sender_late_ms_max": round(late_s * 1e3, 2),
    }


def main() -> None:
    """Be the load; leaves a report."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--broker", required=True)
    arguments.add_argument("--topic", default=EVENTS)
    arguments.add_argument("--partitions", type=int, required=True)
    arguments.add_argument("--rate", type=float, required=True)
    arguments.add_argument("--seconds", type=float, required=True)
    arguments.add_argument("--warm-up-s", type=float, required=True)
    arguments.add_argument("--users", type=int, required=True)
    arguments.add_argument("--seed", type=int, required=True)
    arguments.add_argument("--run", required=True)
    arguments.add_argument("--report", type=Path, required=True)
    options = arguments.parse_args()
    began_cpu_s = time.process_time()
    detail = uvloop.run(offer(options))
    write_report(options.report, options.seconds, detail, time.process_time() - began_cpu_s)


if __name__ == "__main__":
    main()
