"""The composition root of the worker: settings in, a Faust app with its agents out."""

from __future__ import annotations

import gc
from collections.abc import Collection
from importlib.metadata import version
from typing import Any

import structlog
from aiokafka.errors import KafkaError

from agents import catalog as catalog_agent
from agents import learner as learner_agent
from agents import profiles as profiles_agent
from agents import timers as timers_agent
from app.admin import Admin
from app.catalog_feed import CatalogFeed
from app.core.features import open_features
from app.core.history_fold import HistoryFold
from app.core.index import PlanIndex
from app.core.plan import ModelPlan, Plan
from app.core.processor import Processor
from app.core.shadow import ShadowedProcessor
from app.explain.desk import UserDesk
from app.faust_settings import faust_settings
from app.garbage import Sweep
from app.gauges import read_gauges
from app.health import HealthServer
from app.learning.serving import prior_scorer
from app.metrics import Metrics, WorkerObserver
from app.model_feed import LearnerMetrics, ModelFeed
from app.percentile_feed import PercentileReader
from app.policy.load import load_policy
from app.policy_feed import PolicyFeed
from app.policy_metrics import BackfillMetrics, PolicyMetrics
from app.preflight import Preflight
from app.runtime import runtime, say_runtime
from app.settings import Settings
from app.skew import BrokerClock, ClockWatch
from app.small_segments import SmallSegments
from app.stream.app import StreamApp
from app.stream.backfill import Backfill
from app.stream.census import Census
from app.stream.engine import Engine
from app.stream.fanout import FanOut
from app.stream.lease import SILENT_S_MAX
from app.stream.stores import StoreFactory, StoreOptions
from app.stream.watchdog import Watchdog
from app.tracing import load_tracing
from app.vitals import worker_vitals
from schemas.erasures import Subjects
from schemas.topics import (
    CATALOG,
    CLOCK,
    DEAD_LETTERS,
    DECISIONS,
    ERASURES,
    EVENTS,
    MODELS,
    OUTCOMES,
    POLICY,
    PROFILES_CHANGELOG,
    SEGMENTS,
)
from tables.profiles import profiles_table

log = structlog.get_logger(__name__)

WORKER_TOPICS = (
    EVENTS,
    DECISIONS,
    SEGMENTS,
    OUTCOMES,
    MODELS,
    POLICY,
    CATALOG,
    DEAD_LETTERS,
    ERASURES,
    PROFILES_CHANGELOG,
)
TICK_S = 0.05


