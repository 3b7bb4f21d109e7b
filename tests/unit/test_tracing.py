"""Spans of batches and sends: right parents, nothing personal, and nothing at all where nobody asked."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from app.sender.providers.base import Accepted, Message, Outcome, Retry
from app.stream.batch import RecordBatch
from app.tracing import LINKS_MAX, Tracing, load_tracing

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


class Record(NamedTuple):
    """As the parser's: nobody can change it."""

    offset: int
    headers: tuple[tuple[str, bytes | None], ...] = ()
    key: bytes = b"canary-user"
    value: bytes = b"canary-value"
    timestamp: int = 0


@dataclass
class Engine:
    source: str = "events"
    seen: list[Record] = field(default_factory=list)

    async def submit(self, batch: RecordBatch) -> None:
        self.seen += batch.records


@dataclass
class Push:
    outcome: Outcome = field(default_factory=Accepted)
    seen: list[Message] = field(default_factory=list)

    async def send(self, message: Message) -> Outcome:
        self.seen.append(message)
        return self.outcome

    async def close(self) -> None:
        self.seen.clear()


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(spans: InMemorySpanExporter) -> Tracing:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return Tracing(provider)


def batch(*records: Record) -> RecordBatch:
    return RecordBatch("events", 3, records, 1, lambda _batch: True, lambda _batch: None)


def message(**changes: Any) -> Message:
    made: dict[str, Any] = {"id": "d1", "user": "canary-user", "campaign": "cart", "category": "c", "title": "canary-t"}
    return Message(**{**made, "body": "canary-b", "traceparent": PARENT, **changes})


async def test_a_batch_is_a_span_that_points_to_what_its_events_bring(
    tracing: Tracing, spans: InMemorySpanExporter
) -> None:
    engine = Engine()
    traced = tracing.batches(engine)
    assert traced.source == "events"
    await traced.submit(batch(Record(1, (("traceparent", PARENT.encode()),)), Record(2, (("other", b"x"),))))
    (span,) = spans.get_finished_spans()
    assert [f"{link.context.trace_id:032x}" for link in span.links] == [TRACE]
    assert span.attributes is not None
    assert span.attributes["messaging.batch.message_count"] == 2
    first, second = engine.seen
    assert first.headers == (("traceparent", PARENT.encode()),)
    own = (dict(second.headers)["traceparent"] or b"").decode()
    assert span.context is not None
    assert own.startswith(f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-0")
    assert ("other", b"x") in second.headers


async def test_a_batch_points_to_so_many_contexts_and_no_more(tracing: Tracing, spans: InMemorySpanExporter) -> None:
    records = [Record(n, (("traceparent", PARENT.encode()),)) for n in range(LINKS_MAX + 5)]
    await tracing.batches(Engine()).submit(batch(*records))
    assert len(spans.get_finished_spans()[0].links) == LINKS_MAX


@pytest.mark.parametrize("bad", [None, b"", b"garbage", b"\xff\xfe", b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01"])
async def test_a_context_that_cannot_be_read_is_passed_over(
    tracing: Tracing, spans: InMemorySpanExporter, bad: bytes | None
) -> None:
    await tracing.batches(Engine()).submit(batch(Record(1, (("traceparent", bad),))))
    assert not spans.get_finished_spans()[0].links


async def test_a_batch_that_is_not_sampled_changes_no_record() -> None:
    engine = Engine()
    await Tracing(TracerProvider(sampler=ALWAYS_OFF)).batches(engine).submit(batch(Record(1)))
    assert engine.seen == [Record(1)]


async def test_a_send_belongs_to_the_decisions_trace_and_the_provider_is_told(
    tracing: Tracing, spans: InMemorySpanExporter
) -> None:
    push = Push()
    assert await tracing.provider("webhook", push).send(message()) == Accepted()
    (span,) = spans.get_finished_spans()
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}" == TRACE
    assert span.context is not None
    assert push.seen[0].traceparent.startswith(f"00-{TRACE}-{span.context.span_id:016x}-0")
    assert span.status.is_ok or span.status.is_unset


async def test_a_send_that_fails_says_why(tracing: Tracing, spans: InMemorySpanExporter) -> None:
    await tracing.provider("webhook", Push(Retry("busy"))).send(message(traceparent=""))
    (span,) = spans.get_finished_spans()
    assert span.parent is None
    assert (span.status.is_ok, span.status.description) == (False, "busy")


async def test_no_span_holds_anything_personal(tracing: Tracing, spans: InMemorySpanExporter) -> None:
    await tracing.batches(Engine()).submit(batch(Record(1)))
    await tracing.provider("webhook", Push()).send(message())
    assert len(spans.get_finished_spans()) == 2
    assert "canary" not in "".join(span.to_json() for span in spans.get_finished_spans())


def test_nothing_is_traced_unless_an_endpoint_is_named() -> None:
    assert load_tracing("nudge-worker", {}) is None
    off = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "true"}
    assert load_tracing("nudge-worker", off) is None


def test_opentelemetry_is_loaded_only_when_it_is_asked_for() -> None:
    code = "import app.tracing, sys; app.tracing.load_tracing('x', {}); print('opentelemetry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False"


def test_an_endpoint_without_the_packages_is_a_warning() -> None:
    code = (
        "import sys; sys.modules['opentelemetry.sdk.resources'] = None\n"
        "import app.tracing\n"
        "print(app.tracing.load_tracing('x', {'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://127.0.0.1:4318'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert "tracing_unavailable" in done.stdout
    assert done.stdout.strip().endswith("None")
