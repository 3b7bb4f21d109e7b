"""A service that closes each connection in good order after a few requests, as APNs and FCM do."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived
from hyperframe.frame import GoAwayFrame

from tests.support.push.keys import Keys


@dataclass
class Closing:
    """How the service does; `taken` holds the ``x-id`` of every request that it acted upon."""

    requests_max: int
    port: int = 0
    connections: int = 0
    taken: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: takes what came within a moment, says so, answers that, and leaves the rest unread."""
        self.connections += 1
        connection = H2Connection(H2Configuration(client_side=False))
        connection.initiate_connection()
        ids: dict[int, str] = {}
        writer.write(connection.data_to_send())
        closing: asyncio.Task[None] | None = None
        while data := await _read(reader):
            for event in connection.receive_data(data):
                if isinstance(event, RequestReceived) and closing is None and len(ids) < self.requests_max:
                    headers = {bytes(name): bytes(value) for name, value in event.headers}
                    ids[event.stream_id] = headers[b"x-id"].decode()
            writer.write(connection.data_to_send())
            if ids and closing is None:
                closing = asyncio.create_task(self._close(connection, ids, writer))
        writer.close()

    async def _close(self, connection: H2Connection, ids: dict[int, str], writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.01)
        writer.write(GoAwayFrame(last_stream_id=max(ids), error_code=0).serialize())
        await asyncio.sleep(0.01)  # the answers come after the announcement
        for stream_id, name in ids.items():
            self.taken.append(name)
            connection.send_headers(stream_id, [(":status", "200")], end_stream=True)
        writer.write(connection.data_to_send())


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(65_536)
    except OSError:  # the client has closed first
        return b""


@asynccontextmanager
async def closing_service(keys: Keys, requests_max: int) -> AsyncIterator[Closing]:
    """Run it in this event loop."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(keys.certificate, keys.certificate_key)
    context.set_alpn_protocols(["h2"])
    service = Closing(requests_max)
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0, ssl=context)
    service.port = server.sockets[0].getsockname()[1]
    try:
        yield service
    finally:
        server.close()
