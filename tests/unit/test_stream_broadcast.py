"""A topic that every worker reads whole: whatever goes wrong, somebody goes on reading it."""

from __future__ import annotations

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
