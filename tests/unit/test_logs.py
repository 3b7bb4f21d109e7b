from __future__ import annotations

import logging

import pytest

from app.logs import Repeats


class Reader:
    """What of a log's lines is written, by a clock of its own."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._filter = Repeats(every_s=10.0, monotonic_s=lambda: self.now_s)

    def read(self, template: str, *values: object, name: str = "aiokafka.consumer.fetcher") -> str | None:
        record = logging.LogRecord(name, logging.ERROR, "", 0, template, values, None)
        return record.getMessage() if self._filter.filter(record) else None


@pytest.fixture
def reader() -> Reader:
    return Reader()


def test_what_a_library_says_again_and_again_is_written_once_in_ten_seconds_and_counted(reader: Reader) -> None:
    assert reader.read("node %s is away", 1) == "node 1 is away"
    assert [reader.read("node %s is away", number) for number in range(5)] == [None] * 5
    reader.now_s = 10.0
    assert reader.read("node %s is away", 2) == "node 2 is away (5 more like this)"
    reader.now_s = 30.0
    assert reader.read("node %s is away", 2) == "node 2 is away"


def test_another_sentence_and_another_part_of_the_library_are_written(reader: Reader) -> None:
    reader.read("node %s is away", 1)
    assert reader.read("group %s is lost", 1)
    assert reader.read("node %s is away", 1, name="aiokafka.producer.sender")


def test_our_own_lines_are_all_written(reader: Reader) -> None:
    assert [reader.read("store_damaged", name="app.stream.store") for _ in range(2)] == ["store_damaged"] * 2


def test_sentences_that_never_repeat_take_no_memory_for_ever(reader: Reader) -> None:
    for number in range(2_000):
        assert reader.read(f"offset {number}")
    assert len(reader._filter._said) <= 256
