"""A connection that hands the batches of a produce request to the socket as they are.

aiokafka puts a request together from the inside out, and each of six steps copies all that it has so far: .2 µs of an
event of a kilobyte.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable
from typing import Any, Final

from aiokafka import conn
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.types import Int32, String
from aiokafka.util import wait_for

_SIZE: Final = struct.Struct(">i")
_NAME: Final = String("utf-8")


class Connection(AIOKafkaConnection):
    """aiokafka's, with produce requests written part by part."""

    def send(self, request: Any, expect_response: bool = True) -> Awaitable[Any]:
        """Write a request; its answer. Raises `aiokafka.errors.KafkaConnectionError`."""
        if self._writer is None or not expect_response or not isinstance(request, ProduceRequest):
            return super().send(request, expect_response)  # type: ignore[no-any-return]
        prepared = request.prepare(self._versions)
        number = self._next_correlation_id()
        head = prepared.build_request_header(correlation_id=number, client_id=self._client_id)
        parts = [head.encode(), *produce_parts(prepared)]
        try:
            self._writer.writelines([_SIZE.pack(sum(map(len, parts))), *parts])
        except OSError as exc:
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {self._host}:{self._port} broken: {exc}") from exc
        answer = self._loop.create_future()
        self._requests.append((number, prepared, answer))
        return wait_for(answer, self._request_timeout)  # type: ignore[no-any-return]


def produce_parts(request: Any) -> list[bytes]:
    """What a produce request of any version is encoded as; each batch is a part, the very object that was given."""
    *fields, _topics = zip(request.SCHEMA.names, request.SCHEMA.fields, strict=True)
    begins = [field.encode(getattr(request, name)) for name, field in fields]
    parts = [b"".join((*begins, Int32.encode(len(request.topics))))]
    for topic, partitions in request.topics:
        parts.append(_NAME.encode(topic) + Int32.encode(len(partitions)))
        for partition, batch in partitions:
            parts += (Int32.encode(partition) + Int32.encode(len(batch)), batch)
    return parts


def install() -> None:
    """Have every connection of this process write so."""
    conn.AIOKafkaConnection = Connection
