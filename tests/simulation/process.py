"""A worker: the project's engine, table, restore, recovery, barrier and transport code on simulated clients.

Faust itself is left out: `Process` stands for its app, `Transport` for its consumer, and both borrow the methods that
the project puts in the place of Faust's. What Faust does around them (revoke, assign, commit, the agent's loop) is
written out here, in its order.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any

from faust.types import TP

from app.core.processor import Processor
from app.stream.app import StreamApp
from app.stream.backlog import Backlog
from app.stream.barrier import Barrier
from app.stream.consumer_thread import BatchedConsumerThread
from app.stream.gaps import GapCheck
from app.stream.jumps import Jumps
from app.stream.lease import Lease
from app.stream.recovery import RowRecovery
from app.stream.standing import Standing
from app.stream.table import RowTable, Spilling
from app.stream.transport import BatchedConsumer
from schemas.topics import DECISIONS, EVENTS, PROFILES_CHANGELOG, SEGMENTS
from tests.simulation.aside import Aside
from tests.simulation.clients import KafkaConsumer, Producer
from tests.simulation.cluster import COMPACTION_LAG_S, SESSION_S, Cluster, Refused
from tests.simulation.disk import Disk, Stores
from tests.simulation.machine import Died, World
from tests.support.engine import NoObserver

HEARTBEAT_S = 0.4
COMMIT_S = 0.3
TICK_S = 0.1
SPILL_S = 0.7
QUEUE_MAX = 16


class _Thread:
    """Stands for the thread in which aiokafka runs."""

    seek_to_start = BatchedConsumerThread.seek_to_start
    seek_to = BatchedConsumerThread.seek_to

    def __init__(self, kafka: KafkaConsumer) -> None:
        self._kafka = kafka

    def _ensure_consumer(self) -> KafkaConsumer:
        return self._kafka

    async def call_thread(self, function: Any, *arguments: Any) -> Any:
        return await function(*arguments)


class Transport:
    """Stands for Faust's consumer; delivery and acknowledgement are `BatchedConsumer`'s."""

    getmany = BatchedConsumer.getmany
    seek_to_start = BatchedConsumer.seek_to_start
    wait_empty = BatchedConsumer.wait_empty
    behind = BatchedConsumer.behind
    _went_back = BatchedConsumer._went_back
    _of_another_log = BatchedConsumer._of_another_log
    _read_gaps_again = BatchedConsumer._read_gaps_again
    _fetch = BatchedConsumer._fetch
    _is_void = BatchedConsumer._is_void
    _to_batch = BatchedConsumer._to_batch
    _begin = BatchedConsumer._begin
    _complete = BatchedConsumer._complete
    _give_back = BatchedConsumer._give_back
    _filter_tps_with_pending_acks = BatchedConsumer._filter_tps_with_pending_acks
    _filter_committable_offsets = BatchedConsumer._filter_committable_offsets

    def __init__(self, process: Process, kafka: KafkaConsumer) -> None:
        self.app = process
        self.barrier = Barrier()
        self.gaps = GapCheck()
        self.jumps = Jumps(self._beginning)
        self.backlog = Backlog(limit=300, batches_max=3)
        self.flow_active = False
        self.can_resume_flow = asyncio.Event()
        self.suspend_flow = asyncio.Event()
        self.should_stop = False
        self._kafka = kafka
        self.flow_epoch = 0
        self.fetched_at = 0.0
        self._fetched = 0
        self._lasts: dict[TP, dict[int, str]] = {}
        self._fetching = asyncio.Lock()
        self._committed_offset: dict[TP, int] = {}
        self._thread = _Thread(kafka)
        self._committing = asyncio.Lock()

    def stop_flow(self) -> None:
        self.flow_epoch += 1
        self.backlog.clear()
        self.flow_active = False
        self.can_resume_flow.clear()
        self.suspend_flow.set()

    def resume_flow(self) -> None:
        self.flow_active = True
        self.suspend_flow.clear()
        self.can_resume_flow.set()

    async def wait(self, event: asyncio.Event) -> None:
        await event.wait()

    def assignment(self) -> set[TP]:
        return {TP(*tp) for tp in self._kafka.assignment()}

    def resume_partitions(self, partitions: set[TP]) -> None:
        """All are fetched."""

    async def _beginning(self, _tp: TP) -> int:
        """Logs keep everything: their gaps are those of transactions."""
        return 0

    def highwater(self, tp: TP) -> int | None:
        return self._kafka.highwater(tp)

    def _position(self, tp: TP) -> int | None:
        return self._kafka.positions.get(tp)

    def _get_active_partitions(self) -> set[TP]:
        return self.assignment()

    async def _getmany(self, active_partitions: set[TP], timeout: float) -> dict[TP, list[Any]]:
        return await self._kafka.getmany(*sorted(active_partitions), timeout_ms=int(timeout * 1000))

    async def commit(self) -> None:
        """Commit what the barrier says; a member that is out of the group learns it and goes on, as in Faust."""
        async with self._committing:
            offsets = self._filter_committable_offsets(list(self._filter_tps_with_pending_acks()))
            offsets = {tp: offset for tp, offset in offsets.items() if tp in self.assignment()}
            if not offsets:
                return
            self.app.point("commit")
            with contextlib.suppress(Refused):
                await self.app.cluster.call(self.app.machine, self._commit, self.app.consumer_generation_id, offsets)
                self._committed_offset.update(offsets)

    def _commit(self, generation: int, offsets: dict[TP, int]) -> None:
        self.app.cluster.group.commit(self.app.name, generation, offsets)
        if self.app.machine.alive:
            self.app.reached("committed")


class _Recovery:
    """Stands for the recovery service."""

    _recover = RowRecovery._recover
    on_rebalance = RowRecovery.on_rebalance
    run = RowRecovery._restart_recovery.fun
    should_stop = False

    def __init__(self, process: Process) -> None:
        self.app = process
        self.tables = process
        self.completed = asyncio.Event()
        self.signal_recovery_start = asyncio.Event()
        self.in_recovery = False
        self._generation_id = 0

    async def wait_for_stopped(self, signal: asyncio.Event) -> bool:
        await signal.wait()
        return False


class Table(RowTable):
    """The row table without Faust's; its restore reads the simulated cluster."""

    standing_type: type[Standing] = Standing

    def __init__(self, process: Process, factory: Stores) -> None:
        self.app = process
        self.name = "profiles"
        self.set_up(PROFILES_CHANGELOG, factory)
        self.owner = process.name.encode()
        self._standing = self.standing_type(self, look_s=COMPACTION_LAG_S / 4)
        self._spilling = Spilling(self, every_s=SPILL_S)
        self.connect = process.kafka
        self.bulk_records = 20  # so that some stores are filled in bulk, and killed meanwhile


