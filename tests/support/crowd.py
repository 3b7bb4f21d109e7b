"""Random but reproducible events for tests of processes."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from schemas.events import Event, encode_event

BROKEN = (b"{ not json", b"", b"[]", b'{"type":"track","event":"X"}', b'{"type":"page","userId":"u1"}', b"\xff\xfe")


def crowd(
    count: int, *, users: int, seed: int, poison_every: int = 0, devices: bool = False
) -> Iterator[tuple[str, bytes]]:
    """User and value of `count` records of `events`; each `poison_every`th is malformed.

    With `devices` each user has a push token, which every event tells.
    """
    rng = random.Random(seed)
    now_ms = time.time_ns() // 1_000_000
    for number in range(count):
        user = f"user-{rng.randrange(users)}"
        if poison_every and number % poison_every == poison_every - 1:
            yield user, rng.choice(BROKEN)
            continue
        name = rng.choices(("Product Viewed", "Application Opened", "Order Completed"), (6, 3, 1))[0]
        properties = {"order_id": f"o{number}", "revenue": rng.randrange(100, 5000) / 100, "category": "MEAT"}
        event = Event(
            type="track",
            event=name,
            user_id=user,
            message_id=f"m{seed}-{number}",
            timestamp=now_ms - rng.randrange(3_600_000),
            properties=properties if name == "Order Completed" else {"category": rng.choice(("MEAT", "DELI"))},
            context={"device": {"token": f"token-{user}", "type": "android"}} if devices else {},
        )
        yield user, encode_event(event)
