"""Everything runs for a long time, and every now and then something breaks: nothing is lost, doubled, or grows.

A worker, a sender and a console stay throughout; beside them a second worker is killed, stopped, suspended and joined
by a third, the network fails, the push service is slow or away. Poison, duplicates and disorder flow all along, users
open what they are sent, and the learner learns from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from app.children import Child
from app.embedded import free_port
from app.stream.started import started
from schemas.decisions import decode_decision
from schemas.events import Event, encode_event
from schemas.topics import DECISIONS, EVENTS
from tests.chaos.bad_input import POISON
from tests.chaos.ends import ends_of
from tests.chaos.harness import Feed, verdict
from tests.chaos.slow_provider import Service
from tests.chaos.suspend import SESSION_S
from tests.chaos.trend import Watch, figures
from tests.support.crowd import crowd
from tests.support.push.fake import Received
from tests.support.push.keys import make_keys
from tests.support.push.serve import Served, serving
from tests.support.site import CLIENT, POLICIES, Site, eventually

SOAK: Final = POLICIES / "soak.yaml"
BY_TIMERS: Final = ("labels", "open_rates", "hour_sends", "hour_opens", "examples", "ignored_run", "sent")
"""Fields of a row that a matured label changes."""
LATE_S: Final = 1.0
MISSED_S: Final = 1.5 * SESSION_S + 1.0
"""A killed member is missed after its session; the others hear of it with their next heartbeat and join anew, which
takes the embedded broker 3 s. Until then all are ready, and this rebalance is still to come.
"""
WAITING_S: Final = 0.25
"""A worker has caught up when no more waits than comes in this time."""
LOOK_S: Final = 2.0
OUTAGE_S: Final = 0.6 * SESSION_S
"""Within the session: whoever is cut off for longer ends itself (`broker_away`), and a short life shows no trend."""
_SMALL: Final = {"NUDGE_ROCKSDB_CACHE_MB": "4", "NUDGE_ROW_MEMORY_MB": "2"}
"""The stores' caches are full before the first third is over: what grows after that is something else."""
_ENDED: Final = (70, -9, 0)
_USERS: Final = 500
_OPENED: Final = 0.3
_CATCH_UP_S: Final = 120.0


class Mood(Service):
    """How the push service behaves now; it remembers no requests."""

    def append(self, _request: Received) -> None: ...


class Town:
    """Processes by name; one that ended is started again, on its disk or on an empty one."""

    def __init__(self, site: Site, served: Served) -> None:
        self._site, self._stack = site, contextlib.ExitStack()
        self._empty = 0
        self._sender = {
            "NUDGE_SENDER_PROVIDER": "fcm",
            "NUDGE_FCM_CREDENTIALS": str(served.keys.account),
            "NUDGE_FCM_URL": served.url,
            "NUDGE_FCM_TOKEN_URL": f"{served.url}/token",
            "NUDGE_PUSH_CA_FILE": str(served.keys.ca),
        }
        self.children: dict[str, Child] = {}
        self.restarts = 0
        self.wanted = ["steady", "guest", "post"]
        self.disks = {name: name for name in (*self.wanted, "visitor")}

    def start(self, name: str) -> None:
        """Start a process."""
        disk = self.disks.get(name, name)
        if name == "console":
            urls = ",".join(f"http://127.0.0.1:{self._site.port(child)}" for child in self.children.values())
            settings = {"NUDGE_WORKER_URLS": urls, "NUDGE_CONSOLE_PORT": str(free_port())}
            made = self._site.process("console", disk, **settings)
        elif name == "post":
            made = self._site.process("sender", disk, **self._sender, **_SMALL)
        else:
            made = self._site.process("worker", disk, NUDGE_POLICY=str(SOAK), **_SMALL)
        self.children[name] = self._stack.enter_context(made)

    async def keep(self) -> None:
        """Start again what has ended, until cancelled."""
        while True:
            for name in list(self.wanted):
                child = self.children[name]
                if child.returncode is not None:
                    assert child.returncode in _ENDED, child.log_tail()
                    self.start(name)
                    self.restarts += 1
            await asyncio.sleep(0.2)

    def on_an_empty_disk(self, name: str) -> None:
        """Its next life."""
        self._empty += 1
        self.disks[name] = f"{name}-{self._empty}"

    def workers(self) -> list[Child]:
        """Those that run."""
        return [self.children[name] for name in self.wanted if name not in ("post", "console")]

    def close(self) -> None:
        """Kill what is left."""
        self._stack.close()


