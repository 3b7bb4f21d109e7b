"""The batched transport: one message a fetch and topic, instead of four asyncio tasks a record.

Faust's consumer, with delivery, acknowledgement and commit replaced (docs/adr/0002 says why). Every topic of the app
is delivered in batches; control topics that every worker reads whole go through `app.stream.broadcast`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any

import faust
import structlog
from aiokafka import TopicPartition
from faust.events import Event
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from app.stream.backlog import Backlog
from app.stream.barrier import Barrier
from app.stream.batch import RecordBatch
from app.stream.commits import digest, encode_note
from app.stream.committed import Held, readable_end
from app.stream.consumer_thread import FEW_RECORDS, BatchedConsumerThread
from app.stream.gaps import GapCheck
from app.stream.jumps import Jumps
from app.stream.replays import another_log

log = structlog.get_logger(__name__)

DRAIN_TIMEOUT_S = 30.0
_GAP_PAUSE_S = 0.02
_FETCH_TIMEOUT_S = 0.25
_ROOM_TIMEOUT_S = 0.02
GATHER_S_MAX = 0.025


class BatchSchema(faust.Schema):
    """Hands the batches of a message to the stream unchanged."""

    def compile(self, app: Any, **kwargs: Any) -> Any:
        """Build the channel's decoder."""

        async def decode(message: Any, *, propagate: bool = False) -> Any:
            return Event(app, None, message.value, message.headers, message)

        return decode


