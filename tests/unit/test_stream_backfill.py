"""The sweep over an engine's rows: everybody is reached once, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from app.core.earlier import NOTHING
from app.core.history_fold import HistoryFold
from app.core.processor import Processor, make_index
from app.core.profile import decode_profile
from app.policy.load import load_policy_text
from app.stream import backfill as module
from app.stream.backfill import Backfill
from app.stream.pace import Pace
from schemas.segments import decode_membership
from schemas.topics import SEGMENTS
from tests.support.engine import Rig, make_rig
from tests.support.plans import FixedScorer, campaign_only
from tests.support.site import eventually
from tests.support.streams import START, FakeRecord, record, track

OLD = load_policy_text("version: 1\nname: shop\n")
NEW = load_policy_text("""
version: 2
name: shop
segments:
  - {name: seen, when: 'count("Product Viewed", "30d") >= 2'}
  - {name: known, when: 'did("Product Viewed")'}
""")
USERS = 150  # more than two pages


class FakeReader:
    """The log of a test; `before_end` is called when the first pass comes to the end."""

    def __init__(self, log: list[FakeRecord], first: int = 0) -> None:
        self.log, self.next_offset, self.first = log, first, (first, START)
        self.opened = 0

    async def __aenter__(self) -> Self:
        self.opened += 1
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def read_to(self, offset: int) -> AsyncIterator[Sequence[Any]]:
        records = [each for each in self.log if self.next_offset <= each.offset < offset]
        self.next_offset = max(offset, self.next_offset)
        if records:
            yield records


class Seen:
    """What the sweep reports."""

    def __init__(self) -> None:
        self.records = 0
        self.begins: list[tuple[int, int]] = []

    def history_read(self, records: int) -> None:
        self.records += records

    def history_begins(self, partition: int, offset: int, at_ms: int, features: Collection[int]) -> None:
        self.begins.append((partition, offset))


class World:
    """An engine under the old policy, its log, and a backfill."""

    def __init__(self, rig: Rig, processor: Processor) -> None:
        self.rig, self.processor = rig, processor
        self.log: list[FakeRecord] = []
        self.seen = Seen()
        self.reader = FakeReader(self.log)
        rig.now_ms = START
        rig.engine.lag = dict  # type: ignore[method-assign]  # there is no broker to ask
        self.backfill = Backfill(
            rig.engine,
            processor,
            lambda covers, keys: HistoryFold(processor.plan, covers, keys),
            self.seen,
            lambda wall_ms: wall_ms or START,
            share=1.0,
            reader=lambda _partition: self.reader,  # type: ignore[arg-type, return-value]
        )

    async def happen(self, *users: str) -> None:
        start = len(self.log)
        self.log += [record(track("Product Viewed", START, user), start + n) for n, user in enumerate(users)]
        batch = self.rig.batch(*[(user, "") for user in users], start=start)
        batch.records = self.log[start:]
        await self.rig.engine.submit(batch)

    def switch(self) -> None:
        known = NOTHING.with_version(OLD.version, [], [])
        self.processor.switch(make_index(NEW, known))

    async def swept(self) -> None:
        self.backfill.start()

        async def done() -> bool:
            return self.backfill.remaining() == 0

        await eventually(done, "the partition is swept", 10)
        await self.backfill.stop()
        await self.rig.settled()

    def entered(self) -> list[tuple[str, str]]:
        outputs = [out for out in self.rig.app.durable_producer.outputs if out.topic == SEGMENTS]
        changes = [decode_membership(out.value or b"") for out in outputs]
        return sorted((change.user, change.segment) for change in changes if change.cause in ("backfill", "policy"))


@pytest.fixture
async def world(tmp_path: Path) -> World:
    processor = Processor(OLD, FixedScorer(), campaign_only)
    made = World(await make_rig(tmp_path, processor=processor), processor)
    await made.happen(*[f"u{n}" for n in range(USERS)] * 2)
    return made


EVERYBODY = sorted((f"u{n}", segment) for n in range(USERS) for segment in ("seen", "known"))


async def test_every_row_is_reached_once_and_a_restart_changes_nothing(world: World) -> None:
    world.switch()
    await world.swept()
    assert world.entered() == EVERYBODY
    world.backfill._done.clear()
    await world.swept()
    assert world.entered() == EVERYBODY
    assert world.reader.opened == 1


async def test_history_is_read_in_several_passes_where_there_are_many_rows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_MAX", 64)
    passes: list[FakeReader] = []

    def open_reader(_partition: int) -> Any:
        passes.append(FakeReader(world.log))
        return passes[-1]

    world.backfill._reader = open_reader
    world.switch()
    await world.swept()
    assert len(passes) == 3
    assert world.entered() == EVERYBODY


async def test_events_that_come_between_are_counted_once(world: World) -> None:
    world.switch()
    await world.happen("u7", "u8")

    class Racing(FakeReader):
        async def read_to(self, offset: int) -> AsyncIterator[Sequence[Any]]:
            async for records in super().read_to(offset):
                yield records
            if len(world.log) == 2 * USERS + 2:
                await world.happen("u7", "u9")

    world.reader = Racing(world.log)
    await world.swept()
    rows = world.rig.table.get_many(0, [b"u7", b"u8", b"u9", b"u10"])
    (feature,) = NEW.features
    totals = [decode_profile(row or b"").features[feature.id][0] for row in rows]
    assert totals == [4, 3, 3, 2]
    assert world.entered() == EVERYBODY


async def test_where_history_begins_is_reported(world: World) -> None:
    world.reader = FakeReader(world.log, first=USERS)
    world.switch()
    await world.swept()
    assert world.seen.begins == [(0, USERS)]
    assert world.seen.records == USERS
    assert {segment for _, segment in world.entered()} == {"known"}, "one view of two is no longer there"


async def test_a_policy_that_asks_for_nothing_new_reads_no_history(world: World) -> None:
    world.processor.switch(make_index(load_policy_text("version: 3\nname: shop\n"), NOTHING))
    await world.swept()
    assert world.reader.opened == 0
    rows = world.rig.table.get_many(0, [b"u1"])
    assert decode_profile(rows[0] or b"").policy == world.processor.policy_id


async def test_a_job_that_may_work_a_fifth_of_the_time_rests_four_times_as_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    clock = iter([0.0, 0.01])

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("app.stream.pace.asyncio.sleep", sleep)
    monkeypatch.setattr("app.stream.pace.time.perf_counter", lambda: next(clock))
    pace = Pace(0.2)
    with pace:
        pass
    await pace.rest()
    await pace.rest()
    assert slept == [pytest.approx(0.04), 0]
