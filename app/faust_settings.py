"""What every Faust app of ours is told, whichever process it runs in."""

from __future__ import annotations

import asyncio
from typing import Any

import faust

from app.settings import Settings


def faust_settings(settings: Settings, group: str) -> dict[str, Any]:
    """What every app of ours tells Faust. The development profile rebalances fast: not for production."""
    dev = settings.profile == "dev"
    directory = settings.data_dir / group
    directory.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "broker": [f"kafka://{server.strip()}" for server in settings.broker.split(",")],
        "datadir": directory,
        "store": "memory://",
        "web_enabled": False,
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "table_standby_replicas": 0,
        "stream_buffer_maxsize": 1 << 16,  # never reached: `app.stream.backlog` bounds what waits, in records
        "stream_recovery_delay": 0.0,
        "stream_publish_on_commit": False,
        "consumer_auto_offset_reset": "earliest",
        "consumer_max_fetch_size": 1 << 20,
        "consumer_group_instance_id": settings.instance_id or None,
        "broker_commit_interval": 1.0,
        "broker_check_crcs": True,
        "broker_session_timeout": 6.0 if dev else 30.0,
        "broker_heartbeat_interval": 1.0 if dev else 3.0,
        "broker_rebalance_timeout": 1.0 if dev else 60.0,
        "broker_request_timeout": 90.0,
    }
    credentials = _credentials(settings)
    if credentials is not None:
        result["broker_credentials"] = credentials
    return result


def _credentials(settings: Settings) -> Any:
    context = settings.ssl_context()
    if settings.security_protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=settings.sasl_username,
            password=settings.sasl_password.get_secret_value(),
            mechanism=settings.sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context=context) if context is not None else None


def install_uvloop() -> None:
    """Use uvloop's event loops where they exist (about a quarter more throughput)."""
    try:
        import uvloop  # noqa: PLC0415 - absent on Windows
    except ImportError:
        return
    # A policy, because Faust makes its loop itself: uvloop.install() does the same and warns from Python 3.12 on.
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
