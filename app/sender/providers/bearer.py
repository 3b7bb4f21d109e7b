"""Tokens that a provider wants with every request: made when needed, kept while good, made once for all who wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


class Bearer:
    """One token, renewed before it ends or when the provider refuses it.

    Parameters
    ----------
    make
        Gives a token and for how long (seconds) it may be used. What it raises, `value` and `renewed` raise.
    age_s_min
        A token younger than this is not made anew, however often it is refused: another one would not help.
    """

    def __init__(
        self,
        make: Callable[[], Awaitable[tuple[str, float]]],
        *,
        age_s_min: float = 0.0,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._age_s_min = age_s_min
        self._monotonic_s = monotonic_s
        self._making = asyncio.Lock()
        self._value = ""
        self._made_s = float("-inf")
        self._ends_s = float("-inf")

    async def value(self) -> str:
        """A token to use now."""
        if self._monotonic_s() >= self._ends_s:
            async with self._making:
                if self._monotonic_s() >= self._ends_s:
                    await self._renew()
        return self._value

    async def renewed(self, refused: str) -> str:
        """Another token than `refused`; the same where it is too young to be the cause."""
        async with self._making:
            if self._value == refused and self._monotonic_s() - self._made_s >= self._age_s_min:
                await self._renew()
        return self._value

    async def _renew(self) -> None:
        began_s = self._monotonic_s()
        self._value, lasts_s = await self._make()
        self._made_s, self._ends_s = began_s, began_s + lasts_s
