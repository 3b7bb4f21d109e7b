"""Who has opted out, as the sender sees it at the last moment.

The profile's consent gate decides first; this closes the gap between that decision and the send. It is fed with the
consent events of `events` and holds only keyed hashes of opted-out users. It answers "I don't know" rather than "no"
when the feed is not fresh or an opt-out had to be dropped: promotional messages then wait.
"""

from __future__ import annotations

import hashlib
from typing import Final

from schemas.events import NOTIFICATIONS_DISABLED, NOTIFICATIONS_ENABLED, Event, epoch_ms
from schemas.topics import DAY_MS

STALE_MS: Final = 60_000
ENTRIES_MAX: Final = 1_000_000
RETENTION_MS: Final = 7 * DAY_MS
AHEAD_MS_MAX: Final = 300_000
AGE_MS_MAX: Final = 400 * DAY_MS
"""An event beyond these was sent by a device whose clock is wrong, as a policy has it that says nothing else: its
opt-out counts as of now, its opt-in not at all. The worker has the same rule."""

_NEVER_MS: Final = -(2**62)


class Suppressions:
    """Opt-outs of at least the last `retention_ms`, in two generations so that forgetting costs nothing.

    An opt-out may be forgotten once no decision from before it can still be waiting: the worker had folded it into the
    profile by then. All times here are wall-clock, except the events' own.

    Parameters
    ----------
    key
        Secret of the hashes, 1 to 64 bytes; any will do as long as it lives as long as this object.
    stale_ms
        How old the feed may be.
    entries_max
        Bound on opt-outs held (about 120 bytes each). Beyond it the answer for everybody else is "I don't know".
    """

    def __init__(
        self,
        key: bytes,
        *,
        stale_ms: int = STALE_MS,
        entries_max: int = ENTRIES_MAX,
        retention_ms: int = RETENTION_MS,
    ) -> None:
        assert 0 < len(key) <= hashlib.blake2b.MAX_KEY_SIZE, "a key of 1 to 64 bytes"
        self._key = key
        self._stale_ms = stale_ms
        self._entries_max = entries_max
        self._retention_ms = retention_ms
        self._young: dict[int, int] = {}
        self._old: dict[int, int] = {}
        self._rotated_ms = _NEVER_MS
        self._dropped_ms = _NEVER_MS
        self._as_of_ms = _NEVER_MS

    def feed(self, event: Event, *, received_ms: int, wall_ms: int) -> None:
        """Take note of a consent event; any other is ignored.

        Parameters
        ----------
        received_ms
            Event time to assume for an event that has none, or an impossible one.
        """
        if event.event not in (NOTIFICATIONS_DISABLED, NOTIFICATIONS_ENABLED):
            return
        user = event.user_id or event.anonymous_id or ""
        at_ms = received_ms if event.timestamp is None else epoch_ms(event.timestamp)
        out = event.event == NOTIFICATIONS_DISABLED
        possible = received_ms - AGE_MS_MAX <= at_ms <= received_ms + AHEAD_MS_MAX
        if not possible and not out:
            return
        if not possible or at_ms > received_ms:
            at_ms = received_ms
        entry = self._hash(user, str(event.properties.get("category") or ""))
        self._rotate(wall_ms)
        if out:
            self._add(entry, at_ms, wall_ms)
        else:
            self._remove(entry, at_ms)

    def refuse(self, user: str, *, at_ms: int, wall_ms: int) -> None:
        """Take an opt-out of everything, at event time `at_ms`, from elsewhere than a consent event: an erasure."""
        self._rotate(wall_ms)
        self._add(self._hash(user, ""), at_ms, wall_ms)

    def caught_up(self, as_of_ms: int) -> None:
        """Everything written to `events` before the wall-clock time `as_of_ms` has been fed.

        As the clock says it now: where it was set back, an earlier word of a later time would pass for fresh.
        """
        self._as_of_ms = as_of_ms

    def check(self, user: str, category: str, wall_ms: int) -> bool | None:
        """Whether the user has opted out, of everything or of the category; None when that cannot be told.

        An opt-out that is known counts however stale the feed is.
        """
        self._rotate(wall_ms)
        for entry in (self._hash(user, ""), self._hash(user, category)):
            if entry in self._young or entry in self._old:
                return True
        complete = wall_ms - self._dropped_ms > self._retention_ms
        return False if complete and self.fresh(wall_ms) else None

    def fresh(self, wall_ms: int) -> bool:
        """Whether the feed is at most `stale_ms` behind."""
        return wall_ms - self._as_of_ms <= self._stale_ms

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def _hash(self, user: str, category: str) -> int:
        text = f"{user}\x1f{category}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8, key=self._key).digest())

    def _add(self, entry: int, at_ms: int, wall_ms: int) -> None:
        at_ms = max(at_ms, self._young.get(entry, at_ms), self._old.pop(entry, at_ms))
        if entry not in self._young and len(self) >= self._entries_max:
            self._dropped_ms = wall_ms
            return
        self._young[entry] = at_ms

    def _remove(self, entry: int, at_ms: int) -> None:
        # By event time: an opt-in that comes late does not undo an opt-out that the user made after it. Of two at one
        # instant the refusal counts, as in the row.
        for generation in (self._young, self._old):
            if generation.get(entry, at_ms) < at_ms:
                del generation[entry]

    def _rotate(self, wall_ms: int) -> None:
        if wall_ms - self._rotated_ms > self._retention_ms:
            self._old, self._young = self._young, {}
            self._rotated_ms = wall_ms
