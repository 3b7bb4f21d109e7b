"""The topic registry: every topic that nudge reads or writes, and how it must be configured.

`nudge topics create` and `nudge topics check` work from this list, and so do the documents generated from it.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000
WHOLE_SEGMENT_BYTES: Final = 16 * 1024 * 1024
"""Of topics that are read whole, by a worker before it decides and a learner before it learns. Kafka compacts closed
segments only, and lets one grow to a gigabyte: three hours of model snapshots.
"""


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """One topic's contract.

    `partitions` is ``"events"`` when the topic must have as many partitions as `events` (the engine writes record
    of user partition p to partition p), else a fixed number.
    """

    name: str
    key: str
    value: str
    partitions: Literal["events"] | int
    cleanup: Literal["delete", "compact"]
    retention_ms: int
    purpose: str
    stamped: bool = False
    """Records carry the broker's time, not their producer's."""
    history_ms: int = 0
    """Of a compacted topic: how long every record stays, and not only the newest of its key."""

    def config(self) -> dict[str, str]:
        """Kafka's topic configuration."""
        if self.cleanup == "compact":
            lag_ms = str(max(DAY_MS, 2 * self.history_ms))  # after it an erased row's old value is gone
            if self.history_ms:
                kept = {"min.compaction.lag.ms": str(self.history_ms)}
            else:
                kept = {"segment.bytes": str(WHOLE_SEGMENT_BYTES)}
            ratio = {"min.cleanable.dirty.ratio": "0.1"}
            return {"cleanup.policy": "compact", **ratio, **kept, "max.compaction.lag.ms": lag_ms}
        # Kafka deletes whole segments: an open one would keep its oldest record for another `segment.ms`, a week.
        kept = {"cleanup.policy": "delete", "retention.ms": str(self.retention_ms), "segment.ms": str(DAY_MS)}
        return kept | ({"message.timestamp.type": "LogAppendTime"} if self.stamped else {})


EVENTS: Final = "events"
DECISIONS: Final = "decisions"
SEGMENTS: Final = "segments"
OUTCOMES: Final = "outcomes"
MODELS: Final = "models"
POLICY: Final = "policy"
CATALOG: Final = "catalog"
DEAD_LETTERS: Final = "dead-letters"
ERASURES: Final = "erasures"
PROFILES_CHANGELOG: Final = "nudge-profiles-changelog"
LEDGER_CHANGELOG: Final = "nudge-ledger-changelog"
CLOCK: Final = "nudge-clock"
PERCENTILES: Final = "percentiles"

TOPICS: Final[tuple[Topic, ...]] = (
    Topic(
        name=EVENTS,
        key="user",
        value="Event (JSON)",
        partitions="events",
        cleanup="delete",
        retention_ms=7 * DAY_MS,
        purpose="everything that happens to a user: behaviour, consent, receipts, answers",
    ),
    Topic(
        name=DECISIONS,
        key="user",
        value="Decision (JSON, CloudEvents headers)",
        partitions="events",
        cleanup="delete",
        retention_ms=7 * DAY_MS,
        purpose="what to send, and what not to send and why",
    ),
    Topic(
        name=SEGMENTS,
        key="user",
        value="MembershipChange (JSON)",
        partitions="events",
        cleanup="delete",
        retention_ms=7 * DAY_MS,
        purpose="a user entered or left a segment",
    ),
    Topic(
        name=OUTCOMES,
        key="model",
        value="Outcome (JSON)",
        partitions=1,
        cleanup="delete",
        retention_ms=30 * DAY_MS,
        purpose="matured training examples for the learner",
    ),
    Topic(
        name=MODELS,
        key="model",
        value="ModelSnapshot (JSON, signed)",
        partitions=1,
        cleanup="compact",
        retention_ms=-1,
        purpose="the newest snapshot of each model, read by every worker",
    ),
    Topic(
        name=POLICY,
        key="policy, or policy@serial",
        value="PolicyVersion (JSON, signed)",
        partitions=1,
        cleanup="compact",
        retention_ms=-1,
        purpose="the version of the policy that is in force, and those before it, read by every worker",
    ),
    Topic(
        name=CATALOG,
        key="item id",
        value="CatalogItem (JSON)",
        partitions=1,
        cleanup="compact",
        retention_ms=-1,
        purpose="what there is to buy: name, category, price and stock of each item, read by every worker",
        history_ms=DAY_MS,
    ),
    Topic(
        name=DEAD_LETTERS,
        key="as received",
        value="as received",
        partitions=1,
        cleanup="delete",
        retention_ms=7 * DAY_MS,
        purpose="records that could not be processed, with reason and place in headers",
    ),
    Topic(
        name=ERASURES,
        key="subject (keyed hash) / part",
        value="ErasureReceipt (JSON)",
        partitions=1,
        cleanup="compact",
        retention_ms=-1,
        purpose="receipts: whose data was erased, where and when, by keyed hash",
    ),
    Topic(
        name=PROFILES_CHANGELOG,
        key="user",
        value="row (binary)",
        partitions="events",
        cleanup="compact",
        retention_ms=-1,
        history_ms=HOUR_MS,
        purpose="the profiles table: one row per user",
    ),
    Topic(
        name=LEDGER_CHANGELOG,
        key="decision id",
        value="ledger entry (binary)",
        partitions="events",
        cleanup="compact",
        retention_ms=-1,
        history_ms=HOUR_MS,
        purpose="the sender's ledger: which decision was sent",
    ),
    Topic(
        name=PERCENTILES,
        key="number / partition, or number / cuts",
        value="Percentiles (JSON)",
        partitions=1,
        cleanup="compact",
        retention_ms=-1,
        purpose="how numbers are distributed over the users, and the thresholds that follow, read by every worker",
    ),
    Topic(
        name=CLOCK,
        key="none",
        value="empty",
        partitions=1,
        cleanup="delete",
        retention_ms=2 * DAY_MS,
        purpose="what each process asks the broker the time with: only the broker's timestamp counts",
        stamped=True,
    ),
)

BY_NAME: Final[dict[str, Topic]] = {topic.name: topic for topic in TOPICS}
