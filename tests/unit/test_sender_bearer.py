"""Tokens of ours: made once for all who wait, kept while good."""

from __future__ import annotations

import asyncio

import pytest

from app.sender.providers.bearer import Bearer


class Mint:
    def __init__(self, lasts_s: float = 100.0) -> None:
        self.made = 0
        self.lasts_s = lasts_s
        self.now_s = 0.0
        self.broken = False

    async def make(self) -> tuple[str, float]:
        await asyncio.sleep(0)
        if self.broken:
            raise OSError("no network")
        self.made += 1
        return f"t{self.made}", self.lasts_s

    def bearer(self, age_s_min: float = 0.0) -> Bearer:
        return Bearer(self.make, age_s_min=age_s_min, monotonic_s=lambda: self.now_s)


async def test_a_token_is_made_once_for_all_who_wait_and_kept_while_it_is_good() -> None:
    mint = Mint()
    bearer = mint.bearer()
    assert set(await asyncio.gather(*(bearer.value() for _ in range(10)))) == {"t1"}
    mint.now_s = 99.0
    assert await bearer.value() == "t1"
    mint.now_s = 100.0
    assert await bearer.value() == "t2"


async def test_a_refused_token_is_renewed_once_for_all_who_were_refused() -> None:
    mint = Mint()
    bearer = mint.bearer()
    await bearer.value()
    assert set(await asyncio.gather(*(bearer.renewed("t1") for _ in range(10)))) == {"t2"}


async def test_a_token_younger_than_allowed_is_not_made_anew() -> None:
    mint = Mint()
    bearer = mint.bearer(age_s_min=20.0)
    await bearer.value()
    mint.now_s = 19.0
    assert await bearer.renewed("t1") == "t1"
    mint.now_s = 20.0
    assert await bearer.renewed("t1") == "t2"


async def test_a_failure_to_make_one_is_told_and_the_next_try_may_succeed() -> None:
    mint = Mint()
    mint.broken = True
    bearer = mint.bearer()
    with pytest.raises(OSError, match="no network"):
        await bearer.value()
    mint.broken = False
    assert await bearer.value() == "t1"
