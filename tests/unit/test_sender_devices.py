"""Several devices, and tokens that are gone."""

from __future__ import annotations

from typing import Any

import pytest

from app.sender.delivery import Deliverer, DeliverySettings
from app.sender.providers.base import Accepted, Message, Outcome, Rejected, Retry, Unknown
from schemas.decisions import Decision, token_id
from schemas.events import DEVICE_TOKEN_REMOVED, NOTIFICATION_FAILED, NOTIFICATION_SENT
from tables.ledger import State
from tests.support.sender import SUBJECTS, FakeBatch, World, decision, record

PHONE, TABLET, BROWSER = ({"token": name, "type": kind} for name, kind in (("p", "ios"), ("t", "ios"), ("b", "web")))
GONE = Rejected("unregistered", gone=True)


class Devices:
    """A provider that answers by the device's token."""

    def __init__(self, name: str, answers: dict[str, list[Outcome]]) -> None:
        self.name = name
        self.answers = answers
        self.asked: list[str] = []

    async def send(self, message: Message) -> Outcome:
        token = message.token.get("token", "")
        self.asked.append(token)
        left = self.answers.get(token, [])
        return left.pop(0) if left else Accepted(f"{self.name}-{token}")

    async def close(self) -> None: ...


def reaching(*tokens: dict[str, Any], **changes: Any) -> Decision:
    return decision(token=tokens[0] if tokens else {}, more_tokens=list(tokens[1:]), **changes)


async def deliver(
    made: Decision, answers: dict[str, list[Outcome]], world: World | None = None
) -> tuple[World, dict[str, Devices]]:
    world = world or World()
    providers = {name: Devices(name, answers) for name in ("fcm", "apns", "webpush")}
    deliverer = Deliverer(
        table=world,
        produce=world.produce,
        providers=providers,
        default="fcm",
        clock=world.time,
        suppressed=world.suppressed,
        subjects=SUBJECTS,
        settings=DeliverySettings(),
        wall_s=world.time.wall_s,
        monotonic_s=world.time.wall_s,
        sleep=world.time.sleep,
    )
    batch = FakeBatch([record(0, made)])
    await deliverer.deliver(batch)
    assert batch.completed
    return world, providers


def told(world: World) -> list[tuple[str, str]]:
    return [(event.event, event.properties.get("tokenId", "")) for event in world.receipts()]


async def test_one_device_gets_the_message_the_last_used_one() -> None:
    world, providers = await deliver(reaching(PHONE, TABLET, BROWSER), {})
    assert [provider.asked for provider in providers.values()] == [[], ["p"], []]
    assert told(world) == [(NOTIFICATION_SENT, "")]


async def test_a_token_that_is_gone_is_told_and_the_next_device_gets_the_message() -> None:
    made = reaching(PHONE, BROWSER)
    world, providers = await deliver(made, {"p": [GONE]})
    assert (providers["apns"].asked, providers["webpush"].asked) == (["p"], ["b"])
    assert told(world) == [(DEVICE_TOKEN_REMOVED, token_id("p")), (NOTIFICATION_SENT, "")]
    removed = world.receipts()[0]
    assert removed.message_id == f"{made.id}:removed:{token_id('p')}"
    assert removed.properties == {"tokenId": token_id("p"), "provider": "apns", "reason": "unregistered"}
    assert '"p"' not in str(removed.properties), "the token itself goes nowhere"


async def test_a_device_that_refuses_for_another_reason_keeps_its_token() -> None:
    world, providers = await deliver(reaching(BROWSER, PHONE), {"b": [Rejected("payload_too_large")]})
    assert providers["apns"].asked == ["p"]
    assert told(world) == [(NOTIFICATION_SENT, "")]


async def test_when_every_device_refuses_the_last_ones_reason_is_told() -> None:
    made = reaching(PHONE, TABLET)
    world, _ = await deliver(made, {"p": [GONE], "t": [Rejected("http_400")]})
    assert told(world) == [(DEVICE_TOKEN_REMOVED, token_id("p")), (NOTIFICATION_FAILED, "")]
    assert (world.entry(made).state, world.entry(made).reason) == (State.FAILED, "http_400")
    assert world.entry(made).attempts == 2


async def test_a_lost_answer_of_a_promotional_message_never_leads_to_another_device() -> None:
    made = reaching(PHONE, TABLET)
    world, providers = await deliver(made, {"p": [Unknown("timeout")]})
    assert providers["apns"].asked == ["p"]
    assert world.entry(made).state is State.UNKNOWN


async def test_each_device_has_all_its_attempts() -> None:
    busy = [Retry("http_503")] * 4
    _, providers = await deliver(reaching(PHONE, TABLET), {"p": [*busy, GONE], "t": list(busy)})
    assert providers["apns"].asked == ["p"] * 5 + ["t"] * 5


async def test_a_user_without_a_device_is_left_to_the_default_provider() -> None:
    _, providers = await deliver(reaching(), {})
    assert providers["fcm"].asked == [""]


async def test_a_replay_tells_again_that_the_token_is_gone() -> None:
    made = reaching(PHONE)
    world, _ = await deliver(made, {"p": [GONE]})
    first = list(world.produced)
    world.produced.clear()
    _, providers = await deliver(made, {}, world)
    assert providers["apns"].asked == []
    assert world.produced == first


@pytest.mark.parametrize("transactional", [False, True])
async def test_the_core_forgets_what_the_sender_tells(transactional: bool) -> None:
    """The sender's event, folded by the processor: the token is in no later decision."""
    from app.core.campaign import Trigger
    from schemas.events import encode_event
    from tests.support.plans import campaign, make_plan
    from tests.support.streams import START, Stream, track

    stream = Stream(make_plan(campaigns=[campaign("a", Trigger("event", "Go"), transactional=transactional)])).at(1000)
    for n, token in enumerate((TABLET, PHONE)):
        stream.send(track("Seen", START + n, context={"device": token}))
    stream.send(track("Go", START + 2))
    world = World()
    world.time.now = START + 500
    await deliver(stream.sends[-1], {"p": [GONE]}, world)
    stream.send(*(encode_event(event) for event in world.receipts()), key=b"u1")
    stream.send(track("Go", START + 600))
    assert stream.sends[-1].token == {"token": "t", "type": "ios"}
    assert stream.sends[-1].more_tokens == []
