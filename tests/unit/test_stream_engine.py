from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app.core.processor import Processor
from app.core.profile import Profile, decode_profile
from app.stream.batch import RecordBatch
from app.stream.engine import CHUNK_RECORDS, SLICE_RECORDS
from app.stream.fence import CLAIM_KEY
from app.stream.partition import GHOSTS, RowCache
from tests.support.engine import Died, Rig, make_rig
from tests.support.plans import FixedScorer, campaign_only, make_plan
from tests.support.streams import record, track


def events_of(rig: Rig, user: str) -> int:
    (value,) = rig.table.get_many(0, [user.encode()])
    return decode_profile(value).events if value else 0


async def test_a_batch_is_complete_only_after_rows_and_outputs_are_acknowledged(tmp_path: Path) -> None:
    rig = await make_rig(tmp_path)
    producer = rig.app.durable_producer
    producer.hold = {"changelog", "outputs"}
    await rig.engine.submit(rig.batch(("ann", "out"), start=0))
    await rig.turn()
    assert (len(producer.changelog), producer.outputs, rig.completed) == (1, [], [])
    producer.release("changelog")
    await rig.turn()
    assert len(producer.outputs) == 1
    assert rig.completed == []
    producer.release("outputs")
    await rig.settled()
    await rig.turn()
    assert rig.completed == [1]


async def test_rows_reach_the_store_after_the_changelog_and_are_seen_before(tmp_path: Path) -> None:
    rig = await make_rig(tmp_path)
    rig.app.durable_producer.hold = {"changelog"}
    await rig.engine.submit(rig.batch(("ann", "view"), start=0))
    assert rig.table.stores[0].page(b"", 9) == []
    assert events_of(rig, "ann") == 1
    rig.app.durable_producer.release("changelog")
    await rig.settled()
    assert decode_profile(dict(rig.table.stores[0].page(b"", 9))[b"ann"]).events == 1


async def test_the_next_batch_is_processed_while_one_waits_and_they_complete_in_order(tmp_path: Path) -> None:
    rig = await make_rig(tmp_path)
    rig.app.durable_producer.hold = {"outputs"}
    await rig.engine.submit(rig.batch(("ann", "out"), start=0))
    await rig.engine.submit(rig.batch(("ann", "view"), start=1))
    await rig.turn()
    assert events_of(rig, "ann") == 2
    assert rig.completed == []
    rig.app.durable_producer.release("outputs")
    await rig.settled()
    await rig.turn()
    assert rig.completed == [1, 2]


@pytest.mark.parametrize("kind", ["changelog", "outputs"])
async def test_a_refused_effect_ends_the_process_before_the_offset_moves(tmp_path: Path, kind: str) -> None:
    rig = await make_rig(tmp_path)
    rig.app.durable_producer.fail = {kind}
    await rig.engine.submit(rig.batch(("ann", "out"), start=0))
    (task,) = rig.engine._settler._tasks
    with pytest.raises(Died, match="not committed"):
        await task
    assert rig.app.batches.barrier.committable(("events", 0)) is None


async def test_an_evicted_row_is_read_back_with_everything_applied(tmp_path: Path) -> None:
    rig = await make_rig(tmp_path, cache_rows=1)
    users = [f"u{n}" for n in range(3000)]
    rig.app.durable_producer.hold = {"changelog"}
    await rig.engine.submit(rig.batch(*((u, "view") for u in users), start=0))
    assert len(rig.engine._partitions[0].cache.rows) <= 1000
    await rig.engine.submit(rig.batch(("u0", "view"), start=3000))
    assert events_of(rig, "u0") == 2
    rig.app.durable_producer.release("changelog")
    await rig.settled()
    assert len(rig.table.stores[0]) == 3000


