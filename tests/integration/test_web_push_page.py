"""A message in a real browser: encrypted by us, decrypted by WebCrypto, shown by the example's service worker.

What is left out is the push service between them: it belongs to the browser's maker, and a headless browser has none.
The DevTools protocol hands the decrypted message to the service worker, as the browser would.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from app.sender.providers.base import Message
from app.sender.providers.webpush import encrypt, webpush_payload
from schemas.events import Event, decode_event
from tests.support.browser import Page, browser, chromium
from tests.support.push.keys import base64url

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium here: install it (Debian: chromium)")

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "webpush"
DECRYPT = (Path(__file__).parents[1] / "support" / "push" / "rfc8291.js").read_text()
SHOWN = "self.registration.getNotifications()"
COUNT = """
const show = ServiceWorkerRegistration.prototype.showNotification;
self.shown = 0;
ServiceWorkerRegistration.prototype.showNotification = function (...what) {
  return show.apply(this, what).then(() => void self.shown++);
};
"""
"""Who asks Chromium what it shows, while it is about to show something, takes that away: so wait for it first."""
CLICK = (
    f"{SHOWN}.then(([n]) => void self.dispatchEvent(new NotificationEvent('notificationclick', {{notification: n}})))"
)
MESSAGE = Message(
    id="6a0e11aa-5b1f-4b3a-8a55-0d5d2c1e7f90",
    user="u42",
    campaign="cart",
    category="offers",
    variant="a",
    title="Still in your basket 🧺",
    body="Two things are waiting – naïve café included.",
    deep_link="/cart?c=7",
    data={"cart": "7"},
    token={},
    transactional=False,
    decided_ms=0,
    expires_ms=0,
    traceparent="",
)


class Site:
    """The example on loopback, and an endpoint that keeps the events that it is told."""

    def __init__(self) -> None:
        self.url = ""
        self.events: list[dict[str, object]] = []

    async def take(self, request: web.Request) -> web.Response:
        self.events.append(await request.json())
        return web.Response(status=204)


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    found = Site()
    app = web.Application()
    app.router.add_post("/events", found.take)
    app.router.add_static("/", EXAMPLE)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        listener = web.TCPSite(runner, "127.0.0.1", 0)
        await listener.start()
        port = listener._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        found.url = f"http://127.0.0.1:{port}"
        yield found
    finally:
        await runner.cleanup()


async def decrypted_by(page: Page) -> str:
    """The provider's body for a subscription of this browser, as the browser reads it."""
    await page.ask(DECRYPT)
    keys = json.loads(await page.ask("subscribe()"))
    body = encrypt(webpush_payload(MESSAGE), keys["p256dh"], keys["auth"])
    text: str = await page.ask(f"decrypt({json.dumps(base64url(body))})")
    return text


async def test_a_message_is_decrypted_shown_and_answered_by_the_example() -> None:
    async with site() as served, browser() as page:
        await page.command("Browser.grantPermissions", origin=served.url, permissions=["notifications"])
        await page.command("ServiceWorker.enable")
        await page.open(f"{served.url}/index.html")
        await page.until("document.getElementById('state')?.textContent === 'ready'")
        known = [told for told in page.noted("ServiceWorker.workerRegistrationUpdated") if told["registrations"]]
        message = await decrypted_by(page)
        assert json.loads(message) == json.loads(webpush_payload(MESSAGE))
        registration = known[-1]["registrations"][0]["registrationId"]
        deliver = {"origin": served.url, "registrationId": registration, "data": message}

        async with page.worker(f"{served.url}/nudge-worker.js") as worker:
            await worker.ask(COUNT)
            for number in (1, 2):  # a push service may deliver twice
                await page.command("ServiceWorker.deliverPushMessage", **deliver)
                await worker.until(f"self.shown === {number}")
            [found] = await worker.ask(
                f"{SHOWN}.then(n => n.map(({{title, body, tag, data}}) => ({{title, body, tag, data}})))"
            )
            assert (found["title"], found["body"], found["tag"]) == (MESSAGE.title, MESSAGE.body, MESSAGE.id)
            assert (found["data"]["deepLink"], found["data"]["data"]) == (MESSAGE.deep_link, MESSAGE.data)

            await worker.ask(CLICK)
            async with asyncio.timeout(10):
                while not served.events:  # noqa: ASYNC110 - the browser tells the site, not us
                    await asyncio.sleep(0.02)
            assert await worker.ask(f"{SHOWN}.then(n => n.length)") == 0
        [told] = served.events
        event = decode_event(json.dumps(told | {"userId": "u42"}).encode(), b"u42")
        assert isinstance(event, Event), event
        assert (event.event, event.properties["decisionId"]) == ("Notification Opened", MESSAGE.id)


async def test_a_body_for_another_subscription_cannot_be_read() -> None:
    async with browser() as page, site() as served:
        await page.open(f"{served.url}/index.html")
        await page.until("document.getElementById('state')?.textContent === 'ready'")
        await page.ask(DECRYPT)
        first = json.loads(await page.ask("subscribe()"))
        body = encrypt(b"{}", first["p256dh"], first["auth"])
        await page.ask("subscribe()")
        outcome = await page.ask(f"decrypt({json.dumps(base64url(body))}).catch(e => e.name)")
        assert outcome == "OperationError"
