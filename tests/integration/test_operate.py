"""What an operator sees of running processes: gauges that tell the truth, and a trace that goes all the way."""

from __future__ import annotations

import gzip
import math
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from schemas.events import Event, encode_event
from schemas.topics import DECISIONS, EVENTS
from tests.support.site import Site, eventually

pytestmark = pytest.mark.broker

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def event(name: str, message_id: str) -> bytes:
    now_ms = time.time_ns() // 1_000_000
    return encode_event(Event(type="track", event=name, user_id="u1", message_id=message_id, timestamp=now_ms))


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """An OTLP endpoint and what it was sent."""
    bodies: list[bytes] = []

    class Collect(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            bodies.append(gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collect)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", bodies
    server.shutdown()
    server.server_close()
    thread.join()


async def test_a_trace_goes_from_the_event_to_the_receipt_and_the_gauges_follow(
    site: Site, collector: tuple[str, list[bytes]]
) -> None:
    endpoint, spans = collector
    otel = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with site.worker(**otel) as worker, site.process("sender", "data", **otel) as sender:
        await site.ready(worker)
        await site.ready(sender)
        await site.put(EVENTS, "u1", event("Notifications Enabled", "m1"))
        await site.put(EVENTS, "u1", event("Order Completed", "m2"), [("traceparent", TRACE)])
        await site.flush()

        async def receipts() -> list[dict[str, bytes]]:
            return [headers for *_, value, headers in await site.read(EVENTS) if b"Notification Sent" in (value or b"")]

        async def told() -> bool:
            return bool(await receipts())

        await eventually(told, "the decision is sent and told")
        sent = [headers for *_, headers in await site.read(DECISIONS) if headers["ce_type"].endswith(b"decision.v1")]
        assert [headers.get("traceparent") for headers in sent] == [TRACE]
        assert [headers.get("traceparent") for headers in await receipts()] == [TRACE]

        async def caught_up() -> bool:
            lags = [site.totals(child).get("nudge_consumer_lag_records", math.nan) for child in (worker, sender)]
            return lags == [0, 0]

        await eventually(caught_up, "no lag is left")
        for child in (worker, sender):
            seen = site.totals(child)
            assert seen["nudge_ready"] == 1
            assert seen["nudge_state_rows"] >= 1  # the user; a decision, and what else the ledger keeps
            assert seen["nudge_python_blocks"] > 100_000
            assert not seen["nudge_native_memory_bytes"] < seen["nudge_state_memory_bytes"]  # NaN: nobody tells
            assert 0 < seen["nudge_disk_free_bytes"] <= seen["nudge_disk_size_bytes"]

        async def collected() -> bool:
            return all(any(name in body for body in spans) for name in (b"process events", b"send console"))

        await eventually(collected, "a batch and a send are spans")
        assert any(bytes.fromhex(TRACE.decode()[3:35]) in body for body in spans if b"send console" in body)
        assert site.totals(sender)["nudge_suppression_feed_age_seconds"] < 60
