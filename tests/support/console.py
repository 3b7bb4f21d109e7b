"""A console without a broker: records are put into its tally, and its one process is a metrics endpoint of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CollectorRegistry

from app.console.server import ConsoleServer
from app.embedded import free_port
from app.health import HealthServer
from app.metrics import Metrics
from app.settings import DEV_SECRET, load_settings
from schemas.decisions import Decision, encode_decision
from schemas.models import ModelSnapshot, encode_snapshot
from schemas.outcomes import Outcome, encode_outcome
from schemas.segments import MembershipChange, encode_membership

USER = "a-very-private-user"
NOW_MS = 1_772_442_000_000


@asynccontextmanager
async def console(**settings: Any) -> AsyncIterator[tuple[ConsoleServer, Metrics]]:
    """A console that listens on a free port, and the metrics of the process that it watches."""
    metrics = Metrics(CollectorRegistry())
    metrics.build_info.labels("0.1.0", "shop+1", "interpreted").set(1)
    health = HealthServer("127.0.0.1", 0, metrics.registry, dict)
    await health.start()
    usual = {
        "profile": "dev",
        "broker": f"127.0.0.1:{free_port()}",
        "worker_urls": f"http://127.0.0.1:{health.port}",
        "console_port": 0,
    }
    server = ConsoleServer(load_settings(**usual | settings))
    await server.start()
    try:
        yield server, metrics
    finally:
        await server.stop()
        await health.stop()


def decided(number: int, action: str = "send", reason: str = "", **fields: Any) -> bytes:
    """A decision as it stands in the topic."""
    made = Decision(
        id=f"d{number}",
        user=USER,
        action=action,  # type: ignore[arg-type]
        campaign=fields.pop("campaign", "thanks"),
        category="orders",
        decided_ms=NOW_MS + number,
        reason=reason,
        policy_version="shop+1",
        **fields,
    )
    return encode_decision(made)


def matured(number: int, label: int, score: float = 0.5, **fields: Any) -> bytes:
    """An outcome as it stands in the topic."""
    return encode_outcome(
        Outcome(
            id=f"d{number}",
            model="open",
            label=label,
            features={},
            score=score,
            model_version=1,
            campaign="thanks",
            decided_ms=NOW_MS,
            matured_ms=NOW_MS + 1,
            **fields,
        )
    )


def moved(segment: str, change: str) -> bytes:
    """A membership change as it stands in the topic."""
    made = MembershipChange(id="m", user=USER, segment=segment, change=change, at_ms=NOW_MS, cause="event")  # type: ignore[arg-type]
    return encode_membership(made)


def published(version: int, secret: str = DEV_SECRET, name: str = "open", **metrics: float) -> bytes:
    """A model snapshot as it stands in the topic."""
    values = {name: float(value) for name, value in metrics.items()}  # an integer would be signed as another text
    snapshot = ModelSnapshot(
        model=name, version=version, partition=0, next_offset=0, created_ms=NOW_MS, state=b"{}", metrics=values
    )
    return encode_snapshot(snapshot, secret.encode())
