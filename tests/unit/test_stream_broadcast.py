"""A topic that every worker reads whole: whatever goes wrong, somebody goes on reading it, and knows how far it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from app.stream import broadcast
from app.stream.broadcast import BroadcastReader


class Reader(BroadcastReader):
    """Reads to the end of the topic once nothing fails any more."""

    def __init__(self, *failures: Exception) -> None:
        super().__init__({}, "models", lambda key, value, offset: None)
        self.failures = list(failures)

    async def _follow(self) -> None:
        if self.failures:
            raise self.failures.pop()
        self._ready.set()


class Topic:
    """Partitions as lists of values; stands for the consumer, which may not reach the broker."""

    key: bytes | None = None
    """Of every record."""

    def __init__(self, *partitions: list[bytes]) -> None:
        self.partitions = list(partitions)
        self.silent: set[int] = set()
        """Partitions of which nothing comes, though there may be more."""
        self.known = 1_000
        self.stable: int | None = None
        """The first offset of a transaction that somebody has open."""
        """Of each partition so many records can be read as yet, though it has more."""
        self.assignments = 0
        self._states: dict[Any, SimpleNamespace] = {}
        self._client = self._fetcher = SimpleNamespace(force_metadata_update=self.start)

    def __call__(self, **settings: Any) -> Topic:
        return self

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def partitions_for_topic(self, topic: str) -> set[int]:
        return set(range(len(self.partitions)))

    def assign(self, partitions: Iterable[Any]) -> None:
        """As aiokafka: of what was assigned before nothing is known any more."""
        self.assignments += 1
        self._states = {tp: SimpleNamespace(position=-1, end=None, stamp=None) for tp in partitions}

    def seek(self, tp: Any, offset: int) -> None:
        self._states[tp].position = offset

    async def position(self, tp: Any) -> int:
        return int(self._states[tp].position)

    def highwater(self, tp: Any) -> int | None:
        return self._states[tp].end  # type: ignore[no-any-return]

    def last_stable_offset(self, tp: Any) -> int | None:
        end = self.highwater(tp)
        return end if end is None or self.stable is None else min(end, self.stable)

    def last_poll_timestamp(self, tp: Any) -> int | None:
        return self._states[tp].stamp  # type: ignore[no-any-return]

    async def getmany(self, *, timeout_ms: int) -> dict[Any, list[Any]]:
        await asyncio.sleep(0.001)
        fetched = {}
        for tp, state in self._states.items():
            if tp.partition in self.silent:
                continue
            log = self.partitions[tp.partition]
            end = min(len(log), self.known, len(log) if self.stable is None else self.stable)
            fetched[tp] = [
                SimpleNamespace(key=self.key, value=log[offset], offset=offset) for offset in range(state.position, end)
            ]
            state.position, state.end = end, len(log)
            state.stamp = time.monotonic_ns()
        return fetched


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(10.0):
        while not done():  # noqa: ASYNC110 - steps of the loop are what is waited for
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("failure", [KafkaConnectionError("away"), ValueError("of ann@example.org")])
async def test_a_reader_that_fails_begins_anew_and_quotes_no_record(
    failure: Exception, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(broadcast, "_RETRY_S", 0.001)
    reader = Reader(failure)
    await reader.start(5.0)
    await reader.stop()
    assert reader.failures == []
    assert "ann@example.org" not in capsys.readouterr().out


async def test_a_partition_that_is_added_is_read_from_its_beginning_and_the_others_once() -> None:
    topic, seen = Topic([b"a", b"b"], [b"c"]), list[bytes | None]()
    reader = BroadcastReader({}, "events", lambda key, value, offset: seen.append(value), connect=topic)
    await reader.start(5.0)
    topic.partitions.append([b"d", b"e"])
    topic.partitions[1].append(b"f")
    await until(lambda: len(seen) >= 6)
    topic.partitions[2].append(b"g")
    await until(lambda: len(seen) >= 7)
    await reader.stop()
    assert sorted(value or b"" for value in seen) == [b"a", b"b", b"c", b"d", b"e", b"f", b"g"]
    assert topic.assignments == 2, "not again for partitions that are known"


@pytest.mark.parametrize("silent", [{0, 1}, {1}])
async def test_a_reader_whose_broker_is_away_does_not_say_that_it_has_read_everything(silent: set[int]) -> None:
    topic = Topic([b"a"], [])
    reader = BroadcastReader({}, "events", lambda key, value, offset: None, connect=topic)
    await reader.start(5.0)
    begun = reader.as_of
    await until(lambda: reader.as_of > begun)
    topic.silent = silent
    await asyncio.sleep(0.01)  # what was under way
    left = reader.as_of
    await asyncio.sleep(0.05)
    assert reader.as_of == left
    topic.silent = set()
    await until(lambda: reader.as_of > left)
    await reader.stop()


async def test_a_reader_does_not_say_that_it_has_seen_what_an_open_transaction_holds_back() -> None:
    topic = Topic([b"a"])
    reader = BroadcastReader({}, "events", lambda key, value, offset: None, connect=topic)
    await reader.start(5.0)
    await until(lambda: reader.seen_to > 0)
    topic.partitions[0] += [b"of the transaction", b"behind it"]
    topic.stable = 1
    begun = time.monotonic()
    await until(lambda: reader.as_of > begun + 0.05)
    assert reader.seen_to < begun + 0.02, "as it was before, whatever is read to where it can be"
    topic.stable = None
    await until(lambda: reader.seen_to > begun + 0.05)
    await reader.stop()


def test_who_writes_without_a_pause_does_not_keep_a_reader_from_having_seen_what_was_before() -> None:
    written = broadcast._Written()
    for now in range(10):
        written.look(position=10 * now, highwater=10 * now + 5, now=float(now))
    assert written.seen_to == 8.0, "the end that was told then is passed"
