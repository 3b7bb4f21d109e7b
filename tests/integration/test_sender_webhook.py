"""The webhook provider against a real HTTP server on the loopback interface."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import orjson
import pytest
from aiohttp import web

from app.sender.backoff import Backoff
from app.sender.providers import addresses, webhook
from app.sender.providers.addresses import AddressRule
from app.sender.providers.base import Accepted, Message, Rejected, Retry, Unknown
from app.sender.providers.webhook import WebhookProvider, WebhookSettings, sign
from tables.ledger import State
from tests.support.sender import FakeBatch, World, decision, record

SECRET = b"0123456789abcdef"
MESSAGE = Message(id="d-1", user="u", campaign="c", category="news", title="Hi", body="There", traceparent="00-a-b-01")

Handler = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]


class Endpoint:
    """An HTTP server whose answer the test sets."""

    def __init__(self) -> None:
        self.requests: list[tuple[web.Request, bytes]] = []
        self.connections: set[object] = set()
        self.answer: Handler = self.ok
        self.port = 0
        self.release = asyncio.Event()

    async def ok(self, request: web.Request, body: bytes) -> web.StreamResponse:
        return web.Response()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append((request, body))
        self.connections.add(request.transport)
        return await self.answer(request, body)

    def answers(self, *statuses: int, **headers: str) -> None:
        """One status after the other; the last one for ever."""
        left = list(statuses)

        async def answer(request: web.Request, body: bytes) -> web.StreamResponse:
            status = left.pop(0) if len(left) > 1 else left[0]
            return web.Response(status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})

        self.answer = answer


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    served = Endpoint()
    app = web.Application()
    app.router.add_post("/hook", served.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    served.port = runner.addresses[0][1]
    yield served
    served.release.set()
    await runner.cleanup()


def provider(port: int, *, host: str = "127.0.0.1", timeout_s: float = 5.0, **rule: bool) -> WebhookProvider:
    settings = WebhookSettings(
        url=f"http://{host}:{port}/hook",
        secret=SECRET,
        timeout_s=timeout_s,
        connect_timeout_s=timeout_s / 2,
        addresses=AddressRule(**(rule or {"loopback": True})),
    )
    return WebhookProvider(settings)


@pytest.fixture
async def hook(endpoint: Endpoint) -> AsyncIterator[WebhookProvider]:
    made = provider(endpoint.port)
    yield made
    await made.close()


async def test_the_receiver_can_check_who_sent_it_and_whether_it_has_it_already(
    endpoint: Endpoint, hook: WebhookProvider
) -> None:
    assert await hook.send(MESSAGE) == Accepted()
    [(request, body)] = endpoint.requests
    assert request.headers["idempotency-key"] == request.headers["webhook-id"] == "d-1"
    assert request.headers["webhook-signature"] == sign(SECRET, "d-1", request.headers["webhook-timestamp"], body)
    assert request.headers["traceparent"] == "00-a-b-01"
    assert request.headers["host"] == f"127.0.0.1:{endpoint.port}"
    assert orjson.loads(body)["title"] == "Hi"


async def test_a_connection_is_used_again(endpoint: Endpoint, hook: WebhookProvider) -> None:
    for _ in range(5):
        await hook.send(MESSAGE)
    assert len(endpoint.connections) == 1


async def test_bad_request_is_rejected_for_good(endpoint: Endpoint, hook: WebhookProvider) -> None:
    endpoint.answers(400)
    assert await hook.send(MESSAGE) == Rejected("http_400")


async def test_too_many_requests_says_when_to_come_back(endpoint: Endpoint, hook: WebhookProvider) -> None:
    endpoint.answers(429, Retry_After="3")
    assert await hook.send(MESSAGE) == Retry("http_429", 3_000)


async def test_a_redirect_is_not_followed(endpoint: Endpoint, hook: WebhookProvider) -> None:
    endpoint.answers(307, Location=f"http://127.0.0.1:{endpoint.port}/hook")
    assert await hook.send(MESSAGE) == Rejected("http_307")
    assert len(endpoint.requests) == 1


async def test_a_connection_reset_after_the_request_leaves_the_outcome_unknown(
    endpoint: Endpoint, hook: WebhookProvider
) -> None:
    async def reset(request: web.Request, body: bytes) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    endpoint.answer = reset
    assert isinstance(await hook.send(MESSAGE), Unknown)
    assert len(endpoint.requests) == 1


async def test_an_answer_that_takes_too_long_leaves_the_outcome_unknown(endpoint: Endpoint) -> None:
    async def slow(request: web.Request, body: bytes) -> web.StreamResponse:
        await endpoint.release.wait()
        return web.Response()

    endpoint.answer = slow
    hook = provider(endpoint.port, timeout_s=0.2)
    assert isinstance(await hook.send(MESSAGE), Unknown)
    await hook.close()


async def test_a_body_that_never_ends_is_left_and_does_not_undo_the_status(
    endpoint: Endpoint, hook: WebhookProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "DRAIN_S", 60.0)  # so that only the bound on its size can end it

    async def endless(request: web.Request, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while not endpoint.release.is_set():
                await response.write(b"x" * 10_000)
        except ConnectionError:  # the client has had enough
            pass
        return response

    endpoint.answer = endless
    assert await asyncio.wait_for(hook.send(MESSAGE), 10) == Accepted()


async def test_a_refused_connection_was_certainly_not_a_send(endpoint: Endpoint) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        hook = provider(unused.getsockname()[1])
        assert await hook.send(MESSAGE) == Retry("connect_error")
        await hook.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_loopback_is_refused_unless_allowed(endpoint: Endpoint, host: str) -> None:
    hook = provider(endpoint.port, host=host, private=True)
    assert await hook.send(MESSAGE) == Rejected("address_refused")
    await hook.close()
    assert not endpoint.requests


async def test_a_host_with_one_refused_address_is_refused(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    async def two_faced(host: str, port: int) -> list[addresses.Address]:
        return [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("169.254.169.254")]

    monkeypatch.setattr(addresses, "resolve", two_faced)
    hook = provider(endpoint.port, host="example.org")
    assert await hook.send(MESSAGE) == Rejected("address_refused")
    await hook.close()
    assert not endpoint.requests


async def test_the_connection_goes_to_the_address_that_was_checked(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[str] = []

    async def once(host: str, port: int) -> list[addresses.Address]:
        looked_up.append(host)
        return [ipaddress.ip_address("127.0.0.1")]

    monkeypatch.setattr(addresses, "resolve", once)
    # The name does not exist: had it been looked up a second time, the connection would have failed.
    hook = provider(endpoint.port, host="shop.invalid")
    assert await hook.send(MESSAGE) == Accepted()
    await hook.close()
    assert looked_up == ["shop.invalid"]
    assert endpoint.requests[0][0].headers["host"] == f"shop.invalid:{endpoint.port}"


async def deliver(world: World, hook: WebhookProvider, **fields: object) -> None:
    world.send = hook.send  # type: ignore[method-assign]
    deliverer = world.deliverer(backoff=Backoff(attempts_max=3))
    await deliverer.deliver(FakeBatch([record(0, decision(**fields))]))


async def test_unavailable_and_then_available_is_one_delivery(endpoint: Endpoint, hook: WebhookProvider) -> None:
    endpoint.answers(503, 200)
    world = World()
    await deliver(world, hook)
    assert len(endpoint.requests) == 2
    assert {request.headers["idempotency-key"] for request, _ in endpoint.requests} == {decision().id}
    assert (world.entry(decision()).state, world.entry(decision()).attempts) == (State.SENT, 2)
    assert [event.event for event in world.receipts()] == ["Notification Sent"]


@pytest.mark.parametrize(("transactional", "requests"), [(False, 1), (True, 2)])
async def test_a_lost_answer_is_posted_again_only_if_transactional(
    endpoint: Endpoint, hook: WebhookProvider, transactional: bool, requests: int
) -> None:
    async def reset_once(request: web.Request, body: bytes) -> web.StreamResponse:
        if len(endpoint.requests) == 1 and request.transport is not None:
            request.transport.abort()
        return web.Response()

    endpoint.answer = reset_once
    world = World()
    await deliver(world, hook, transactional=transactional)
    assert len(endpoint.requests) == requests
    assert world.entry(decision()).state is (State.SENT if transactional else State.UNKNOWN)
