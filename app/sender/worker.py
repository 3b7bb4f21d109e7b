"""The composition root of the sender: settings in, a Faust app out that delivers decisions."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog

from agents import deliveries
from app.faust_settings import faust_settings
from app.garbage import Sweep
from app.gauges import read_gauges
from app.health import HealthServer
from app.metrics import Metrics
from app.preflight import Preflight
from app.sender.courier import CourierSettings
from app.sender.delivery import Deliverer, DeliverySettings
from app.sender.providers.base import Provider
from app.sender.since import Since
from app.sender.suppressions import Suppressions
from app.sender.sweeper import Sweeper
from app.sender.throttle import ThrottleSettings
from app.sender.wiring import build_providers
from app.settings import Settings
from app.skew import BrokerClock, ClockWatch
from app.stream.app import StreamApp
from app.stream.broadcast import BroadcastReader
from app.stream.lease import SILENT_S_MAX
from app.stream.stores import StoreFactory, StoreOptions
from app.stream.table import RowTable
from app.tracing import load_tracing
from schemas.erasures import Subjects
from schemas.events import ERASE, Rejected, decode_event
from schemas.topics import CLOCK, DEAD_LETTERS, DECISIONS, ERASURES, EVENTS, LEDGER_CHANGELOG
from tables.ledger import RETENTION_MS, sweep

log = structlog.get_logger(__name__)

BATCH_RECORDS_MAX: Final = 500
"""Of one partition in one batch. A fetch is bounded in bytes, as they are sent, compressed: many thousands may fit."""
ROW_MEMORY_MB_MAX: Final = 16
"""A decision's row is read again within minutes, by its receipt, or never."""
READ_S_MAX: Final = 60.0
"""So long a sender waits at its start for `events` to be read. A first start may take longer: meanwhile transactional
messages are sent, as whenever the feed is stale."""
_CONSENT_MARK: Final = b"Notifications "
"""In every consent event, and in few others: the rest of `events` is not decoded."""
_ERASE_MARK: Final = b'"erase"'
"""In every request to erase a user, and in hardly any other event."""


class SenderRecorder:
    """The sender's metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def settled(self, provider: str, outcome: str) -> None:
        """A decision got its final state."""
        self._metrics.sends.labels(provider, outcome).inc()

    def retried(self, provider: str) -> None:
        """An attempt was answered with "not now"."""
        self._metrics.send_retries.labels(provider).inc()

    def took(self, provider: str, seconds: float) -> None:
        """An attempt was answered after this long."""
        self._metrics.send_seconds.labels(provider).observe(seconds)

    def removed(self, provider: str) -> None:
        """The provider said that a token is gone."""
        self._metrics.tokens_removed.labels(provider).inc()

    def broken(self, provider: str, is_broken: bool) -> None:
        """The provider's circuit breaker has opened or closed."""
        self._metrics.circuit_open.labels(provider).set(is_broken)

    def given_back(self, decisions: int) -> None:
        """Decisions were left to the next sender."""
        self._metrics.sends.labels("none", "given_back").inc(decisions)

    def held(self, decisions: int) -> None:
        """Decisions wait for a fresh suppression feed."""
        self._metrics.sends.labels("none", "held").inc(decisions)

    def repeated(self, decisions: int) -> None:
        """Records whose decision was final already."""
        self._metrics.sends.labels("none", "repeated").inc(decisions)

    def dead_lettered(self, reason: str) -> None:
        """A record of `decisions` could not be read."""
        self._metrics.dead_letters.labels(DECISIONS, reason).inc()


