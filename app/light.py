"""What a process need not do at its start, while its partitions stand still."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_WHERE: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Where OpenSSL looks for certificates."""


@contextmanager
def aiohttp_without_certificates() -> Iterator[None]:
    """Have aiohttp find no certificates when it is imported inside.

    It reads all that the system has, 45 ms of CPU, for its HTTP client. Faust imports it; no process of ours asks
    anything by it (the sender has httpx, Kafka's clients a context of their own), and if one did it would be refused
    for want of certificates, not sent without.
    """
    kept = {name: os.environ.get(name) for name in _WHERE}
    os.environ.update(dict.fromkeys(_WHERE, os.devnull))
    try:
        import aiohttp  # noqa: F401, PLC0415

        yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
