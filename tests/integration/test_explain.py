"""`nudge explain` and `nudge console` as processes: they find the user's worker, and the decision in the topic."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any

import pytest

from app.embedded import free_port
from app.explain.history import scan
from schemas.events import Event
from schemas.topics import DECISIONS
from tests.support.site import Site, eventually

pytestmark = pytest.mark.broker

TOKEN = "a-token-of-more-than-16"


def happened(name: str, user: str, number: int, **properties: object) -> Event:
    now_ms = time.time_ns() // 1_000_000
    return Event(
        type="track", event=name, user_id=user, message_id=f"{user}-{number}", timestamp=now_ms, properties=properties
    )


async def nudge(site: Site, *arguments: str, **settings: str) -> tuple[int, str, str]:
    """Run the command line; status, output, errors."""
    environment = {
        "NUDGE_BROKER": site.bootstrap,
        "NUDGE_PROFILE": "dev",
        "NUDGE_ADMIN_TOKEN": TOKEN,
        "COLUMNS": "120",
    } | settings
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli", *arguments, env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, output.decode(), errors.decode()


def asked(url: str, token: str) -> tuple[int, dict[str, Any]]:
    """Ask a worker for the user directly."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{url}/admin/user", b'{"user": "secret-user-1"}', headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as exc:
        return exc.code, json.loads(exc.read())


async def test_a_user_and_a_decision_are_explained_by_the_command_and_by_the_console(site: Site) -> None:
    user = "secret-user-1"
    with site.worker(NUDGE_ADMIN_TOKEN=TOKEN) as worker:
        await site.ready(worker)
        views = [happened("Product Viewed", user, number) for number in range(6)]
        await site.happen([*views, happened("Order Completed", user, 9, order_id="o-1", revenue=12.5)])

        async def decided() -> bool:
            return site.metric(worker, "nudge_decisions_total", decision="send", reason="") >= 1

        await eventually(decided, "the order is thanked for")
        url = f"http://127.0.0.1:{site.port(worker)}"
        assert asked(url, "")[0] == 401
        assert asked(url, "wrong")[0] == 401
        assert asked(url, TOKEN)[0] == 200

        status, output, errors = await nudge(site, "explain", "--user", user, "--worker", url, "--json", "--row")
        assert status == 0, errors
        found = json.loads(output)
        segments = {one["name"]: one for one in found["view"]["segments"]}
        assert {name for name, one in segments.items() if one["inside"]} == {"busy", "buyer"}
        assert segments["busy"]["clause"]["readings"] == [
            {"text": "count('Product Viewed', '90d')", "value": "6"},
        ]
        assert segments["spender"]["clause"]["readings"][0]["value"] == "12.5"
        assert found["view"]["campaigns"][0]["verdict"] == "send"
        assert found["view"]["campaigns"][0]["shares"][0]["feature"] == "bias"
        assert found["row"]["orders"] == 1
        # The partition is the worker's answer: the tests do not use Kafka's partitioner.
        assert found["partition"] == 1
        moments = found["life"]["moments"]
        assert {one["title"] for one in moments if one["kind"] == "segment"} == {"entered busy", "entered buyer"}
        (decision,) = [one for one in moments if one["kind"] == "decision"]

        status, output, errors = await nudge(site, "explain", "--user", user, "--worker", url)
        assert status == 0, errors
        assert "count('Product Viewed', '90d') >= 5" in output
        assert "decided to send thanks" in output

        status, output, errors = await nudge(site, "explain", "--decision", decision["id"])
        assert status == 0, errors
        assert "events offset 6" in output

        status, _, errors = await nudge(site, "explain", "--user", "secret-user-3", "--worker", url)
        assert status == 1
        assert "no row of this user" in errors
        await console_shows(site, url, user)
        assert user not in worker.log_tail()
        await asyncio.to_thread(worker.stop)


async def console_shows(site: Site, worker_url: str, user: str) -> None:
    """The console's process has counted the topics, and shows the same user."""
    port = free_port()
    settings = {"NUDGE_WORKER_URLS": worker_url, "NUDGE_ADMIN_TOKEN": TOKEN, "NUDGE_CONSOLE_PORT": str(port)}
    with site.process("console", **settings) as process:
        url = f"http://127.0.0.1:{port}"

        async def counted() -> bool:
            assert process.returncode is None, process.log_tail()
            try:
                state = await asyncio.to_thread(fetched, f"{url}/api/state")
            except OSError:
                return False
            if not state or not state["processes"][0]["ready"]:
                return False
            members = {one["name"]: one["members"] for one in state["segments"]}
            return state["totals"]["sends"] == 1 and members.get("busy") == 1 and user not in str(state)

        await eventually(counted, "the console has read the topics and the worker")
        body = json.dumps({"user": user}).encode()
        request = urllib.request.Request(f"{url}/api/user", body, {"Content-Type": "application/json"})
        found = await asyncio.to_thread(fetched, request)
        assert {one["name"] for one in found["view"]["segments"] if one["inside"]} == {"busy", "buyer"}
        assert {moment["kind"] for moment in found["life"]["moments"]} == {"event", "segment", "decision"}
        assert user not in process.log_tail()
        assert await asyncio.to_thread(process.stop) == 0


def fetched(request: str | urllib.request.Request) -> Any:
    """The JSON of an answer."""
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.loads(response.read())


async def test_a_scan_that_does_not_reach_back_says_so(site: Site) -> None:
    for number in range(30):
        await site.put(DECISIONS, "u-0", b"%d" % number)
        await site.flush()  # batches of their own, so that a fetch can begin in between
    settings = {"bootstrap_servers": site.bootstrap}
    whole = await scan(settings, DECISIONS, lambda record: record.key == b"u-0", partition=0)
    assert (len(whole.records), whole.scanned, whole.whole) == (30, 30, True)
    newest = await scan(settings, DECISIONS, lambda record: True, partition=0, records_max=10)
    assert [record.value for record in newest.records] == [b"%d" % number for number in range(20, 30)]
    assert not newest.whole
