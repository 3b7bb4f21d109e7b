"""Endpoints that users' devices name: which are refused, and how connections to their hosts are kept."""

from __future__ import annotations

import asyncio
import ipaddress

import httpx
import pytest

from app.sender.providers.addresses import Address, AddressRefused, AddressRule
from app.sender.providers.hosts import CHECK_AGAIN_S, BadEndpoint, Endpoint, Hosts, TooManyHosts, read_endpoint
from app.sender.providers.http2 import Http2Client, Http2Settings


@pytest.mark.parametrize(
    "text",
    [
        "",
        "push.example/abc",
        "http://push.example/abc",
        "ftp://push.example/abc",
        "https://",
        "https:///abc",
        "https://user:password@push.example/",
        "https://push.example@127.0.0.1/",
        "https://push.example\\@127.0.0.1/",
        "https://push.example/#fragment",
        "https://push.example:99999/",
        "https://push.example:x/",
        "https://0x7f.1/",
        "https://2130706433/",
        "https://127.1/",
        "https://0177.0.0.1/",
        "https://127.0.0.1./",
        "https://push.example/a b",
        "https://push.example/a\r\nb",
        "https://púsh.example/",
        "https://①②⑦.0.0.1/",
        "https://[::1/",
        "https://push.example/" + "x" * 3000,
    ],
)
def test_what_two_parsers_could_read_differently_is_no_endpoint(text: str) -> None:
    with pytest.raises(BadEndpoint):
        read_endpoint(text)


@pytest.mark.parametrize(
    ("text", "endpoint", "origin"),
    [
        (
            "https://fcm.googleapis.com/fcm/send/abc:APA91",
            Endpoint("fcm.googleapis.com", 443, "/fcm/send/abc:APA91"),
            "https://fcm.googleapis.com",
        ),
        ("https://Push.Example:443", Endpoint("push.example", 443, "/"), "https://push.example"),
        ("https://push.example:8443/a?b=c", Endpoint("push.example", 8443, "/a?b=c"), "https://push.example:8443"),
        ("https://127.0.0.1/a", Endpoint("127.0.0.1", 443, "/a"), "https://127.0.0.1"),
        ("https://[::1]:1/a", Endpoint("::1", 1, "/a"), "https://[::1]:1"),
    ],
)
def test_an_endpoint_is_read_in_parts(text: str, endpoint: Endpoint, origin: str) -> None:
    assert read_endpoint(text) == endpoint
    assert endpoint.origin == origin


class Names:
    """A resolver that a test sets."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked = 0
        self.now_s = 0.0

    async def resolve(self, host: str, port: int) -> list[Address]:
        self.asked += 1
        return [ipaddress.ip_address(address) for address in self.addresses]

    def hosts(self, hosts_max: int = 2) -> Hosts:
        return Hosts(
            Http2Settings(),
            AddressRule(),
            hosts_max=hosts_max,
            resolver=self.resolve,
            monotonic_s=lambda: self.now_s,
        )


def at(host: str) -> Endpoint:
    return Endpoint(host, 443, "/")


async def used(hosts: Hosts, host: str = "a.example") -> Http2Client:
    async with hosts.client(at(host)) as client:
        return client


async def test_a_host_is_looked_up_again_after_a_while_and_its_connections_are_kept() -> None:
    names = Names("1.1.1.1")
    hosts = names.hosts()
    first = await used(hosts)
    assert await used(hosts) is first
    assert names.asked == 1
    names.now_s = CHECK_AGAIN_S
    names.addresses = ("1.0.0.1", "1.1.1.1")
    assert await used(hosts) is first
    assert names.asked == 2
    await hosts.close()


async def test_a_host_that_has_moved_is_connected_to_anew() -> None:
    names = Names("1.1.1.1")
    hosts = names.hosts()
    first = await used(hosts)
    names.now_s, names.addresses = CHECK_AGAIN_S, ("8.8.8.8",)
    assert await used(hosts) is not first
    await hosts.close()


@pytest.mark.parametrize("addresses", [("127.0.0.1",), ("1.1.1.1", "10.0.0.1"), ("169.254.169.254",), ("::1",)])
async def test_a_host_with_an_address_of_ours_is_refused_even_if_it_was_not_before(addresses: tuple[str, ...]) -> None:
    names = Names("1.1.1.1")
    hosts = names.hosts()
    await used(hosts)
    names.now_s, names.addresses = CHECK_AGAIN_S, addresses
    with pytest.raises(AddressRefused):
        await used(hosts)
    await hosts.close()


async def test_a_host_without_an_address_cannot_be_connected_to() -> None:
    with pytest.raises(httpx.ConnectError):
        await used(Names().hosts())


async def test_the_host_used_longest_ago_makes_room_and_a_busy_one_does_not() -> None:
    hosts = Names("1.1.1.1").hosts()
    a = await used(hosts, "a.example")
    async with hosts.client(at("b.example")) as b:
        await used(hosts, "c.example")
        assert await used(hosts, "b.example") is b
        async with hosts.client(at("c.example")):
            with pytest.raises(TooManyHosts):
                await used(hosts, "d.example")
    assert await used(hosts, "a.example") is not a
    await hosts.close()


async def test_a_pool_that_must_go_stays_open_for_the_message_on_the_way() -> None:
    names = Names("1.1.1.1")
    hosts = names.hosts()
    closed = asyncio.Event()
    async with hosts.client(at("a.example")) as client:
        client.close = _tell(closed)  # type: ignore[method-assign]
        names.now_s, names.addresses = CHECK_AGAIN_S, ("8.8.8.8",)
        await used(hosts)
        assert not closed.is_set()
    assert closed.is_set()
    await hosts.close()


def _tell(event: asyncio.Event):  # type: ignore[no-untyped-def]
    async def close() -> None:
        event.set()

    return close