@pytest.mark.parametrize("key", [b"\xff\xfemeta", CLAIM_KEY, b"\xffe" + bytes(16), b"\xff"])
async def test_an_event_under_a_key_of_the_stores_own_is_refused_and_its_neighbours_are_folded(
    tmp_path: Path, key: bytes
) -> None:
    rig = await make_rig(tmp_path, processor=Processor(make_plan(), FixedScorer(), campaign_only))
    view = track("View", 0, "ann")
    for start in (0, 2):  # the second time the store has something of its own
        batch = rig.batch(("ann", ""), ("ann", ""), start=start)
        batch.records = [record(view, start, key), record(view, start + 1)]
        await rig.engine.submit(batch)
        await rig.settled()
    assert events_of(rig, "ann") == 2
    reasons = [dict(output.headers)["nudge_reason"] for output in rig.app.durable_producer.outputs]
    assert reasons == [b"key_mismatch"] * 2


def test_a_row_stays_in_the_cache_once_its_user_comes_again_soon() -> None:
    cache = RowCache(2)

    def serve(*users: bytes) -> set[bytes]:
        decoded = [user for user in users if user not in cache.rows]
        cache.rows |= {user: Profile() for user in decoded}
        cache.end_slice(decoded)
        return set(cache.rows)

    assert serve(b"ann", b"bob") == set()
    assert serve(b"ann") == {b"ann"}
    assert serve(b"cid", b"ann") == {b"ann"}
    assert serve(b"bob", b"cid") == {b"bob", b"cid"}  # two at most: the oldest goes
    passers_by = [b"u%d" % number for number in range(4 * GHOSTS)]
    for start in range(0, len(passers_by), GHOSTS):
        assert serve(*passers_by[start : start + GHOSTS]) == {b"bob", b"cid"}
    assert serve(passers_by[0]) == {b"bob", b"cid"}  # forgotten meanwhile
    assert serve(passers_by[-GHOSTS]) == {b"cid", passers_by[-GHOSTS]}


async def test_a_user_s_events_in_two_slices_of_a_chunk_are_folded_into_one_row(tmp_path: Path) -> None:
    rig = await make_rig(tmp_path)
    users = ["ann", *(f"u{number}" for number in range(SLICE_RECORDS)), "ann"]
    await rig.engine.submit(rig.batch(*((user, "view") for user in users), start=0))
    await rig.settled()
    assert events_of(rig, "ann") == 2
    assert len(rig.table.stores[0]) == SLICE_RECORDS + 1


async def test_replayed_records_change_nothing_and_emit_nothing(tmp_path: Path) -> None:
    rig = await make_rig(tmp_path)
    await rig.engine.submit(rig.batch(("ann", "out"), ("ann", "view"), start=0))
    await rig.settled()
    rig.table.close_partition(0)
    again = await make_rig(tmp_path, committed=2)
    await again.engine.submit(again.batch(("ann", "out"), ("ann", "view"), ("ann", "view"), start=0))
    await again.settled()
    assert events_of(again, "ann") == 3
    assert again.app.durable_producer.outputs == []


async def test_outputs_not_covered_by_the_committed_offset_are_published_again(tmp_path: Path) -> None:
    rig = await make_rig(tmp_path)
    rig.app.durable_producer.hold = {"outputs"}
    await rig.engine.submit(rig.batch(("ann", "out"), ("bob", "out"), start=0))
    await rig.turn()
    rig.table.close_partition(0)  # killed between the row store and the acknowledgement of the outputs
    again = await make_rig(tmp_path, committed=1)
    assert [(o.key, o.value) for o in again.app.durable_producer.outputs] == [(b"bob", b"1")]


async def test_timers_fire_once_when_due_and_survive_a_restart(tmp_path: Path) -> None:
    rig = await make_rig(tmp_path)
    await rig.engine.submit(rig.batch(("ann", "timer"), start=0))
    await rig.settled()
    rig.table.close_partition(0)
    again = await make_rig(tmp_path, committed=1)
    again.now_ms = 1000
    assert await again.engine.tick() == 0
    again.now_ms = 2000
    assert await again.engine.tick() == 1
    assert await again.engine.tick() == 0
    await again.settled()
    assert [o.value for o in again.app.durable_producer.outputs] == [b"timer"]


