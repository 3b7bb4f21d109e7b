"""Receipts: what became of a decision, as an event about the user.

A receipt is a function of the decision and its final ledger entry, so one that is produced again after a crash is the
same message with the same id, and whoever reads `events` drops it.
"""

from __future__ import annotations

from typing import Any

from schemas.decisions import Decision
from schemas.events import DEVICE_TOKEN_REMOVED, NOTIFICATION_FAILED, NOTIFICATION_SENT, Event
from tables.ledger import LedgerEntry, State


def receipt(decision: Decision, entry: LedgerEntry) -> Event:
    """``Notification Sent`` or ``Notification Failed`` with the decision's id, campaign, category and variant."""
    assert entry.state is not State.RESERVED, "a receipt tells a final state"
    sent = entry.state is State.SENT
    properties: dict[str, Any] = {
        "decisionId": decision.id,
        "campaign": decision.campaign,
        "category": decision.category,
        "variant": decision.variant,
    }
    if entry.provider:
        properties["provider"] = entry.provider
    if not sent:
        properties["reason"] = entry.reason
    return Event(
        type="track",
        event=NOTIFICATION_SENT if sent else NOTIFICATION_FAILED,
        user_id=decision.user,
        message_id=f"{decision.id}:{'sent' if sent else 'failed'}",
        timestamp=entry.event_ms,
        properties=properties,
    )


def removals(decision: Decision, entry: LedgerEntry) -> list[Event]:
    """``Device Token Removed`` for each token that turned out to be gone; it names the token by its id."""
    return [
        Event(
            type="track",
            event=DEVICE_TOKEN_REMOVED,
            user_id=decision.user,
            message_id=f"{decision.id}:removed:{token_id}",
            timestamp=entry.event_ms,
            properties={"tokenId": token_id, "provider": provider, "reason": reason},
        )
        for token_id, provider, reason in entry.gone
    ]
