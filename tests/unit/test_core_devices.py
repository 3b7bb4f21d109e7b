"""Where a user can be reached: what is kept, how much of it, and when it is forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.campaign import Trigger
from app.core.devices import DEVICES_MAX, KEY_CHARS_MAX, TOKEN_CHARS_MAX
from app.core.profile import decode_profile, encode_profile
from schemas.decisions import token_id
from schemas.events import DEVICE_TOKEN_REMOVED
from tests.support.plans import campaign, make_plan
from tests.support.streams import START, Stream, track

SUBSCRIPTION = {"endpoint": "https://push.example/abc", "keys": {"p256dh": "B" * 87, "auth": "a" * 22}}


def seen(at_ms: int, token: Any = None, kind: str = "ios", **device: Any) -> dict[str, Any]:
    found = {"type": kind} | device | ({} if token is None else {"token": token})
    return track("Seen", at_ms, context={"device": found})


@pytest.fixture
def stream() -> Stream:
    return Stream(make_plan(campaigns=[campaign("a", Trigger("event", "Go"))])).at(1000)


def decided(stream: Stream, at_ms: int) -> list[dict[str, Any]]:
    """The addresses that a decision made at `at_ms` carries."""
    stream.send(track("Go", at_ms))
    decision = stream.sends[-1]
    return [token for token in (decision.token, *decision.more_tokens) if token]


def test_a_decision_carries_the_addresses_of_all_devices_the_last_used_first(stream: Stream) -> None:
    stream.send(seen(START, "phone"), seen(START + 1, "tablet", "android"), seen(START + 2, "phone"))
    assert decided(stream, START + 3) == [
        {"token": "phone", "type": "ios"},
        {"token": "tablet", "type": "android"},
    ]


def test_a_browser_is_reached_by_its_subscription(stream: Stream) -> None:
    stream.send(seen(START, kind="", subscription=SUBSCRIPTION))
    assert decided(stream, START + 1) == [
        {"token": SUBSCRIPTION["endpoint"], "type": "web", "p256dh": "B" * 87, "auth": "a" * 22}
    ]


def test_a_user_without_an_address_is_decided_for_without_one(stream: Stream) -> None:
    assert decided(stream, START) == []


@pytest.mark.parametrize(
    "device",
    [
        {"token": 5},
        {"token": ""},
        {"token": "x" * (TOKEN_CHARS_MAX + 1)},
        {"subscription": "https://push.example"},
        {"subscription": {"endpoint": "https://push.example"}},
        {"subscription": {"endpoint": "https://push.example", "keys": {"p256dh": "B"}}},
        {"subscription": {"endpoint": "https://push.example", "keys": {"p256dh": "B", "auth": 7}}},
        {
            "subscription": {
                "endpoint": "https://push.example",
                "keys": {"p256dh": "B" * (KEY_CHARS_MAX + 1), "auth": "a"},
            }
        },
        {"subscription": {"endpoint": 5, "keys": {"p256dh": "B", "auth": "a"}}},
    ],
)
def test_an_address_that_cannot_be_one_is_not_kept(stream: Stream, device: dict[str, Any]) -> None:
    effects = stream.send(seen(START, **device))
    assert effects.counts["events", "applied"] == 1
    assert stream.row.devices == {}


def test_the_devices_used_longest_ago_are_forgotten_first(stream: Stream) -> None:
    stream.send(*[seen(START + n, f"t{n}") for n in range(DEVICES_MAX)])
    stream.send(seen(START + 50, "t0"), seen(START + 51, "new"))
    assert list(stream.row.devices) == ["t2", "t3", "t4", "t0", "new"]


def test_an_event_older_than_the_newest_registers_nothing(stream: Stream) -> None:
    stream.send(seen(START, "new"), seen(START - 1, "old"))
    assert list(stream.row.devices) == ["new"]


@pytest.mark.parametrize("properties", [{"tokenId": token_id("gone")}, {"token": "gone"}])
def test_a_removed_token_is_not_used_again(stream: Stream, properties: dict[str, str]) -> None:
    stream.send(seen(START, "kept"), seen(START + 1, "gone"))
    stream.send(track(DEVICE_TOKEN_REMOVED, START + 2, **properties))
    assert [token["token"] for token in decided(stream, START + 3)] == ["kept"]


def test_a_device_that_was_seen_after_the_removal_is_kept(stream: Stream) -> None:
    stream.send(seen(START, "gone"), seen(START + 5, "gone"))
    stream.send(track(DEVICE_TOKEN_REMOVED, START + 2, tokenId=token_id("gone")))
    assert list(stream.row.devices) == ["gone"]
    stream.send(track(DEVICE_TOKEN_REMOVED, START + 5, tokenId=token_id("gone")))
    assert stream.row.devices == {}


@pytest.mark.parametrize("properties", [{}, {"tokenId": None}, {"tokenId": 7}, {"tokenId": ["a"]}])
def test_a_removal_that_names_no_token_removes_none(stream: Stream, properties: dict[str, Any]) -> None:
    stream.send(seen(START, "kept"), track(DEVICE_TOKEN_REMOVED, START + 1, **properties))
    assert list(stream.row.devices) == ["kept"]


def test_a_removal_is_not_the_users_own_activity(stream: Stream) -> None:
    stream.send(seen(START, "gone"), track(DEVICE_TOKEN_REMOVED, START + 1, tokenId="x"))
    assert stream.row.seen_ms == START


def test_a_row_that_knew_one_token_only_stays_readable(stream: Stream) -> None:
    stream.send(seen(START))
    row = stream.row
    row.devices = {"token": "old", "type": "ios"}
    assert decode_profile(encode_profile(row)).devices == {"token": "old", "type": "ios"}
    stream.send(seen(START + 1, "new"))
    assert [token["token"] for token in decided(stream, START + 2)] == ["new"]