class LedgerClient:
    """Forgets ledger entries past their retention when a partition is restored, and stops and resumes the sending.

    Parameters
    ----------
    stop, resume
        Of the deliverer: partitions are about to be given up; they are ours.
    """

    keeps_offsets = False

    def __init__(self, table: RowTable, stop: Callable[[], None], resume: Callable[[], None]) -> None:
        self._table = table
        self._stop = stop
        self._resume = resume
        self._tombstones: dict[int, list[tuple[bytes, bytes | None]]] = {}

    def begin_scan(self, partition: int) -> None:
        """Start anew."""
        self._tombstones[partition] = []

    def visit(self, partition: int, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """Note the entries that may be forgotten."""
        self._tombstones[partition].extend(sweep(rows, time.time_ns() // 1_000_000, RETENTION_MS))

    def assigned(self, partitions: set[int]) -> None:
        """Send again."""
        self._resume()

    async def before_resume(self, offsets: Mapping[int, int]) -> None:
        """Delete what may be forgotten."""
        for partition in offsets:
            rows = self._tombstones.pop(partition, [])
            for start in range(0, len(rows), 1000):
                await self._table.write(partition, rows[start : start + 1000])

    async def drain(self) -> None:
        """Begin nothing more; the barrier awaits what is under way and what is given back."""
        self._stop()


class LedgerPages:
    """The ledger as the sweeper walks over it: nothing of it while partitions are changing hands."""

    def __init__(self, app: StreamApp, table: RowTable) -> None:
        self._app = app
        self._table = table

    def partitions(self) -> Sequence[int]:
        """Those that are ours and restored now."""
        settled = self._app.tables.recovery.completed.is_set() and self._app.batches.flow_active
        return list(self._table.stores) if settled else []

    def page(self, partition: int, after: bytes, limit: int) -> list[bytes]:
        """Keys in order, of rows that have reached the store."""
        return [key for key, _ in self._table.stores[partition].page(after, limit)]

    def get_many(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """The newest values."""
        return self._table.get_many(partition, keys)

    async def write(self, partition: int, rows: list[tuple[bytes, bytes | None]]) -> None:
        """Returns when it is durable; partitions are not given up before that, nor restored."""
        barrier = self._app.batches.barrier
        barrier.hold()
        try:
            await self._table.write(partition, rows)
        finally:
            barrier.release()


class SuppressionFeed:
    """Reads consent events of all partitions, so that an opt-out counts at the last moment before a send.

    What is read at the start counts when all of it has been read: until then somebody who has opted out and in again
    seems to have opted out, and their messages would end for good.

    Parameters
    ----------
    done
        The sender's committed offsets of `decisions`, of its own partitions.
    """

    def __init__(self, settings: Settings, done: Callable[[], Mapping[int, int]] = dict) -> None:
        self._key = secrets.token_bytes(32)
        self.suppressions = Suppressions(self._key)
        self._read: Suppressions | None = None
        """What has been read since the reader began anew, until that is everything."""
        self._subjects = Subjects(settings.privacy_bytes())
        self._clock = settings.make_clock()
        self.since = Since(
            settings.client_settings(),
            workers=settings.app_id,
            senders=settings.sender_id,
            newest=lambda: self.reader.newest,
            done=done,
        )
        self.reader = BroadcastReader(
            settings.client_settings(), EVENTS, self.apply, anew=self.begin, starts=self.since.starts
        )

    def begin(self) -> None:
        """The topic is about to be read from where it must be (`app.sender.since`)."""
        self._read = Suppressions(self._key)

    def apply(self, key: bytes | None, value: bytes | None, _offset: int) -> None:
        """One record of `events`."""
        if value is None or not (_CONSENT_MARK in value or _ERASE_MARK in value):
            return
        event = decode_event(value, key)
        if isinstance(event, Rejected):
            return
        suppressions = self.suppressions if self._read is None else self._read
        if event.type != ERASE:
            suppressions.feed(event, received_ms=self._clock.now_ms(), wall_ms=_wall_ms())
        elif self._subjects.requested(event):
            user = event.user_id or event.anonymous_id or ""
            suppressions.refuse(user, at_ms=self._clock.now_ms(), wall_ms=_wall_ms())

    async def start(self, timeout_s: float = READ_S_MAX) -> None:
        """Begin to read; return when all was read, or after `timeout_s`: what needs the feed waits for it by itself."""
        try:
            await self.reader.start(timeout_s)
        except TimeoutError as exc:
            log.warning("opt_outs_not_read_yet", error=str(exc), promotional="held back")

    def check(self, user: str, category: str) -> bool | None:
        """Whether the user has opted out; None when that cannot be told."""
        wall_ms = self._look()
        return self.suppressions.check(user, category, wall_ms)

    def fresh(self) -> bool:
        """Whether the feed can tell at all."""
        wall_ms = self._look()
        return self.suppressions.fresh(wall_ms)

    def age_s(self) -> float:
        """Seconds since everything that was written had been read."""
        return time.monotonic() - self.reader.seen_to if self.reader.seen_to else math.inf

    def _look(self) -> int:
        """Pass on how far the reader is; returns the wall-clock time (ms)."""
        wall_ms = _wall_ms()
        if self._read is not None and self.reader.whole:
            self.suppressions, self._read = self._read, None
        if self.reader.seen_to:  # 0: it has not been at the end yet
            behind_ms = int((time.monotonic() - self.reader.seen_to) * 1000)
            self.suppressions.caught_up(wall_ms - behind_ms)
        return wall_ms


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _traced(providers: dict[str, Provider]) -> dict[str, Provider]:
    tracing = load_tracing("nudge-sender")
    return {name: tracing.provider(name, one) for name, one in providers.items()} if tracing else providers


class Sender:
    """Everything a sender process consists of; `app` is the Faust app."""

    def __init__(self, settings: Settings, metrics: Metrics | None = None) -> None:
        self.settings = settings
        self.metrics = metrics or Metrics()
        self.app = StreamApp(
            settings.sender_id,
            client_settings=settings.client_settings(),
            idempotent=settings.idempotent,
            **(faust_settings(settings, settings.sender_id) | {"broker_max_poll_records": BATCH_RECORDS_MAX}),
        )
        row_bytes = min(ROW_MEMORY_MB_MAX, settings.row_memory_mb) << 20
        options = StoreOptions(cache_bytes=8 << 20, memtable_bytes=4 << 20, row_bytes=row_bytes)
        factory = StoreFactory(settings.data_dir / settings.sender_id / "rows", options)
        self.table = RowTable(
            self.app, name="ledger", changelog=LEDGER_CHANGELOG, partitions=settings.partitions, factory=factory
        )
        self.feed = SuppressionFeed(settings, lambda: self.app.batches.committed(DECISIONS))
        self.app.commit_note = self.feed.since.note
        self.deliverer = Deliverer(
            table=self.table,
            produce=self._produce,
            providers=_traced(build_providers(settings)),
            default=settings.sender_providers()[0],
            clock=settings.make_clock(),
            suppressed=self.feed.check,
            subjects=Subjects(settings.privacy_bytes()),
            settings=DeliverySettings(
                CourierSettings(
                    concurrency=settings.sender_concurrency,
                    throttle=ThrottleSettings(rate_per_s=settings.sender_rate),
                )
            ),
            recorder=SenderRecorder(self.metrics),
        )
        ledger = LedgerClient(self.table, self.deliverer.stop, self.deliverer.resume)
        self.app.bind(self.table, DECISIONS, ledger)
        deliveries.attach(self.app, self.deliverer.deliver)
        self.preflight = Preflight(settings, (EVENTS, DECISIONS, DEAD_LETTERS, ERASURES, LEDGER_CHANGELOG))
        self.app.preflight = self._before_start
        self.memory = Sweep()
        self.sweeper = Sweeper(LedgerPages(self.app, self.table), _wall_ms, self.app.fatal)
        self.skew = ClockWatch(lambda: BrokerClock(settings.client_settings()), self.metrics.clock_skew.set)
        self.health = HealthServer(
            settings.http_host, settings.http_port, self.metrics.registry, self.problems, self._before_scrape
        )
        self.app.on_before_shutdown.connect(self._on_shutdown, weak=False)
        self.app.on_remaining = lambda table, remaining: self.metrics.restore_remaining.labels(table).set(remaining)
        self.app.on_rebalanced = self.metrics.rebalances.inc
        self.app.on_committed = self.metrics.commit_seconds.observe
        self.app.on_gone = self.metrics.count_gone((DECISIONS,))

    async def _produce(
        self,
        topic: str,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, bytes]],
    ) -> None:
        await self.app.durable_producer.send(topic, key, value, headers, partition)

    async def _before_start(self) -> None:
        await self.health.start()
        log.info("http", address=f"http://{self.settings.http_host}:{self.health.port}")
        await self.preflight.wait()
        await self.feed.start()
        self.feed.since.start()
        self.sweeper.start()
        self.memory.start()
        if CLOCK in self.preflight.present:
            self.skew.start()

    async def _on_shutdown(self, _app: Any, **_kwargs: Any) -> None:
        parts = (self.sweeper, self.memory, self.skew, self.feed.since, self.feed.reader, self.health)
        await asyncio.gather(*(part.stop() for part in parts), self.deliverer.close())

    def _before_scrape(self) -> None:
        read_gauges(
            self.metrics,
            app=self.app,
            table=self.table,
            directory=self.settings.data_dir,
            ready=not self.problems(),
        )
        self.metrics.suppression_age.set(self.feed.age_s())

    def problems(self) -> dict[str, str]:
        """What keeps the sender from being ready."""
        if self.preflight.problem is not None:
            return {"broker": self.preflight.problem}
        if not self.app.tables.recovery.completed.is_set():
            return {"ledger": "partitions are not assigned and restored yet"}
        if self.app.lease.silent_s > SILENT_S_MAX:
            return {"broker": f"no heartbeat was answered within {SILENT_S_MAX:g} s: {self.settings.broker}"}
        if not self.feed.fresh():
            return {"suppressions": "the opt-out feed is stale: promotional messages are held back"}
        return {}