class Worker:
    """Everything a worker process consists of; `app` is the Faust app."""

    def __init__(self, settings: Settings, *, plan: Plan | None = None, metrics: Metrics | None = None) -> None:
        self.settings = settings
        file = load_policy(settings.policy) if plan is None and settings.policy is not None else plan
        self.metrics = metrics or Metrics()
        self.clock = settings.make_clock()
        self.app = StreamApp(
            settings.app_id,
            client_settings=settings.client_settings(),
            idempotent=settings.idempotent,
            **faust_settings(settings, settings.app_id),
        )
        self.subjects = Subjects(settings.privacy_bytes())
        self.processor = Processor(file or Plan(version="none"), prior_scorer(), open_features, self.subjects)
        self._observer = WorkerObserver(self.metrics, self.processor.plan)
        self.engine = self._engine()
        self.models = ModelFeed(self.processor, settings, self.metrics)
        self.learner = learner_agent.LearnerService(
            self.app,
            settings.secret_bytes(),
            LearnerMetrics(self.metrics),
            self.clock.now_ms,
            interval_s=settings.snapshot_interval_s,
            plan_of=lambda model: self.plan.models.get(model, ModelPlan()),
            pin_of=self.models.pin,
            personas_of=lambda: self.plan.personas,
            kinds_of=lambda: frozenset(kind for m in self.plan.models.values() for kind in m.kinds),
        )
        self.app.watch(OUTCOMES, self.learner)
        tracing = load_tracing("nudge-worker")
        profiles_agent.attach(self.app, tracing.batches(self.engine) if tracing else self.engine)
        timers_agent.attach(self.app, self.engine, interval_s=TICK_S)
        learner_agent.attach(self.app, self.learner, interval_s=settings.snapshot_interval_s)
        self.policies = PolicyFeed(settings, file, self._switch, PolicyMetrics(self.metrics))
        self.backfill = Backfill(
            self.engine,
            self.processor,
            self._history,
            BackfillMetrics(self.metrics, self.processor, self.clock.now_ms),
            self.clock.at_ms,
            share=settings.backfill_share,
        )
        self.percentiles = PercentileReader(self.processor, settings, self.metrics)
        self.census = Census(
            self.engine,
            self.processor,
            self.percentiles,
            self.clock.now_ms,
            partitions=settings.partitions,
            interval_s=settings.percentiles_interval_s,
            share=settings.backfill_share,
        )
        self.small = SmallSegments(
            lambda: self.plan,
            self._observer.sizes,
            lambda: () if self.backfill.remaining() else self.engine.tenures(),
            partitions=settings.partitions,
            settle_s=settings.segment_settle_s,
        )
        self.catalog = CatalogFeed(
            self.processor,
            settings.client_settings(),
            self.metrics,
            self.clock.at_ms,
            items_max=settings.catalog_items_max,
        )
        self.fanout = FanOut(
            self.engine,
            self.processor,
            self.catalog.recent,
            self.catalog.triggers,
            self.clock.now_ms,
            share=settings.backfill_share,
        )
        check = catalog_agent.CatalogCheck(
            self.app, lambda reason: self.metrics.dead_letters.labels(CATALOG, reason).inc(), self.clock.now_ms
        )
        self.app.watch(CATALOG, check)
        catalog_agent.attach(self.app, check)
        self.preflight = Preflight(settings, WORKER_TOPICS)
        self.sweep = Sweep()
        self.skew = ClockWatch(lambda: BrokerClock(settings.client_settings()), self.metrics.clock_skew.set)
        self.app.preflight = self._before_start
        desk = UserDesk(self.table, self.processor, open_features, self.clock.now_ms)
        self.health = HealthServer(
            settings.http_host,
            settings.http_port,
            self.metrics.registry,
            self.problems,
            self._before_scrape,
            Admin(settings.admin_token.get_secret_value(), desk.answer).routes(),
        )
        self.app.on_before_shutdown.connect(self._on_shutdown, weak=False)
        self.app.on_remaining = self._remaining
        self._restoring: dict[str, int] = {}
        self.watchdog = Watchdog(
            lambda: worker_vitals(self.app, self.engine, self._restoring),
            self.app.fatal,
            stall_s=settings.watchdog_stall_s,
            block_s=settings.watchdog_block_s,
            others=lambda: (self.app.batches.thread_loop,),
        )
        self.app.on_rebalanced = self.metrics.rebalances.inc
        self.app.on_committed = self.metrics.commit_seconds.observe
        self.app.on_gone = self.metrics.count_gone((EVENTS, OUTCOMES, CATALOG))

    @property
    def plan(self) -> Plan:
        """The policy in force."""
        return self.processor.plan

    def _switch(self, index: PlanIndex, serial: int) -> None:
        """A policy version comes into force, between two batches."""
        before, plan = self.processor.plan, index.plan
        self.processor.switch(index)
        self.catalog.follow()
        self._observer.policy(plan)
        self.metrics.policy_serial.clear()
        self.metrics.policy_serial.labels(plan.name, plan.version).set(serial)
        self.metrics.build_info.clear()
        self.metrics.build_info.labels(version("nudge-engine"), plan.version, runtime().core).set(1)
        if plan.model != before.model:
            self.processor.scorer = prior_scorer()
        if plan.model != before.model or plan.models.keys() != before.models.keys():
            self.models.reader.restart()  # the newest snapshot of another model was passed by, perhaps long ago

    def _history(self, covers: frozenset[int], keys: Collection[bytes]) -> HistoryFold:
        return HistoryFold(self.processor.plan, covers, keys, self.subjects)

    def _shadowed(self) -> Processor | ShadowedProcessor:
        """The processor, with the policy on trial beside it if there is one."""
        settings = self.settings
        if settings.shadow_policy is None:
            return self.processor
        plan = load_policy(settings.shadow_policy)
        return ShadowedProcessor(self.processor, plan, open_features, self.subjects, share=settings.shadow_share)

    def _engine(self) -> Engine:
        options = StoreOptions(
            cache_bytes=self.settings.rocksdb_cache_mb << 20,
            memtable_bytes=self.settings.rocksdb_memtable_mb << 20,
            row_bytes=self.settings.row_memory_mb << 20,
        )
        factory = StoreFactory(self.settings.data_dir / self.settings.app_id / "rows", options)
        self.table = profiles_table(self.app, factory, self.settings.partitions)
        engine = Engine(
            self.app,
            self.table,
            EVENTS,
            self._shadowed(),
            self._observer,
            self.clock.now_ms,
            cache_rows=self.settings.cache_rows,
            copartitioned=frozenset({DECISIONS, SEGMENTS}),
            subjects=self.subjects,
        )
        self.app.bind(self.table, EVENTS, engine)
        return engine

    async def _before_start(self) -> None:
        await self.health.start()
        log.info("http", address=f"http://{self.settings.http_host}:{self.health.port}")
        say_runtime(runtime(), production=self.settings.profile == "prod")
        await self.preflight.wait()
        await self.policies.start()
        await self.models.reader.start()
        await self.catalog.start()
        self.backfill.start()
        self.census.start()
        self.small.start()
        self.sweep.start()
        self.fanout.start()
        self.watchdog.start()
        if CLOCK in self.preflight.present:
            self.skew.start()
        # What lives now lives for ever; a young generation of 700 objects would be collected at every few events. No
        # collection first: it takes 75 ms of CPU while the partitions stand still, and finds 2,000 objects.
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)  # a full collection by these comes after hours: see `Sweep`

    def _remaining(self, table: str, records: int) -> None:
        self._restoring[table] = records
        self.metrics.restore_remaining.labels(table).set(records)

    async def _on_shutdown(self, _app: Any, **_kwargs: Any) -> None:
        self.watchdog.stop()
        await self.skew.stop()
        await self.sweep.stop()
        await self.small.stop()
        await self.census.stop()
        await self.percentiles.stop()
        await self.backfill.stop()
        await self.fanout.stop()
        await self.catalog.stop()
        await self.policies.stop()
        await self.models.reader.stop()
        await self.health.stop()

    def problems(self) -> dict[str, str]:
        """What keeps the worker from being ready."""
        found: dict[str, str] = {}
        if self.preflight.problem is not None:
            found["broker"] = self.preflight.problem
        elif self.policies.problem is not None:
            found["policy"] = self.policies.problem
        elif not self.app.tables.recovery.completed.is_set():
            found["state"] = "partitions are not assigned and restored yet"
        elif self._broker_is_lost():
            found["broker"] = f"no connection to {self.settings.broker}"
        elif self.app.lease.silent_s > SILENT_S_MAX:
            found["broker"] = f"no heartbeat was answered within {SILENT_S_MAX:g} s: {self.settings.broker}"
        return found

    def _broker_is_lost(self) -> bool:
        consumer = getattr(self.app.batches._thread, "_consumer", None)
        try:
            return consumer is None or not any(c.connected() for c in consumer._client._conns.values())
        except KafkaError:
            return True

    def _before_scrape(self) -> None:
        read_gauges(
            self.metrics,
            app=self.app,
            table=self.table,
            directory=self.settings.data_dir,
            ready=not self.problems(),
            positions=self.engine.lag(),
        )
        self.metrics.timer_entries.set(self.engine.timer_entries())
        self.metrics.catalog_waiting.set(self.fanout.waiting())
        self.metrics.catalog_entries.set(self.fanout.entries())
        self.metrics.backfill_partitions.set(self.backfill.remaining())
