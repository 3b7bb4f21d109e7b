"""Bytes in the place of a row that are none: the one user starts anew, the others notice nothing.

Checksums keep a disk's damage away from here; what comes here was written so, by a defect or by memory that lost a bit.
First the store is doubted, once: the process ends and the next one rebuilds it from the changelog. If that has the
bytes too, they go to the dead letters, and a row that says nothing takes their place: nothing but that the user refused
consent, since perhaps they did; of an erased user, that they were erased. A row of a newer version is no such thing: it
must stay as it is, and the process ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from app.core.erasure import is_mark
from app.core.profile import ROW_VERSION, Profile, decode_profile
from app.core.row_heads import BadRow, read_heads
from app.core.whole_row import decode_whole
from schemas.dead_letters import DeadLetter

BAD_ROW: Final = "bad_row"
_NEWER: Final = 16
"""So many versions ahead a first byte is taken for a version."""

Row = tuple[bytes, bytes]


def decode_row(raw: bytes, *, whole: bool = False) -> Profile | None:
    """The row; None when it is none. Raises `BadRow` for one of a newer version.

    What is wrong with fields that few ask for is found with `whole`, or by who asks, who is told by a `BadRow`.
    """
    try:
        return decode_whole(raw) if whole else decode_profile(raw)
    except BadRow:
        if raw and ROW_VERSION < raw[0] <= ROW_VERSION + _NEWER:
            raise
        return None


def row_anew(key: bytes, now_ms: int) -> Profile:
    """What takes the place of bytes that are no row: it sends nothing, and lets nothing of an erased user back in."""
    return Profile(erased_ms=now_ms) if is_mark(key) else Profile(consent=0, consent_ms=now_ms)


def readable(rows: Iterable[Row]) -> list[Row]:
    """Those with a header that can be read."""
    return [row for row in rows if _has_head(row)]


def _has_head(row: Row) -> bool:
    try:
        read_heads([row])
    except BadRow:
        return False
    return True


def letter_about(raw: bytes, changelog: str, partition: int, next_offset: int, now_ms: int) -> DeadLetter:
    """The dead letter of bytes that are no row; they stand in the changelog before `next_offset`."""
    try:
        decode_whole(raw)
        detail = ""
    except BadRow as exc:
        detail = str(exc)
    return DeadLetter(
        topic=changelog, partition=partition, offset=next_offset - 1, reason=BAD_ROW, detail=detail, at_ms=now_ms
    )
