"""Offsets that a fetch left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from faust.types import TP


class GapCheck:
    """Finds offsets that a fetch left out, and tells a gap in the log from one in the fetch: it is there twice.

    Apache Kafka leaves gaps only where compaction or transactions made them, so this is for the embedded broker, whose
    fetch may pass over a batch that is being written. Pure.
    """

    def __init__(self) -> None:
        self._expected: dict[TP, int] = {}
        self._looked_at: dict[TP, int] = {}

    def start(self, offsets: Mapping[TP, int]) -> None:
        """Reading starts anew, at these offsets."""
        self._expected = dict(offsets)
        self._looked_at = {}

    def check(self, tp: TP, records: list[Any]) -> tuple[list[Any], int | None]:
        """The records that may be delivered, and the offset to go back to when something is missing after them."""
        if not records:
            return records, None
        expected = self._expected.get(tp, records[0].offset)
        if records[-1].offset - expected + 1 != len(records):
            for index, record in enumerate(records):
                if record.offset != expected and self._looked_at.get(tp, -1) < expected:
                    self._looked_at[tp] = self._expected[tp] = expected
                    return records[:index], expected
                expected = record.offset + 1
        self._expected[tp] = records[-1].offset + 1
        return records, None
