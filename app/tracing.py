"""Spans for OpenTelemetry, where it is installed (extra ``otel``) and told where to send them.

Without it a trace context still goes from an event to its decision, the provider call and the receipt: the record
headers carry it. With it a fetch and a send are spans, and what an event without a context causes belongs to its
fetch's trace. Configured by OpenTelemetry's own variables: ``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_TRACES_SAMPLER``, …
Spans hold no user, no text and no property.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import structlog

from agents.profiles import Batches
from app.stream.batch import RecordBatch

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Tracer, TracerProvider

    from app.sender.providers.base import Message, Outcome, Provider

log = structlog.get_logger(__name__)

LINKS_MAX: Final = 32
"""Contexts of events that a fetch's span points to; it may have brought thousands."""
_HEADER: Final = "traceparent"
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class Tracing:
    """Wraps what is worth a span.

    Parameters
    ----------
    provider
        OpenTelemetry's; a test brings one that keeps its spans.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("nudge")

    def batches(self, inner: Batches) -> Batches:
        """`inner` with a span around each batch."""
        return _TracedBatches(inner, self._tracer)

    def provider(self, name: str, inner: Provider) -> Provider:
        """`inner` with a span around each attempt; the provider is told the span's context."""
        return _TracedProvider(name, inner, self._tracer)


class _Traced(NamedTuple):
    """A record with the span's context: those that the parser made cannot be changed."""

    key: bytes | None
    value: bytes | None
    offset: int
    timestamp: int
    headers: tuple[tuple[str, bytes | None], ...]


def _with(own: tuple[str, bytes], record: Any) -> _Traced:
    return _Traced(record.key, record.value, record.offset, record.timestamp, (*record.headers, own))


class _TracedBatches:
    def __init__(self, inner: Batches, tracer: Tracer) -> None:
        self._inner = inner
        self._tracer = tracer
        self.source = inner.source

    async def submit(self, *batches: RecordBatch) -> None:
        """Process the batches of a fetch in one span; their records without a context get its own."""
        from opentelemetry.trace import SpanKind  # noqa: PLC0415 - an extra

        attributes: dict[str, str | int] = {
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.destination.name": self.source,
            "messaging.batch.message_count": sum(map(len, batches)),
        }
        if len(batches) == 1:
            attributes["messaging.destination.partition.id"] = str(batches[0].partition)
        links = _links(itertools.chain.from_iterable(batch.records for batch in batches))
        with self._tracer.start_as_current_span(
            f"process {self.source}", kind=SpanKind.CONSUMER, links=links, attributes=attributes
        ) as span:
            if span.is_recording():
                own = (_HEADER, _inject()[_HEADER].encode())
                for batch in batches:
                    batch.records = [record if _context_of(record) else _with(own, record) for record in batch.records]
            await self._inner.submit(*batches)


class _TracedProvider:
    def __init__(self, name: str, inner: Provider, tracer: Tracer) -> None:
        self._name = name
        self._inner = inner
        self._tracer = tracer

    async def send(self, message: Message) -> Outcome:
        """Try once, as a child of the decision's trace."""
        from opentelemetry.trace import SpanKind, StatusCode  # noqa: PLC0415

        from app.sender.providers.base import Accepted  # noqa: PLC0415 - brings an HTTP client, which workers lack

        attributes = {"nudge.provider": self._name, "nudge.decision": message.id, "nudge.campaign": message.campaign}
        with self._tracer.start_as_current_span(
            f"send {self._name}", context=_extract(message.traceparent), kind=SpanKind.CLIENT, attributes=attributes
        ) as span:
            outcome = await self._inner.send(msgspec.structs.replace(message, traceparent=_inject().get(_HEADER, "")))
            span.set_attribute("nudge.outcome", type(outcome).__name__.lower())
            if not isinstance(outcome, Accepted):
                span.set_status(StatusCode.ERROR, outcome.reason)
            return outcome

    async def close(self) -> None:
        """Close the provider."""
        await self._inner.close()


def _context_of(record: Any) -> str:
    for name, value in record.headers:
        if name == _HEADER and value is not None:
            return bytes(value).decode("ascii", "replace")
    return ""


def _links(records: Iterable[Any]) -> list[Link]:
    """To the contexts that the first records bring, those that can be read."""
    from opentelemetry.trace import Link, get_current_span  # noqa: PLC0415

    links: list[Link] = []
    for record in records:
        if record.headers and (text := _context_of(record)):
            context = get_current_span(_extract(text)).get_span_context()
            if context.is_valid:
                links.append(Link(context))
                if len(links) == LINKS_MAX:
                    break
    return links


def _extract(traceparent: str) -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    return TraceContextTextMapPropagator().extract({_HEADER: traceparent} if traceparent else {})


def _inject() -> dict[str, str]:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier


def load_tracing(service: str, environ: Mapping[str, str] = os.environ) -> Tracing | None:
    """OpenTelemetry with an OTLP exporter, if the environment names an endpoint; else None.

    A named endpoint without the packages is a warning, not an end: nothing depends on spans.
    """
    if not any(environ.get(name) for name in _ENDPOINTS) or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as exc:
        log.warning("tracing_unavailable", missing=exc.name, mend="pip install '.[otel]', in the repository")
        return None
    name = environ.get("OTEL_SERVICE_NAME") or service
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