async def test_no_timer_fires_while_partitions_are_being_given_up(tmp_path: Path) -> None:
    rig = await make_rig(tmp_path)
    await rig.engine.submit(rig.batch(("ann", "timer"), start=0))
    await rig.settled()
    rig.app.batches.flow_active = False
    rig.now_ms = 10_000
    assert await rig.engine.tick() == 0


async def tick_while_full(rig: Rig, *fetch: RecordBatch) -> None:
    """Look at the timers, when they are due, while the rows of a fetch wait for room in the producer's buffer."""
    rig.app.durable_producer.full = waiting = asyncio.Event()
    rig.now_ms = 10_000
    submitting = asyncio.create_task(rig.engine.submit(*fetch))
    await rig.turn()
    ticking = asyncio.create_task(rig.engine.tick())
    await rig.turn()
    waiting.set()
    await asyncio.gather(submitting, ticking)
    await rig.settled()


async def test_a_timer_fired_while_a_batch_waits_to_be_queued_comes_after_it_in_the_changelog(tmp_path: Path) -> None:
    rig = await make_rig(tmp_path)
    await rig.engine.submit(rig.batch(("ann", "timer"), start=0))
    await rig.settled()
    await tick_while_full(rig, rig.batch(("ann", "view"), start=1))
    rows = [decode_profile(value or b"") for _, _, value in rig.app.durable_producer.changelog]
    assert [(row.events, len(row.timers)) for row in rows] == [(1, 1), (2, 1), (2, 0)]


async def test_what_a_fetch_brought_of_several_partitions_is_queued_before_anything_else_gets_its_turn(
    tmp_path: Path,
) -> None:
    rig = await make_rig(tmp_path, partitions=2)
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(lambda: turns.append(len(rig.app.durable_producer.changelog)))
    await rig.engine.submit(
        rig.batch(("ann", "out"), start=0), rig.batch(("bob", "out"), ("cy", "view"), start=7, partition=1)
    )
    assert turns == [3]
    await rig.settled()
    await rig.turn()
    assert [(o.key, o.value) for o in rig.app.durable_producer.outputs] == [(b"ann", b"0"), (b"bob", b"7")]
    assert rig.completed == [1, 9]


async def test_of_a_fetch_nothing_is_published_or_complete_before_all_of_its_rows_are_acknowledged(
    tmp_path: Path,
) -> None:
    rig = await make_rig(tmp_path, partitions=2)
    producer = rig.app.durable_producer
    producer.hold = {"changelog"}
    await rig.engine.submit(rig.batch(("ann", "out"), start=0), rig.batch(("bob", "out"), start=0, partition=1))
    await rig.turn()
    first, second = producer.held
    first[1].set_result(first[2])
    await rig.turn()
    assert (producer.outputs, rig.completed) == ([], [])
    second[1].set_result(second[2])
    await rig.settled()
    assert len(producer.outputs) == 2


async def test_a_large_batch_is_complete_once_and_after_its_last_portion(tmp_path: Path) -> None:
    rig = await make_rig(tmp_path, partitions=2)
    many = rig.batch(*((f"u{n}", "view") for n in range(CHUNK_RECORDS + 5)), start=0)
    await rig.engine.submit(rig.batch(("ann", "view"), start=0, partition=1), many)
    await rig.settled()
    await rig.turn()
    assert rig.completed == [1, CHUNK_RECORDS + 5]
    assert len(rig.app.durable_producer.changelog) == CHUNK_RECORDS + 6


async def test_a_timer_of_one_partition_comes_after_a_fetch_that_waits_to_queue_anothers_rows(tmp_path: Path) -> None:
    rig = await make_rig(tmp_path, partitions=2)
    await rig.engine.submit(rig.batch(("ann", "timer"), start=0, partition=1))
    await rig.settled()
    await tick_while_full(rig, rig.batch(("bob", "view"), start=0), rig.batch(("ann", "view"), start=1, partition=1))
    rows = [decode_profile(value or b"") for p, _, value in rig.app.durable_producer.changelog if p == 1]
    assert [(row.events, len(row.timers)) for row in rows] == [(1, 1), (2, 1), (2, 0)]
