"""One seed: users act, workers fold, everything that can break breaks, and in the end nothing may be missing."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import partial
from random import Random
from typing import Any

import structlog
from faust.types import TP

from app.core.ids import stable_id
from app.core.influence import EXAMPLES_DAY_MAX
from app.core.percentiles import USERS_MIN
from app.core.profile import decode_profile
from app.learning.scorer import FrozenModel
from app.stream.engine import Engine
from app.stream.fence import Fence
from schemas.catalog import CatalogItem, encode_item
from schemas.decisions import Decision, decode_decision
from schemas.events import Event, encode_event
from schemas.topics import (
    CATALOG,
    DEAD_LETTERS,
    DECISIONS,
    EVENTS,
    OUTCOMES,
    PROFILES_CHANGELOG,
    SEGMENTS,
)
from tests.simulation.cluster import COMPACTION_LAG_S, SESSION_S, Cluster, Log
from tests.simulation.disk import NO_SPACE, Disk
from tests.simulation.machine import World
from tests.simulation.process import Process
from tests.simulation.workload import (
    CHANGED,
    COUNTED,
    JUMP_MS,
    SOLD,
    START_MS,
    Said,
    Truth,
    answers,
    compared,
    happen,
    processor,
    truth_of,
)

QUIET_S_MAX = 120.0
"""Virtual time in which the workers must have caught up after the last fault."""
SALE_S = 1.5
"""How long faults go on once all events are folded."""
LOOK_S = 0.25
_VERBS = ("queue", "appended", "acked")
POINTS = (
    *(f"{verb} {topic}" for topic in (PROFILES_CHANGELOG, DECISIONS, SEGMENTS) for verb in _VERBS),
    "store before", "store after", "commit", "committed", "drain",
)  # fmt: skip


@dataclass
class Report:
    """Figures of one seed; `violations` is empty when all is well."""

    seed: int
    events: int = 0
    decisions: int = 0
    outcomes: int = 0
    offers: int = 0
    """Of the decisions, those that tell of a change of the catalog."""
    counted: int = 0
    """Changes of membership by a percentile."""
    faults: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    over_counted: int = 0
    rows_different: int = 0
    missing: int = 0
    spurious: int = 0
    contradictions: int = 0
    problems: list[str] = field(default_factory=list)
    steps: int = 0
    """Turns of the processes: with the time at the end they tell whether a seed has taken the same course again."""
    virtual_s: float = 0.0

    @property
    def violations(self) -> int:
        """0 when the workers agree with the single thread."""
        return (
            self.lost + self.over_counted + self.rows_different + self.missing + self.spurious
            + self.contradictions + len(self.problems)
        )  # fmt: skip


class Scenario:
    """The world of a seed: its broker, its workers and its bad luck; `bare` without a catalog and percentiles."""

    def __init__(
        self,
        seed: int,
        engine_type: type[Engine] = Engine,
        process_type: type[Process] = Process,
        *,
        bare: bool = False,
    ) -> None:
        self.rng = Random(f"scenario {seed}")
        rng = self.rng
        self.report = Report(seed)
        self.world = World(seed)
        self.engine_type = engine_type
        self.process_type = process_type
        self.idempotent = rng.random() < 0.7
        self.lost_acks = rng.choice((0.0, 0.0, 0.02, 0.1))
        self.cache_rows = 1000
        self.partitions = rng.randint(1, 3)
        self.cluster = Cluster(self.world, EVENTS, self.partitions, gaps=rng.random() < 0.5)
        self.workers = rng.randint(1, 3)
        self.users = rng.choice((3, 12, 40))
        self.length_s = rng.uniform(5.0, 15.0)
        self.events = rng.randint(60, 250)
        self.carts: set[int] = set()
        self.fed = 0
        self.heard: Counter[TP] = Counter()
        self.answered: set[str] = set()
        self.unanswered = 0
        self.answers_end = False
        self.calm = False
        self.clock_ahead_ms = 0
        self.fired: Counter[str] = Counter()
        self.processes: dict[int, Process] = {}
        self.disks: dict[int, Disk] = {}
        self.lives = 0
        beside = Random(f"aside {seed}")  # dice of its own, so that a bare seed is what it is
        self.sells = not bare and beside.random() < 0.4
        self.counts = not bare and beside.random() < (0.7 if self.users > USERS_MIN else 0.1)
        self.caught_up = False
        self.more = Random(f"more {seed}")  # likewise
        for item in SOLD if self.sells else ():
            self._sell(item)
        self._plan_kill()

    # -- what processes ask

    def clock_ms(self) -> int:
        """Event time."""
        return START_MS + int(self.world.now * 1000) + self.clock_ahead_ms

    def at_ms(self, entry: Any) -> int:
        """When a record was written, in event time."""
        return START_MS + int(entry.appended_at * 1000)

    def damaged(self) -> bool:
        """Whether a store that is opened now shall be found damaged."""
        if self.calm or self.rng.random() > 0.1:
            return False
        self.fired["damaged store"] += 1
        return True

    def kills_at(self, process: Process, point: str) -> bool:
        """Whether the process dies at this point."""
        if self.calm or point != self._kill_point:
            return False
        self._kill_after -= 1
        if self._kill_after > 0:
            return False
        self.fired[f"kill: {point}"] += 1
        self._plan_kill()
        return True

    def fatal(self, process: Process, what: str) -> None:
        """A worker ended itself: rightly, when the group had gone on without it."""
        if "LeaseLost" in what:
            self.fired["fenced"] += 1
            return
        if NO_SPACE in what or "KafkaTimeoutError" in what:
            self.fired["ended: no space" if NO_SPACE in what else "ended: given up"] += 1
            return
        self.report.problems.append(f"{process.name} at {self.world.now:.3f}: {what}")

    def _plan_kill(self) -> None:
        self._kill_point = self.rng.choice(POINTS)
        self._kill_after = self.rng.choice((1, 2, 5, 15))

    # -- the course of events

    def run(self) -> Report:
        """Everything, in order."""
        self.world.outside.call_soon(self._supervise)
        self.world.outside.call_soon(self._sweep)
        self.world.outside.call_soon(self._answer)
        at = 0.0
        for number in range(self.events):
            if self.rng.random() < 0.15:  # bursts
                at += self.rng.expovariate(0.15 * self.events / self.length_s)
            self.world.outside.call_at(at, self._feed, number)
        for _ in range(self.rng.randint(2, 10)):
            self.world.outside.call_at(self.rng.uniform(0.5, self.length_s), self._misfortune)
        for _ in range(self.more.randint(0, 3)):
            self.world.outside.call_at(self.more.uniform(0.5, self.length_s), self._refusal)
        self.world.outside.call_at(self.length_s, self._calm_down)
        try:
            if not self.world.run(lambda: self.calm and self._idle(), self.length_s + QUIET_S_MAX):
                self.report.problems.append(f"not caught up: {self._backlog()}")
                return self.report
            now_ms = self.clock_ms()
            self.answers_end = True  # else events would go on, and the single thread could not say when prices changed
            if self.sells or self.counts:
                self._tell_and_count()
                if not self.world.run(lambda: self.caught_up, SALE_S + QUIET_S_MAX):
                    self.report.problems.append(f"not told, or not counted: {self._backlog()}")
                    return self.report
            self.clock_ahead_ms = JUMP_MS
            if not self.world.run(lambda: self._idle() and not self._due(), QUIET_S_MAX):
                self.report.problems.append(f"timers are still due: {self._due()}")
                return self.report
            self._compact_all()
            items = [(entry, self.at_ms(entry)) for entry in self.cluster.entries(CATALOG)]
            events, beside = self.cluster.entries(EVENTS), self.sells or self.counts
            self._compare(truth_of(events, items, now_ms, self.clock_ms(), beside=beside))
        finally:
            self._collect()
            self.world.close()
        return self.report

    def _feed(self, number: int) -> None:
        user, key, value = happen(self.rng, number, self.clock_ms(), self.users, self.carts)
        self.fed += 1
        copies = 2 if self.rng.random() < 0.05 else 1
        for _ in range(copies):
            self.cluster.append(EVENTS, user % self.partitions, [(key, value, ())])

    def _answer(self) -> None:
        """The sender, and the users: a decision has its receipt a while later, once, and may be opened and clicked."""
        if self.answers_end:
            return
        for tp, log in self._decided():
            for entry in log.read(self.heard[tp], 10_000):
                made = decode_decision(entry.value or b"")
                if made.id not in self.answered:
                    self.answered.add(made.id)
                    self._answer_one(made)
            self.heard[tp] = log.end
        self.world.later(0.2, self._answer)

    def _answer_one(self, made: Decision) -> None:
        after_s = 0.0
        for wait_s, name in answers(self.rng, made):
            after_s += wait_s
            self.unanswered += 1
            self.world.later(after_s, partial(self._happens, made, name))

    def _happens(self, made: Decision, name: str) -> None:
        self.unanswered -= 1
        properties = {"decisionId": made.id, "campaign": made.campaign}
        user = made.user
        event = Event(
            type="track",
            event=name,
            user_id=user,
            message_id=f"{made.id}:{name}",
            timestamp=self.clock_ms(),
            properties=properties,
        )
        partition = int(user.removeprefix("user-")) % self.partitions
        self.cluster.append(EVENTS, partition, [(user.encode(), encode_event(event), ())])

    def _sell(self, item: CatalogItem) -> None:
        self.cluster.append(CATALOG, 0, [(item.id.encode(), encode_item(item), ())])

    def _tell_and_count(self) -> None:
        """All events are folded; what changes from now on is told, and counted, while things break."""
        self.calm = False
        after_s = 0.01
        for item in CHANGED if self.sells else ():
            self.world.later(after_s, partial(self._sell, item))
            after_s += self.rng.choice((0.001, 0.3))
        for kind in self.rng.choice(((), ("kill",), ("kill", ""), ("",))):
            self.world.later(self.rng.uniform(0.0, SALE_S / 2), partial(self._misfortune, kind))
        self.world.later(SALE_S, self._calm_down)
        self.world.later(SALE_S, self._look)

    def _look(self) -> None:
        """Whether everybody has been told, and everybody counted."""
        self.caught_up = self.calm and self._idle() and self._all_told()
        if not self.caught_up:
            self.world.later(LOOK_S, self._look)

    def _all_told(self) -> bool:
        end = self.cluster.log(CATALOG, 0).end
        alive = [process for process in self.processes.values() if process.machine.alive]
        owned = sorted(partition for process in alive for partition in process.engine.tenures())
        if owned != list(range(self.partitions)) or not all(process.consumer.flow_active for process in alive):
            return False  # a rebalance is under way: some still take for theirs what is another's by now
        asides = [process.aside for process in alive]
        if not all(aside.has_told(end) for aside in asides):
            return False
        rows, now_ms = self._rows(), self.clock_ms()
        return all(aside.agrees(rows, now_ms) for aside in asides)

    def _supervise(self) -> None:
        """Start what is dead, after a while."""
        for number in range(self.workers):
            process = self.processes.get(number)
            if process is None or not process.machine.alive:
                if process is not None and not self.calm and self.rng.random() < 0.7:
                    continue
                if number not in self.disks or (not self.calm and self.rng.random() < 0.2):
                    self.disks[number] = Disk()
                self.lives += 1
                core = processor(self.lives, number, beside=self.sells or self.counts)
                name = f"worker-{number}.{self.lives}"
                self.processes[number] = self.process_type(
                    self.world, self.cluster, name, self.disks[number], self, core
                )
        self.world.later(0.2, self._supervise)

    def _sweep(self) -> None:
        self.cluster.group.sweep()
        self.world.later(0.1, self._sweep)

    def _misfortune(self, kind: str = "") -> None:
        rng = self.rng
        kind = kind or rng.choice(("kill", "stall", "suspend", "stuck", "leave", "slow", "compact", "model", "join"))
        self.fired[kind] += 1
        if kind == "slow":
            tp = rng.choice(sorted(self.cluster.logs))
            self.cluster.slow_until[tp] = self.world.now + rng.uniform(0.1, 2.0)
        elif kind == "compact":
            for tp, log in self.cluster.logs.items():
                if tp.topic == PROFILES_CHANGELOG:
                    log.compact(rng.randint(0, 20))
        elif kind == "join":
            self.workers = min(4, self.workers + 1)
        elif alive := [process for process in self.processes.values() if process.machine.alive]:
            self._strike(kind, rng.choice(alive))

    def _refusal(self) -> None:
        """A disk is full for a while, or a producer gives up waiting for what has been written all the same."""
        more = self.more
        if more.random() < 0.5:
            disk = self.disks[more.choice(sorted(self.disks))]
            disk.full = True
            self.fired["disk full"] += 1
            self.world.later(more.uniform(0.05, 2.0), partial(setattr, disk, "full", False))
        elif alive := [process for process in self.processes.values() if process.machine.alive]:
            more.choice(alive).impatient = True

    def _strike(self, kind: str, process: Process) -> None:
        rng = self.rng
        if kind == "kill":
            process.kill("at any time")
        elif kind == "stall":
            process.machine.suspend(rng.uniform(0.1, 0.7) * SESSION_S)
        elif kind == "suspend":
            process.machine.suspend(rng.uniform(1.2, 3.0) * SESSION_S)
        elif kind == "stuck":  # suspended with half a request in the socket's buffer: the rest follows by itself
            process.stuck_s = rng.uniform(1.0, 3.0) * SESSION_S
            self.world.later(0.1, partial(process.machine.suspend, process.stuck_s))
        elif kind == "leave":
            process.left = True
        elif kind == "model":
            process.processor.scorer = FrozenModel(rng.randrange(1000), rng.uniform(-3, 3), {})

    def _calm_down(self) -> None:
        self.calm = True
        for process in self.processes.values():
            process.machine.suspended_until = 0.0
            process.impatient = False
        for disk in self.disks.values():
            disk.full = False

    # -- the end

    def _compact_all(self) -> None:
        """Nothing is written any more, and all is compacted: what that could drop must have been written again."""
        end = self.world.now + COMPACTION_LAG_S + 1.0
        self.world.run(lambda: self.world.now > end, QUIET_S_MAX)
        for tp, log in self.cluster.logs.items():
            if tp.topic == PROFILES_CHANGELOG:
                log.compact(0)

    def _backlog(self) -> dict[str, Any]:
        committed = self.cluster.group.committed
        ends = {p: self._last(p) for p in range(self.partitions)}
        return {
            "behind": {p: (committed.get(TP(EVENTS, p)), end) for p, end in ends.items()},
            "in flight": {p.name: p.consumer.barrier.inflight for p in self.processes.values() if p.machine.alive},
        }

    def _last(self, partition: int) -> int:
        entries = self.cluster.log(EVENTS, partition).entries
        return entries[-1].offset + 1 if entries else 0

    def _idle(self) -> bool:
        if self.fed < self.events or self.unanswered:
            return False
        if not self.answers_end and any(log.end > self.heard[tp] for tp, log in self._decided()):
            return False
        committed = self.cluster.group.committed
        if any(committed.get(TP(EVENTS, p), 0) < self._last(p) for p in range(self.partitions)):
            return False
        alive = [process for process in self.processes.values() if process.machine.alive]
        return len(alive) >= 1 and all(
            hasattr(p, "engine") and p.recovery.completed.is_set() and not p.consumer.barrier.inflight for p in alive
        )

    def _decided(self) -> list[tuple[TP, Log]]:
        return [(tp, log) for tp, log in self.cluster.logs.items() if tp.topic == DECISIONS]

    def _rows(self) -> dict[bytes, Any]:
        rows: dict[bytes, Any] = {}
        for partition in range(self.partitions):
            newest = dict(Fence().admit(self.cluster.log(PROFILES_CHANGELOG, partition).entries))
            rows |= {key: decode_profile(value) for key, value in newest.items() if value is not None}
        return rows

    def _due(self) -> int:
        now_ms = self.clock_ms()
        return sum(row.due_ms() <= now_ms for row in self._rows().values())

    def _compare(self, truth: Truth) -> None:
        report = self.report
        rows = {key: compared(row) for key, row in self._rows().items()}
        expected = Counter({key: row["events"] for key, row in truth.rows.items()})
        found = Counter({key: row["events"] for key, row in rows.items()})
        report.lost = (expected - found).total()
        report.over_counted = (found - expected).total()
        report.rows_different = sum(rows.get(key) != row for key, row in truth.rows.items())
        report.rows_different += len(rows.keys() - truth.rows)
        said = Said()
        for topic in (DECISIONS, SEGMENTS, OUTCOMES, DEAD_LETTERS):
            for entry in self.cluster.entries(topic):
                said.hear(topic, entry.value, entry.headers)
        many = taught_much(truth.said) | taught_much(said)
        for name in ("decisions", "outcomes", "dead"):
            wanted, got = set(getattr(truth.said, name)), set(getattr(said, name))
            if name == "outcomes":
                wanted, got = ({one for one in some if one.split()[0] not in many} for some in (wanted, got))
            report.missing += len(wanted - got)
            report.spurious += len(got - wanted)
        report.contradictions = len(said.contradictions)
        for user, changes in truth.said.changes.items():
            if said.changes.get(user) != changes:
                report.problems.append(f"membership of {user}: {said.changes.get(user)} instead of {changes}")
        report.decisions, report.outcomes, report.offers = len(said.decisions), len(said.outcomes), said.offers
        self._compare_counted(said)

    def _compare_counted(self, said: Said) -> None:
        """Whoever is in the segment with a percentile entered and left in turns, and was last said to be in it."""
        inside = {key.decode() for key, row in self._rows().items() if stable_id(COUNTED) in row.segments}
        for user, changes in said.counted.items():
            self.report.counted += len(changes)
            if changes != [("enter", "leave")[n % 2] for n in range(len(changes))]:
                self.report.problems.append(f"{user} is in {COUNTED}: {changes}")
        last = {user for user, changes in said.counted.items() if changes[-1] == "enter"}
        if last != inside:
            self.report.problems.append(f"in {COUNTED}: {sorted(inside)}; said: {sorted(last)}")

    def _collect(self) -> None:
        group = self.cluster.group
        self.fired["rebalances"], self.fired["evictions"] = group.rebalances, group.evictions
        self.report.faults = dict(self.fired)
        self.report.steps, self.report.virtual_s = self.world.steps, self.world.now
        self.report.events = len(self.cluster.entries(EVENTS))
        for machine in self.world.machines:
            self.report.problems += machine.errors


def taught_much(said: Said) -> set[str]:
    """Users of whom not every example goes out: beyond `EXAMPLES_DAY_MAX` it is a matter of how many came before it.

    Which come first in the one instant to which the clock jumps at the end depends on when each was decided, and the
    truth decides all of them at once.
    """
    examples = Counter(name.split()[0] for name in said.outcomes if not name.endswith(" reward"))
    return {user for user, number in examples.items() if number >= EXAMPLES_DAY_MAX}


def quiet() -> None:
    """What workers log about injected faults says nothing here."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def simulate(
    seed: int, engine_type: type[Engine] = Engine, process_type: type[Process] = Process, *, bare: bool = False
) -> dict[str, Any]:
    """Run one seed; its figures."""
    report = Scenario(seed, engine_type, process_type, bare=bare).run()
    return asdict(report) | {"violations": report.violations}
