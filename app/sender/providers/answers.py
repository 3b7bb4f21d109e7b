"""What an HTTP answer means for a message, where a provider has no rules of its own."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

from app.sender.providers.base import Accepted, Outcome, Rejected, Retry, Unknown

_TRY_LATER = frozenset({408, 425, 429, 503})  # each says that the request was not acted upon (RFC 9110, 8470, 6585)


def read_answer(status: int, retry_after: str | None, wall_s: float) -> Outcome:
    """What an HTTP status means for the message.

    Examples
    --------
    >>> read_answer(202, None, 0.0), read_answer(429, "2", 0.0), read_answer(410, None, 0.0)
    (Accepted(provider_id=''), Retry(reason='http_429', after_ms=2000), Rejected(reason='http_410', gone=False))
    >>> read_answer(502, None, 0.0)
    Unknown(reason='http_502')
    """
    if 200 <= status < 300:
        return Accepted()
    if status in _TRY_LATER:
        return Retry(f"http_{status}", retry_after_ms(retry_after, wall_s))
    if status >= 500 and status != 501:
        return Unknown(f"http_{status}")
    return Rejected(f"http_{status}")


def retry_after_ms(header: str | None, wall_s: float) -> int | None:
    """``Retry-After`` (RFC 9110, 10.2.3): seconds or an HTTP date. None when absent or unreadable.

    Examples
    --------
    >>> retry_after_ms("Thu, 01 Jan 1970 00:01:00 GMT", 50.0), retry_after_ms("soon", 0.0)
    (10000, None)
    """
    if header is None:
        return None
    if header.isascii() and header.isdecimal():
        return int(header[:9]) * 1_000  # nine digits are decades: no need for more, and int() of a long text is slow
    try:
        return max(0, int((parsedate_to_datetime(header).timestamp() - wall_s) * 1_000))
    except (ValueError, OverflowError):
        return None


def word(name: str) -> str:
    """A name in CamelCase, of an exception or of a provider's reason, as our reasons are written.

    Examples
    --------
    >>> word("BadDeviceToken")
    'bad_device_token'
    """
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).removeprefix("_")
