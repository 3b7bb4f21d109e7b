"""Sixty seeds of the whole pipeline, and proof that a broken pipeline does not get through them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from app.core.row_parts import Output
from app.stream.batch import RecordBatch
from app.stream.census import Census
from app.stream.engine import Engine
from app.stream.settle import Settler
from app.stream.standing import Standing
from tests.simulation.aside import Aside
from tests.simulation.process import Process, Table
from tests.simulation.scenario import simulate

SEEDS = range(60)
SEEDS_TO_NOTICE = range(40)
SEEDS_TO_FENCE = range(150)
"""A request must have stayed in the socket for long, and its sender have missed a rebalance."""
SEEDS_TO_MEND = (226, 292, 309)
"""The same, and nobody has written the row since: sixteen of fifteen hundred."""


def test_killed_and_rebalanced_workers_agree_with_a_single_thread() -> None:
    reports = [simulate(seed) for seed in SEEDS]
    assert not [report for report in reports if report["violations"]]
    fired = {name for report in reports for name in report["faults"]}
    assert {"kill", "stall", "compact", "kill: store before", "kill: committed", "damaged store"} <= fired
    assert {"ended: no space", "ended: given up"} <= fired
    assert sum(report["decisions"] for report in reports) > 1000
    assert sum(report["outcomes"] for report in reports) > 1000
    assert sum(report["offers"] for report in reports) > 200
    assert sum(report["counted"] for report in reports) > 100


@pytest.mark.parametrize("seed", [7, 100, 112])
def test_a_seed_takes_the_same_course_again(seed: int) -> None:
    first, again = simulate(seed), simulate(seed)
    assert first == again
    assert first["steps"] > 1000


def test_the_order_of_sets_is_no_part_of_a_seed() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--first", "102", "--seeds", "6", "--json"]
    runs = [
        subprocess.Popen(command, env=os.environ | {"PYTHONHASHSEED": hashes}, stdout=subprocess.PIPE, text=True)
        for hashes in ("1", "2")
    ]
    courses = [json.loads(run.communicate(timeout=120)[0].splitlines()[-1]) for run in runs]
    assert courses[0]["steps"] == courses[1]["steps"] > 6_000
    assert courses[0]["faults"] == courses[1]["faults"]


class CommitsEarly(Engine):
    """The offset may be committed as soon as a batch has been processed."""

    async def submit(self, *batches: RecordBatch) -> None:
        await super().submit(*batches)
        for batch in batches:
            batch.complete()


class SpeaksFirst(Engine):
    """Outputs are produced before the rows that owe them."""

    async def _settle(self, works: Sequence[Any], *, flush: bool = False) -> Any:
        for partition, _, work in works:
            for acknowledgement in await self._settler.enqueue(partition, work.effects.outputs):
                await acknowledgement
        return await super()._settle(works, flush=flush)


class ForgetsDebts(Engine):
    """What restored rows owe is not published again."""

    async def _publish_owed(self, partition: int, keys: list[bytes], committed: int) -> None:
        pass


class ForgetsRewards(Engine):
    """What matures with the clock is not produced."""

    class settler_type(Settler):  # noqa: N801
        async def enqueue(self, partition: int, outputs: Sequence[Output]) -> Any:
            return await super().enqueue(partition, [one for one in outputs if b'"gain"' not in (one.value or b"")])


class DropsOutputs(Engine):
    """Of several outputs only the first is produced."""

    class settler_type(Settler):  # noqa: N801
        async def enqueue(self, partition: int, outputs: Sequence[Output]) -> Any:
            return await super().enqueue(partition, outputs[:1])


class StoresBeforeTheChangelog(Engine):
    """Rows count as durable before the changelog has acknowledged them."""

    class settler_type(Settler):  # noqa: N801
        async def _make_durable(self, steps: Sequence[Any], *rest: Any, **more: Any) -> None:
            for _, _, write in steps:
                if write is not None:
                    write.futures = []
            await super()._make_durable(steps, *rest, **more)


class Unleased(Process):
    """A suspended worker writes when it wakes."""

    async def confirm_lease(self) -> None:
        pass


class Credulous(Standing):
    """What is acknowledged counts, wherever it stands."""

    async def confirm(self, partition: int, places: Sequence[tuple[int, int]]) -> int:
        return self._table.stores[partition].next_offset


class Careless(Standing):
    """Rows behind void records are not written again."""

    async def _mend(self, partition: int, keys: list[bytes]) -> None:
        pass


class Unconfirmed(Unleased):
    """Nor does the changelog say whether its rows count."""

    class table_type(Table):  # noqa: N801
        standing_type = Credulous


class Unmended(Unleased):
    """Void records stay the newest of their keys until a compaction."""

    class table_type(Table):  # noqa: N801
        standing_type = Careless

        async def _repair(self, partitions: set[int]) -> None:
            for partition in partitions:
                self._standing.forget(partition)
                self.fences[partition].void.clear()


class Unfenced(Process):
    """Claims are neither made nor heeded: only the lease keeps a suspended worker from writing."""

    class table_type(Table):  # noqa: N801
        async def _claim(self, partitions: list[int]) -> dict[int, int]:
            return {}

        def _owns(self, partition: int, epoch: int | None) -> bool:
            return True


class ForgetsChanges(Process):
    """What changed in the catalog before a worker came to life is not told by it."""

    class aside_type(Aside):  # noqa: N801
        def parts(self) -> list[Any]:
            found = super().parts()
            self.recent.__init__()  # type: ignore[misc]
            return found


class FindsNobody(Process):
    """Who wants an item is not looked up in the rows when a partition comes."""

    class aside_type(Aside):  # noqa: N801
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.fanout._build = self._built  # type: ignore[method-assign]

        async def _built(self, _partition: int, state: Any) -> None:
            state.is_built = True


class FollowsNothing(Process):
    """Rows do not follow the thresholds of percentiles."""

    class aside_type(Aside):  # noqa: N801
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.census._read = self._tallied  # type: ignore[method-assign]

        def _tallied(self, page: Any, tally: Any) -> list[bytes]:
            list(Census._read(self.census, page, tally))
            return []


BROKEN: Mapping[str, type[Engine]] = {
    kind.__name__: kind
    for kind in (CommitsEarly, SpeaksFirst, ForgetsDebts, ForgetsRewards, DropsOutputs, StoresBeforeTheChangelog)
}


@pytest.mark.parametrize("process_type", [ForgetsChanges, FindsNobody, FollowsNothing])
def test_a_worker_that_tells_or_counts_wrongly_is_noticed(process_type: type[Process]) -> None:
    assert any(simulate(seed, process_type=process_type)["violations"] for seed in SEEDS_TO_NOTICE)


@pytest.mark.parametrize("process_type", [Unconfirmed, Unfenced])
def test_a_worker_that_is_not_fenced_is_noticed(process_type: type[Process]) -> None:
    assert any(simulate(seed, process_type=process_type, bare=True)["violations"] for seed in SEEDS_TO_FENCE)


def test_a_void_record_that_nobody_writes_over_is_noticed() -> None:
    assert any(simulate(seed, process_type=Unmended, bare=True)["violations"] for seed in SEEDS_TO_MEND)


@pytest.mark.parametrize("seed", [39, 48, 81, 89, 105, 107, 114])
def test_without_a_lease_the_changelog_alone_says_whose_rows_count(seed: int) -> None:
    report = simulate(seed, process_type=Unleased, bare=True)
    assert not report["violations"], report


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_engine_is_noticed(name: str) -> None:
    assert any(simulate(seed, BROKEN[name], bare=True)["violations"] for seed in SEEDS_TO_NOTICE)