class Faults:
    """What breaks; each returns when the fault is over."""

    def __init__(self, site: Site, town: Town, mood: Mood, dice: random.Random, seconds: float) -> None:
        self._site, self._town, self._mood, self._dice, self._seconds = site, town, mood, dice, seconds
        self.all: dict[str, Callable[[], Awaitable[None]]] = {
            "kill": self._kill, "stop": self._stop, "join and leave": self._join, "suspend": self._suspend,
            "slow service": lambda: self._service("slow"), "service away": lambda: self._service("down"),
        }  # fmt: skip
        if site.proxy is not None:
            self.all |= {
                "network drops": lambda: self._network("drop"),
                "network half-open": lambda: self._network("half-open"),
                "network slow": lambda: self._network("slow"),
            }

    def drawn(self) -> Iterator[str]:
        """Names for ever: each fault once, in any order, and again."""
        while True:
            yield from self._dice.sample(sorted(self.all), len(self.all))

    async def _kill(self) -> None:
        if self._dice.random() < 0.5:
            self._town.on_an_empty_disk("guest")
        self._town.children["guest"].kill()

    async def _stop(self) -> None:
        await asyncio.to_thread(self._town.children["guest"].stop, 30.0)

    async def _join(self) -> None:
        self._town.start("visitor")
        visitor = self._town.children["visitor"]
        await self._site.ready(visitor)
        await asyncio.sleep(self._seconds)
        if self._dice.random() < 0.5:
            visitor.kill()
        else:
            await asyncio.to_thread(visitor.stop, 30.0)

    async def _suspend(self) -> None:
        guest = self._town.children["guest"]
        os.kill(guest.pid, signal.SIGSTOP)
        await asyncio.sleep(1.5 * SESSION_S)
        os.kill(guest.pid, signal.SIGCONT)

    async def _network(self, fault: str) -> None:
        self._site.proxy.inject(fault)
        await asyncio.sleep(min(self._seconds, OUTAGE_S))
        self._site.proxy.inject("none")

    async def _service(self, phase: str) -> None:
        self._mood.phase = phase
        await asyncio.sleep(self._seconds)
        self._mood.phase = "well"


async def run(
    site: Site,
    *,
    seed: int = 1,
    minutes: float = 30.0,
    rate: int = 500,
    quiet_s: float = 40.0,
    fault_s: float = 10.0,
    only: tuple[str, ...] = (),
) -> dict[str, Any]:
    """A fault, the time to catch up, `quiet_s` of quiet, the next fault, for `minutes`; then everything is counted.

    `only` names the faults, in their order; else each comes once before one comes again.
    """
    dice, mood = random.Random(seed), Mood(seed)
    keys = make_keys(await asyncio.to_thread(_folder, site))
    async with serving(keys, record=False) as served:
        served.fake.script = mood  # type: ignore[assignment]
        town = Town(site, served)
        watch = Watch(lambda: town.children, max(0.5, minutes / 3), site.totals)
        feed = Feed(site, seed, rate, _dirty(seed))
        keeper: asyncio.Task[None] | None = None
        try:
            for name in town.wanted:
                town.start(name)
            for name in town.wanted:
                await site.ready(town.children[name])
            town.start("console")
            town.wanted.append("console")
            keeper = asyncio.create_task(town.keep())
            async with _beside(watch.run()), _answering(site, seed):
                async with _beside(feed.run(), feed.stop):
                    told = await _break(
                        site, town, Faults(site, town, mood, dice, fault_s), rate, minutes, quiet_s, only
                    )
                figures_of_lives = figures(watch.trends())
            found = await verdict(site, [], 300.0, policy=SOAK, apart_from=BY_TIMERS)
            ends = await ends_of(site, lambda: +Counter(served.fake.accepted), 120.0)
            sent = +Counter(served.fake.accepted)
            learned = max(site.metric(child, "nudge_model_examples", model="open") for child in town.workers())
            assert not keeper.done(), keeper.exception()
        finally:
            if keeper is not None:
                keeper.cancel()
            town.close()
    return {
        "seed": seed, "minutes": minutes, "rate": rate, "events": feed.fed, "restarts": town.restarts,
        **told, **figures_of_lives, "examples_learned": int(learned),
        "sent_twice": sum(count - 1 for count in sent.values()), **ends, **found,
    }  # fmt: skip


