"""Deep links: where a tap leads is the policy's choice, and no value's.

A link starts with a fixed scheme (and, on the web, a fixed host) or a path. What values put behind that start is kept
from ending it: blanks and the like are percent-encoded, and a path that would name another host is left out.
"""

from __future__ import annotations

import re
from typing import Final

DEEP_LINK_CHARS_MAX: Final = 2_000

_START: Final = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):/|/")
_WEB_HOST: Final = re.compile(r"https?://[^\s/?#{}@\\]+(?:[/?#]|$)", re.IGNORECASE)
_RUNS_CODE: Final = frozenset({"javascript", "data", "vbscript", "file", "blob", "about"})
_UNSAFE: Final = re.compile(r'[\s\x00-\x20\x7f"<>\\^`{|}]')  # neither reserved nor unreserved in RFC 3986, section 2


def link_problem(source: str) -> str:
    """What is wrong with the template of a link; empty when nothing is.

    Examples
    --------
    >>> link_problem("shop://cart/{{ event.cart_id }}"), link_problem("")
    ('', '')
    >>> link_problem("https://{{ event.host }}/")
    "a link to the web has a fixed host, such as 'https://shop.example/'"
    """
    if not source:
        return ""
    start = _START.match(source)
    if start is None:
        return "a link starts with a fixed scheme or path, such as 'shop://' or '/'"
    scheme = (start.group(1) or "").lower()
    if scheme in _RUNS_CODE:
        return f"a link must not start with '{scheme}:'"
    if scheme in ("http", "https") and not _WEB_HOST.match(source):
        return "a link to the web has a fixed host, such as 'https://shop.example/'"
    if source.startswith("//"):
        return "a path starts with one '/': behind two stands the name of a host"
    if "{" not in source and len(source) > DEEP_LINK_CHARS_MAX:
        return f"{len(source)} characters; a link has at most {DEEP_LINK_CHARS_MAX}"
    return ""


def clean_link(rendered: str) -> str:
    """The link as it may leave: empty when it is too long (half of it leads nowhere) or a value made it a host's."""
    link = _UNSAFE.sub(lambda found: "".join(f"%{byte:02X}" for byte in found.group().encode()), rendered.strip())
    return "" if len(link) > DEEP_LINK_CHARS_MAX or link.startswith("//") else link
