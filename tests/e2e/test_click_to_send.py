"""From a click to a delivered notification, its answer, and what the model makes of it: all processes, one broker."""

from __future__ import annotations

import time

import pytest

from app.settings import DEV_SECRET
from schemas.decisions import decode_decision
from schemas.events import Event
from schemas.models import decode_snapshot
from schemas.outcomes import decode_outcome
from schemas.topics import DECISIONS, MODELS, OUTCOMES
from tests.support.site import Site, eventually

pytestmark = pytest.mark.broker


def event(name: str, user: str, message: str, **properties: object) -> Event:
    now_ms = time.time_ns() // 1_000_000
    return Event(type="track", event=name, user_id=user, message_id=message, timestamp=now_ms, properties=properties)


async def test_an_order_is_answered_delivered_opened_and_learned(site: Site) -> None:
    users = [f"u{n}" for n in range(20)]
    with site.worker(policy="quick.yaml") as worker, site.sender() as sender:
        await site.ready(worker)
        await site.ready(sender)
        await site.happen(
            [event("Order Completed", user, f"order-{user}", order_id="A1", revenue=9.5) for user in users]
        )

        async def delivered() -> bool:
            return len(site.lines()) == len(users)

        await eventually(delivered, "every order is thanked for")
        decisions = [decode_decision(record.value) for record in await site.records(DECISIONS)]
        await site.all_told(decisions)
        await site.happen(
            [
                event("Notification Opened", made.user, f"{made.id}:opened", decisionId=made.id, campaign=made.campaign)
                for made in decisions
            ]
        )

        async def learned() -> bool:
            snapshots = [decode_snapshot(record.value, DEV_SECRET.encode()) for record in await site.records(MODELS)]
            models = [snapshot for snapshot in snapshots if snapshot.model == "open"]
            return bool(models) and models[-1].metrics["examples"] == len(users)

        await eventually(learned, "the model has learned every open")

        async def served() -> bool:
            versions = [site.metric(worker, "nudge_model_version", model=name) for name in ("open", "open.choices")]
            return versions == [len(users), len(users)]

        await eventually(served, "the worker serves the newest snapshots")
        await site.happen([event("Order Completed", users[0], "again", order_id="A2", revenue=9.5)])

        async def decided_again() -> bool:
            return len(await site.records(DECISIONS)) == len(users) + 1

        await eventually(decided_again, "a later order is decided")
    outcomes = [decode_outcome(record.value) for record in await site.records(OUTCOMES)]
    assert {(outcome.id, outcome.label) for outcome in outcomes} == {(made.id, 1) for made in decisions}
    assert all(outcome.features for outcome in outcomes)
    assert set(site.lines().values()) == {1}
    newest = max(
        (decode_decision(record.value) for record in await site.records(DECISIONS)), key=lambda d: d.decided_ms
    )
    assert newest.model_version == len(users), "the decision was not scored by the newest snapshot"
    assert newest.open_probability > decisions[0].open_probability
