"""A TCP proxy before a broker that advertises it, with faults: the network between a process and its broker.

It reads the client id of a connection's first request (each Kafka request has it at the same place). Clients of the
test itself, which call themselves `CLIENT`, are left alone: events flow and can be read while the others are cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, Final, Literal, Self

from app.embedded import HOST, EmbeddedBroker
from tests.support.kafka import KafkaBroker
from tests.support.site import CLIENT

Fault = Literal["none", "drop", "half-open", "slow"]
SLOW_S: Final = 0.3
SLOW_BYTES_PER_S: Final = 200_000
_CHUNK_BYTES: Final = 1 << 16
_HEAD_BYTES: Final = 14  # size, api key, api version, correlation id, length of the client id


class Proxy:
    """Listens on loopback, in a thread of its own. A context manager.

    `drop` resets connections, and closes new ones at their first request. With `half-open` connections stay, new ones
    are accepted, and nothing passes; what was held arrives when the fault ends, late, as after a partition of the
    network. `slow` delays each chunk by `SLOW_S` and lets `SLOW_BYTES_PER_S` through.

    Attributes
    ----------
    target
        The broker's own port.
    hit
        By fault: connections closed, or chunks held or slowed.
    """

    def __init__(self) -> None:
        self.target = 0
        self.port = 0
        self.hit: dict[str, int] = {"drop": 0, "half-open": 0, "slow": 0}
        self._fault: Fault = "none"
        self._passing = asyncio.Event()
        self._cut: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, *_exc: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def inject(self, fault: Fault) -> None:
        """From now on this fault, and no other."""
        self._call(self._inject(fault))

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10.0)

    async def _listen(self) -> None:
        self._passing.set()
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _inject(self, fault: Fault) -> None:
        self._fault = fault
        if fault == "half-open":
            self._passing.clear()
        else:
            self._passing.set()
        if fault == "drop":
            for writer in self._cut:
                writer.transport.abort()
                self.hit["drop"] += 1

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = await reader.readexactly(_HEAD_BYTES)
            client = await reader.readexactly(max(0, struct.unpack_from(">h", head, _HEAD_BYTES - 2)[0]))
            spared = client == CLIENT.encode()
            if self._fault == "drop" and not spared:
                self.hit["drop"] += 1
            else:
                await self._join(head + client, reader, writer, spared)
        writer.transport.abort()

    async def _join(
        self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, spared: bool
    ) -> None:
        async with _connected(self.target) as (broker, to_broker):
            if not spared:
                self._cut |= {writer, to_broker}
                await self._delay(len(first))
            to_broker.write(first)
            ways = [
                asyncio.create_task(self._pump(reader, to_broker, spared)),
                asyncio.create_task(self._pump(broker, writer, spared)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                self._cut -= {writer, to_broker}

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, spared: bool) -> None:
        while chunk := await source.read(_CHUNK_BYTES):
            if not spared:
                await self._delay(len(chunk))
            sink.write(chunk)
            await sink.drain()

    async def _delay(self, size: int) -> None:
        if not self._passing.is_set():
            self.hit["half-open"] += 1
            await self._passing.wait()
        if self._fault == "slow":
            self.hit["slow"] += 1
            await asyncio.sleep(SLOW_S + size / SLOW_BYTES_PER_S)


@contextlib.asynccontextmanager
async def _connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@contextlib.contextmanager
def broker_behind_proxy(*, kafka: bool) -> Iterator[Proxy]:
    """A new broker that advertises a proxy: whoever asks it for brokers is sent there."""
    with Proxy() as proxy, (KafkaBroker if kafka else EmbeddedBroker)(advertised_port=proxy.port) as broker:
        proxy.target = broker.port
        yield proxy
