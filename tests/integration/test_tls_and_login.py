"""Worker, sender and doctor on an Apache Kafka that wants TLS and a password: no client of theirs speaks otherwise."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from app.children import Child
from schemas.decisions import decode_decision
from schemas.events import Event
from schemas.topics import DECISIONS
from tests.support.kafka import KafkaBroker, Login
from tests.support.push.keys import pem
from tests.support.site import POLICIES, Site, eventually

pytestmark = pytest.mark.kafka

USER, PASSWORD = "nudge", "correct-horse-battery-staple"


@dataclass
class Secured:
    """A site whose own clients use the open listener; `settings` lead processes to the other one."""

    site: Site
    settings: dict[str, str]
    other_ca: str


@pytest.fixture
async def secured(kafka: str, tmp_path: Path) -> AsyncIterator[Secured]:
    authority, other = trustme.CA(), trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    certificate, ca, other_ca = (tmp_path / name for name in ("server.pem", "ca.pem", "other.pem"))
    certificate.write_bytes(pem(key) + b"".join(each.bytes() for each in issued.cert_chain_pems))
    authority.cert_pem.write_to_path(ca)
    other.cert_pem.write_to_path(other_ca)
    with KafkaBroker(login=Login(USER, PASSWORD, certificate)) as broker:
        site = Site(broker.bootstrap, tmp_path, real=True)
        await site.start()
        settings = {
            "NUDGE_BROKER": broker.secure_bootstrap,
            "NUDGE_SECURITY_PROTOCOL": "SASL_SSL",
            "NUDGE_SASL_USERNAME": USER,
            "NUDGE_SASL_PASSWORD": PASSWORD,
            "NUDGE_SSL_CAFILE": str(ca),
            "NUDGE_POLICY": str(POLICIES / "echo.yaml"),
        }
        yield Secured(site, settings, str(other_ca))
        await site.stop()


async def test_an_order_becomes_a_delivered_message_over_tls_with_a_password(secured: Secured) -> None:
    site = secured.site
    with (
        site.process("worker", "worker", **secured.settings) as worker,
        site.process("sender", "sender", **secured.settings) as sender,
    ):
        await site.ready(worker)
        await site.ready(sender)
        now_ms = time.time_ns() // 1_000_000
        await site.happen(
            [Event(type="track", event="Order Completed", user_id="u1", message_id="m1", timestamp=now_ms)]
        )

        async def delivered() -> bool:
            return bool(site.lines())

        await eventually(delivered, "the message is delivered")
        [made] = [decode_decision(record.value) for record in await site.records(DECISIONS)]
        assert site.lines() == {made.id: 1}
        assert PASSWORD not in site.log(worker) + site.log(sender)


async def test_who_does_not_fit_is_told_so_and_gets_no_further(secured: Secured) -> None:
    site = secured.site
    wrong = {
        "password": {"NUDGE_SASL_PASSWORD": "another-password"},
        "authority": {"NUDGE_SSL_CAFILE": secured.other_ca},
        "no-tls": {"NUDGE_SECURITY_PROTOCOL": "PLAINTEXT"},
    }
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(site.process("worker", name, **(secured.settings | changed)))
            for name, changed in wrong.items()
        ]
        for worker in workers:

            async def says(worker: Child = worker) -> bool:
                return "no Kafka broker answers" in site.get(worker, "/readyz")[1]

            await eventually(says, f"the worker with another {worker.name} says what it waits for")
            assert worker.returncode is None
            assert site.status(worker) == 503
            assert "another-password" not in site.log(worker)
