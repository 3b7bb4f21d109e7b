"""How much of its time a background job may take."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Final, Self

_REST_S_MIN: Final = 0.002


class Pace:
    """Work inside `with`, then `await rest()`: the job works for at most `share` of the time.

    Small pieces of work keep the event loop free for what is urgent; the share keeps the processor free for it.
    """

    def __init__(self, share: float) -> None:
        assert 0 < share <= 1
        self._rest_factor = 1.0 / share - 1.0
        self._worked_s = 0.0
        self._began = 0.0

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._worked_s += time.perf_counter() - self._began

    async def rest(self) -> None:
        """Rest for what was worked since the last rest; sleeps of less than 2 ms are saved up, but the loop gets its
        turn.
        """
        rest_s = self._worked_s * self._rest_factor
        if rest_s < _REST_S_MIN:
            await asyncio.sleep(0)
            return
        self._worked_s = 0.0
        await asyncio.sleep(rest_s)
