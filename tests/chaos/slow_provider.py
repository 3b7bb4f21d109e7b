"""A push service that takes 5 s an answer and refuses three in ten, and one that breaks every connection.

One worker and one sender, each a process, on one broker; the service is the fake FCM, over TLS and HTTP/2. What is
looked at is the other side: decisions must come as fast as with a service that is well, the sender must not grow, and
what has expired meanwhile must not be sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import psutil

from app.children import Child
from benchmarks.latency import Reader, quantile
from schemas.decisions import decode_decision
from schemas.events import Event, encode_event
from schemas.topics import DECISIONS, EVENTS
from tests.support.push.fake import OK, RESET, Behaviour, Received
from tests.support.push.keys import make_keys
from tests.support.push.serve import Served, serving
from tests.support.site import Site, eventually

EXPIRES_S: Final = 8
LATE_MS_MAX: Final = 2_000
"""A message is judged before it is encrypted and on its way; with four tests on two cores that took .6 s."""
POLICY: Final = f"""
version: 1
name: waiting_for_a_provider
defaults: {{consent: assumed, label_horizon: 7d}}
campaigns:
  - name: thanks
    category: orders
    expires: {EXPIRES_S}s
    trigger: {{event: Order Completed}}
    template:
      title: Thank you
      body: "at {{{{ event.scheduled_us }}}}"
"""
_TICK_S: Final = 0.02
_SLOW: Final = 5.0


class Service(list[Received]):
    """How the fake behaves now, and when each request came. The fake's `script` and its `requests` at once."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._dice = random.Random(seed)
        self.phase = "well"
        self.arrived: list[tuple[float, Received]] = []

    def append(self, request: Received) -> None:
        self.arrived.append((time.time() * 1_000, request))

    def popleft(self) -> Behaviour:
        if self.phase == "slow":
            return Behaviour(503 if self._dice.random() < 0.3 else 200, delay_s=_SLOW)
        return RESET if self.phase == "down" else OK

    def __bool__(self) -> bool:
        return True


async def run(
    site: Site, *, seed: int = 1, phase_s: float = 30.0, rate: int = 200, phases: tuple[str, ...] = ("slow", "down")
) -> dict[str, Any]:
    """Each phase under the same load, after one in which all is well; decisions are timed by their reader."""
    service, reader = Service(seed), Reader()
    keys = make_keys(await asyncio.to_thread(_folder, site.directory))
    policy = site.directory / "waiting.yaml"
    await asyncio.to_thread(policy.write_text, POLICY)
    figures: dict[str, Any] = {"seed": seed, "phase_s": phase_s, "rate": rate}
    async with serving(keys) as served:
        served.fake.script, served.fake.requests = service, service  # type: ignore[assignment]
        with (
            site.process("worker", "worker", NUDGE_POLICY=str(policy)) as worker,
            site.process("sender", "sender", **_settings(served)) as sender,
        ):
            await site.ready(worker)
            await site.ready(sender)
            reading = asyncio.create_task(reader.run(site.bootstrap, site.partitions))
            await _offer(site, "warm-up", 3.0, rate, seed)
            for turn, phase in enumerate(("well", *phases)):
                service.phase = phase
                rss_mb = _rss_mb(sender)
                expected = await _offer(site, phase, phase_s, rate, seed * 10 + turn)
                figures |= await _latency(reader, phase, expected)
                figures |= {f"{phase}: sender_rss_mb": [rss_mb, _rss_mb(sender)]}
            await _some_expire(site, sender)
            service.phase = "well"
            found = await _told(site, sender)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            figures["retries"] = site.metric(sender, "nudge_send_retries_total", provider="fcm")
    figures |= await _late(site, service) | {"receipts": dict(found), "expired": found["expired"]}
    well_ms = figures["well: p99_ms"]
    figures["too_slow"] = int(any(figures[f"{phase}: p99_ms"] > max(2 * well_ms, well_ms + 50) for phase in phases))
    figures["decisions_missing"] = sum(figures[f"{phase}: missing"] for phase in ("well", *phases))
    figures["fired"] = int(found["expired"] > 0 and (figures["retries"] > 0 or found["unknown"] > 0))
    return figures


def _folder(directory: Path) -> Path:
    folder = directory / "keys"
    folder.mkdir()
    return folder


