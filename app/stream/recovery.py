"""What happens between an assignment and the first event: restore, seek, resume. Faust's recovery, replaced.

Faust resumes fetching before it has finished seeking, which on some timings repeats or loses events; and it restores
record by record through the main consumer. Here the flow is stopped, the app restores its tables in bulk with a
consumer of its own, every partition is positioned, and only then does the flow resume. Another rebalance in the middle
starts the sequence anew.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from aiokafka.errors import IllegalStateError
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from mode import Service

log = structlog.get_logger(__name__)


class RowRecovery(Recovery):
    """Restores row tables after a rebalance."""

    _assigned_epoch = 0

    async def on_rebalance(self, assigned: Any, revoked: Any, newly_assigned: Any, generation_id: int = 0) -> None:
        """A new assignment: signal the recovery task, which interrupts a restore under way."""
        if generation_id != self.app.consumer_generation_id:
            return
        self._generation_id = generation_id
        self._assigned_epoch = self.app.consumer.flow_epoch
        self.completed.clear()
        self.signal_recovery_start.set()

    @Service.task
    async def _restart_recovery(self) -> None:
        while not self.should_stop:
            if await self.wait_for_stopped(self.signal_recovery_start):
                return
            self.signal_recovery_start.clear()
            try:
                await self._recover(self._generation_id)
            except IllegalStateError as exc:  # a partition is no longer ours: the next assignment is on its way
                log.warning("assignment_changed", error=str(exc))
            except asyncio.CancelledError as exc:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                # Something that it waited for was cancelled, and not it. Faust would take that for its end.
                self.app.fatal("restore failed", exc)
            except Exception as exc:
                self.app.fatal("restore failed", exc)

    @Service.task
    async def _slurp_changelogs(self) -> None:
        """Changelogs are read by `app.stream.restore`."""

    @Service.task
    async def _publish_stats(self) -> None:
        """Progress is in the metric `nudge_restore_remaining_records`."""

    async def _recover(self, generation_id: int) -> None:
        app = self.app
        consumer = app.consumer
        if consumer.flow_epoch != self._assigned_epoch:
            return  # revoked before it began
        app.flow_control.suspend()
        consumer.stop_flow()
        epoch = consumer.flow_epoch

        def interrupted() -> bool:
            # The flow is stopped again when the partitions are revoked, which may be long before the next assignment:
            # resuming in between would process events that belong to another worker.
            return bool(
                self.signal_recovery_start.is_set()
                or consumer.flow_epoch != epoch
                or app.consumer_generation_id != generation_id
            )

        self.in_recovery = True
        try:
            if not await app.restore_tables(interrupted):
                return
        finally:
            self.in_recovery = False
        if interrupted():
            return
        offsets = await consumer.seek_to_start()
        if interrupted():
            return
        await app.before_resume(offsets)
        await app.on_rebalance_complete.send()
        if interrupted():
            return
        consumer.resume_partitions(consumer.assignment())
        self.completed.set()
        app.flow_control.resume()
        consumer.resume_flow()
        await app._fetcher.maybe_start()
        self.tables.on_actives_ready()
        self.tables.on_standbys_ready()
        app.on_rebalance_end()
        log.info("ready", partitions=len(offsets), generation=generation_id)

    def flush_buffers(self) -> None:
        """There are no buffers."""


class RowTableManager(TableManager):
    """Keeps the tables, without subscribing the main consumer to their changelogs."""

    _recovery: RowRecovery | None

    @property
    def recovery(self) -> RowRecovery:
        """The recovery service."""
        if self._recovery is None:
            self._recovery = RowRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery

    async def on_start(self) -> None:
        """Start the tables and the recovery service."""
        await asyncio.sleep(0)
        if not self.should_stop:
            await self._update_channels()
            await self.recovery.start()

    async def _update_channels(self) -> None:
        self._tables_finalized.set()
        for table in self.values():
            await table.maybe_start()
        self._tables_registered.set()
