"""What runs beside the stream does not end unseen."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from app.stream import background
from app.stream.background import Background


class Failing(Background):
    task_name = "failing"

    def __init__(self) -> None:
        self.turns = 0

    async def _run(self) -> None:
        self.turns += 1
        if self.turns < 3:
            raise KeyError("ann@example.org")
        await asyncio.Event().wait()


async def test_a_task_that_fails_says_so_without_a_word_of_what_it_had_in_hand_and_begins_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "_RETRY_S", 0.001)
    failing = Failing()
    with capture_logs() as said:
        failing.start()
        async with asyncio.timeout(5.0):
            while failing.turns < 3:  # noqa: ASYNC110 - steps of the loop are what is waited for
                await asyncio.sleep(0.001)
        await failing.stop()
    assert [(entry["event"], entry["task"]) for entry in said] == [("background_failed", "failing")] * 2
    assert "ann@example.org" not in str(said)
