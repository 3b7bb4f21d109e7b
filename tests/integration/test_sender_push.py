"""The push providers against services of our own over real TLS and HTTP/2 on the loopback interface."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import jwt
import orjson
import pytest

from app.sender.providers.addresses import AddressRule
from app.sender.providers.apns import ApnsProvider, ApnsSettings
from app.sender.providers.base import Accepted, Message, Provider, Rejected, Retry, Unknown
from app.sender.providers.fcm import FcmProvider, FcmSettings
from app.sender.providers.http2 import Answer, Http2Client, Http2Settings
from app.sender.providers.webpush import WebPushProvider, WebPushSettings
from app.sender.throttle import ThrottleSettings
from schemas.decisions import token_id
from schemas.topics import EVENTS
from tables.ledger import State
from tests.support.push.fake import LOST, OK, RESET, Behaviour, fcm_error
from tests.support.push.goaway import closing_service
from tests.support.push.keys import KEY_ID, PROJECT, TEAM, TOPIC, Keys, make_keys
from tests.support.push.rfc8291 import Browser
from tests.support.push.serve import Served, serving
from tests.support.sender import FakeBatch, World, decision, record
from tests.support.site import Site, eventually

ID = "a6202de5-258d-50bf-92fa-487410811146"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOW_MS = 1_500_000_000_000
WALL_S = 1_700_000_000
APPLE_DEVICE = "0123456789abcdef" * 4

Make = Callable[..., Provider]
SERVICES = ["fcm", "apns", "webpush"]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
async def served(keys: Keys) -> AsyncIterator[Served]:
    async with serving(keys) as found:
        yield found


@pytest.fixture
async def make(served: Served) -> AsyncIterator[Make]:
    """Makes providers that talk to the fakes; closes them."""
    made: list[Provider] = []

    def build(service: str, *, http: Http2Settings | None = None, **changes: Any) -> Provider:
        keys, url = served.keys, served.url
        common = {"http": http or Http2Settings(ca_file=keys.ca), "token_age_s_min": 0.0, "now_ms": lambda: NOW_MS}
        if service == "fcm":
            fields = {"credentials": keys.account, "url": url, "token_url": f"{url}/token"}
            provider: Provider = FcmProvider(FcmSettings(**(fields | common | changes)))
        elif service == "apns":
            fields = {"key": keys.apns, "key_id": KEY_ID, "team_id": TEAM, "topic": TOPIC, "url": url}
            provider = ApnsProvider(ApnsSettings(**(fields | common | changes)))
        else:
            fields = {"key": keys.vapid, "subject": "mailto:push@shop.example", "addresses": AddressRule(loopback=True)}
            provider = WebPushProvider(WebPushSettings(**(fields | common | changes)))
        made.append(provider)
        return provider

    yield build
    for provider in made:
        await provider.close()


def message(served: Served, service: str, **changes: Any) -> Message:
    """A promotional message to a device of the service."""
    token = {
        "fcm": {"token": "fcm-token", "type": "android"},
        "apns": {"token": APPLE_DEVICE, "type": "ios"},
        "webpush": Browser(f"{served.url}/wpush/abc").token,
    }[service]
    fields: dict[str, Any] = {
        "id": ID,
        "user": "u1",
        "campaign": "c",
        "category": "news",
        "title": "Hi",
        "body": "There",
        "deep_link": "shop://cart",
        "data": {"cart": "7"},
        "token": token,
        "expires_ms": NOW_MS + 90_000,
        "traceparent": TRACE,
    }
    return Message(**(fields | changes))


# -- what is sent


async def test_fcm_gets_the_message_under_the_decisions_id(served: Served, make: Make) -> None:
    outcome = await make("fcm").send(message(served, "fcm"))
    assert outcome == Accepted(f"projects/{PROJECT}/messages/{ID}")
    [request] = served.fake.of("fcm")
    assert request.http_version == "2"
    assert request.headers["traceparent"] == TRACE
    sent = request.json["message"]
    assert sent["token"] == "fcm-token"
    assert sent["notification"] == {"title": "Hi", "body": "There"}
    assert sent["data"] == {"cart": "7", "decisionId": ID, "deepLink": "shop://cart"}
    assert sent["android"] == {
        "priority": "NORMAL",
        "collapse_key": ID,
        "notification": {"tag": ID},
        "ttl": "90s",
    }
    assert sent["apns"]["headers"]["apns-collapse-id"] == ID


async def test_apns_gets_the_message_under_the_decisions_id(served: Served, keys: Keys) -> None:
    settings = ApnsSettings(
        keys.apns, KEY_ID, TEAM, TOPIC, served.url, Http2Settings(ca_file=keys.ca), now_ms=lambda: NOW_MS
    )
    wall_s = time.time()
    provider = ApnsProvider(settings, wall_s=lambda: wall_s)
    outcome = await provider.send(message(served, "apns", transactional=True))
    await provider.close()
    assert outcome == Accepted(ID)
    [request] = served.fake.of("apns")
    assert (request.http_version, request.path) == ("2", f"/3/device/{APPLE_DEVICE}")
    assert {name: value for name, value in request.headers.items() if name.startswith("apns-")} == {
        "apns-id": ID,
        "apns-collapse-id": ID,
        "apns-topic": TOPIC,
        "apns-push-type": "alert",
        "apns-priority": "10",
        "apns-expiration": str(int(wall_s) + 90),
    }
    assert request.headers["traceparent"] == TRACE
    assert request.json == {
        "aps": {"alert": {"title": "Hi", "body": "There"}},
        "cart": "7",
        "decisionId": ID,
        "deepLink": "shop://cart",
    }


async def test_a_browser_can_decrypt_what_web_push_carries(served: Served, make: Make) -> None:
    browser = Browser(f"{served.url}/wpush/abc?x=1")
    provider = make("webpush")
    assert isinstance(provider, WebPushProvider)
    outcome = await provider.send(message(served, "webpush", token=browser.token))
    assert outcome == Accepted(f"/m/{ID.replace('-', '')}")
    [request] = served.fake.of("webpush")
    assert json.loads(browser.decrypt(request.body)) == {
        "id": ID,
        "title": "Hi",
        "body": "There",
        "deepLink": "shop://cart",
        "data": {"cart": "7"},
    }
    assert b"There" not in request.body
    assert {name: request.headers[name] for name in ("content-encoding", "ttl", "urgency", "topic", "traceparent")} == {
        "content-encoding": "aes128gcm",
        "ttl": "90",
        "urgency": "normal",
        "topic": ID.replace("-", ""),
        "traceparent": TRACE,
    }
    authorization = request.headers["authorization"]
    assert authorization.endswith(f"k={provider.public_key}")
    claims = jwt.decode(authorization.split("t=")[1].split(",")[0], options={"verify_signature": False})
    assert (claims["aud"], claims["sub"]) == (served.url, "mailto:push@shop.example")


async def test_the_browsers_side_reads_the_example_of_the_rfc() -> None:
    # RFC 8291, section 5 and appendix A.
    from cryptography.hazmat.primitives.asymmetric import ec

    from app.sender.providers.webpush import _unbase64url

    private = int.from_bytes(_unbase64url("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"))
    browser = Browser("", ec.derive_private_key(private, ec.SECP256R1()), _unbase64url("BTBZMqHH6r4Tts7J_aSIgg"))
    body = _unbase64url(
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27ml"
        "mlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPT"
        "pK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    )
    assert browser.decrypt(body) == b"When I grow up, I want to be a watermelon"


# -- what the services answer


@pytest.mark.parametrize("service", SERVICES)
async def test_many_messages_share_a_connection(served: Served, make: Make, service: str) -> None:
    provider = make(service)
    await provider.send(message(served, service))
    before = served.relay.connections
    outcomes = await asyncio.gather(*(provider.send(message(served, service)) for _ in range(50)))
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    assert served.relay.connections == before


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (Behaviour(400), Rejected("http_400")),
        (Behaviour(413), Rejected("payload_too_large")),
        (Behaviour(429, {"retry-after": "7"}), Retry("http_429", 7_000)),
        (Behaviour(503, {"retry-after": "7"}), Retry("http_503", 7_000)),
        (Behaviour(503), Retry("http_503")),
        (Behaviour(500), Unknown("http_500")),
        (RESET, Unknown("connection_lost")),
        (LOST, Unknown("connection_lost")),
    ],
    ids=lambda value: str(getattr(value, "cut", "") or getattr(value, "status", "")) or None,
)
async def test_an_answer_says_what_became_of_the_message(
    served: Served, make: Make, service: str, behaviour: Behaviour, outcome: object
) -> None:
    provider = make(service)
    served.fake.do(behaviour)
    assert await provider.send(message(served, service)) == outcome
    assert sum(served.fake.accepted.values()) == (behaviour is LOST)
    assert len(served.fake.of(service)) == 1, "one attempt is one request"
    assert isinstance(await provider.send(message(served, service)), Accepted), "and the provider goes on"


@pytest.mark.parametrize("service", SERVICES)
async def test_retry_after_may_be_a_date(served: Served, make: Make, service: str) -> None:
    provider = make(service)
    served.fake.do(Behaviour(429, {"retry-after": formatdate(time.time() + 60, usegmt=True)}))
    outcome = await provider.send(message(served, service))
    assert isinstance(outcome, Retry)
    assert 50_000 < (outcome.after_ms or 0) <= 60_000


@pytest.mark.parametrize(
    ("service", "behaviour", "reason"),
    [
        ("fcm", Behaviour(404, body=fcm_error("NOT_FOUND", "UNREGISTERED")), "unregistered"),
        ("apns", Behaviour(410, body={"reason": "Unregistered", "timestamp": 1}), "unregistered"),
        ("apns", Behaviour(400, body={"reason": "BadDeviceToken"}), "bad_device_token"),
        ("webpush", Behaviour(404), "http_404"),
        ("webpush", Behaviour(410), "http_410"),
    ],
)
async def test_a_token_that_is_gone_is_told_apart(
    served: Served, make: Make, service: str, behaviour: Behaviour, reason: str
) -> None:
    served.fake.do(behaviour)
    assert await make(service).send(message(served, service)) == Rejected(reason, gone=True)


@pytest.mark.parametrize(
    ("service", "behaviour", "outcome"),
    [
        ("fcm", Behaviour(404, body=fcm_error("NOT_FOUND")), Rejected("not_found")),
        (
            "fcm",
            Behaviour(403, body=fcm_error("PERMISSION_DENIED", "SENDER_ID_MISMATCH")),
            Rejected("sender_id_mismatch"),
        ),
        ("fcm", Behaviour(429), Retry("http_429", 60_000)),
        ("fcm", Behaviour(400, {}, {"error": []}), Rejected("http_400")),
        ("apns", Behaviour(400, body={"reason": "DeviceTokenNotForTopic"}), Rejected("device_token_not_for_topic")),
        ("apns", Behaviour(400, body={"reason": "a b\n"}), Rejected("http_400")),
        ("apns", Behaviour(403, body={"reason": "Forbidden"}), Rejected("forbidden")),
        ("webpush", Behaviour(400), Rejected("http_400")),
    ],
)
async def test_a_service_has_reasons_of_its_own(
    served: Served, make: Make, service: str, behaviour: Behaviour, outcome: object
) -> None:
    served.fake.do(behaviour)
    assert await make(service).send(message(served, service)) == outcome


@pytest.mark.parametrize("service", SERVICES)
async def test_a_slow_service_leaves_the_outcome_unknown(served: Served, make: Make, service: str) -> None:
    provider = make(service, http=Http2Settings(timeout_s=0.4, ca_file=served.keys.ca))
    await provider.send(message(served, service))
    served.fake.do(Behaviour(delay_s=30.0))
    began = time.monotonic()
    assert await provider.send(message(served, service)) == Unknown("timeout")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_that_nobody_listens_for_was_certainly_not_asked(
    served: Served, make: Make, service: str
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"https://localhost:{unused.getsockname()[1]}"
        token = Browser(f"{url}/wpush/1").token
        provider = make(service) if service == "webpush" else make(service, url=url)
        changes = {"token": token} if service == "webpush" else {}
        assert await provider.send(message(served, service, **changes)) == Retry("not_connected")


@pytest.mark.parametrize("service", SERVICES)
async def test_a_certificate_of_an_unknown_authority_is_refused(served: Served, make: Make, service: str) -> None:
    provider = make(service, http=Http2Settings())
    outcome = await provider.send(message(served, service))
    assert outcome == Retry("no_access_token" if service == "fcm" else "not_connected")
    assert not served.fake.requests


async def test_a_service_that_closes_its_connections_in_good_order_costs_no_message(keys: Keys) -> None:
    async with closing_service(keys, 20) as service, Http2Client(Http2Settings(ca_file=keys.ca)) as client:
        numbers = iter(range(100))

        async def send() -> None:
            for n in numbers:
                answer = await client.post(f"https://localhost:{service.port}/", {"x-id": str(n)}, b"{}")
                assert isinstance(answer, Answer), answer

        await asyncio.gather(*(send() for _ in range(8)))
    assert service.connections > 5
    assert Counter(service.taken) == {str(n): 1 for n in range(100)}


# -- tokens of ours


@pytest.mark.parametrize("service", SERVICES)
async def test_a_refused_token_of_ours_is_renewed_and_the_message_sent(
    served: Served, make: Make, service: str
) -> None:
    provider = make(service)
    await provider.send(message(served, service))
    served.fake.revoke()
    first = served.fake.of(service)[0].headers["authorization"]
    served.fake.refused.add(first.removeprefix("bearer ").removeprefix("vapid t=").partition(",")[0])
    outcomes = await asyncio.gather(*(provider.send(message(served, service)) for _ in range(5)))
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    assert served.fake.tokens_given == (2 if service == "fcm" else 0), "one renewal for all who were refused"
    assert len({request.headers["authorization"] for request in served.fake.of(service)}) == 2


async def test_a_young_token_that_is_refused_is_not_made_anew(served: Served, make: Make) -> None:
    provider = make("fcm", token_age_s_min=60.0)
    await provider.send(message(served, "fcm"))
    served.fake.revoke()
    assert await provider.send(message(served, "fcm")) == Retry("http_401")
    assert served.fake.tokens_given == 1


async def test_without_an_access_token_nothing_is_sent(served: Served, make: Make) -> None:
    served.fake.token_service = Behaviour(400, body={"error": "invalid_grant"})
    assert await make("fcm").send(message(served, "fcm")) == Retry("no_access_token")
    assert not served.fake.of("fcm")


@pytest.mark.parametrize(
    "answer",
    [
        "<html>please log in</html>",
        ["access_token"],
        {"access_token": "t"},
        {"access_token": "t", "expires_in": "soon"},
        {"access_token": "t", "expires_in": 1e300},
    ],
)
async def test_an_answer_without_a_usable_token_is_told_from_a_message_that_was_sent(
    served: Served, make: Make, answer: object
) -> None:
    served.fake.token_service = Behaviour(200, body=answer)
    assert await make("fcm").send(message(served, "fcm")) == Retry("no_access_token")
    assert not served.fake.of("fcm")


async def test_an_access_token_that_ends_is_renewed_before(served: Served, make: Make) -> None:
    served.fake.token_lasts_s = 0
    provider = make("fcm")
    for _ in range(3):
        assert isinstance(await provider.send(message(served, "fcm")), Accepted)
    assert served.fake.tokens_given == 3


# -- what is refused before it is sent


@pytest.mark.parametrize("service", SERVICES)
async def test_a_message_that_is_too_long_is_not_sent(served: Served, make: Make, service: str) -> None:
    provider = make(service)
    assert await provider.send(message(served, service, body="x" * 5_000)) == Rejected("payload_too_large")
    assert not served.fake.of(service)
    assert isinstance(await provider.send(message(served, service, body="x" * 3_700)), Accepted)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("token", [{}, {"token": ""}, {"token": 7}])
async def test_a_user_without_a_device_is_refused(
    served: Served, make: Make, service: str, token: dict[str, Any]
) -> None:
    assert await make(service).send(message(served, service, token=token)) == Rejected("no_token")
    assert not served.fake.requests


@pytest.mark.parametrize("token", ["../../secret", "0123", "x" * 64, "ab" * 200, "a" * 63 + "\n"])
async def test_what_is_no_apple_token_never_becomes_a_path(served: Served, make: Make, token: str) -> None:
    outcome = await make("apns").send(message(served, "apns", token={"token": token}))
    assert outcome == Rejected("bad_device_token", gone=True)
    assert not served.fake.requests


@pytest.mark.parametrize(
    "changes",
    [{"p256dh": "AAAA"}, {"p256dh": None}, {"auth": "AAAA"}, {"auth": "ä" * 22}, {"p256dh": "B" * 87}, {"auth": 7}],
)
async def test_keys_that_are_none_end_the_subscription(served: Served, make: Make, changes: dict[str, Any]) -> None:
    token = Browser(f"{served.url}/wpush/abc").token | changes
    assert await make("webpush").send(message(served, "webpush", token=token)) == Rejected(
        "bad_subscription", gone=True
    )
    assert not served.fake.requests


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_an_endpoint_on_our_own_machine_is_refused_outside_the_dev_profile(
    served: Served, make: Make, host: str
) -> None:
    provider = make("webpush", addresses=AddressRule())
    token = Browser(f"https://{host}:{served.relay.port}/wpush/abc").token
    assert await provider.send(message(served, "webpush", token=token)) == Rejected("address_refused")
    assert served.relay.connections == 0


async def test_a_connection_to_an_endpoint_goes_to_the_address_that_was_checked(
    served: Served, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ipaddress

    looked_up: list[str] = []

    async def once(host: str, port: int) -> list[Any]:
        looked_up.append(host)
        return [ipaddress.ip_address("127.0.0.1")]

    provider = make("webpush")
    assert isinstance(provider, WebPushProvider)
    monkeypatch.setattr(provider._hosts, "_resolver", once)
    # The name is in the certificate and in no DNS: had it been looked up again, the connection would have failed.
    token = Browser(f"https://push.test:{served.relay.port}/wpush/abc").token
    for _ in range(3):
        assert isinstance(await provider.send(message(served, "webpush", token=token)), Accepted)
    assert looked_up == ["push.test"]


async def test_nothing_of_a_message_or_a_key_is_printed(served: Served, keys: Keys, make: Make, tmp_path: Path) -> None:
    settings = replace(FcmSettings(keys.account), token_url="x")
    assert "PRIVATE" not in repr(settings)
    bad = tmp_path / "account.json"
    bad.write_text('{"project_id": "p", "private_key": "canary", "client_email": "a", "token_uri": "b"}')
    with pytest.raises(ValueError, match="not a service account") as caught:
        FcmProvider(FcmSettings(bad))
    assert "canary" not in repr(caught.value)


# -- lost answers


async def test_promotional_messages_whose_answers_are_lost_are_never_sent_twice(served: Served, make: Make) -> None:
    """Answers are lost after the message was accepted, or before, on all messages on the way; the sender dies twice."""
    seed = 14
    dice, world = random.Random(seed), World()
    provider = make("fcm")
    world.send = provider.send  # type: ignore[method-assign]
    behaviours = [*[OK] * 10, *[LOST] * 3, RESET, Behaviour(503), Behaviour(500)]
    served.fake.do(*(dice.choice(behaviours) for _ in range(600)))
    made = [
        decision(n, transactional=n % 4 == 0, token={"token": "t"}, expires_ms=world.time.now + 86_400_000)
        for n in range(200)
    ]
    batches = [
        FakeBatch([record(n, each) for n, each in enumerate(made)][start : start + 50]) for start in range(0, 200, 50)
    ]
    for kill_after in (40, 90, None):
        todo = [FakeBatch(batch.records) for batch in batches if not batch.completed]
        deliverer = world.deliverer(concurrency=2, throttle=ThrottleSettings(failures_max=1_000))
        delivery = asyncio.gather(*(deliverer.deliver(batch) for batch in todo))

        async def enough(limit: int | None = kill_after) -> bool:
            return limit is not None and len(served.fake.of("fcm")) >= limit

        await eventually(_either(delivery.done, enough), "the deliveries end, or are killed", 30)
        delivery.cancel()
        await asyncio.gather(delivery, return_exceptions=True)
        batches = todo
    states = Counter((each.transactional, world.entry(each).state) for each in made)
    accepted = served.fake.accepted
    lost = sum(accepted[each.id] > 0 and world.entry(each).state is State.UNKNOWN for each in made)
    print(f"seed {seed}: {dict(states)}, {lost} answers lost after acceptance, {len(served.fake.of('fcm'))} requests")
    assert all(batch.completed for batch in batches)
    assert all(accepted[each.id] <= 1 for each in made if not each.transactional), "sent twice"
    assert lost > 10, "too few lost answers to prove anything"
    assert states[False, State.SENT] > 50
    for each in made:
        entry = world.entry(each)
        assert entry.state is not State.RESERVED
        assert entry.state is not State.SENT or accepted[each.id] >= 1
        assert entry.state is not State.FAILED or accepted[each.id] == 0


def _either(done: Callable[[], bool], enough: Callable[[], Awaitable[bool]]) -> Callable[[], Awaitable[bool]]:
    async def condition() -> bool:
        return done() or await enough()

    return condition


# -- the whole process


@pytest.mark.broker
async def test_a_sender_that_must_wait_long_stops_at_once_and_the_next_one_sends(site: Site, served: Served) -> None:
    """The provider wants two minutes of rest, longer than a stopping process may take; then a token is gone."""
    fresh = {"expires_ms": time.time_ns() // 1_000_000 + 3_600_000}
    made = [decision(n, token={"token": f"token-{n}", "type": "android"}, **fresh) for n in range(40)]
    gone = decision(90, token={"token": "gone", "type": "android"}, more_tokens=[{"token": "other"}], **fresh)
    settings = {
        "NUDGE_SENDER_PROVIDER": "fcm",
        "NUDGE_FCM_CREDENTIALS": str(served.keys.account),
        "NUDGE_FCM_URL": served.url,
        "NUDGE_FCM_TOKEN_URL": f"{served.url}/token",
        "NUDGE_PUSH_CA_FILE": str(served.keys.ca),
    }
    served.fake.otherwise = Behaviour(429, {"retry-after": "110"})
    with site.process("sender", "first", **settings) as child:
        await site.ready(child)
        await site.decide([*made, gone])

        async def refused() -> bool:
            return bool(served.fake.of("fcm"))

        await eventually(refused, "the provider has asked for a rest")
        began = time.monotonic()
        await asyncio.to_thread(child.stop)
        assert child.returncode == 0, child.log_tail()
        assert time.monotonic() - began < 30
    assert await site.receipts() == {}
    served.fake.otherwise = OK
    served.fake.gone.add("gone")
    with site.process("sender", "second", **settings) as child:
        await site.ready(child)
        await site.all_told([*made, gone])
        assert site.metric(child, "nudge_tokens_removed_total", provider="fcm") == 1
        assert site.metric(child, "nudge_sends_total", provider="fcm", outcome="sent") == 41
    assert served.fake.accepted == {each.id: 1 for each in [*made, gone]}
    assert {reason for found in (await site.receipts()).values() for _, _, reason in found} == {""}
    events = [orjson.loads(value or b"") for _, _, value, _ in await site.read(EVENTS)]
    [removed] = [event for event in events if event["event"] == "Device Token Removed"]
    assert (removed["userId"], removed["properties"]["tokenId"]) == (gone.user, token_id("gone"))
