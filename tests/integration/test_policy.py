"""A policy applied while events flow: who decides by it, whom it reaches, and what a bad one does."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.policy.load import load_policy_text
from schemas.decisions import decode_decision
from schemas.events import Event
from schemas.policies import PolicyVersion, encode_policy_version, head_key, history_key
from schemas.segments import MembershipChange, decode_membership
from schemas.topics import DECISIONS, POLICY, SEGMENTS
from tests.support.site import POLICIES, Site, eventually

pytestmark = pytest.mark.broker

SECOND = """
version: 2
name: echo
defaults: {consent: assumed, label_horizon: 400d}
segments:
  - {name: buyer, when: 'did("Order Completed", "90d")'}
  - {name: viewer, when: 'count("Product Viewed", "30d") >= 2'}
  - {name: stranger, when: 'count("Product Viewed", "30d") < 1'}
campaigns:
  - name: thanks
    category: orders
    trigger: {event: Order Completed}
    template: {title: Thanks, body: "{{ event.order_id | default: 'none' }}"}
"""
VERSION = load_policy_text(SECOND).version


def happened(name: str, user: int, number: int) -> Event:
    now_ms = time.time_ns() // 1_000_000
    return Event(type="track", event=name, user_id=f"u{user}", message_id=f"m{number}", timestamp=now_ms)


def nudge(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command, to its end."""
    environment = {"NUDGE_BROKER": site.bootstrap, "NUDGE_PROFILE": "dev", "NUDGE_PARTITIONS": "2"}
    environment |= {"NUDGE_IDEMPOTENT": str(site.real).lower()}
    command = [sys.executable, "-m", "app.cli", *arguments]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=90, env=os.environ | environment
    )


async def apply(site: Site, path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(nudge, site, "policy", "apply", str(path), "--author", "ann", *options)


async def swept(site: Site, worker: Any, serial: int, version: str) -> None:
    """Wait until the version is in force and every row has been brought to it."""

    async def done() -> bool:
        text = site.get(worker, "/metrics")[1]
        in_force = f'nudge_policy_serial{{policy="echo",version="{version}"}} {serial}.0' in text
        return in_force and "\nnudge_backfill_partitions 0.0" in text

    await eventually(done, f"version {serial} is in force and every row brought to it")


async def changes(site: Site, cause: str) -> list[MembershipChange]:
    found = [decode_membership(value or b"") for _, _, value, _ in await site.read(SEGMENTS)]
    return [change for change in found if change.cause == cause]


async def test_an_applied_policy_reaches_every_user_and_a_bad_one_none(site: Site, tmp_path: Path) -> None:
    second = tmp_path / "second.yaml"
    second.write_text(SECOND)
    await site.happen([happened("Product Viewed", n % 20, n) for n in range(40)])
    with site.worker() as worker:
        await site.ready(worker)
        first = load_policy_text((POLICIES / "echo.yaml").read_text()).version
        await swept(site, worker, 0, first)
        applied = await apply(site, second)
        assert applied.returncode == 0, applied.stderr
        assert "not among the newest 40 events: 'Order Completed'" in applied.stdout
        await site.happen([happened("Order Completed", n % 20, 100 + n) for n in range(20)])
        await swept(site, worker, 1, VERSION)
        await site.happen([happened("Order Completed", n % 20, 200 + n) for n in range(20)])

        async def decided() -> bool:
            return len(await site.read(DECISIONS)) == 40

        await eventually(decided, "every order has a decision")
        decisions = [decode_decision(value or b"") for _, _, value, _ in await site.read(DECISIONS)]
        assert {made.policy_version for made in decisions[-5:]} == {VERSION}
        entered = [change for change in await changes(site, "backfill") if change.change == "enter"]
        assert sorted(change.user for change in entered) == sorted(f"u{n}" for n in range(20)), "each once"
        assert {change.segment for change in entered} == {"viewer"}, "a stranger is whoever has no history"

        overlap = await asyncio.to_thread(nudge, site, "segments", "overlap", "--json")
        assert overlap.returncode == 0, overlap.stderr
        pairs = msgspec.json.decode(overlap.stdout)["pairs"]
        assert [(pair["a"], pair["b"], pair["both"], pair["kind"]) for pair in pairs] == [
            ("buyer", "viewer", 20, "same")
        ]

        await _publish_broken_versions(site)

        async def refused() -> bool:
            kinds = ("invalid", "signature")
            return all(site.metric(worker, "nudge_policies_refused_total", reason=kind) >= 1 for kind in kinds)

        await eventually(refused, "both are refused")
        assert site.status(worker) == 200
        await swept(site, worker, 1, VERSION)

        second.write_text(SECOND.replace("Product Viewed", "Produkt Gesehen").replace("Order", "order"))
        doubted = await apply(site, second, "--dry-run")
        assert "nobody sends 'order Completed'; did you mean 'Order Completed'" in doubted.stderr
        assert "not among the newest 80 events: 'Produkt Gesehen'" in doubted.stdout
        second.write_text(SECOND.replace("did(", "dit("))
        assert (await apply(site, second)).returncode == 2
        back = await asyncio.to_thread(nudge, site, "policy", "rollback", "1")
        assert back.returncode == 0, back.stderr
        listed = await asyncio.to_thread(nudge, site, "policy", "list")
        assert "rollback to 1" in listed.stdout
        await swept(site, worker, 3, VERSION)
        await asyncio.to_thread(worker.stop)
        assert worker.returncode == 0, worker.log_tail()


async def _publish_broken_versions(site: Site) -> None:
    """As if `apply` had not looked, and as if somebody without the secret had written."""
    good = PolicyVersion(policy="echo", serial=2, version="x", text="version: 3\nname: echo\n", author="eve", at_ms=1)
    broken = PolicyVersion(policy="echo", serial=2, version="2+0", text="segments: 1", author="eve", at_ms=1)
    secret = b"nudge-development-secret"
    for version, key in ((broken, secret), (good, b"guessed")):
        for name in (history_key("echo", version.serial), head_key("echo")):
            await site.put(POLICY, "u0", encode_policy_version(version, key), key=name)
    await site.flush()


async def test_a_worker_without_a_file_waits_for_a_policy_and_keeps_it_over_a_restart(site: Site) -> None:
    await site.happen([happened("Order Completed", n, n) for n in range(4)])
    with site.process("worker") as worker:

        async def waits() -> bool:
            return "nudge policy apply" in site.get(worker, "/readyz")[1]

        await eventually(waits, "the worker says that it has no policy")
        applied = await apply(site, POLICIES / "echo.yaml")
        assert applied.returncode == 0, applied.stderr
        await site.ready(worker)

        async def decided() -> bool:
            return len(await site.read(DECISIONS)) == 4

        await eventually(decided, "the orders have decisions")
        tried = await asyncio.to_thread(
            nudge, site, "policy", "simulate", "--policy", str(POLICIES / "echo.yaml"), "--from-topic", "--json"
        )
        assert tried.returncode == 0, tried.stderr
        report = msgspec.json.decode(tried.stdout)
        assert report["users_differing"] == 0, "it is the version in force"
        (row,) = report["decisions"]
        assert (row["action"], row["before"], row["after"]) == ("send", 4, 4)
        await asyncio.to_thread(worker.stop)
    with site.worker("other", policy="quick.yaml", NUDGE_POLICY_NAME="echo") as worker:
        await site.ready(worker)
        version = load_policy_text((POLICIES / "echo.yaml").read_text()).version
        await swept(site, worker, 1, version)