def _settings(served: Served) -> dict[str, str]:
    return {
        "NUDGE_SENDER_PROVIDER": "fcm",
        "NUDGE_FCM_CREDENTIALS": str(served.keys.account),
        "NUDGE_FCM_URL": served.url,
        "NUDGE_FCM_TOKEN_URL": f"{served.url}/token",
        "NUDGE_PUSH_CA_FILE": str(served.keys.ca),
    }


def _rss_mb(child: Child) -> float:
    return round(psutil.Process(child.pid).memory_info().rss / 2**20, 1)


async def _offer(site: Site, run: str, seconds: float, rate: int, seed: int) -> int:
    """An open loop: events at times that were fixed beforehand. Returns how many decisions must follow."""
    dice, began, expected = random.Random(seed), time.monotonic(), 0
    began_us = time.time_ns() // 1_000
    for number in range(int(rate * seconds)):
        at_s = number / rate
        if (early_s := began + at_s - time.monotonic()) > 0:
            await asyncio.sleep(max(_TICK_S, early_s))
        user, order = f"u{dice.randrange(400)}", number % 5 == 0
        expected += order
        scheduled_us = began_us + int(at_s * 1e6)
        event = Event(
            type="track",
            event="Order Completed" if order else "Product Viewed",
            user_id=user,
            message_id=f"{run}-{number}",
            timestamp=scheduled_us // 1_000,
            properties={"scheduled_us": f"{run}:{scheduled_us}"},
            context={"device": {"token": f"token-{user}", "type": "android"}},
        )
        await site.put(EVENTS, user, encode_event(event))
    await site.flush()
    return expected


async def _latency(reader: Reader, phase: str, expected: int) -> dict[str, Any]:
    async def all_seen() -> bool:
        return len(reader.seen[phase]) >= expected

    with contextlib.suppress(AssertionError):  # what is missing is counted below
        await eventually(all_seen, f"{expected} decisions are read", 20)
    took_ms = sorted((received - scheduled) / 1_000 for scheduled, received in reader.seen[phase])
    quantiles = {f"{phase}: {name}": quantile(took_ms, share) for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99))}
    rounded = {name: round(value or 0.0, 1) for name, value in quantiles.items()}
    return rounded | {f"{phase}: decisions": len(took_ms), f"{phase}: missing": expected - len(took_ms)}


async def _some_expire(site: Site, sender: Child) -> None:
    async def expired() -> bool:
        return await asyncio.to_thread(site.metric, sender, "nudge_sends_total", provider="none", outcome="expired") > 0

    with contextlib.suppress(AssertionError):  # then the fault did not fire, and is reported so
        await eventually(expired, "what waited too long expires", 3 * EXPIRES_S)


async def _told(site: Site, sender: Child) -> Counter[str]:
    """Wait until every decision has its end, and count the ends."""
    outcomes = ("sent", "expired", "failed", "unknown")

    async def ended() -> bool:
        assert sender.returncode is None, sender.log_tail()
        return await asyncio.to_thread(_waiting, site, sender) == 0

    await eventually(ended, "nothing waits to be sent", 120)
    found: Counter[str] = Counter()
    for outcome in outcomes:
        for provider in ("fcm", "none"):
            found[outcome] += int(site.metric(sender, "nudge_sends_total", provider=provider, outcome=outcome))
    return found


def _waiting(site: Site, sender: Child) -> float:
    return sum(
        site.metric(sender, "nudge_consumer_lag_records", topic=DECISIONS, partition=str(partition))
        for partition in range(site.partitions)
    )


async def _late(site: Site, service: Service) -> dict[str, Any]:
    """How long after its end the latest message arrived (negative: before), and how many came too late."""
    made = [decode_decision(record.value) for record in await site.records(DECISIONS)]
    ends_ms = {decision.id: decision.expires_ms for decision in made if decision.action == "send"}
    past_ms = [
        arrived_ms - ends_ms[request.json["message"]["android"]["collapse_key"]]
        for arrived_ms, request in service.arrived
        if request.service == "fcm"
    ]
    late = sum(ms > LATE_MS_MAX for ms in past_ms)
    return {"attempts": len(past_ms), "latest_ms_past_its_end": round(max(past_ms)), "sent_expired": late}