async def _break(
    site: Site, town: Town, faults: Faults, rate: int, minutes: float, quiet_s: float, only: tuple[str, ...]
) -> dict[str, Any]:
    """Fault after fault. How often each fired, how long it took to catch up, and how many decisions were late."""
    fired: dict[str, int] = {}
    caught_up, load, decisions, late = [], [], 0.0, 0.0
    start = time.monotonic()
    names = iter(only) if only else faults.drawn()
    await asyncio.sleep(quiet_s)
    for name in names:
        print(f"{(time.monotonic() - start) / 60:.1f} min: {name}", flush=True)
        await faults.all[name]()
        fired[name] = fired.get(name, 0) + 1
        began = time.monotonic()
        await _caught_up(site, town, rate)
        caught_up.append(round(time.monotonic() - began, 1))
        made, tardy = await _quiet(site, town, quiet_s)
        decisions += made
        late += tardy
        load.append(round(os.getloadavg()[0], 1))
        print(f"    caught up after {caught_up[-1]} s; {tardy:g} of {made:g} late; load {load[-1]}", flush=True)
        if not only and time.monotonic() > start + 60 * minutes:
            break
    return {
        "fired": sum(fired.values()), "faults": fired, "caught_up_s_max": max(caught_up),
        "load_median": statistics.median(load),
        "quiet_decisions": int(decisions), "quiet_decisions_later_than_1_s": int(late),
        "too_slow": int(late > 0.01 * decisions),
    }  # fmt: skip


async def _caught_up(site: Site, town: Town, rate: int) -> None:
    """Until all are ready, and next to nothing waits: at two looks, for what is folded counts as taken before it is
    durable.

    A worker that has just been given a partition does not know its lag before its first fetch, and tells none: only
    a partition of which some worker tells it can have caught up.
    """
    await asyncio.sleep(MISSED_S)

    async def ready() -> bool:
        children = [town.children[name] for name in town.wanted if name != "console"]
        if any([await asyncio.to_thread(site.status, child) != 200 for child in children]):
            return False
        lags: dict[str, float] = {}
        for child in town.workers():
            lags |= await asyncio.to_thread(_lags, site, child)
        return len(lags) == site.partitions and sum(lags.values()) < WAITING_S * rate

    async def still() -> bool:
        if not await ready():
            return False
        await asyncio.sleep(2 * LATE_S)
        return await ready()

    try:
        await eventually(still, "all processes are ready and have caught up", _CATCH_UP_S)
    except AssertionError as exc:
        raise AssertionError(f"{exc}\n{await asyncio.to_thread(_state, site, town)}") from None


def _state(site: Site, town: Town) -> str:
    """What each process says of itself, for whoever has to find out what it waited for."""
    return "\n".join(
        f"--- {name}: exit code {child.returncode}, readiness {site.get(child, '/readyz')}, lags {_lags(site, child)}\n"
        + child.log_tail()
        for name, child in town.children.items()
    )


def _lags(site: Site, worker: Child) -> dict[str, float]:
    """By partition of `events`, those whose lag the worker tells: what waits, and what is not durable yet."""
    found = re.findall(
        rf'^nudge_consumer_lag_records\{{partition="(\d+)",topic="{EVENTS}"\}} (\S+)$',
        site.get(worker, "/metrics")[1],
        re.MULTILINE,
    )
    return {partition: float(lag) for partition, lag in found}


