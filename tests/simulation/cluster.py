"""A Kafka in memory: logs with gaps and compaction, and a group coordinator; time and faults come from the world."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from faust.types import TP

from schemas.topics import PROFILES_CHANGELOG
from tests.simulation.machine import Machine, World

SESSION_S = 3.0
REBALANCE_S = 4.0
COMPACTION_LAG_S = 4.0
"""What is younger is not compacted; in earnest it is an hour, against a session of seconds."""


class Refused(Exception):
    """The coordinator's answer to a member that it no longer knows."""


@dataclass(slots=True)
class Entry:
    """A record as it stands in the log."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp: int = 0
    timestamp_type: int = 0
    appended_at: float = 0.0


class Log:
    """One partition: what was appended, by offset; some offsets are left out, as transactions and compaction do."""

    def __init__(self, tp: TP, world: World) -> None:
        self.tp = tp
        self.world = world
        self.entries: list[Entry] = []
        self.end = 0

    def append(self, rows: Iterable[tuple[bytes | None, bytes | None, Sequence[tuple[str, bytes]]]], gap: int) -> int:
        """Append a batch after `gap` unused offsets; returns its base offset."""
        base = self.end = self.end + gap
        for key, value, headers in rows:
            entry = Entry(self.tp.topic, self.tp.partition, self.end, key, value, tuple(headers))
            entry.appended_at = self.world.now
            self.entries.append(entry)
            self.end += 1
        return base

    def read(self, position: int, limit: int) -> list[Entry]:
        """At most `limit` records from `position` on."""
        start = bisect.bisect_left(self.entries, position, key=lambda entry: entry.offset)
        return self.entries[start : start + limit]

    def compact(self, keep_newest: int) -> None:
        """Of what is old enough, but for the newest `keep_newest` records, keep the last of each key."""
        old = sum(self.world.now - entry.appended_at > COMPACTION_LAG_S for entry in self.entries)
        cut = max(0, min(old, len(self.entries) - keep_newest))
        last = {entry.key: entry.offset for entry in self.entries[:cut]}
        self.entries = [e for n, e in enumerate(self.entries) if n >= cut or last[e.key] == e.offset]


@dataclass
class Member:
    """A member of the group, as the coordinator sees it."""

    machine: Machine
    heard_at: float
    waiting: Callable[[tuple[int, set[TP]]], None] | None = None


@dataclass
class Group:
    """The consumer group's coordinator: eager rebalances, sessions, fenced commits."""

    world: World
    partitions: list[TP]
    members: dict[str, Member] = field(default_factory=dict)
    generation: int = 0
    preparing_since: float | None = None
    committed: dict[TP, int] = field(default_factory=dict)
    rebalances: int = 0
    evictions: int = 0

    def join(self, name: str, machine: Machine, answer: Callable[[tuple[int, set[TP]]], None]) -> None:
        """A member wants in, or again; it is answered when all have joined."""
        self.members[name] = Member(machine, self.world.now, answer)
        if self.preparing_since is None:
            self.preparing_since = self.world.now
        self._maybe_complete()

    def heartbeat(self, name: str, generation: int) -> bool:
        """True while a rebalance is under way."""
        self._check(name, generation)
        self.members[name].heard_at = self.world.now
        return self.preparing_since is not None

    def commit(self, name: str, generation: int, offsets: dict[TP, int]) -> None:
        """Remember offsets."""
        self._check(name, generation)
        self.committed |= offsets

    def leave(self, name: str) -> None:
        """A member goes of its own accord."""
        if self.members.pop(name, None) and self.preparing_since is None:
            self.preparing_since = self.world.now
        self._maybe_complete()

    def sweep(self) -> None:
        """Evict the silent and those that take too long to join again."""
        now = self.world.now
        late = self.preparing_since is not None and now - self.preparing_since > REBALANCE_S
        for name, member in list(self.members.items()):
            silent = member.waiting is None and now - member.heard_at > SESSION_S
            if silent or (late and member.waiting is None):
                del self.members[name]
                self.evictions += 1
                self.preparing_since = self.preparing_since or now
        self._maybe_complete()

    def _check(self, name: str, generation: int) -> None:
        if name not in self.members or generation != self.generation:
            raise Refused("unknown member or another generation")

    def _maybe_complete(self) -> None:
        if self.preparing_since is None or not all(member.waiting for member in self.members.values()):
            return
        self.preparing_since = None
        self.generation += 1
        self.rebalances += 1
        names = list(self.members)
        self.world.rng.shuffle(names)
        for number, name in enumerate(names):
            member = self.members[name]
            answer, member.waiting, member.heard_at = member.waiting, None, self.world.now
            assert answer is not None
            answer((self.generation, {tp for n, tp in enumerate(self.partitions) if n % len(names) == number}))


class Cluster:
    """The broker."""

    def __init__(self, world: World, source: str, partitions: int, *, gaps: bool) -> None:
        self.world = world
        self.gaps = gaps
        self.partitions = partitions
        self.logs: dict[TP, Log] = {}
        self.group = Group(world, [TP(source, partition) for partition in range(partitions)])
        self.slow_until: dict[TP, float] = defaultdict(float)

    def log(self, topic: str, partition: int) -> Log:
        """A partition's log."""
        tp = TP(topic, partition)
        if tp not in self.logs:
            self.logs[tp] = Log(tp, self.world)
        return self.logs[tp]

    def append(self, topic: str, partition: int, rows: Sequence[Any]) -> int:
        """Append a batch; returns its base offset."""
        # Changelogs are not written in transactions, so what is appended to them follows on the end.
        gaps = self.gaps and topic != PROFILES_CHANGELOG
        gap = self.world.rng.randint(1, 3) if gaps and self.world.rng.random() < 0.1 else 0
        return self.log(topic, partition).append(rows, gap)

    def entries(self, topic: str) -> list[Entry]:
        """All records of a topic, by partition and offset."""
        return [entry for tp, log in sorted(self.logs.items()) if tp.topic == topic for entry in log.entries]

    async def call(self, machine: Machine, function: Callable[..., Any], *arguments: Any, late_s: float = 0.0) -> Any:
        """A request: it takes a while to arrive, whatever becomes of the sender, and so does the answer."""
        world, rng = self.world, self.world.rng
        answer = machine.create_future()

        def respond(result: Any, error: Exception | None) -> None:
            if answer.done():
                return
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(error)

        def arrive() -> None:
            if not machine.alive and rng.random() < 0.5:
                return  # it was still in the sender's buffers
            try:
                result, error = function(*arguments), None
            except Refused as exc:
                result, error = None, exc
            if machine.alive:
                machine.call_at(world.now + self._travel(), respond, result, error)

        world.later(self._travel() + late_s, arrive)
        return await answer

    def _travel(self) -> float:
        rng = self.world.rng
        return rng.random() * (0.003 if rng.random() < 0.97 else 0.3)
