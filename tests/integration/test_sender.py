"""The sender as a process on a broker: decisions in, lines and receipts out, killed on the way."""

from __future__ import annotations

import asyncio
import time

import pytest

from schemas.decisions import Decision
from schemas.events import Event, encode_event
from schemas.topics import DEAD_LETTERS, DECISIONS, EVENTS, LEDGER_CHANGELOG
from tables.ledger import State, decode_entry, is_entry
from tests.support.sender import decision
from tests.support.site import Site, eventually

pytestmark = pytest.mark.broker


def fresh(n: int, **changes: object) -> Decision:
    """A decision that has not expired by the system's clock."""
    return decision(n, expires_ms=time.time_ns() // 1_000_000 + 3_600_000, **changes)


async def test_decisions_are_delivered_and_told_once_and_the_rest_is_not(site: Site) -> None:
    sends = [fresh(n) for n in range(200)]
    opted_out, expired = fresh(300), decision(301, expires_ms=1)
    suppressed = decision(302, action="suppress", reason="quiet_hours")
    stop = Event(type="track", event="Notifications Disabled", user_id=opted_out.user, message_id="m1")
    await site.put(EVENTS, opted_out.user, encode_event(stop))
    await site.decide([*sends, opted_out, expired, suppressed, *sends[:50]])
    await site.put(DECISIONS, "u1", b"{ not json")
    with site.sender() as child:
        await site.ready(child)
        await site.all_told([*sends, opted_out, expired])

        async def buried() -> bool:
            return len(await site.read(DEAD_LETTERS)) == 1

        await eventually(buried, "the malformed record is a dead letter")
        assert site.metric(child, "nudge_sends_total", provider="console", outcome="sent") == 200
    receipts = await site.receipts()
    assert site.lines() == {made.id: 1 for made in sends}
    assert all(receipts[made.id] == {(int(made.user[1:]) % 2, f"{made.id}:sent", "")} for made in sends)
    assert receipts[opted_out.id] == {(0, f"{opted_out.id}:failed", "opted_out")}
    assert receipts[expired.id] == {(1, f"{expired.id}:failed", "expired")}
    assert suppressed.id not in receipts
    [(_, key, value, headers)] = await site.read(DEAD_LETTERS)
    assert (key, value, headers["nudge_reason"]) == (b"u1", b"{ not json", b"malformed_json")


async def test_a_sender_that_has_nothing_to_do_is_ready(site: Site) -> None:
    with site.sender() as child:
        await site.ready(child)


@pytest.mark.parametrize("data", ["data", "elsewhere"])
async def test_a_killed_sender_sends_promotional_at_most_once_and_transactional_at_least_once(
    site: Site, data: str
) -> None:
    """The second life has the first one's disk, or (``elsewhere``) an empty one and the changelog only."""
    made = [fresh(n, transactional=n % 3 == 0) for n in range(3_000)]
    with site.sender() as child:
        await site.ready(child)
        feeding = asyncio.create_task(site.decide(made))

        async def under_way() -> bool:
            return sum(site.lines().values()) > 500

        await eventually(under_way, "deliveries are under way")
        child.kill()
        await feeding
    before = site.lines()
    assert 0 < len(before) < len(made), "the kill came too early or too late to prove anything"
    with site.sender(data) as child:
        await site.ready(child)
        await site.all_told(made)
    lines, receipts = site.lines(), await site.receipts()
    rows = {key: value for _, key, value, _ in await site.read(LEDGER_CHANGELOG) if key and value}
    ledger = {key: decode_entry(value) for key, value in rows.items() if is_entry(key)}
    repeated = {each.id for each in made if lines[each.id] > 1}
    assert not repeated & {each.id for each in made if not each.transactional}
    assert all(lines[each.id] >= 1 for each in made if each.transactional)
    assert all(len(receipts[each.id]) == 1 for each in made)
    for each in made:
        state = ledger[each.id.encode()].state
        [(_, message_id, reason)] = receipts[each.id]
        if state is State.SENT:
            assert lines[each.id] >= 1
            assert message_id == f"{each.id}:sent"
        else:
            assert (state, each.transactional, reason) == (State.UNKNOWN, False, "unknown")


async def test_a_sender_that_is_told_to_stop_finishes_what_it_began(site: Site) -> None:
    made = [fresh(n) for n in range(2_000)]
    with site.sender() as child:
        await site.ready(child)
        feeding = asyncio.create_task(site.decide(made))

        async def under_way() -> bool:
            return sum(site.lines().values()) > 200

        await eventually(under_way, "deliveries are under way")
        await asyncio.to_thread(child.stop)
        await feeding
        assert child.returncode == 0, child.log_tail()
    with site.sender() as child:
        await site.ready(child)
        await site.all_told(made)
    assert site.lines() == {each.id: 1 for each in made}
    receipts = await site.receipts()
    assert all(receipts[each.id] == {(int(each.user[1:]) % 2, f"{each.id}:sent", "")} for each in made)
