"""What became of the decisions to send: each must have a receipt, and each receipt of a sent one its delivery."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable

from schemas.decisions import decode_decision
from schemas.events import NOTIFICATION_FAILED, NOTIFICATION_SENT, Event, decode_event
from schemas.topics import DECISIONS, EVENTS
from tests.support.site import Site, eventually


async def ends_of(site: Site, delivered_by: Callable[[], Counter[str]], timeout_s: float = 90.0) -> dict[str, int]:
    """What became of every decision to send, by its receipt; those that have none after `timeout_s` are `untold`.

    Parameters
    ----------
    delivered_by
        Gives, by decision, how often it was delivered. Asked when all have a receipt: a sender that was cut off sends
        when its feed of opt-outs is up to date again, later than a worker has caught up.

    A message may be delivered and its receipt say `unknown`: the sender did not live to hear the answer. One that is
    said to be sent and was not delivered is `missing_sends`.
    """
    wanted: set[str] = set()
    ends: dict[str, str] = {}

    async def all_have() -> bool:
        nonlocal wanted, ends
        wanted, ends = await _decided(site), await _receipts(site)
        return wanted <= ends.keys()

    with contextlib.suppress(AssertionError):  # who is left is counted below
        await eventually(all_have, "every decision to send has a receipt", timeout_s)
    delivered = delivered_by().keys()
    counts = Counter(ends.get(made, "untold") for made in wanted)
    return {
        "to_send": len(wanted), "delivered": len(delivered & wanted), "sent": 0, "unknown": 0, "untold": 0, **counts,
        "unknown_but_delivered": sum(ends.get(made) == "unknown" for made in delivered),
        "missing_sends": sum(end == "sent" and made not in delivered for made, end in ends.items()),
        "spurious_sends": len(delivered - wanted),
    }  # fmt: skip


async def _decided(site: Site) -> set[str]:
    made = [decode_decision(record.value) for record in await site.records(DECISIONS) if record.value]
    return {decision.id for decision in made if decision.action == "send"}


async def _receipts(site: Site) -> dict[str, str]:
    """By decision: `sent`, or why not."""
    ends: dict[str, str] = {}
    for record in await site.records(EVENTS):
        if b'"Notification ' in (record.value or b""):
            event = decode_event(record.value, record.key)
            if isinstance(event, Event) and event.event in (NOTIFICATION_SENT, NOTIFICATION_FAILED):
                reason = event.properties.get("reason", "no reason")
                ends[event.properties["decisionId"]] = "sent" if event.event == NOTIFICATION_SENT else reason
    return ends
