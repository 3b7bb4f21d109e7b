"""Every metric that nudge exposes, declared once. Base units; labels with few values, never an id."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from app.core.effects import Effects
from app.core.ids import stable_id
from app.core.plan import Plan
from app.stream.unreadable import BAD_ROW
from schemas.topics import EVENTS

CAMPAIGN_QUALITY: Final = {
    "auc": "As nudge_model_auc, of a campaign; of 32 at most.",
    "recent_log_loss": "Log loss of a campaign's newest 500 to 1,000 examples.",
    "recent_calibration_ratio": "Predicted opens over opens of a campaign's newest examples.",
    "recent_brier": "Brier score of a campaign's newest examples.",
    "recent_precision": "As nudge_model_precision, of a campaign's newest examples.",
    "recent_recall": "As nudge_model_recall, of a campaign's newest examples.",
    "recent_f1": "As nudge_model_f1, of a campaign's newest examples.",
}
LATENCY_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The worker's and the sender's metrics, on one registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry
        self.events = Counter(
            "nudge_events", "Records consumed, by what became of them.", ["topic", "outcome"], registry=registry
        )
        self.dead_letters = Counter(
            "nudge_dead_letter_records",
            "Records sent to the dead-letter topic.",
            ["topic", "reason"],
            registry=registry,
        )
        self.decisions = Counter(
            "nudge_decisions", "Decisions to send, and to suppress and why.", ["decision", "reason"], registry=registry
        )
        self.membership_changes = Counter(
            "nudge_membership_changes", "Users entering and leaving segments.", ["change"], registry=registry
        )
        self.merges = Counter("nudge_merges", "Steps of merging two rows of one user.", ["step"], registry=registry)
        self.segment_members = Gauge(
            "nudge_segment_members", "Users in a segment, of this worker's partitions.", ["segment"], registry=registry
        )
        self.segment_minimum = Gauge(
            "nudge_segment_minimum_members",
            "Users that the policy wants a segment to have, where it says so.",
            ["segment"],
            registry=registry,
        )
        self.percentile_threshold = Gauge(
            "nudge_percentile_threshold", "Where a percentile of the policy begins.", ["percentile"], registry=registry
        )
        self.percentile_share = Gauge(
            "nudge_percentile_share",
            "Share of the users beyond a percentile's threshold when it was set.",
            ["percentile"],
            registry=registry,
        )
        self.percentile_rows = Counter(
            "nudge_percentile_rows", "Rows that followed a threshold.", ["outcome"], registry=registry
        )
        self.outcomes = Counter("nudge_outcomes", "Matured training examples.", ["label"], registry=registry)
        self.propensity_examples = Counter(
            "nudge_propensity_examples", "Matured examples of propensity models.", ["model", "label"], registry=registry
        )
        self.timers_dropped = Counter(
            "nudge_timers_dropped", "Timers dropped because a row had too many.", registry=registry
        )
        self.timers = Counter("nudge_timers", "Rows whose timers were run.", ["outcome"], registry=registry)
        self.outputs_unowed = Counter(
            "nudge_outputs_unowed",
            "Outputs that a row owing too much could not remember: lost if the worker died before they left.",
            registry=registry,
        )
        self.values_ignored = Counter(
            "nudge_values_ignored", "Property values that could not be summed.", registry=registry
        )
        self.event_to_decision = Histogram(
            "nudge_event_to_decision_seconds",
            "From the triggering event's record timestamp to the acknowledged decision.",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.batch_records = Histogram(
            "nudge_batch_records", "Records processed at a time.", buckets=(1, 8, 64, 256, 512), registry=registry
        )
        self.batch_seconds = Histogram(
            "nudge_batch_processing_seconds",
            "Time to process a chunk, before its effects are durable.",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.commit_seconds = Histogram(
            "nudge_commit_seconds", "Time of an offset commit.", buckets=LATENCY_BUCKETS_S, registry=registry
        )
        self.consumer_lag = Gauge(
            "nudge_consumer_lag_records", "Records not processed yet.", ["topic", "partition"], registry=registry
        )
        self.transaction_open = Gauge(
            "nudge_transaction_open_seconds",
            "How long a transaction of a producer has held a partition back; 0 for none.",
            ["topic", "partition"],
            registry=registry,
        )
        self.records_gone = Counter(
            "nudge_records_gone", "Offsets that a topic's retention deleted unread.", ["topic"], registry=registry
        )
        self.rebalances = Counter("nudge_rebalances", "Assignments of partitions.", registry=registry)
        self.restore_remaining = Gauge(
            "nudge_restore_remaining_records", "Changelog records still to restore.", ["table"], registry=registry
        )
        self.state_rows = Gauge("nudge_state_rows", "Rows in this worker's partitions.", ["table"], registry=registry)
        self.state_bytes = Gauge(
            "nudge_state_bytes", "Bytes on disk of the rows in this worker's partitions.", ["table"], registry=registry
        )
        self.state_memory = Gauge(
            "nudge_state_memory_bytes",
            "RocksDB's write buffers and open files of this worker's partitions, and its block cache, in memory.",
            ["table"],
            registry=registry,
        )
        self.row_memory = Gauge(
            "nudge_row_memory_bytes",
            "Rows of this worker's partitions in memory: changed and not yet in RocksDB, or written last.",
            ["table"],
            registry=registry,
        )
        self.python_blocks = Gauge(
            "nudge_python_blocks",
            "Blocks of memory in use by Python's objects, about 100 bytes each.",
            registry=registry,
        )
        self.native_memory = Gauge(
            "nudge_native_memory_bytes",
            "In use of the C library's heaps, RocksDB's memory among it; NaN where it does not tell.",
            registry=registry,
        )
        self.row_reads = Counter(
            "nudge_row_reads", "Rows asked of the store, by where they were.", ["table", "source"], registry=registry
        )
        self.disk_free = Gauge("nudge_disk_free_bytes", "Free on the disk of the data directory.", registry=registry)
        self.disk_size = Gauge("nudge_disk_size_bytes", "Size of the disk of the data directory.", registry=registry)
        self.clock_skew = Gauge(
            "nudge_clock_skew_seconds",
            "By how much this machine's clock is ahead of the broker's; NaN when the broker does not tell.",
            registry=registry,
        )
        self.ready = Gauge("nudge_ready", "1 when /readyz says so, else 0.", registry=registry)
        self.timer_entries = Gauge("nudge_timer_index_entries", "Entries of the timer index.", registry=registry)
        self.model_auc = Gauge("nudge_model_auc", "Progressive area under the ROC curve.", ["model"], registry=registry)
        self.model_log_loss = Gauge("nudge_model_log_loss", "Progressive log loss.", ["model"], registry=registry)
        self.model_log_loss_constant = Gauge(
            "nudge_model_log_loss_constant", "Log loss of predicting the base rate.", ["model"], registry=registry
        )
        self.model_calibration = Gauge(
            "nudge_model_calibration_ratio", "Predicted opens over opens.", ["model"], registry=registry
        )
        self.model_brier = Gauge("nudge_model_brier", "Progressive Brier score.", ["model"], registry=registry)
        self.model_precision = Gauge(
            "nudge_model_precision", "Share of opens among scores above the base rate.", ["model"], registry=registry
        )
        self.model_recall = Gauge(
            "nudge_model_recall",
            "Share of the opens that had a score above the base rate.",
            ["model"],
            registry=registry,
        )
        self.model_f1 = Gauge("nudge_model_f1", "Harmonic mean of precision and recall.", ["model"], registry=registry)
        self.model_recent_auc = Gauge(
            "nudge_model_recent_auc",
            "As nudge_model_auc, of the newest 2,000 to 4,000 examples.",
            ["model"],
            registry=registry,
        )
        self.model_recent_log_loss = Gauge(
            "nudge_model_recent_log_loss",
            "As nudge_model_log_loss, of the newest examples.",
            ["model"],
            registry=registry,
        )
        self.model_recent_calibration = Gauge(
            "nudge_model_recent_calibration_ratio",
            "As nudge_model_calibration_ratio, of the newest examples.",
            ["model"],
            registry=registry,
        )
        self.campaign_log_loss = Gauge(
            "nudge_model_campaign_log_loss",
            "Progressive log loss of a campaign; of 32 at most.",
            ["model", "campaign"],
            registry=registry,
        )
        self.campaign_calibration = Gauge(
            "nudge_model_campaign_calibration_ratio",
            "Predicted opens over opens of a campaign; of 32 at most.",
            ["model", "campaign"],
            registry=registry,
        )
        self.campaign_quality = {
            name: Gauge(f"nudge_model_campaign_{name}", help_, ["model", "campaign"], registry=registry)
            for name, help_ in CAMPAIGN_QUALITY.items()
        }
        vars(self).update({f"campaign_{name}": gauge for name, gauge in self.campaign_quality.items()})
        self.model_challenger_gain = Gauge(
            "nudge_model_challenger_gain", "Mean log loss that the challenger would save.", ["model"], registry=registry
        )
        self.model_pinned = Gauge(
            "nudge_model_pinned_version",
            "Version that the model is pinned to; 0 when the newest is served.",
            ["model"],
            registry=registry,
        )
        self.model_promotions = Counter(
            "nudge_model_promotions", "Challengers that became champion.", ["model"], registry=registry
        )
        self.model_examples = Gauge("nudge_model_examples", "Examples learned.", ["model"], registry=registry)
        self.model_version = Gauge(
            "nudge_model_version", "Version of the snapshot that is served.", ["model"], registry=registry
        )
        self.snapshot_created = Gauge(
            "nudge_model_snapshot_timestamp_seconds",
            "When the snapshot that is served was made, in seconds since 1970.",
            ["model"],
            registry=registry,
        )
        self.drift = Counter("nudge_drift_detected", "Drift alarms.", ["model", "detector"], registry=registry)
        self.variants_stopped = Gauge(
            "nudge_variants_stopped", "Variants that too many opt-outs have stopped.", registry=registry
        )
        self.persona_share = Gauge(
            "nudge_persona_share",
            "Share of the active users in a persona, by its number; see `nudge segments personas`.",
            ["persona"],
            registry=registry,
        )
        self.persona_silhouette = Gauge(
            "nudge_persona_silhouette", "How well personas are told apart, -1 to 1.", registry=registry
        )
        self.persona_changes = Counter(
            "nudge_persona_changes",
            "Users who got a persona: their first, or another than before.",
            ["change"],
            registry=registry,
        )
        self.snapshots_rejected = Counter(
            "nudge_model_snapshots_rejected", "Snapshots with a wrong signature or content.", registry=registry
        )
        self.sends = Counter(
            "nudge_sends", "Deliveries, by what became of them.", ["provider", "outcome"], registry=registry
        )
        self.send_retries = Counter("nudge_send_retries", "Attempts after the first.", ["provider"], registry=registry)
        self.tokens_removed = Counter(
            "nudge_tokens_removed", "Push tokens that a provider said are gone.", ["provider"], registry=registry
        )
        self.circuit_open = Gauge(
            "nudge_send_circuit_open", "1 while a provider's circuit breaker is open.", ["provider"], registry=registry
        )
        self.send_seconds = Histogram(
            "nudge_send_seconds", "Time of one attempt.", ["provider"], buckets=LATENCY_BUCKETS_S, registry=registry
        )
        self.suppression_age = Gauge(
            "nudge_suppression_feed_age_seconds",
            "Since the feed of opt-outs was last read to its end; +Inf before the first time.",
            registry=registry,
        )
        self.build_info = Gauge(
            "nudge_build_info", "Always 1.", ["version", "policy_version", "core"], registry=registry
        )
        self.policy_serial = Gauge(
            "nudge_policy_serial",
            "Serial of the policy version in force; 0 when it came from a file.",
            ["policy", "version"],
            registry=registry,
        )
        self.shadow_decisions = Counter(
            "nudge_shadow_decisions",
            "Decisions of the policy on trial, about its share of the users.",
            ["decision", "reason"],
            registry=registry,
        )
        self.policies_refused = Counter(
            "nudge_policies_refused", "Policy versions that were not used.", ["reason"], registry=registry
        )
        self.backfill_partitions = Gauge(
            "nudge_backfill_partitions", "Partitions still to be brought to the policy in force.", registry=registry
        )
        self.backfill_rows = Counter(
            "nudge_backfill_rows",
            "Rows that the backfill came to, by what became of them.",
            ["outcome"],
            registry=registry,
        )
        self.backfill_records = Counter(
            "nudge_backfill_history_records", "Records of `events` read again for new windows.", registry=registry
        )
        self.catalog_items = Gauge("nudge_catalog_items", "Items of the catalog that are known.", registry=registry)
        self.catalog_unknown = Gauge(
            "nudge_catalog_unknown_records", "Records of items for which there was no room.", registry=registry
        )
        self.catalog_changes = Counter(
            "nudge_catalog_changes", "Changes of the catalog that may concern somebody.", ["kind"], registry=registry
        )
        self.catalog_offers = Counter(
            "nudge_catalog_offers",
            "Rows that were offered changes, by outcome.",
            ["outcome"],
            registry=registry,
        )
        self.catalog_waiting = Gauge(
            "nudge_catalog_waiting_changes", "Changes that wait for their users to be found.", registry=registry
        )
        self.catalog_entries = Gauge(
            "nudge_catalog_index_entries", "Entries of the indexes from item to users.", registry=registry
        )
        self.backfill_missing = Gauge(
            "nudge_backfill_missing_seconds",
            "How much of the longest new window `events` no longer held when it was rebuilt.",
            registry=registry,
        )

    def count_gone(self, topics: Iterable[str]) -> Callable[[str, int], None]:
        """Count records that are gone unread. The series exist from now on, or the first loss would be no increase."""
        for topic in topics:
            self.records_gone.labels(topic)
        return lambda topic, gone: self.records_gone.labels(topic).inc(gone)


_OUTCOMES: Final = {"1": "opened", "0": "ignored"}


class WorkerObserver:
    """Turns what the engine reports into metrics."""

    def __init__(self, metrics: Metrics, plan: Plan) -> None:
        self._metrics = metrics
        self._plan = plan
        self._members: dict[int, dict[str, int]] = {}
        self._series: dict[tuple[str, ...], Any] = {}
        """By count; finding a series by its labels takes as long as ten increments."""
        self._sizes: dict[str, Gauge] = {}
        """By segment."""
        self._counters = {
            "events": metrics.events,
            "dead_letters": metrics.dead_letters,
            "decisions": metrics.decisions,
            "outcomes": metrics.outcomes,
            "propensity_outcomes": metrics.propensity_examples,
            "persona_changes": metrics.persona_changes,
            "segment_changes": metrics.membership_changes,
            "merges": metrics.merges,
            "timers": metrics.timers,
            "dropped_timers": metrics.timers_dropped,
            "unowed_outputs": metrics.outputs_unowed,
            "ignored_values": metrics.values_ignored,
            "backfill": metrics.backfill_rows,
            "percentiles": metrics.percentile_rows,
            "offers": metrics.catalog_offers,
            "shadow_decisions": metrics.shadow_decisions,
        }
        self._show_minima()
        # Prometheus sees an increase only of a series that was there before: the first failure would raise no alert.
        for reason in ("processing_failed", BAD_ROW):
            metrics.dead_letters.labels(EVENTS, reason)

    def effects(self, effects: Effects, partition: int) -> None:
        """Count what a chunk did."""
        for count, number in effects.counts.items():
            series = self._series.get(count)
            if series is None and count[0] in self._counters:
                series = self._series[count] = self._find(*count)
            if series is not None:
                series.inc(number)
        if effects.members:
            members = self._members.setdefault(partition, {})
            for segment, change in effects.members.items():
                members[segment] = members.get(segment, 0) + change
            self._show(effects.members)

    def _find(self, name: str, *labels: str) -> Any:
        values = [EVENTS, *labels] if name in ("events", "dead_letters") else list(labels)
        if name == "outcomes":
            values = [_OUTCOMES.get(label, label) for label in labels]
        counter = self._counters[name]
        return counter.labels(*values) if values else counter

    def policy(self, plan: Plan) -> None:
        """Another policy is in force. Segments that it does not have are shown until their last member has left."""
        before, self._plan = self._plan, plan
        self._show({segment.name: 0 for segment in (*before.segments, *plan.segments)})
        self._show_minima()

    def batch(self, records: int, seconds: float) -> None:
        """A chunk was processed."""
        self._metrics.batch_records.observe(records)
        self._metrics.batch_seconds.observe(seconds)

    def durable(self, effects: Effects) -> None:
        """The decisions of a chunk are acknowledged."""
        if effects.latencies_ms:
            now_ms = time.time_ns() / 1e6
            for at_ms in effects.latencies_ms:
                self._metrics.event_to_decision.observe(max(0.0, now_ms - at_ms) / 1000.0)

    def members(self, partition: int, counts: Mapping[int, int] | None) -> None:
        """A partition was restored with these members, or given up."""
        if counts is None:
            self._members.pop(partition, None)
        else:
            by_id = self._plan.segment_by_id
            self._members[partition] = {by_id[i].name: n for i, n in counts.items() if i in by_id}
        self._show({segment.name: 0 for segment in self._plan.segments})

    def sizes(self) -> dict[str, int]:
        """Users in each segment, of this worker's partitions."""
        found: dict[str, int] = {}
        for members in self._members.values():
            for segment, users in members.items():
                found[segment] = found.get(segment, 0) + users
        return found

    def _show_minima(self) -> None:
        self._metrics.segment_minimum.clear()
        for segment in self._plan.segments:
            if segment.users_min:
                self._metrics.segment_minimum.labels(segment.name).set(segment.users_min)

    def _show(self, segments: Mapping[str, int]) -> None:
        for segment in segments:
            total = sum(members.get(segment, 0) for members in self._members.values())
            gauge = self._sizes.get(segment)
            if gauge is None:
                gauge = self._sizes[segment] = self._metrics.segment_members.labels(segment)
            gauge.set(total)
            if total <= 0 and stable_id(segment) not in self._plan.segment_by_id:
                self._metrics.segment_members.remove(segment)
                del self._sizes[segment]
