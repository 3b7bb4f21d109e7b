"""Connections to hosts that users' devices name: one pool a host, each bound to an address that was checked.

An endpoint comes from a browser, so it can name any machine, ours included (server-side request forgery). The URL must
be a plain https one; the host's addresses are looked up and checked (`app.sender.providers.addresses`); the connection
goes to a checked address, since a second look-up could answer differently (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx

from app.sender.providers.addresses import Address, AddressRefused, AddressRule, resolve
from app.sender.providers.http2 import Http2Client, Http2Settings

HOSTS_MAX: Final = 64
CHECK_AGAIN_S: Final = 30.0
URL_CHARS_MAX: Final = 2048

# A name whose last label begins with a letter: "0x7f.1" and "2130706433" are addresses to some parsers.
_NAME = re.compile(r"([a-z0-9]([a-z0-9_-]{0,62})\.)*[a-z]([a-z0-9-]{0,62})", re.IGNORECASE)
_PRINTABLE = re.compile(r"[\x21-\x5b\x5d-\x7e]*")  # and no backslash, which some take for a slash


class BadEndpoint(ValueError):
    """Not a URL that a push service would give. The message holds no part of it."""


class TooManyHosts(Exception):
    """Every pool is in use: nothing was sent."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An https URL in parts that every parser reads alike."""

    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        """Scheme, host and port (left out where it is 443), as a VAPID token names its audience."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}" + (f":{self.port}" if self.port != 443 else "")

    @property
    def url(self) -> str:
        """The whole, put together anew."""
        return self.origin + self.path


def read_endpoint(text: str) -> Endpoint:
    """Parts of an endpoint's URL.

    Raises
    ------
    BadEndpoint
        If it is no https URL, has user, password or fragment, or a host that is neither a name nor an address.

    Examples
    --------
    >>> read_endpoint("https://push.example/wpush/v2/abc?x=1").url
    'https://push.example/wpush/v2/abc?x=1'
    """
    if len(text) > URL_CHARS_MAX or not _PRINTABLE.fullmatch(text):  # line breaks, which urlsplit would drop
        raise BadEndpoint("too long, or characters that a URL has not")
    try:
        parts = urlsplit(text)
        port = parts.port or 443
        host = parts.hostname or ""
    except ValueError:
        raise BadEndpoint("not a URL") from None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme != "https" or "@" in parts.netloc or parts.fragment or not path.startswith("/"):
        raise BadEndpoint("not a plain https URL")
    if not _NAME.fullmatch(host):
        try:
            host = str(ipaddress.ip_address(host))
        except ValueError:
            raise BadEndpoint("the host is neither a name nor an address") from None
    return Endpoint(host, port, path)


@dataclass(slots=True)
class _Pool:
    client: Http2Client
    address: Address
    checked_s: float
    users: int = 0
    retired: bool = False


class Hosts:
    """At most `hosts_max` pools, the one used longest ago makes room.

    Parameters
    ----------
    rule
        Which addresses may be connected to.
    """

    def __init__(
        self,
        http: Http2Settings,
        rule: AddressRule,
        *,
        hosts_max: int = HOSTS_MAX,
        resolver: Callable[[str, int], Awaitable[list[Address]]] = resolve,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._rule = rule
        self._hosts_max = hosts_max
        self._resolver = resolver
        self._monotonic_s = monotonic_s
        self._pools: dict[tuple[str, int], _Pool] = {}

    @asynccontextmanager
    async def client(self, endpoint: Endpoint) -> AsyncIterator[Http2Client]:
        """A client that connects to a checked address of the endpoint's host.

        Raises
        ------
        AddressRefused
            If any address of the host is refused: a host with one public and one private address is a trick.
        httpx.ConnectError
            If the host has no address.
        TooManyHosts
            If there is no room.
        """
        pool = await self._pool(endpoint)
        pool.users += 1
        try:
            yield pool.client
        finally:
            pool.users -= 1
            if pool.retired and not pool.users:
                await pool.client.close()

    async def _pool(self, endpoint: Endpoint) -> _Pool:
        key = (endpoint.host, endpoint.port)
        pool = self._pools.get(key)
        if pool is not None and self._monotonic_s() - pool.checked_s < CHECK_AGAIN_S:
            self._pools[key] = self._pools.pop(key)
            return pool
        addresses = await self._checked(endpoint)
        pool = self._pools.pop(key, None)  # now: another message may have been here while the name was looked up
        if pool is not None and pool.address not in addresses:
            await self._retire(pool)
            pool = None
        if pool is None:
            await self._make_room()
            client = Http2Client(self._http, pinned=(endpoint.host, str(addresses[0])))
            pool = _Pool(client, addresses[0], 0.0)
        pool.checked_s = self._monotonic_s()
        self._pools[key] = pool
        return pool

    async def _checked(self, endpoint: Endpoint) -> list[Address]:
        addresses = await self._resolver(endpoint.host, endpoint.port)
        if not addresses:
            raise httpx.ConnectError("the host has no address")
        if not all(self._rule.allows(address) for address in addresses):
            raise AddressRefused("the host's address is not allowed")
        return addresses

    async def _make_room(self) -> None:
        if len(self._pools) < self._hosts_max:
            return
        for key, pool in self._pools.items():
            if not pool.users:
                del self._pools[key]
                await self._retire(pool)
                return
        raise TooManyHosts

    async def _retire(self, pool: _Pool) -> None:
        """Close it once nobody uses it: a message that is on the way keeps its connection."""
        pool.retired = True
        if not pool.users:
            await pool.client.close()

    async def close(self) -> None:
        """Close all pools."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            await pool.client.close()
