"""Whether rows that were acknowledged count: the changelog itself says it, whatever has become of us meanwhile.

Every record before `known` is ours or was read, and none of them is another owner's claim. A row whose offset is not
beyond it therefore stands behind our claim and before any other: it counts, and whoever owns the partition next reads
it before it serves. Only then what the row says may be published. In the normal case that is one comparison, since our
records follow on each other; where they do not, the part between is read first. No clock, no lease and no coordinator
has a say in it.

What is found there may be void rows of a deposed owner. A compaction could keep the void record of a key and drop its
row, so such rows are written again. A partition to which nothing is written is looked at now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from app.stream.background import Background
from app.stream.fence import Fence
from app.stream.lease import LeaseLost
from app.stream.restore import restore_partitions

if TYPE_CHECKING:
    from app.stream.table import RowTable

log = structlog.get_logger(__name__)

LOOK_S: Final = 900.0
"""A quarter of the changelogs' `min.compaction.lag.ms`: what is void is found before a compaction gets there."""


def lost_end(changelog: str, partition: int, offset: int, least: int) -> str:
    """What to say before the end: a record was acknowledged at `offset`, where one below `least` had been before."""
    return (
        f"{changelog}[{partition}] has lost its end: a row was acknowledged at offset {offset}, and others up to "
        f"{least - 1} before it. Rows that were acknowledged are gone from it (unclean.leader.election.enable, "
        "a broker's empty disk): docs/how-to/restore.md"
    )


class Bystander:
    """Reads a changelog as a store does, and keeps nothing."""

    counted = True

    def __init__(self, next_offset: int, path: Path) -> None:
        self.next_offset = next_offset
        self.path = path

    @property
    def reach(self) -> int:
        """How far it has read."""
        return self.next_offset

    def begin_bulk(self) -> None:
        """There is nothing to fill."""

    def restore(
        self, records: Sequence[tuple[bytes, bytes | None]], *, next_offset: int, epoch: int | None = None
    ) -> None:
        """The records have been seen."""
        self.next_offset = next_offset


class Standing(Background):
    """What is known of the changelog partitions of a table beyond what its stores hold."""

    task_name = "standing"

    def __init__(self, table: RowTable, look_s: float = LOOK_S) -> None:
        self._table = table
        self._look_s = look_s
        self._known: dict[int, int] = {}
        self._torn: set[int] = set()
        """Partitions whose store stays at its position, so that the next restore reads the void records too."""
        self.mending: set[asyncio.Task[None]] = set()

    def forget(self, partition: int) -> None:
        """The store has been brought to the changelog's end, or the partition is no longer ours."""
        self._known.pop(partition, None)
        self._torn.discard(partition)

    async def confirm(self, partition: int, places: Sequence[tuple[int, int]]) -> int:
        """Return when the changelog shows that the records at `places` (offset, number) count, else do not return.

        Called in the order of the records.

        Returns
        -------
        int
            To which position the store may move.
        """
        stored = least = self._table.stores[partition].next_offset
        for offset, count in places:
            if 0 <= offset < least:
                self._table.app.fatal(lost_end(self._table.changelog, partition, offset, least))
            least = max(least, offset + count)
            known = self._known.get(partition, stored)
            if not 0 <= offset <= known:  # below 0: acknowledged at the second attempt, and the broker forgot where
                log.warning("changelog_has_other_records", table=self._table.name, partition=partition, offset=known)
                if partition not in await self._read_on([partition]):
                    why = LeaseLost("the changelog has the claim of another worker")
                    self._table.app.fatal("what is in flight must not be written", why)
                known = self._known[partition]
            if offset < 0:
                self._torn.add(partition)
            self._known[partition] = max(known, offset + count)
        if not places or partition in self._torn:
            return stored
        return places[-1][0] + places[-1][1]

    async def look(self) -> None:
        """Read on in each partition that is ours; unless it is being given up meanwhile."""
        if self._table.app.batches.flow_active:
            await self._read_on([p for p in self._table.stores if p in self._table.fences])

    async def _read_on(self, partitions: Iterable[int]) -> list[int]:
        """Read to the end what is not known; returns those of `partitions` that are still ours."""
        table = self._table
        seen = {partition: Fence(table.fences[partition].epoch) for partition in partitions}
        stores = {partition: table.stores[partition] for partition in seen}
        readers = {
            partition: Bystander(self._known.get(partition, store.next_offset), store.path)
            for partition, store in stores.items()
        }
        await restore_partitions(
            table.app.client_settings, table.changelog, readers, connect=table.connect, fences=seen
        )
        ours = []
        for partition, fence in seen.items():
            now = table.fences.get(partition)
            if now is None or now.epoch != fence.epoch or table.stores.get(partition) is not stores[partition]:
                continue
            ours.append(partition)
            self._known[partition] = max(self._known.get(partition, 0), readers[partition].next_offset)
            if fence.void:
                self._torn.add(partition)
                task = asyncio.create_task(self._mend(partition, sorted(fence.void)))
                self.mending.add(task)
                task.add_done_callback(self.mending.discard)
        return ours

    async def _mend(self, partition: int, keys: list[bytes]) -> None:
        log.warning("void_records", table=self._table.name, partition=partition, keys=len(keys), action="write again")
        try:
            await self._table.rewrite(partition, keys)
        except Exception as exc:
            self._table.app.fatal("rows behind void records could not be written again", exc)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._look_s)
            try:
                await self.look()
            except Exception as exc:  # the next look reads it; a restore does in any case
                log.warning("changelog_not_looked_at", table=self._table.name, error=str(exc))
