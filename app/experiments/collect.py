"""Fills a ledger from recorded decisions and events, counting what could not be read."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from app.experiments.ledger import Ledger
from app.experiments.sources import Recorded
from schemas.decisions import decode_decision
from schemas.events import Rejected, decode_event, epoch_ms
from schemas.topics import DECISIONS, EVENTS


def collect(records: Iterable[Recorded], ledger: Ledger) -> int:
    """Add every decision and event to `ledger`. Returns how many records could not be read."""
    unreadable = 0
    for record in records:
        if record.topic == DECISIONS:
            try:
                decision = decode_decision(record.value)
                if not decision.shadow:
                    ledger.add_decision(decision)
            except msgspec.MsgspecError:
                unreadable += 1
        elif record.topic == EVENTS:
            unreadable += not _add_event(record, ledger)
    return unreadable


def _add_event(record: Recorded, ledger: Ledger) -> bool:
    event = decode_event(record.value, record.key.encode())
    if isinstance(event, Rejected):
        return False
    timestamp = event.timestamp if event.timestamp is not None else event.sent_at
    ledger.add_event(event, record.key, record.timestamp_ms if timestamp is None else epoch_ms(timestamp))
    return True
