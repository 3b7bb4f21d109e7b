"""What the policy feed and the backfill report, as metrics and log lines."""

from __future__ import annotations

from collections.abc import Callable, Collection

import structlog

from app.core.processor import Processor
from app.metrics import Metrics

log = structlog.get_logger(__name__)


class PolicyMetrics:
    """Counts refused versions."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        for reason in ("signature", "invalid"):  # there before the first: an increase is what raises the alarm
            metrics.policies_refused.labels(reason)

    def refused(self, reason: str) -> None:
        """A version was not used."""
        self._metrics.policies_refused.labels(reason).inc()


class BackfillMetrics:
    """Turns what a backfill reports into metrics; says in the log what history was no longer there."""

    def __init__(self, metrics: Metrics, processor: Processor, now_ms: Callable[[], int]) -> None:
        self._metrics = metrics
        self._processor = processor
        self._now_ms = now_ms
        self._missing_s: dict[int, float] = {}
        self._policy_id = 0

    def history_read(self, records: int) -> None:
        """Records of `events` were read again."""
        self._metrics.backfill_records.inc(records)

    def history_begins(self, partition: int, offset: int, at_ms: int, features: Collection[int]) -> None:
        """Windows of a partition were folded from `offset` on."""
        if self._policy_id != self._processor.policy_id:
            self._policy_id = self._processor.policy_id
            self._missing_s.clear()
        wanted = set(features)
        reach_ms = self._now_ms() - at_ms
        short = [
            feature
            for feature in self._processor.plan.features
            if feature.id in wanted and offset > 0 and feature.window_ms > reach_ms
        ]
        longest_ms = max((feature.window_ms for feature in short), default=reach_ms)
        self._missing_s[partition] = (longest_ms - reach_ms) / 1000.0
        self._metrics.backfill_missing.set(max(self._missing_s.values()))
        if short:
            names = [feature.text for feature in short]
            log.warning("history_is_short", partition=partition, reaches_back_s=reach_ms // 1000, windows=names)
