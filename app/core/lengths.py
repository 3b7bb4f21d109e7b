"""How long a text may be: what phones and browsers show of it, and what push services take.

What is shown are characters, and no contract: they differ by device, and these are the figures that vendors of push
services agree on. What is taken is a contract: a payload of 4,096 bytes (APNs, FCM), 3,993 for web push (RFC 8030).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

TITLE_CHARS_MAX: Final = 120
BODY_CHARS_MAX: Final = 600
TEXT_BYTES_MAX: Final = 3_500
"""Of title, body and link together: the rest of a payload is for keys, the decision's id and the campaign's name."""
ELLIPSIS: Final = "…"
_JOINERS: Final = frozenset("\u200d\ufe0e\ufe0f")


@dataclass(frozen=True, slots=True)
class Limits:
    """Characters of a title and of a body. `shown_by` says whose they are; empty when they are nudge's own bounds."""

    title: int = TITLE_CHARS_MAX
    body: int = BODY_CHARS_MAX
    shown_by: str = ""


UNLIMITED: Final = Limits()
"""Without a word about providers: only what bounds a payload."""
SHOWN: Final = {"apns": Limits(50, 178), "fcm": Limits(65, 240), "webpush": Limits(50, 120)}
"""By provider, what iOS shows on the lock screen, Android when expanded, and Chrome."""


def limits_of(providers: Iterable[str]) -> Limits:
    """The tightest of these providers' limits.

    Examples
    --------
    >>> limits_of(["apns", "fcm"])
    Limits(title=50, body=178, shown_by='apns, fcm')
    """
    named = sorted(set(providers))
    if not named:
        return UNLIMITED
    return Limits(min(SHOWN[name].title for name in named), min(SHOWN[name].body for name in named), ", ".join(named))


def joined(text: str) -> str:
    """The text with every run of white space as one blank."""
    return " ".join(text.split())


def cut(text: str, chars_max: int) -> str:
    """The text in one line, cut at the end of a word, and of a letter with its accents.

    A word that fills more than half of the room is cut itself: in languages without blanks all texts are such words.

    Examples
    --------
    >>> cut("your basket is waiting", 16)
    'your basket is…'
    """
    text = joined(text)
    if len(text) <= chars_max:
        return text
    room = chars_max - len(ELLIPSIS)
    blank = text.rfind(" ", 0, room + 1)
    end = blank if 2 * blank >= room else _between_letters(text, room)
    return text[:end].rstrip(" ,;:-–—(") + ELLIPSIS


def _between_letters(text: str, end: int) -> int:
    """The nearest place at or before `end` that does not part a letter from its marks, or a joined emoji."""
    while end and (unicodedata.combining(text[end]) or text[end] in _JOINERS or text[end - 1] == "\u200d"):
        end -= 1
    return end


def fit(title: str, body: str, deep_link: str) -> str:
    """The body, cut to what a payload has room for beside the title and the link."""
    room = TEXT_BYTES_MAX - _bytes(title) - _bytes(deep_link)
    while _bytes(body) > room and len(body) > 1:
        # A character has at most six bytes, so a round takes away what surely is too much, and at least one.
        body = cut(body, max(1, len(body) - max(1, (_bytes(body) - room) // 6)))
    return body


def _bytes(text: str) -> int:
    """Bytes in JSON; what is neither printable nor a quote was joined away with the white space, or is escaped."""
    escaped = text.count('"') + text.count("\\")
    if not text.isprintable():
        escaped += 5 * sum(char < " " for char in text)
    return (len(text) if text.isascii() else len(text.encode(errors="replace"))) + escaped
