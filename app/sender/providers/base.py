"""What a provider is: something that takes one message and says what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import msgspec


class Message(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True, frozen=True):
    """One notification on its way to a person. `id` is the decision's, and the key to idempotency at the provider."""

    id: str
    user: str
    campaign: str
    category: str
    title: str
    body: str
    variant: str = ""
    deep_link: str = ""
    data: dict[str, str] = {}
    token: dict[str, Any] = {}
    transactional: bool = False
    decided_ms: int = 0
    expires_ms: int = 0
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider has taken it. `provider_id` is its own name for the message, if it told one."""

    provider_id: str = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The provider refused it for good. `reason` is a short machine-readable word without personal data.

    `gone` says that the device's address is no longer one, so that nothing more need be sent there.
    """

    reason: str
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Retry:
    """It was certainly not sent, and may be tried again, not before `after_ms` has passed where that is known."""

    reason: str
    after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """The answer was lost: it may or may not have been sent."""

    reason: str


Outcome = Accepted | Rejected | Retry | Unknown


class Provider(Protocol):
    """A way out. `send` reports failures as outcomes; an exception counts as `Unknown`."""

    async def send(self, message: Message) -> Outcome:
        """Try once."""
        ...

    async def close(self) -> None:
        """Release connections and files."""
        ...


class BadProvider(ValueError):
    """A provider's settings cannot work: the process must not start."""


_encode = msgspec.json.Encoder().encode


def encode_message(message: Message) -> bytes:
    """The JSON form that the console prints and the webhook posts."""
    return _encode(message)
