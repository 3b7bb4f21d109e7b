"""A record that is refused is a dead letter before its reader goes on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from app.stream.refused import bury
from schemas.dead_letters import read_dead_letter
from schemas.events import Rejected

REFUSED = Rejected("not_json", "no JSON at byte 3")


class Producer:
    """Acknowledges, or gives up."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.sent: list[tuple[Any, ...]] = []

    async def send(self, *record: Any) -> None:
        if self.failure is not None:
            raise self.failure
        self.sent.append(record)


async def test_it_keeps_the_record_and_says_where_it_stood_and_why() -> None:
    producer: Any = Producer()
    await bury(producer, "outcomes", 2, SimpleNamespace(offset=7, key=b"k", value=b"{{{"), REFUSED, 1_234)
    ((topic, key, value, headers),) = producer.sent
    told = read_dead_letter(headers)
    assert (topic, key, value) == ("dead-letters", b"k", b"{{{")
    assert (told.topic, told.partition, told.offset, told.at_ms) == ("outcomes", 2, 7, 1_234)
    assert (told.reason, told.detail) == ("not_json", "no JSON at byte 3")


async def test_a_tombstone_is_kept_as_one() -> None:
    producer: Any = Producer()
    await bury(producer, "outcomes", 2, SimpleNamespace(offset=7, key=None, value=None), REFUSED, 1_234)
    assert producer.sent[0][:3] == ("dead-letters", None, None)


async def test_one_that_cannot_be_kept_is_not_passed_by() -> None:
    producer: Any = Producer(TimeoutError("no acknowledgement"))
    with pytest.raises(TimeoutError):
        await bury(producer, "outcomes", 2, SimpleNamespace(offset=7, key=b"k", value=b"{"), REFUSED, 1_234)
