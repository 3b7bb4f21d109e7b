"""Fields of a row that few events ask for: they stay encoded until one does.

Half of a row's fields are about notifications, consent and traits, and an ordinary page view asks none of them.
Decoded, each would be made, held and encoded again with each of the user's events; encoded, they are copied in one go.
"""

from __future__ import annotations

from typing import Any

import msgspec
from mypy_extensions import mypyc_attr

from app.core.row_heads import UNDECODABLE, BadRow
from app.core.row_parts import OlderTraits, OutboxEntry, Pending, PendingReward, Rare, SendMemory, Slim

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Rare).decode
_NOTHING = _encode(Rare())


@mypyc_attr(acyclic=True)
class RareFields:
    """The fields of `app.core.row_parts.Rare`, as attributes. To read or set one may raise `BadRow`.

    Parameters
    ----------
    encoded
        What `rare_bytes` gave.
    """

    __slots__ = ("_encoded", "_rare")

    def __init__(self, encoded: bytes) -> None:
        self._encoded = encoded
        self._rare: Rare | None = None

    def rare_bytes(self) -> bytes:
        """All of them, encoded; empty when all are as in a new row."""
        rare = self._rare
        if rare is None:
            return self._encoded
        encoded = _encode(rare)
        return b"" if encoded == _NOTHING else encoded

    def decoded(self) -> Rare | None:
        """The fields, if anybody has asked for one."""
        return self._rare

    def set_rare(self, rare: Rare) -> None:
        """Put others in the place of all of them."""
        self._rare = rare

    def _more(self) -> Rare:
        rare = self._rare
        if rare is None:
            rare = self._rare = _decoded(self._encoded)
        return rare

    @property
    def traits(self) -> dict[str, Any]:
        return self._more().traits

    @traits.setter
    def traits(self, value: dict[str, Any]) -> None:
        self._more().traits = value

    @property
    def traits_ms(self) -> int:
        return self._more().traits_ms

    @traits_ms.setter
    def traits_ms(self, value: int) -> None:
        self._more().traits_ms = value

    @property
    def consent(self) -> int:
        return self._more().consent

    @consent.setter
    def consent(self, value: int) -> None:
        self._more().consent = value

    @property
    def consent_ms(self) -> int:
        return self._more().consent_ms

    @consent_ms.setter
    def consent_ms(self, value: int) -> None:
        self._more().consent_ms = value

    @property
    def opted_out(self) -> list[str]:
        return self._more().opted_out

    @opted_out.setter
    def opted_out(self, value: list[str]) -> None:
        self._more().opted_out = value

    @property
    def aliases(self) -> list[str]:
        return self._more().aliases

    @aliases.setter
    def aliases(self, value: list[str]) -> None:
        self._more().aliases = value

    @property
    def hours(self) -> dict[int, int]:
        return self._more().hours

    @hours.setter
    def hours(self, value: dict[int, int]) -> None:
        self._more().hours = value

    @property
    def sent(self) -> int:
        return self._more().sent

    @sent.setter
    def sent(self, value: int) -> None:
        self._more().sent = value

    @property
    def opened(self) -> int:
        return self._more().opened

    @opened.setter
    def opened(self, value: int) -> None:
        self._more().opened = value

    @property
    def clicked(self) -> int:
        return self._more().clicked

    @clicked.setter
    def clicked(self, value: int) -> None:
        self._more().clicked = value

    @property
    def dismissed(self) -> int:
        return self._more().dismissed

    @dismissed.setter
    def dismissed(self, value: int) -> None:
        self._more().dismissed = value

    @property
    def ignored_run(self) -> int:
        return self._more().ignored_run

    @ignored_run.setter
    def ignored_run(self, value: int) -> None:
        self._more().ignored_run = value

    @property
    def sends(self) -> list[SendMemory]:
        return self._more().sends

    @sends.setter
    def sends(self, value: list[SendMemory]) -> None:
        self._more().sends = value

    @property
    def pending(self) -> list[Pending]:
        return self._more().pending

    @pending.setter
    def pending(self, value: list[Pending]) -> None:
        self._more().pending = value

    @property
    def outbox(self) -> list[OutboxEntry]:
        return self._more().outbox

    @outbox.setter
    def outbox(self, value: list[OutboxEntry]) -> None:
        self._more().outbox = value

    @property
    def devices(self) -> dict[str, Any]:
        return self._more().devices

    @devices.setter
    def devices(self, value: dict[str, Any]) -> None:
        self._more().devices = value

    @property
    def category_consent(self) -> dict[str, int]:
        return self._more().category_consent

    @category_consent.setter
    def category_consent(self, value: dict[str, int]) -> None:
        self._more().category_consent = value

    @property
    def labels(self) -> int:
        return self._more().labels

    @labels.setter
    def labels(self, value: int) -> None:
        self._more().labels = value

    @property
    def shown(self) -> dict[int, int]:
        return self._more().shown

    @shown.setter
    def shown(self, value: dict[int, int]) -> None:
        self._more().shown = value

    @property
    def hour_sends(self) -> dict[int, int]:
        return self._more().hour_sends

    @hour_sends.setter
    def hour_sends(self, value: dict[int, int]) -> None:
        self._more().hour_sends = value

    @property
    def hour_opens(self) -> dict[int, int]:
        return self._more().hour_opens

    @hour_opens.setter
    def hour_opens(self, value: dict[int, int]) -> None:
        self._more().hour_opens = value

    @property
    def weariness(self) -> Slim:
        return self._more().weariness

    @weariness.setter
    def weariness(self, value: Slim) -> None:
        self._more().weariness = value

    @property
    def weariness_ms(self) -> int:
        return self._more().weariness_ms

    @weariness_ms.setter
    def weariness_ms(self, value: int) -> None:
        self._more().weariness_ms = value

    @property
    def examples(self) -> list[float]:
        return self._more().examples

    @examples.setter
    def examples(self, value: list[float]) -> None:
        self._more().examples = value

    @property
    def absorbed(self) -> list[int]:
        return self._more().absorbed

    @absorbed.setter
    def absorbed(self, value: list[int]) -> None:
        self._more().absorbed = value

    @property
    def rewards(self) -> list[PendingReward]:
        return self._more().rewards

    @rewards.setter
    def rewards(self, value: list[PendingReward]) -> None:
        self._more().rewards = value

    @property
    def open_rates(self) -> bytes:
        return self._more().open_rates

    @open_rates.setter
    def open_rates(self, value: bytes) -> None:
        self._more().open_rates = value

    @property
    def older_traits(self) -> OlderTraits | None:
        return self._more().older_traits

    @older_traits.setter
    def older_traits(self, value: OlderTraits | None) -> None:
        self._more().older_traits = value


def _decoded(encoded: bytes) -> Rare:
    """In a function of its own: rare."""
    try:
        return _decode(encoded) if encoded else Rare()
    except UNDECODABLE as exc:
        raise BadRow(f"not a profile row: {exc}") from exc
