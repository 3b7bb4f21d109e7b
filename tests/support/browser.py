"""A headless Chromium, driven over the DevTools protocol: enough to open a page, ask it things and take its picture.

No driver program and no further package: aiohttp speaks WebSocket.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--mute-audio",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip
WAIT_S = 30.0


def chromium() -> str | None:
    """The browser's program, None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One tab, or a service worker. Commands are answered in the order in which they are given."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session: aiohttp.ClientSession, address: str) -> None:
        self._socket = socket
        self._session = session
        self._address = address
        self._number = 0
        self._events: list[dict[str, Any]] = []
        self.console: list[str] = []
        """Errors and warnings that the page or the browser wrote: violations of the security policy among them."""

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and await its answer."""
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            message = await asyncio.wait_for(self._socket.receive_json(), WAIT_S)
            if message.get("id") == self._number:
                assert "error" not in message, message["error"]
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        self._events.append(message)
        if message.get("method") == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.console.append(parameters["entry"]["text"])
        if message.get("method") == "Runtime.exceptionThrown":
            self.console.append(str(parameters["exceptionDetails"]))

    def noted(self, method: str) -> list[dict[str, Any]]:
        """What the browser has told of an event, while commands were awaited."""
        return [message["params"] for message in self._events if message.get("method") == method]

    @asynccontextmanager
    async def worker(self, url: str) -> AsyncIterator[Page]:
        """The service worker whose script is at `url`, as soon as it runs."""
        deadline = asyncio.get_running_loop().time() + WAIT_S
        while not (found := [t for t in await _targets(self._session, self._address) if t["url"] == url]):
            assert asyncio.get_running_loop().time() < deadline, f"no service worker from {url}"
            await asyncio.sleep(0.05)
        async with self._session.ws_connect(found[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            yield Page(socket, self._session, self._address)

    async def open(self, url: str) -> None:
        """Go to an address."""
        for domain in ("Page", "Runtime", "Log"):
            await self.command(f"{domain}.enable")
        await self.command("Page.navigate", url=url)

    async def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        found = await self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Wait until an expression is true."""
        deadline = asyncio.get_running_loop().time() + WAIT_S
        while not (found := await self.ask(expression)):
            assert asyncio.get_running_loop().time() < deadline, f"never true: {expression}; {self.console}"
            await asyncio.sleep(0.05)
        return found

    async def look(self, *, width: int, height: int, dark: bool = False) -> None:
        """Set the size of the window, and what the system's theme is."""
        await self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.command("Emulation.setEmulatedMedia", features=[scheme])

    async def picture(self, path: Path, *, whole: bool = False) -> None:
        """A PNG of what is visible, or of the whole page."""
        found = await self.command("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(found["data"]))


@asynccontextmanager
async def browser() -> AsyncIterator[Page]:
    """An empty page of a browser of our own, which is ended afterwards."""
    program = chromium()
    assert program is not None, "ask chromium() first"
    home = Path(tempfile.mkdtemp(prefix="nudge-browser-"))
    process = await asyncio.create_subprocess_exec(
        program, *FLAGS, f"--user-data-dir={home}", "about:blank", env={**os.environ, "HOME": str(home)},
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port = await _port(home)
        async with aiohttp.ClientSession() as session:
            address = f"http://127.0.0.1:{port}"
            pages = [found for found in await _targets(session, address) if found["type"] == "page"]
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Page(socket, session, address)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
        shutil.rmtree(home, ignore_errors=True)


async def _targets(session: aiohttp.ClientSession, address: str) -> list[dict[str, Any]]:
    """What can be driven: pages, service workers."""
    async with session.get(f"{address}/json/list") as response:
        found: list[dict[str, Any]] = await response.json()
        return found


async def _port(home: Path) -> str:
    """The browser writes its port to a file when it listens."""
    file = home / "DevToolsActivePort"
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while True:
        lines = await asyncio.to_thread(lambda: file.read_text().splitlines() if file.exists() else [])
        if lines:
            return lines[0]
        assert asyncio.get_running_loop().time() < deadline, "the browser did not start"
        await asyncio.sleep(0.05)