async def _quiet(site: Site, town: Town, seconds: float) -> tuple[float, float]:
    """A quiet spell: how many decisions were made, and how many took longer than `LATE_S`; who was late when is told.

    By process, for one that is started again counts from nothing.
    """
    began, made, late = time.monotonic(), 0.0, 0.0
    before = await asyncio.to_thread(_latencies, site, town)
    while (past_s := time.monotonic() - began) < seconds:
        await asyncio.sleep(min(LOOK_S, seconds - past_s))
        now = await asyncio.to_thread(_latencies, site, town)
        for (name, pid), (whole, tardy) in now.items():
            whole_before, tardy_before = before.get((name, pid), (0.0, 0.0))
            made += whole - whole_before
            late += tardy - tardy_before
            if tardy > tardy_before:
                told = f"{tardy - tardy_before:g} of {whole - whole_before:g} decisions of {name} were late"
                print(f"    {told} in the {LOOK_S:g} s before {time.monotonic() - began:.0f} s of quiet", flush=True)
        before |= now
    return made, late


def _latencies(site: Site, town: Town) -> dict[tuple[str, int], tuple[float, float]]:
    """By running worker: decisions so far, and those of them that took longer than `LATE_S` from their event."""
    name, found = "nudge_event_to_decision_seconds", {}
    for worker in town.workers():
        text = site.get(worker, "/metrics")[1]
        values = dict(line.rpartition(" ")[::2] for line in text.splitlines() if line.startswith(name))
        if f"{name}_count" in values:
            count = float(values[f"{name}_count"])
            found[worker.name, worker.pid] = (count, count - float(values[f'{name}_bucket{{le="{LATE_S}"}}']))
    return found


def _dirty(seed: int) -> Iterator[tuple[str, bytes]]:
    """A crowd's events; one in ten comes twice, one in five hundred is poison, one in fifty thousand a large one."""
    dice = random.Random(seed)
    kept: list[tuple[str, bytes]] = []
    for number, (user, value) in enumerate(crowd(100_000_000, users=_USERS, seed=seed, devices=True)):
        yield user, value
        kept = [*kept[-20:], (user, value)]
        if dice.random() < 0.1:
            yield dice.choice(kept)
        if number % 500 == 499:
            yield user, POISON[-1] if number % 50_000 == 49_999 else dice.choice(POISON[:-1])


@contextlib.asynccontextmanager
async def _answering(site: Site, seed: int) -> AsyncIterator[None]:
    """Some of what is decided is opened a moment later."""
    consumer = AIOKafkaConsumer(bootstrap_servers=site.bootstrap, client_id=CLIENT, enable_auto_commit=False)
    async with started(consumer):
        consumer.assign([TopicPartition(DECISIONS, partition) for partition in range(site.partitions)])
        await consumer.seek_to_beginning()
        async with _beside(_answer(site, consumer, random.Random(seed))):
            yield


async def _answer(site: Site, consumer: AIOKafkaConsumer, dice: random.Random) -> None:
    seen: set[str] = set()  # a decision may be published twice, and is shown to its user once
    while True:
        fetched = await consumer.getmany(timeout_ms=500)
        for record in (record for records in fetched.values() for record in records):
            made = decode_decision(record.value)
            if made.action != "send" or made.id in seen:
                continue
            seen.add(made.id)
            if dice.random() < _OPENED:
                opened = Event(
                    type="track", event="Notification Opened", user_id=made.user, message_id=f"{made.id}:opened",
                    timestamp=time.time_ns() // 1_000_000, properties={"decisionId": made.id},
                )  # fmt: skip
                await site.put(EVENTS, made.user, encode_event(opened))
        await asyncio.sleep(0.5)


@contextlib.asynccontextmanager
async def _beside(work: Awaitable[None], stop: Callable[[], None] | None = None) -> AsyncIterator[None]:
    """Run something meanwhile; it is asked to stop, or cancelled, at the end. What it raises is raised then."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        if stop is None:
            task.cancel()
        else:
            stop()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _folder(site: Site) -> Any:
    folder = site.directory / "keys"
    folder.mkdir()
    return folder
