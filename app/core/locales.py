"""Which language a user reads: look-up of a wording by language tag.

The tag is the user's trait `locale` or `language`, else that of the device (`context.locale`). It is looked up as RFC
4647, section 3.4 says: the whole tag, then without its last part, and so on; then the wording without a tag.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from app.core.campaign import RenderedContent

LOCALE_CHARS_MAX: Final = 35
"""As long as RFC 5646, section 4.4.1 has a tag be."""
TRAITS: Final = ("locale", "language")
_TAG: Final = re.compile(r"[a-zA-Z]{2,8}([-_][a-zA-Z0-9]{1,8})*([.@].*)?")

Render = Callable[[Mapping[str, Any]], "RenderedContent"]


def locale_of(value: object) -> str:
    """A language tag in lower case with hyphens; empty when it is none.

    Examples
    --------
    >>> locale_of("de_AT"), locale_of("pt-BR"), locale_of("en_US.UTF-8"), locale_of("x y"), locale_of(None)
    ('de-at', 'pt-br', 'en-us', '', '')
    """
    return tag_of(value) if type(value) is str and len(value) <= LOCALE_CHARS_MAX else ""


@lru_cache(maxsize=1024)
def tag_of(value: str) -> str:
    """As `locale_of`, for a text that is not too long to be remembered: events repeat a few."""
    if not _TAG.fullmatch(value):
        return ""
    return value.split(".", maxsplit=1)[0].split("@", maxsplit=1)[0].replace("_", "-").lower()


def chain(tag: str) -> Iterator[str]:
    """The tags to look up, most special first.

    Examples
    --------
    >>> list(chain("zh-hant-tw"))
    ['zh-hant-tw', 'zh-hant', 'zh']
    """
    while tag:
        yield tag
        tag = tag.rpartition("-")[0]
        if len(tag) > 1 and tag[-2] == "-":  # a single letter announces what followed it
            tag = tag[:-2]


def of_context(context: Mapping[str, Any]) -> str:
    """The tag of the user whom the template is told of; empty when it is not known."""
    traits = context.get("user") or {}
    for name in TRAITS:
        if tag := locale_of(traits.get(name)):
            return tag
    return locale_of((context.get("profile") or {}).get("locale"))


def localized(default: Render, by_tag: Mapping[str, Render]) -> Render:
    """Renders the wording in the user's language, else the default. `by_tag` has tags as `locale_of` gives them."""

    def render(context: Mapping[str, Any]) -> RenderedContent:
        for tag in chain(of_context(context)):
            if tag in by_tag:
                return by_tag[tag](context)
        return default(context)

    return render
