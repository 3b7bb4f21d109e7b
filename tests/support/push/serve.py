"""Serves the fakes: TLS and HTTP/2 on the loopback interface, behind a relay that can break every connection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from hypercorn.asyncio import serve
from hypercorn.config import Config

from tests.support.push.fake import FakePush
from tests.support.push.keys import Keys


class Relay:
    """Passes bytes on, until `cut` resets all connections: an ASGI app cannot do that to its own."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self.connections = 0
        self.port = 0

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def cut(self) -> None:
        """Reset everything."""
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        pair = {writer, far_writer}
        self._writers |= pair
        try:
            await asyncio.gather(_pass(reader, far_writer), _pass(far_reader, writer))
        finally:
            self._writers -= pair
            for each in pair:
                each.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.transport.abort() if writer.transport.is_closing() else writer.close()


@dataclass
class Served:
    """A running fake: `url` goes through the relay."""

    fake: FakePush
    relay: Relay
    keys: Keys

    @property
    def url(self) -> str:
        return f"https://localhost:{self.relay.port}"


@asynccontextmanager
async def serving(keys: Keys, *, record: bool = True) -> AsyncIterator[Served]:
    """Run the fakes in this event loop; without `record` they keep no requests."""
    fake = FakePush(keys, record=record)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.certfile, config.keyfile = str(keys.certificate), str(keys.certificate_key)
    config.graceful_timeout = config.shutdown_timeout = 0.2
    config.keep_alive_max_requests = 1_000_000
    config.errorlog = None
    stopping = asyncio.Event()
    served = asyncio.create_task(serve(fake, config, shutdown_trigger=stopping.wait))  # type: ignore[arg-type]
    relay = Relay(listener.getsockname()[1])
    fake.on_cut = relay.cut
    server = await relay.start()
    try:
        yield Served(fake, relay, keys)
    finally:
        server.close()
        relay.cut()
        stopping.set()
        await asyncio.wait({served}, timeout=5)
        served.cancel()
        listener.detach()
