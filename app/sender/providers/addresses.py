"""Where a provider may connect to: not into our own network on somebody else's word.

A URL that comes from settings or, worse, from a user's device can name a machine that only we can reach (a metadata
service, an admin port): server-side request forgery. So a host is resolved first, every address it has is checked,
and the connection goes to a checked address: a second look-up could answer differently (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from typing import Final

import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class AddressRefused(httpx.TransportError):
    """The host stands for an address that we do not connect to. The message holds no address."""


@dataclass(frozen=True, slots=True)
class AddressRule:
    """Which addresses beyond the public ones are allowed. Link-local (cloud metadata) and multicast never are."""

    loopback: bool = False
    private: bool = False

    def allows(self, address: Address) -> bool:
        """Whether we may connect to `address`.

        Examples
        --------
        >>> rule = AddressRule(loopback=True)
        >>> [rule.allows(ipaddress.ip_address(a)) for a in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "1.1.1.1")]
        [True, False, False, True]
        """
        address = _embedded(address)
        if address.is_link_local or address.is_multicast or address.is_unspecified:
            return False
        if address.is_loopback:
            return self.loopback
        return address.is_global or (self.private and address.is_private)


PUBLIC_ONLY: Final = AddressRule()


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 address carries, if it does: ``::ffff:127.0.0.1`` is loopback all the same."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address


async def resolve(host: str, port: int) -> list[Address]:
    """All addresses of `host`, in the resolver's order. Raises `httpx.ConnectError` when it has none."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise httpx.ConnectError("cannot resolve the host") from exc
    return [ipaddress.ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found]


class GuardedTransport(httpx.AsyncBaseTransport):
    """Sends each request to a checked address of its host; `Host` and the TLS server name stay the host's.

    Raises
    ------
    AddressRefused
        If any address of the host is refused: a host with one public and one private address is a trick.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport, rule: AddressRule) -> None:
        self._inner = inner
        self._rule = rule

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        addresses = await resolve(host, request.url.port or (443 if request.url.scheme == "https" else 80))
        if not all(self._rule.allows(address) for address in addresses):
            raise AddressRefused("the host's address is not allowed")
        request.extensions = {**request.extensions, "sni_hostname": host}
        request.url = request.url.copy_with(host=str(addresses[0]))
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()
