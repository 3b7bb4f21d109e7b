"""Canary values go down every path; logs, metrics, dead-letter headers and lists hold none of them."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from schemas.decisions import decision_headers, encode_decision
from schemas.events import Event
from schemas.topics import DEAD_LETTERS, DECISIONS, ERASURES, EVENTS
from tests.support.sender import decision
from tests.support.site import Site, eventually

pytestmark = pytest.mark.broker

CANARY = "quokka"
GOOD, BAD = "quokka-user-1", "quokka-user-2"
MALFORMED = [
    b'{"quokka-broken',
    b'{"type": "track", "event": "Seen", "userId": ["quokka-user-2"]}',
    b'{"type": "quokka-type", "userId": "quokka-user-2"}',
    b'{"type": "track", "event": "Seen", "userId": "quokka-somebody-else"}',
    b'{"type": "track", "event": "Seen", "userId": "quokka-user-2", "timestamp": "quokka-time"}',
    b'{"type": "track", "event": "Seen", "userId": "quokka-user-2", "timestamp": 4102444800000}',
    b'{"type": "erase", "userId": "quokka-user-2", "messageId": "quokka", "properties": {"signature": "quokka"}}',
    b"\xff\xfe{quokka\x00",
]
BAD_DECISIONS = [
    b'{"id": "quokka!", "user": "quokka-user-2", "action": "send", "campaign": "", "category": "", "decidedMs": 1}',
    b'{"id": "x", "user": "quokka-user-2", "action": "quokka", "campaign": "", "category": "", "decidedMs": 1}',
    b'{"quokka',
]


async def provider() -> tuple[web.AppRunner, int]:
    """A webhook that refuses everything and repeats what it was sent, as real ones do in their errors."""

    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=400, text=f"quokka-error about {await request.text()}")

    app = web.Application()
    app.router.add_post("/send", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, runner.addresses[0][1]


async def test_no_canary_reaches_logs_metrics_or_dead_letter_headers(site: Site) -> None:
    runner, port = await provider()
    webhook = {
        "NUDGE_SENDER_PROVIDER": "webhook",
        "NUDGE_WEBHOOK_URL": f"http://127.0.0.1:{port}/send",
        "NUDGE_WEBHOOK_SECRET": "a secret of the tests",
        "NUDGE_LOG_LEVEL": "debug",
    }
    context = {"device": {"type": "ios", "token": "quokka-token"}, "timezone": "Quokka/Zone"}
    await site.happen(
        [
            Event(type="identify", user_id=GOOD, traits={"email": "quokka@example.org"}, context=context),
            Event(type="track", event="quokka event", user_id=GOOD, message_id="quokka-message"),
            Event(type="track", event="Order Completed", user_id=GOOD, properties={"order_id": "quokka-order"}),
        ]
    )
    for value in MALFORMED:
        await site.put(EVENTS, BAD, value)
    for value in BAD_DECISIONS:
        await site.put(DECISIONS, BAD, value, [("ce_id", b"quokka")])
    made = decision(4, user="quokka-user-4", id="d-4", expires_ms=0, token={"provider": "quokka", "token": "quokka"})
    await site.put(DECISIONS, made.user, encode_decision(made), decision_headers(made))
    await site.flush()
    seen = ""
    with (
        site.worker(NUDGE_LOG_LEVEL="debug") as worker,
        site.process("sender", "data", **webhook) as sender,
    ):
        await site.ready(worker)
        await site.ready(sender)

        async def buried() -> bool:
            return len(await site.records(DEAD_LETTERS)) >= len(MALFORMED) + len(BAD_DECISIONS)

        await eventually(buried, "everything malformed is a dead letter")

        async def refused() -> bool:
            return site.metric(sender, "nudge_sends_total", provider="webhook", outcome="failed") >= 2

        await eventually(refused, "the provider has refused both messages")
        asked = await site.command("erase", "--user", GOOD, NUDGE_LOG_LEVEL="debug")
        assert asked.returncode == 0, asked.stderr

        async def erased() -> bool:
            return len({record.key for record in await site.records(ERASURES)}) >= 2

        # The user's number decides the partition here, their hash in the command: the request may be refused for its
        # key's partition by nobody, so both parts report wherever it went.
        await eventually(erased, "worker and sender have erased")
        listed = await site.command("dead-letters", "list")
        doctor = await site.command("doctor", "--json", NUDGE_HTTP_PORT="0")
        for child in (worker, sender):
            seen += site.get(child, "/metrics")[1] + site.get(child, "/readyz")[1]
            await asyncio.to_thread(child.stop)
            assert child.returncode == 0, child.log_tail()
            seen += site.log(child)
        seen += asked.stderr + listed.stdout + listed.stderr + doctor.stdout + doctor.stderr
    await runner.cleanup()
    letters = await site.records(DEAD_LETTERS)
    for record in [*letters, *await site.records(ERASURES)]:
        seen += json.dumps([(name, value.decode()) for name, value in record.headers])
    for record in await site.records(ERASURES):
        seen += (record.key + record.value).decode()
    assert "malformed_json" in seen, "the dead letters' headers were looked at"
    assert "nudge_sends_total" in seen
    lines = [line for line in seen.splitlines() if CANARY in line.lower()]
    assert not lines, lines[:5]
    assert any(CANARY.encode() in (record.value or b"") for record in letters), "the canaries did go down the paths"
