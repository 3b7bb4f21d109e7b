"""Pseudonyms: users under a keyed hash, so that neither topics nor state hold the ids that the outside world knows.

Made at the edge, by whoever produces to `events` and by whoever holds the list of push addresses. nudge itself never
needs the key and takes a pseudonym for any other user id. A pseudonym names the key that made it: ``p:K:HASH``.

The hash is HMAC-SHA-256 (RFC 2104), cut to 160 bits (RFC 2104, section 5, allows half and more), in base64url.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final

from schemas.events import Event

HASH_BYTES: Final = 20
KEY_BYTES_MIN: Final = 16
_PREFIX: Final = "p"
_KEY_ID = re.compile(r"[A-Za-z0-9]{1,8}")
_FORM = re.compile(r"p:([A-Za-z0-9]{1,8}):([A-Za-z0-9_-]{27})")


class BadKeys(ValueError):
    """The keys cannot be used; the message says why and holds none."""


class Pseudonyms:
    """Makes pseudonyms with the present key, and those of earlier keys where they are still needed.

    Parameters
    ----------
    keys
        Key id to key. Ids are 1 to 8 letters or digits; keys have `KEY_BYTES_MIN` bytes or more.
    present
        Id of the key that new pseudonyms are made with.

    Examples
    --------
    >>> pseudonyms = Pseudonyms({"a": b"0123456789abcdef"}, "a")
    >>> pseudonyms.of("ada@example.org") == pseudonyms.of("ada@example.org")
    True
    >>> pseudonyms.of("ada@example.org").startswith("p:a:")
    True
    """

    def __init__(self, keys: Mapping[str, bytes], present: str) -> None:
        if present not in keys:
            raise BadKeys(f"there is no key {present!r}; there are: {', '.join(sorted(keys)) or 'none'}")
        for name, key in keys.items():
            if not _KEY_ID.fullmatch(name):
                raise BadKeys(f"key id {name!r}: must be 1 to 8 letters or digits")
            if len(key) < KEY_BYTES_MIN:
                raise BadKeys(f"key {name!r} has {len(key)} bytes; at least {KEY_BYTES_MIN}")
        self._keys = dict(keys)
        self._present = present

    def of(self, user: str, key_id: str | None = None) -> str:
        """The pseudonym of `user`, with the present key or the one named. Raises `KeyError` for an unknown key.

        One that is a pseudonym already is returned as it is, so that doing it twice does no harm.
        """
        if key_id_of(user) is not None:
            return user
        name = key_id or self._present
        digest = hmac.digest(self._keys[name], user.encode(), hashlib.sha256)[:HASH_BYTES]
        return f"{_PREFIX}:{name}:{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"

    def renewals(self, user: str) -> list[Event]:
        """What to say on `events` when the present key is new: each earlier pseudonym of `user` is now this one.

        The rows become one (`app.core.merge`), so that caps, consent and opt-outs outlive the old key. Saying it again
        does no harm.
        """
        new = self.of(user)
        earlier = [self.of(user, name) for name in self._keys if name != self._present]
        return [
            Event(type="alias", user_id=new, previous_id=old, message_id=f"renewal:{old}:{new}")
            for old in earlier
            if old != new
        ]

    def matches(self, pseudonym: str, user: str) -> bool:
        """Whether `pseudonym` is that of `user`, under whichever of our keys it names."""
        name = key_id_of(pseudonym)
        return name in self._keys and hmac.compare_digest(self.of(user, name), pseudonym)


def key_id_of(text: str) -> str | None:
    """The id of the key that made a pseudonym; None when `text` is none."""
    found = _FORM.fullmatch(text)
    return found[1] if found else None


def read_keys(text: str) -> dict[str, bytes]:
    """Keys as a setting has them: ``id:hex`` pairs with commas between. Raises `BadKeys`."""
    keys = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition(":")
        try:
            keys[name] = bytes.fromhex(value)
        except ValueError:
            raise BadKeys(f"key {name!r}: expected ID:HEX") from None
    return keys
