"""Going back to an older version of a model: the record on the topic is obeyed by a running worker."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from typer.testing import CliRunner

from app.children import Child
from app.cli import app
from schemas.outcomes import Outcome, encode_outcome
from schemas.topics import OUTCOMES
from tests.support.site import Site, eventually

pytestmark = pytest.mark.broker

OBEYED_S_MAX = 5.0


async def learn(site: Site, start: int, count: int) -> None:
    for number in range(start, start + count):
        outcome = Outcome(
            id=f"d{number}",
            model="open",
            label=int(number % 4 == 0),
            features={"a": float(number % 4), "c=thanks": 1.0},
            score=0.2,
            model_version=0,
            campaign="thanks",
            decided_ms=number,
            matured_ms=number,
        )
        await site.put(OUTCOMES, "0", encode_outcome(outcome), key=b"open")
    await site.flush()


async def nudge(site: Site, *arguments: str) -> Any:
    """Run a command in another thread, as a shell would. Its output, parsed if it is JSON."""
    environment = {"NUDGE_BROKER": site.bootstrap, "NUDGE_PROFILE": "dev", "NUDGE_IDEMPOTENT": str(site.real).lower()}
    result = await asyncio.to_thread(CliRunner().invoke, app, list(arguments), env=environment)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout) if "--json" in arguments else result.stdout


async def serves(site: Site, worker: Child, version: int, timeout_s: float = 60.0) -> None:
    async def done() -> bool:
        return site.metric(worker, "nudge_model_version", model="open") == version

    await eventually(done, f"version {version} is served", timeout_s)


async def test_a_rollback_is_obeyed_within_seconds_and_a_release_ends_it(site: Site) -> None:
    with site.worker() as worker:
        await site.ready(worker)
        await learn(site, 0, 600)
        await serves(site, worker, 600)
        rows = await nudge(site, "models", "list", "--json")
        kept = [row["version"] for row in rows if row["state"] == "kept"]
        assert kept
        await learn(site, 600, 100)
        await serves(site, worker, 700)
        shown = await nudge(site, "models", "show", "open", "--json")
        assert shown["figures"]["learner"]["examples"] == shown["campaigns"]["thanks"]["examples"] == shown["version"]

        await nudge(site, "models", "rollback", "open", "--to", str(kept[0]), "--reason", "test")
        await serves(site, worker, kept[0], OBEYED_S_MAX)
        assert site.metric(worker, "nudge_model_pinned_version", model="open") == kept[0]
        await learn(site, 700, 50)

        async def learned() -> bool:
            return site.metric(worker, "nudge_model_examples", model="open") == 750

        await eventually(learned, "the learner goes on")
        assert site.metric(worker, "nudge_model_version", model="open") == kept[0]
        rows = await nudge(site, "models", "list", "--json")
        assert [row["version"] for row in rows if "pinned by operator: test" in row["state"]] == [kept[0]]
        await nudge(site, "models", "release", "open")
        await serves(site, worker, 750, OBEYED_S_MAX)
