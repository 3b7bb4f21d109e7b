"""What a single thread makes of the same records: the truth that killed and rebalanced workers must agree with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.core.features import open_features
from app.core.processor import Processor
from app.core.profile import FIELDS, Profile, decode_profile
from app.learning.scorer import FrozenModel
from app.policy.load import load_policy
from schemas.decisions import decode_decision
from schemas.topics import DEAD_LETTERS, DECISIONS, PROFILES_CHANGELOG

# Not part of the state that a replay must reproduce: what a row still owes, and scores of models of another moment.
# Nor the offset: an event that was a duplicate is no reason to write a row.
_VOLATILE = ("outbox", "owed", "pending", "timers", "segments_due_ms", "offset")


@dataclass
class Truth:
    """Rows by key, decisions to send by id, refused records by (partition, offset)."""

    rows: dict[bytes, dict[str, Any]] = field(default_factory=dict)
    decisions: set[str] = field(default_factory=set)
    refused: set[tuple[int, int]] = field(default_factory=set)


@dataclass(frozen=True)
class Difference:
    """Figures of a comparison; all 0 when nothing was lost and nothing was done twice."""

    lost: int
    over_counted: int
    rows_different: int
    decisions_missing: int
    decisions_spurious: int
    dead_letters_missing: int

    def total(self) -> int:
        """0 when both agree."""
        return sum(vars(self).values())


def state_of(profile: Profile) -> dict[str, Any]:
    """A row as it is compared: everything but what depends on the moment of processing."""
    state = {name: getattr(profile, name) for name in FIELDS if name not in _VOLATILE}
    state["segments"] = sorted(profile.segments)  # entered when the event was processed
    state["sends"] = len(profile.sends)
    return state


def oracle(records: Iterable[Any], policy: Path, now_ms: int) -> Truth:
    """Fold the records of `events`, a partition at a time, in the order of their offsets."""
    processor = Processor(load_policy(policy), FrozenModel(0, 0.0, {}), open_features)
    truth = Truth()
    partitions: dict[int, list[Any]] = {}
    for record in records:
        partitions.setdefault(record.partition, []).append(record)
    for partition, mine in partitions.items():
        rows: dict[bytes, Profile] = {}
        effects = processor.process(mine, "events", partition, rows, now_ms=now_ms, acked_offset=0)
        truth.rows |= {key: state_of(row) for key, row in rows.items()}
        for output in effects.outputs:
            if output.topic == DECISIONS:
                decision = decode_decision(output.value or b"")
                if decision.action == "send":
                    truth.decisions.add(decision.id)
            elif output.topic == DEAD_LETTERS:
                headers = dict(output.headers)
                truth.refused.add((int(headers["nudge_partition"]), int(headers["nudge_offset"])))
    return truth


async def compare(site: Any, truth: Truth, apart_from: Iterable[str] = ()) -> Difference:
    """Hold what stands in the topics against the truth.

    `apart_from` names fields of a row that timers change, where the policy has them: the oracle has no clock.
    """
    newest = {record.key: record.value for record in await site.records(PROFILES_CHANGELOG)}
    rows = {key: state_of(decode_profile(value)) for key, value in newest.items() if value is not None}
    for row in (*rows.values(), *truth.rows.values()):
        for name in apart_from:
            row.pop(name, None)
    _tell_fields(rows, truth.rows)
    expected_events = Counter({key: row["events"] for key, row in truth.rows.items()})
    found_events = Counter({key: row["events"] for key, row in rows.items()})
    decisions = {
        decision.id
        for record in await site.records(DECISIONS)
        if (decision := decode_decision(record.value)).action == "send"
    }
    dead = set()
    for record in await site.records(DEAD_LETTERS):
        headers = dict(record.headers)
        dead.add((int(headers["nudge_partition"]), int(headers["nudge_offset"])))
    return Difference(
        lost=(expected_events - found_events).total(),
        over_counted=(found_events - expected_events).total(),
        rows_different=sum(rows.get(key) != row for key, row in truth.rows.items()) + len(rows.keys() - truth.rows),
        decisions_missing=len(truth.decisions - decisions),
        decisions_spurious=len(decisions - truth.decisions),
        dead_letters_missing=len(truth.refused - dead),
    )


def _tell_fields(rows: Mapping[bytes, dict[str, Any]], wanted: Mapping[bytes, dict[str, Any]]) -> None:
    """Print in which fields rows differ, for whoever has to find out why."""
    fields = Counter(
        name for key in rows.keys() & wanted.keys() for name, value in wanted[key].items() if rows[key][name] != value
    )
    if fields:
        print(f"rows differ in {dict(fields)}", flush=True)
