"""Admin calls: a token, a small body, and no user id in the log."""

from __future__ import annotations

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from structlog.testing import capture_logs

from app.admin import Admin, Question, bearer_is
from app.settings import ConfigurationError, load_settings

TOKEN = "0123456789abcdef"


async def answer(question: Question) -> bytes | None:
    return msgspec.json.encode({"user": question.user}) if question.user == "ann" else None


async def call(body: bytes, header: str = f"Bearer {TOKEN}", token: str = TOKEN) -> int:
    app = web.Application()
    app.router.add_routes(Admin(token, answer).routes())
    async with TestClient(TestServer(app)) as client:
        response = await client.post("/admin/user", data=body, headers={"Authorization": header} if header else {})
        return response.status


ANN = b'{"user": "ann"}'


async def test_the_right_token_is_answered() -> None:
    assert await call(ANN) == 200


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer ü"])
async def test_any_other_token_is_refused(header: str) -> None:
    assert await call(ANN, header) == 401


def test_bytes_that_are_no_text_are_a_wrong_token() -> None:
    assert not bearer_is(TOKEN, b"Bearer \xff\xfe".decode(errors="surrogateescape"))  # as aiohttp reads a header


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer "])
async def test_without_a_token_on_the_worker_nobody_is_admitted(header: str) -> None:
    assert await call(ANN, header, token="") == 403


@pytest.mark.parametrize(
    ("body", "status"),
    [(b'{"user": "bob"}', 404), (b"{", 400), (b'{"user": 1}', 400), (b'{"user": "ann", "x": 1}', 400), (b"", 400)],
)
async def test_what_cannot_be_answered_says_so(body: bytes, status: int) -> None:
    assert await call(body) == status


async def test_a_large_body_is_refused() -> None:
    assert await call(b'{"user": "' + b"a" * 5000 + b'"}') == 413


async def test_the_log_tells_of_the_call_and_not_of_the_user() -> None:
    with capture_logs() as logs:
        await call(b'{"user": "ann"}')
    (line,) = [entry for entry in logs if entry["event"] == "admin_call"]
    assert line["status"] == 200
    assert "ann" not in str({key: value for key, value in line.items() if key != "caller"})


@pytest.mark.parametrize(
    ("name", "value"),
    [("admin_token", "short"), ("console_token", "short"), ("console_host", "0.0.0.0"), ("worker_urls", "6066")],
)
def test_unsafe_settings_name_their_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"NUDGE_{name.upper()}"):
        load_settings(secret="x" * 32, **{name: value})