class BatchedConsumer(driver.Consumer):
    """Delivers `RecordBatch` objects and commits what the barrier says."""

    barrier: Barrier

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.barrier = Barrier()
        self.gaps = GapCheck()
        self.jumps = Jumps(self._beginning, self._gone)
        self.backlog = Backlog()
        self.held = Held()
        self._lasts: dict[TP, dict[int, str]] = {}
        """Of completed batches that are not committed, of topics that no row remembers: which record ended them."""
        self.flow_epoch = 0
        """How often the flow was stopped: what was begun in another epoch is void."""
        self.fetched_at = 0.0
        """When the last fetch began, on the lease's clock."""
        self._fetched = 0
        self._fetching = asyncio.Lock()
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return BatchedConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def thread_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop in which aiokafka's consumer runs."""
        loop: asyncio.AbstractEventLoop = self._thread.thread_loop
        return loop

    # -- delivery

    def stop_flow(self) -> None:
        """Stop delivering; what is being fetched now is dropped and read again after `seek_to_start`."""
        self.flow_epoch += 1
        self.backlog.clear()
        super().stop_flow()

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Fetch, and give each topic's records as one message, a `RecordBatch` for each of its partitions.

        Records of another generation or flow epoch are dropped: the partitions have been (or will be) sought back.
        """
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        epoch = self.flow_epoch
        generation = self.app.consumer_generation_id
        records = await self._fetch()
        self._fetched = sum(map(len, records.values()))
        by_topic: dict[str, list[RecordBatch]] = {}
        for tp, fetched in records.items():
            if self.app.recheck_gaps:
                fetched = await self._read_gaps_again(TP(*tp), fetched, epoch)  # noqa: PLW2901
            if self._is_void(epoch, generation):
                return
            if fetched:
                by_topic.setdefault(tp.topic, []).append(self._to_batch(tp, fetched, generation))
        for topic, batches in by_topic.items():
            if self._is_void(epoch, generation):
                return
            for batch in batches:
                self.backlog.delivered(topic, len(batch))
            yield TP(topic, batches[0].partition), _to_message(batches)

    async def _fetch(self) -> Mapping[Any, list[Any]]:
        """What there is of each partition, when there is room for it and what was begun has settled."""
        if self.backlog.full:
            await self.backlog.room(_ROOM_TIMEOUT_S)
        if self.app.settled is not None and self._fetched < FEW_RECORDS:
            await self.backlog.gather(self.app.settled, GATHER_S_MAX)
        async with self._fetching:
            self.fetched_at = self.app.lease.clock()
            full = self.backlog.full
            active = {tp for tp in self._get_active_partitions() if tp[0] not in full}
            if not active:
                await asyncio.sleep(0.02)
                return {}
            # While a topic is full the others are only looked at: there may be room at any time.
            records: dict[Any, list[Any]] = await self._getmany(
                active_partitions=active, timeout=0.0 if full else _FETCH_TIMEOUT_S
            )
            return records

    def _is_void(self, epoch: int, generation: int) -> bool:
        """Whether what was fetched then is dropped: its partitions have been, or will be, sought back."""
        return self.flow_epoch != epoch or self.app.consumer_generation_id != generation or self.should_stop

    def _went_back(self, tp: TP, offset: int, expected: int) -> None:
        """A partition goes on before where it was read to. Where rows or batches in flight know its offsets, end."""
        if tp.topic in self.app.folded_topics():
            self.app.fatal(another_log(tp.topic, tp.partition, expected - 1, f"and the log goes on at {offset}"))
        if tp in self.barrier.partitions():
            self.app.fatal(f"{tp.topic}[{tp.partition}] was made anew while it was read: it goes on at {offset}")

    async def _read_gaps_again(self, tp: TP, records: list[Any], epoch: int) -> list[Any]:
        """The records before the first gap that has not been looked at twice; the fetch goes back to that gap.

        Unless the flow was stopped meanwhile: then every partition that is still ours has been positioned anew.
        """
        whole, missing = self.gaps.check(tp, records)
        if missing is not None:
            log.warning("offsets_missing", topic=tp.topic, partition=tp.partition, offset=missing, action="read again")
            await asyncio.sleep(_GAP_PAUSE_S)
            async with self._fetching:
                if self.flow_active and self.flow_epoch == epoch:
                    thread: BatchedConsumerThread = self._thread
                    await thread.call_thread(thread.seek_to, tp, missing)
        return whole

    def _to_batch(self, tp: Any, records: list[Any], generation: int) -> RecordBatch:
        """The records as a batch, which counts as read from now on: it goes on where the last one ended, or ahead."""
        if (expected := self.jumps.read(tp, records[0].offset, records[-1].offset + 1)) is not None:
            self._went_back(TP(*tp), records[0].offset, expected)
        give_back = self._give_back
        return RecordBatch(tp.topic, tp.partition, records, generation, self._begin, self._complete, give_back)

    async def _drain_messages(self, fetcher: Any) -> None:
        """Fetch and deliver until stopped (replaces Faust's loop: no gap trees, no read-offset filter)."""
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                async for _tp, message in self.getmany(timeout=_FETCH_TIMEOUT_S):
                    if self.app.flow_control.is_active():  # then nothing in there waits: the backlog is bounded
                        await self.callback(message)
                    else:
                        await self.wait_first(self.callback(message), self.suspend_flow.wait())
                await asyncio.sleep(0)
        except self.consumer_stopped_errors:
            if not self.transport.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.transport.app.should_stop:
                raise

    async def seek_to_start(self) -> dict[TP, int]:
        """Position every assigned partition at its committed offset (or its beginning) while nothing is fetched.

        Returns
        -------
        dict
            The offset from which each partition will be read.
        """
        assert not self.flow_active, "the flow must be stopped, or fetched records are lost"
        async with self._fetching:
            thread: BatchedConsumerThread = self._thread
            offsets: dict[TP, int] = await thread.call_thread(thread.seek_to_start)
            for tp in await self._of_another_log(offsets):
                offsets[tp] = await self._beginning(tp)
                await thread.call_thread(thread.seek_to, tp, offsets[tp])
        self._lasts.clear()
        self.gaps.start(offsets)
        self.jumps.start(offsets)
        for tp in self.barrier.partitions():
            self.barrier.forget(tp)
        self._committed_offset.clear()
        self._committed_offset.update(offsets)
        return offsets

    async def _of_another_log(self, offsets: Mapping[TP, int]) -> list[TP]:
        """Where the record before the committed offset is not the one that the commit says.

        Whoever reads such a topic recognises what it has had, so it is read from its beginning. Topics whose offsets
        rows remember are `app.stream.replays`' business. What cannot be looked up is taken for well.
        """
        found = []
        for topic in {tp.topic for tp in offsets} - self.app.folded_topics():
            numbers = [tp.partition for tp, offset in offsets.items() if tp.topic == topic and offset]
            lasts = await self.app.committed_lasts(topic, numbers)
            there = await self.app.records_at(topic, {p: offsets[TP(topic, p)] - 1 for p in lasts})
            for partition, record in there.items():
                tp = TP(topic, partition)
                if digest(record) != lasts[partition]:
                    log.error(
                        "topic_is_another",
                        topic=topic,
                        partition=partition,
                        offset=offsets[tp],
                        why="another record stands before the committed offset: mirrored, or a broker lost its end",
                        action="read from its beginning",
                    )
                    found.append(tp)
        return found

    def note_of(self, topic: str, partition: int, offset: int) -> str:
        """What a commit says beside its offset. Asked in the consumer's thread."""
        last = self._lasts.get(TP(topic, partition), {}).get(offset, "")
        return encode_note(last, self.app.commit_note(topic, partition, offset))

    def _gone(self, topic: str, offsets: int) -> None:
        self.app.on_gone(topic, offsets)

    async def _beginning(self, tp: TP) -> int:
        thread: BatchedConsumerThread = self._thread
        offset: int = await thread.call_thread(thread.beginning, tp)
        return offset

    def highwater(self, tp: TP) -> int | None:
        """Where a partition ends, as the broker has said; None where it has not, or where the partition is not ours.

        Around a rebalance others believe it to be ours for a moment longer than aiokafka, which then asserts.
        """
        try:
            end: int | None = super().highwater(tp)
        except AssertionError:
            return None
        return end

    def unread(self, tp: TP) -> int:
        """Offsets between the next fetch and where reading must end, as far as is known; 0 where it is there.

        What stands behind the beginning of an open transaction cannot be read, so it is no work that waits.
        """
        position = self._position(tp)
        if position is None or self.highwater(tp) is None:
            return 0
        return max(0, (readable_end(self._thread._consumer, TopicPartition(*tp)) or 0) - position)

    def _position(self, tp: TP) -> int | None:
        """The next offset to be fetched; None where that is not known, or the partition is not ours."""
        subscription = self._thread._consumer and self._thread._consumer._subscription.subscription
        state = subscription and subscription.assignment.state_value(TopicPartition(*tp))
        return state.position if state and state.has_valid_position else None

    def behind(self, tp: TP, done: int) -> int | None:
        """Records between `done` and the partition's end, where the broker has said it.

        Where all that was delivered is done, what was fetched counts: behind it stand markers of transactions, records
        that were taken back, or nothing that retention has left, and nothing of that is ever delivered. What an open
        transaction holds back counts as waiting: it may have been forgotten.
        """
        end = self.highwater(tp)
        if end is None:
            return None
        delivered = self.jumps.next_offset(tp)
        if delivered is not None and done >= delivered:
            done = max(done, self._position(tp) or 0)
        return max(0, end - done)

    def committed(self, topic: str) -> dict[int, int]:
        """Up to where our partitions of a topic are committed, or where they begin."""
        found = {tp.partition: offset for tp, offset in self._committed_offset.items() if tp.topic == topic}
        return {partition: offset for partition, offset in found.items() if offset is not None}

    def lag(self) -> dict[TP, int]:
        """Records of each partition that are not complete yet, where the broker has said how far it reaches."""
        result: dict[TP, int] = {}
        for tp, committed in self._committed_offset.items():
            if committed is not None:
                lag = self.behind(tp, self.barrier.committable(tp) or committed)
                if lag is not None:
                    result[tp] = lag
        return result

    # -- acknowledgement: the batch's `complete`, not Faust's stream

    def _begin(self, batch: RecordBatch) -> bool:
        self.backlog.taken(batch.topic, len(batch))
        if not self.flow_active or batch.generation != self.app.consumer_generation_id:
            return False
        self.barrier.begin((batch.topic, batch.partition), batch.next_offset, batch.generation)
        return True

    def _complete(self, batch: RecordBatch) -> None:
        if batch.topic not in self.app.folded_topics():
            lasts = self._lasts.setdefault(TP(batch.topic, batch.partition), {})
            lasts[batch.next_offset] = digest(batch.records[-1])
        self.barrier.complete((batch.topic, batch.partition), batch.next_offset, batch.generation)

    def _give_back(self, batch: RecordBatch) -> None:
        self.barrier.give_back((batch.topic, batch.partition), batch.next_offset, batch.generation)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (TP(*tp) for tp in self.barrier.partitions() if topics is None or tp in topics or tp[0] in topics)

    def _filter_committable_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        offsets = {}
        for tp in tps:
            offset = self.barrier.committable(tp)
            if offset is not None and offset != self._committed_offset.get(tp):
                offsets[tp] = offset
        return offsets

    async def _handle_attached(self, commit_offsets: Any) -> None:
        """Nothing is attached to offsets: outputs are awaited before a batch completes."""

    async def wait_empty(self) -> None:
        """Wait until every batch in flight is durable, then commit (at revocation and at stop)."""
        await self.app.drain()
        if not await self.barrier.drained(DRAIN_TIMEOUT_S):
            self.app.fatal(
                f"{self.barrier.inflight} batches in flight did not become durable in {DRAIN_TIMEOUT_S:.0f} s"
            )
        await self.commit()

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """As Faust's, some times a minute; and look who holds our partitions back."""
        self.held.look(self._ends(), monotonic())
        committed: bool = await super().commit(topics, start_new_transaction)
        return committed

    def _ends(self) -> dict[tuple[str, int], tuple[int, int]]:
        """Up to where our partitions can be read, and where they end, as far as the broker has said."""
        found: dict[tuple[str, int], tuple[int, int]] = {}
        consumer = self._thread._consumer
        for tp in self.assignment() if consumer is not None else ():
            end = self.highwater(tp)
            if end is None:
                continue
            with contextlib.suppress(AssertionError):  # as in `highwater`
                stable = readable_end(consumer, TopicPartition(*tp))
                found[tp.topic, tp.partition] = (end if stable is None else stable, end)
        return found

    async def _commit_offsets(self, offsets: Any, start_new_transaction: bool = True) -> bool:
        began = monotonic()
        committed: bool = await super()._commit_offsets(offsets, start_new_transaction)
        for tp, offset in offsets.items():
            lasts = self._lasts.get(tp, {})
            for end in [end for end in lasts if end < offset]:
                del lasts[end]
        self.app.on_committed(monotonic() - began)
        return committed

    async def perform_seek(self) -> None:
        """Replaced by `seek_to_start`, which the recovery calls."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's livelock detector counts single events; here the drain limit ends a wedged worker."""


def _to_message(batches: Sequence[RecordBatch]) -> ConsumerMessage:
    """Batches of one topic as Faust's message; it counts as one of the first's partition."""
    first = batches[0]
    last = first.records[-1]
    return ConsumerMessage(
        first.topic,
        first.partition,
        first.next_offset - 1,
        last.timestamp / 1000.0,
        last.timestamp_type,
        [],
        None,
        batches,
        None,
        None,
        None,
        TP(first.topic, first.partition),
        generation_id=first.generation,
    )


class BatchedTransport(driver.Transport):
    """Faust's aiokafka transport with the batched consumer."""

    Consumer = BatchedConsumer
