"""What a connection of ours writes, beside aiokafka's."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import conn
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.produce import ProduceRequest, ProduceResponse_v7

import app.stream.producer  # noqa: F401 - installs it
from app.stream.connection import Connection

BATCH = b"batch" * 100
TOPICS = [("segments", [(0, BATCH), (7, b"")]), ("entscheidungen-ü", [(2, b"another")])]
SIZE_BYTES = 4


class Writer:
    """A stream's writer that keeps what is written."""

    def __init__(self, broken: OSError | None = None) -> None:
        self.broken = broken
        self.parts: list[bytes] = []

    def writelines(self, parts: list[bytes]) -> None:
        if self.broken is not None:
            raise self.broken
        self.parts += parts

    def write(self, part: bytes) -> None:
        self.writelines([part])

    def close(self) -> None: ...


class Reader:
    """A read task that is over, and its stream, which is not."""

    def at_eof(self) -> bool:
        return False

    def done(self) -> bool:
        return True


def connected(kind: type[AIOKafkaConnection], writer: Writer, version: int = 7) -> Any:
    made = kind("broker", 9092, client_id="me")
    made._writer, made._reader, made._read_task = writer, Reader(), Reader()
    made._versions = {0: (version, version), 3: (0, 5)}
    return made


def produce(topics: Any = TOPICS, acks: int = -1, transaction: str | None = None) -> ProduceRequest:
    return ProduceRequest(transactional_id=transaction, required_acks=acks, timeout=30_000, topics=topics)


def parts_written(kind: type[AIOKafkaConnection], request: Any, version: int = 7) -> list[bytes]:
    writer = Writer()
    connection = connected(kind, writer, version)
    connection.send(request).close()
    connection._reader = None  # nothing is left to be closed
    return writer.parts


def written(kind: type[AIOKafkaConnection], request: Any, version: int = 7) -> bytes:
    return b"".join(parts_written(kind, request, version))


@pytest.mark.parametrize("version", range(8))
@pytest.mark.parametrize("topics", [TOPICS, []])
async def test_a_produce_request_is_byte_for_byte_aiokafkas(version: int, topics: Any) -> None:
    ours, theirs = (written(kind, produce(topics), version) for kind in (Connection, AIOKafkaConnection))
    assert ours == theirs
    assert int.from_bytes(ours[:SIZE_BYTES]) == len(ours) - SIZE_BYTES


async def test_the_id_of_a_transaction_is_written_too() -> None:
    ours, theirs = (written(kind, produce(transaction="mine")) for kind in (Connection, AIOKafkaConnection))
    assert ours == theirs


async def test_a_batch_is_written_as_it_is_and_not_copied() -> None:
    assert any(part is BATCH for part in parts_written(Connection, produce()))


async def test_the_brokers_answer_reaches_who_asked() -> None:
    connection = connected(Connection, Writer())
    asked = connection.send(produce())
    answer = ProduceResponse_v7(topics=[("segments", [(0, 0, 41, -1, 0)])], throttle_time_ms=0)
    connection._handle_frame((1).to_bytes(4) + answer.encode())
    assert (await asked).topics == answer.topics
    connection.close()


async def test_a_connection_that_is_broken_is_closed_and_said() -> None:
    connection = connected(Connection, Writer(broken=BrokenPipeError("gone")))
    with pytest.raises(KafkaConnectionError, match="gone"):
        connection.send(produce())
    assert not connection.connected()
    with pytest.raises(KafkaConnectionError, match="No connection"):
        connection.send(produce())


async def test_other_requests_are_written_by_aiokafka() -> None:
    ours, theirs = (parts_written(kind, MetadataRequest(["events"])) for kind in (Connection, AIOKafkaConnection))
    assert ours == theirs
    assert len(ours) == 1


def test_every_connection_of_a_process_that_produces_is_one_of_ours() -> None:
    assert conn.AIOKafkaConnection is Connection
