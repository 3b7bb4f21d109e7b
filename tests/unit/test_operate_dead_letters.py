"""Which dead letters are meant, which may be replayed, and how much of them is kept."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.operate.dead_letters import CONTENTS_BYTES_MAX, REPLAYED, Erased, Filter, Letters, refusal
from schemas.dead_letters import DeadLetter, dead_letter_headers
from schemas.erasures import LEDGER, PROFILE, ErasureReceipt, Subjects, encode_receipt

SUBJECTS = Subjects(b"a secret of the tests")


class Record(msgspec.Struct):
    offset: int
    headers: list[tuple[str, bytes]]
    key: bytes | None = b"u1"
    value: bytes | None = b"value"
    partition: int = 0


def letter(offset: int, reason: str = "key_mismatch", topic: str = "events", of: int = 100, **fields: Any) -> Record:
    found = DeadLetter(topic=topic, partition=3, offset=of, reason=reason, detail="", at_ms=fields.pop("at_ms", 5_000))
    return Record(offset, dead_letter_headers(found, fields.get("value", b"value")), **fields)


def read(*records: Record, meant: Filter = Filter(), contents: bool = True, limit: int = 10) -> Letters:  # noqa: B008
    letters = Letters(meant, contents=contents, limit=limit)
    for record in records:
        letters.add(record)
    return letters


def nobody() -> Erased:
    return Erased(SUBJECTS)


def mark(place: str) -> Record:
    return letter(99, REPLAYED, at_ms=9_000, value=place.encode())


@pytest.mark.parametrize(
    ("meant", "expected"),
    [
        (Filter(), ["0-1", "0-2", "0-3"]),
        (Filter(places=["0-2"]), ["0-2"]),
        (Filter(reasons=["empty"]), ["0-2"]),
        (Filter(topics=["decisions"]), ["0-3"]),
        (Filter(since_ms=5_000), ["0-1", "0-2"]),
        (Filter(reasons=["empty"], topics=["decisions"]), []),
    ],
)
def test_all_conditions_must_be_met(meant: Filter, expected: list[str]) -> None:
    letters = read(letter(1), letter(2, "empty"), letter(3, topic="decisions", at_ms=4_999), meant=meant)
    assert [found.place for found in letters.kept] == expected
    assert letters.tally.total() == len(expected)


def test_a_list_keeps_the_newest_and_no_contents_and_counts_all() -> None:
    letters = read(*(letter(n) for n in range(50)), contents=False, limit=3)
    assert [found.place for found in letters.kept] == ["0-47", "0-48", "0-49"]
    assert {(found.key, found.value) for found in letters.kept} == {(None, None)}
    assert letters.tally == {("events", "key_mismatch"): 50}


def test_contents_are_kept_oldest_first_and_bounded_in_bytes() -> None:
    big = bytes(CONTENTS_BYTES_MAX)
    letters = read(letter(0, value=big[:10]), letter(1, value=big), letter(2))
    assert [found.place for found in letters.kept] == ["0-0", "0-1"]
    assert letters.left_out == 1


def test_a_letter_is_replayed_once_unless_somebody_insists() -> None:
    letters = read(letter(1), letter(2), mark("0-1"))
    first, second = letters.kept
    assert "before" in refusal(first, letters, nobody(), again=False)
    assert refusal(first, letters, nobody(), again=True) == ""
    assert refusal(second, letters, nobody(), again=False) == ""
    assert letters.tally.total() == 2, "a mark is no letter"


def test_what_was_cut_or_came_from_elsewhere_is_not_given_back() -> None:
    letters = read(letter(1, value=b"x" * 300_000), letter(2, topic="outcomes"))
    assert all(refusal(found, letters, nobody(), again=True) for found in letters.kept)


@pytest.mark.parametrize(
    ("topic", "part", "of", "barred"),
    [
        ("events", PROFILE, 99, True),
        ("events", PROFILE, 101, False),
        ("events", LEDGER, 99, False),
        ("decisions", LEDGER, 99, True),
    ],
)
def test_what_an_erased_user_had_before_is_not_given_back(topic: str, part: str, of: int, barred: bool) -> None:
    subject = SUBJECTS.of(b"u1").hex()
    receipt = ErasureReceipt(subject=subject, request="r", part=part, at_ms=1, partition=3, offset=100, erased={})
    erased = nobody()
    erased.add(encode_receipt(receipt))
    erased.add(b"{ not a receipt")
    letters = read(letter(1, topic=topic, of=of), letter(2, topic=topic, of=of, key=b"u2"))
    assert [bool(refusal(found, letters, erased, again=False)) for found in letters.kept] == [barred, False]


def test_a_record_that_is_no_dead_letter_is_counted() -> None:
    assert read(Record(0, []), Record(1, [("nudge_partition", b"x")])).unreadable == 2
