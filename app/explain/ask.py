"""Asking workers for a user: each is asked until one has the row."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import aiohttp
import msgspec

from app.admin import USER_PATH

TIMEOUT_S: Final = 10.0


class Asked(msgspec.Struct):
    """The answer of the worker that has the user's row, as plain JSON; or, by worker, why there is none."""

    answer: dict[str, Any] | None = None
    problems: dict[str, str] = {}


async def ask_workers(urls: Sequence[str], token: str, user: str, *, row: bool = False) -> Asked:
    """Ask all workers at once. A worker that has no row of the user is no problem of its own."""
    if not token:
        return Asked(problems=dict.fromkeys(urls, "NUDGE_ADMIN_TOKEN is not set"))
    asked = Asked()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session:
        answers = await asyncio.gather(*(_ask(session, url, token, user, row) for url in urls))
        for url, found in zip(urls, answers, strict=True):
            if isinstance(found, str):
                asked.problems[url] = found
            elif found is not None:
                asked.answer = found
    return asked


async def _ask(
    session: aiohttp.ClientSession, url: str, token: str, user: str, row: bool
) -> dict[str, Any] | str | None:
    try:
        async with session.post(
            url + USER_PATH, json={"user": user, "row": row}, headers={"Authorization": f"Bearer {token}"}
        ) as response:
            if response.status == 404:
                return None
            body = msgspec.json.decode(await response.read())
    except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError) as exc:
        return f"does not answer ({type(exc).__name__})"
    if not isinstance(body, dict):
        return "does not answer as a worker does"
    if response.status != 200:
        return str(body.get("error", response.status))
    return body