class Process:
    """One life of a worker. Stands for Faust's app; `point` and `reached` are where it can be killed."""

    table_type: type[Table] = Table
    aside_type: type[Aside] = Aside
    _tables: list[Any]
    watch = StreamApp.watch
    restore_tables = StreamApp.restore_tables
    before_resume = StreamApp.before_resume
    drain = StreamApp.drain
    confirm_lease = StreamApp.confirm_lease
    folded_topics = StreamApp.folded_topics

    def __init__(
        self, world: World, cluster: Cluster, name: str, disk: Disk, faults: Any, processor: Processor
    ) -> None:
        self.machine = world.machine(name)
        self.world, self.cluster, self.name, self.disk, self.faults = world, cluster, name, disk, faults
        self.processor = processor
        self.consumer_generation_id = 0
        self.recheck_gaps = not faults.idempotent
        self.client_settings: dict[str, Any] = {}
        self.lease = Lease(SESSION_S, lambda: world.now)
        self.stuck_s = 0.0
        """How long the requests that are sent now stay in the socket's buffer."""
        self.impatient = False
        self.died: str | None = None
        self.left = False
        self._producing = False
        self._tables, self._clients = [], []
        self.on_remaining = lambda table, remaining: None
        self.on_rebalanced = lambda: None
        self.machine.call_soon(lambda: self.machine.create_task(self._main()))

    # -- faults

    def point(self, name: str) -> None:
        """A point in the code of the worker."""
        if self.faults.kills_at(self, name):
            self.kill(name)
            raise Died(name)

    def reached(self, name: str) -> None:
        """A point outside of it, as seen by the broker: the worker is not in the middle of a statement."""
        if self.faults.kills_at(self, name):
            self.kill(name)

    def gives_up(self) -> bool:
        """Whether the producer has waited too long for the next acknowledgement, though the record was written."""
        given_up, self.impatient = self.impatient, False
        return given_up

    def kill(self, why: str) -> None:
        """SIGKILL."""
        if self.machine.alive:
            self.died = why
            self.machine.kill()
            self.disk.crash(self.world.rng)

    def fatal(self, what: str, exc: BaseException | None = None) -> None:
        """Exit code 70."""
        self.faults.fatal(self, f"{what}: {exc!r}")
        self.kill(f"fatal: {what}")
        raise Died(what) from exc

    # -- what the code under test uses of Faust's app

    flow_control = property(lambda self: self)
    on_rebalance_complete = property(lambda self: self)
    _fetcher = property(lambda self: self)
    tables = property(lambda self: self)

    def suspend(self) -> None: ...

    def resume(self) -> None: ...

    async def send(self) -> None: ...

    async def maybe_start(self) -> None: ...

    def on_actives_ready(self) -> None: ...

    def on_standbys_ready(self) -> None: ...

    def on_rebalance_end(self) -> None: ...

    def kafka(self, **_settings: Any) -> KafkaConsumer:
        """A consumer of its own, for the restore."""
        return KafkaConsumer(self.cluster, self.machine)

    async def key_at(self, topic: str, partition: int, offset: int) -> bytes | None:
        """Whose record stands in the log: a replay that is none would end the worker."""
        (found,) = await self.cluster.call(self.machine, self.cluster.log(topic, partition).read, offset, 1) or (None,)
        return found.key if found is not None and found.offset == offset else None

    # -- its life

    async def _main(self) -> None:
        self.kafka_consumer = self.kafka()
        self.consumer = self.batches = Transport(self, self.kafka_consumer)
        self.durable_producer = Producer(
            self.cluster, self.machine, self, idempotent=self.faults.idempotent, lost=self.faults.lost_acks
        )
        self.recovery = _Recovery(self)
        self.table = self.table_type(self, Stores(self.disk, self.faults.damaged, self.point))
        self.engine = self.faults.engine_type(
            self, self.table, EVENTS, self.processor, NoObserver(), self.faults.clock_ms,
            cache_rows=self.faults.cache_rows, copartitioned=frozenset({DECISIONS, SEGMENTS}),
        )  # fmt: skip
        self._tables.append((self.table, EVENTS, self.engine))
        self.watch(EVENTS, self.engine)
        self.queue: deque[Any] = deque()
        self.queued, self.taken = asyncio.Event(), asyncio.Event()
        self.table._standing.start()
        self.table._spilling.start()
        self.aside = self.aside_type(self, len(self.cluster.group.partitions))
        parts = (self._member(), self._fetch(), self._agent(), self._timers(), self._commits(), self.recovery.run())
        await asyncio.gather(*parts, *self.aside.parts())

    async def _fetch(self) -> None:
        transport = self.consumer
        while True:
            async for _tp, message in transport.getmany(0.25):
                while len(self.queue) >= QUEUE_MAX and transport.flow_active:
                    self.taken.clear()
                    waits = [asyncio.ensure_future(event.wait()) for event in (self.taken, transport.suspend_flow)]
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                    for wait in waits:
                        wait.cancel()
                if transport.flow_active:
                    self.queue.append(message.value)
                    self.queued.set()
            await asyncio.sleep(0)

    async def _agent(self) -> None:
        while True:
            while not self.queue:
                self.queued.clear()
                await self.queued.wait()
            batches = self.queue.popleft()
            self.taken.set()
            try:
                await self.engine.submit(*batches)
            except Exception as exc:
                self.fatal(f"processing {batches!r} failed", exc)

    async def _timers(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.engine.tick()
            except Exception as exc:
                self.fatal("firing timers failed", exc)

    async def _commits(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_S)
            await self.consumer.commit()

    async def _member(self) -> None:
        """The group protocol as aiokafka and Faust run it: join, assign, heartbeat, revoke, join again."""
        while not self.left:
            generation, assignment = await self._join()
            self.consumer_generation_id = generation
            self.kafka_consumer.assign(assignment)
            await self.recovery.on_rebalance(assignment, set(), assignment, generation)
            await self._stay(generation)
            self.consumer.stop_flow()
            self.queue.clear()
            self.point("drain")
            await self.consumer.wait_empty()
            self.beating.cancel()
        await self.cluster.call(self.machine, self.cluster.group.leave, self.name)
        for partition in list(self.table.stores):
            self.table.close_partition(partition)
        self.died = "stopped"
        self.machine.kill()

    async def _join(self) -> tuple[int, set[TP]]:
        answer: asyncio.Future[tuple[int, set[TP]]] = self.machine.create_future()

        def joined(result: tuple[int, set[TP]]) -> None:
            if self.machine.alive:
                self.machine.call_at(self.world.now + 0.001, lambda: answer.done() or answer.set_result(result))

        await self.cluster.call(self.machine, self.cluster.group.join, self.name, self.machine, joined)
        result = await answer
        await self._heartbeat(result[0])  # where aiokafka sends SyncGroup
        return result

    async def _heartbeat(self, generation: int) -> bool:
        """False when the group wants to rebalance, or has forgotten us."""
        asked_at = self.world.now
        try:
            rebalancing = await self.cluster.call(self.machine, self.cluster.group.heartbeat, self.name, generation)
        except Refused:
            self.lease.lose()
            return False
        self.lease.renew(asked_at)
        return not rebalancing

    async def _stay(self, generation: int) -> None:
        """Until the group wants to rebalance, has forgotten us, or we want to leave. Heartbeats go on in a drain."""
        unsettled = asyncio.Event()

        async def beat() -> None:
            while self.consumer_generation_id == generation:
                if not await self._heartbeat(generation) or self.left:
                    unsettled.set()
                await asyncio.sleep(HEARTBEAT_S)

        self.beating = asyncio.ensure_future(beat())
        await unsettled.wait()
