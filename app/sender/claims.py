"""Claims: within this process, one batch at a time works on a decision id.

Batches overlap in flight, so the same id can stand in two of them, as a duplicate or because its partition was taken
away and given back. To the second one the first one's reservation would look like that of a sender that died.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager


class Claims:
    """Ids that some batch works on. All of a batch's ids are claimed at once, so that no two batches wait in a ring."""

    def __init__(self) -> None:
        self._released: dict[bytes, asyncio.Future[None]] = {}

    @asynccontextmanager
    async def hold(self, keys: Sequence[bytes]) -> AsyncIterator[None]:
        """Wait until nobody holds any of `keys`, then hold them all."""
        while busy := {self._released[key] for key in keys if key in self._released}:
            await asyncio.wait(busy)
        released: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._released.update(dict.fromkeys(keys, released))
        try:
            yield
        finally:
            for key in keys:
                del self._released[key]
            released.set_result(None)

    def __len__(self) -> int:
        return len(self._released)
