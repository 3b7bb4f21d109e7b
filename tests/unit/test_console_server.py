"""The console: what it counts, what it shows, and whom it answers."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import aiohttp
import msgspec
import pytest

from app.console.board import Board
from app.console.feed import TopicFeed
from app.console.scrape import Scraped
from app.console.server import ASSETS, HEADERS
from app.console.tally import NAMES_MAX, Tally
from app.learning.book import Pin, pin_record
from app.learning.served_personas import Known, Served, ServedState
from schemas.models import ModelSnapshot, encode_snapshot
from schemas.policies import PolicyVersion, encode_policy_version, head_key, history_key
from tests.support.console import USER, console, decided, matured, moved, published
from tests.support.site import eventually

TOKEN = "0123456789abcdef"


def tally() -> Tally:
    return Tally(b"nudge-development-secret")


async def state(url: str) -> dict[str, Any]:
    """The state, once there is one."""
    found: dict[str, Any] = {}

    async def there() -> bool:
        nonlocal found
        async with aiohttp.ClientSession() as session, session.get(url + "api/state") as response:
            found = await response.json()
        return bool(found)

    await eventually(there, "the console has a state", 10)
    return found


# -- counting


def test_decisions_are_counted_by_reason_and_version() -> None:
    found = tally()
    for number in range(5):
        found.decision(decided(number, variant="a"), 1_000)
    found.decision(decided(9, "suppress", "consent"), 2_000)
    assert (found.sends, found.reasons) == (5, {"consent": 1})
    assert found.by_second == {1: [5, 0], 2: [0, 1]}
    assert [(one["version"], one["decisions"]) for one in found.policies({})] == [("shop+1", 6)]


def test_a_variant_has_the_opens_of_what_matured() -> None:
    found = tally()
    for number in range(4):
        found.decision(decided(number, variant="a"), 0)
    for number, label in enumerate([1, 0, 1]):
        found.outcome(matured(number, label, variant="a"))
    ((arm,),) = [one["variants"] for one in found.experiments()]
    assert (arm["decided"], arm["matured"], arm["opened"]) == (4, 3, 2)
    assert arm["low"] < arm["rate"] < arm["high"]


def test_a_snapshot_that_is_not_signed_with_our_key_is_not_shown() -> None:
    found = tally()
    found.snapshot(published(1, secret="somebody else's", auc=0.9))
    assert (found.models(), found.unsigned) == ([], 1)
    found.snapshot(published(2, auc=0.7))
    assert [(one["version"], one["metrics"]["auc"]) for one in found.models()] == [(2, 0.7)]


def test_what_stands_beside_a_model_is_no_model_of_its_own() -> None:
    found = tally()
    found.snapshot(published(7, auc=0.6))
    found.snapshot(published(5, auc=0.5, name="open.kept0"))
    pin = pin_record("open", 5, Pin("operator"), 0)
    found.snapshot(encode_snapshot(pin, b"nudge-development-secret"))
    (shown,) = found.models()
    assert (shown["name"], shown["version"], shown["kept"]) == ("open", 7, 1)
    assert shown["pinned"] == {"version": 5, "by": "operator"}
    served = found.snapshot_of("open")
    assert served is not None
    assert served.version == 5


def test_personas_are_shown_by_name_those_of_most_users_first() -> None:
    found = tally()
    assert found.personas() == []
    known = [Known(1, "night owls", 0, [], [], share=0.3), Known(2, "early birds", 0, [], [], share=0.7)]
    made = ModelSnapshot(
        model="open.personas", version=3, partition=0, next_offset=1, created_ms=0,
        state=msgspec.json.encode(ServedState(Served(personas=known))), metrics={},
    )  # fmt: skip
    found.snapshot(encode_snapshot(made, b"nudge-development-secret"))
    assert found.personas() == [{"name": "early birds", "share": 0.7}, {"name": "night owls", "share": 0.3}]
    assert found.models() == [], "they are no model of their own"


def test_the_policy_in_force_comes_first_and_a_version_of_another_key_is_not_shown() -> None:
    found = tally()
    for serial, version in enumerate(["a+1", "b+2", "a+1"], 1):
        made = PolicyVersion(
            policy="shop", serial=serial, version=version, text="", author="ann", at_ms=serial, restores=serial // 3
        )
        for key in (history_key("shop", serial), head_key("shop")):
            found.applied(key, encode_policy_version(made, b"nudge-development-secret"))
    found.applied(b"shop", encode_policy_version(made, b"another"))
    shown = found.policies({"b+2": 3})
    assert [(one["version"], one["in_force"], one["running"]) for one in shown] == [("a+1", True, 0), ("b+2", False, 3)]
    assert (shown[0]["applied"]["serial"], shown[0]["applied"]["restores"], found.unsigned) == (3, 1, 1)


def test_what_is_kept_is_bounded() -> None:
    found = tally()
    for number in range(3 * NAMES_MAX):
        found.decision(decided(number, campaign=f"c{number}", variant=f"v{number}"), number * 1000)
        found.membership(moved(f"s{number}", "enter"))
    assert len(found.by_second) <= 400
    assert len(found.entered) == NAMES_MAX
    assert len(found._arms) == NAMES_MAX


# -- showing


async def test_the_state_holds_figures_of_topics_and_processes_and_no_user() -> None:
    async with console() as (server, metrics):
        server.tally.decision(decided(1, variant="a", open_probability=0.25), time.time_ns() // 1_000_000)
        server.tally.membership(moved("families", "enter"))
        server.tally.outcome(matured(1, 1, variant="a"))
        metrics.events.labels("events", "applied").inc(10)
        metrics.segment_members.labels("families").set(7)
        metrics.event_to_decision.observe(0.02)
        found: dict[str, Any] = {}

        async def shown() -> bool:
            nonlocal found
            found = await state(server.url)
            return bool(found["segments"] and found["totals"]["p50_ms"])

        await eventually(shown, "the console has asked the process", 10)
    assert found["totals"]["events"] == 10
    assert (found["totals"]["sends"], found["totals"]["opened"]) == (1, 1)
    assert found["segments"][0] | {"series": []} == {
        "name": "families", "members": 7, "series": [], "entered": 1, "left": 0,
    }  # fmt: skip
    assert found["processes"][0]["ready"]
    assert [(one["version"], one["decisions"], one["running"]) for one in found["policies"]] == [("shop+1", 1, 1)]
    assert found["recent"][0]["open_probability"] == 0.25
    assert USER not in str(found)


async def test_the_stream_tells_the_state_again_and_again() -> None:
    async with (
        console() as (server, _),
        aiohttp.ClientSession() as session,
        session.get(server.url + "api/stream") as response,
    ):
        assert response.content_type == "text/event-stream"
        for _ in range(3):
            line = await asyncio.wait_for(response.content.readline(), 10)
            assert line.startswith(b"data: {")
            assert await response.content.readline() == b"\n"


async def test_a_process_that_is_away_is_named() -> None:
    async with console(worker_urls="http://127.0.0.1:9") as (server, _):
        found = await state(server.url)
    assert "does not answer" in found["processes"][0]["problem"]
    assert found["totals"]["events_per_s"] is None


def reading(url: str, events: float) -> Scraped:
    return Scraped(url, "", True, {"nudge_events_total": [({"topic": "events", "outcome": "applied"}, events)]})


def test_a_process_that_comes_back_is_no_burst_of_events() -> None:
    found = tally()
    board = Board(found, TopicFeed({}, found))
    away = Scraped("http://a", "does not answer")
    for second in range(3):
        board.tick([reading("http://a", 1e6 + 10 * second), reading("http://b", 5.0 * second)], float(second))
    board.tick([away, reading("http://b", 15.0)], 3.0)
    board.tick([reading("http://a", 1e6 + 40), reading("http://b", 20.0)], 4.0)
    assert board.state()["series"]["events"] == [None, 15.0, 15.0, 5.0, 15.0]


# -- answering


@pytest.mark.parametrize("path", ["", "assets/console.js", "api/state", "livez", "nowhere", "assets/../server.py"])
async def test_every_answer_carries_the_security_headers(path: str) -> None:
    async with (
        console() as (server, _),
        aiohttp.ClientSession() as session,
        session.get(server.url + path) as response,
    ):
        assert {name: response.headers[name] for name in HEADERS} == HEADERS
        assert response.status == (404 if path in ("nowhere", "assets/../server.py") else 200)


def test_the_policy_allows_nothing_from_elsewhere_and_nothing_inline() -> None:
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "*" not in policy


def test_the_page_needs_nothing_from_elsewhere_and_nothing_inline() -> None:
    from importlib import resources

    for name in ASSETS:
        text = resources.files("app.console").joinpath("assets", name).read_text()
        assert not re.findall(r"(?:src|href|url|from|import)\s*[=(]?\s*[\"']?(?:https?:)?//", text), name
        assert not re.findall(r"\son\w+=|style=|<script>|<style|innerHTML|eval\(", text), name


@pytest.mark.parametrize("host", ["evil.example", "evil.example:6080", "127.0.0.1.evil.example", ""])
async def test_a_page_of_another_name_is_not_answered(host: str) -> None:
    async with (
        console() as (server, _),
        aiohttp.ClientSession() as session,
        session.get(server.url + "api/state", headers={"Host": host}) as response,
    ):
        assert response.status == 403


@pytest.mark.parametrize(
    ("token", "given", "status"), [("", "", 200), (TOKEN, "", 401), (TOKEN, "wrong", 401), (TOKEN, TOKEN, 200)]
)
async def test_a_user_is_looked_up_with_the_token_where_one_is_set(token: str, given: str, status: int) -> None:
    headers = {"Authorization": f"Bearer {given}"} if given else {}
    async with (
        console(console_token=token) as (server, _),
        aiohttp.ClientSession() as session,
        session.post(server.url + "api/user", json={"user": USER}, headers=headers) as response,
    ):
        assert response.status == status
        found = await response.json()
        if status == 200:  # there is neither a row nor a broker: it says so
            assert not found["found"]
            assert any("topics cannot be read" in problem for problem in found["problems"])


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b'{"user": "u"}', "text/plain", 415),
        (b'{"user": ""}', "application/json", 400),
        (b"{", "application/json", 400),
        (b'{"user": "' + b"u" * 9000 + b'"}', "application/json", 413),
    ],
)
async def test_a_question_that_is_none_is_refused(body: bytes, kind: str, status: int) -> None:
    async with (
        console() as (server, _),
        aiohttp.ClientSession() as session,
        session.post(server.url + "api/user", data=body, headers={"Content-Type": kind}) as response,
    ):
        assert response.status == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_nothing_can_be_changed(method: str) -> None:
    async with console() as (server, _), aiohttp.ClientSession() as session:
        for path in ("", "api/state", "api/stream", "assets/console.js"):
            async with session.request(method, server.url + path) as response:
                assert response.status == 405
