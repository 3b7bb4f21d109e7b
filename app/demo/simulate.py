"""Feeding any broker: invented users who view, fill carts, buy, answer and opt out, at a stated rate.

For load, for trying out a policy, and for tests. Unlike the demo nothing in it is real. Messages are put together from
bytes prepared beforehand, so that one process makes tens of thousands a second.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field, fields
from random import Random
from typing import Any, Final

import msgspec

from app.clock import Clock, SystemClock
from app.demo.audience import Audience, device_context, meet
from app.demo.faults import Shares, broken_record
from app.demo.feed import EventFeed
from app.demo.player import Player
from app.demo.reader import TopicReader
from schemas.events import (
    NOTIFICATION_CLICKED,
    NOTIFICATION_DISMISSED,
    NOTIFICATION_OPENED,
    NOTIFICATIONS_DISABLED,
    ORDER_COMPLETED,
    PRODUCT_ADDED,
    PRODUCT_VIEWED,
    Event,
    Rejected,
    decode_event,
    encode_event,
)
from schemas.topics import EVENTS

CATEGORIES: Final = ("GROCERY", "DRUG GM", "PRODUCE", "MEAT", "DELI", "PASTRY", "NUTRITION", "COSMETICS")
TICK_S: Final = 0.02
LATE_MS_MAX: Final = 6 * 3_600_000
_NAMES: Final = {
    "view": PRODUCT_VIEWED,
    "cart": PRODUCT_ADDED,
    "purchase": ORDER_COMPLETED,
    "open": NOTIFICATION_OPENED,
    "click": NOTIFICATION_CLICKED,
    "dismiss": NOTIFICATION_DISMISSED,
    "opt_out": NOTIFICATIONS_DISABLED,
}


@dataclass(frozen=True, slots=True)
class Mix:
    """How often each event happens, as weights: only their ratio counts.

    Raises
    ------
    ValueError
        When a weight is negative or all are 0.
    """

    view: float = 0.68
    cart: float = 0.17
    purchase: float = 0.07
    open: float = 0.05
    click: float = 0.015
    dismiss: float = 0.014
    opt_out: float = 0.001

    def __post_init__(self) -> None:
        weights = self.weights()
        if min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(f"{self}: weights must not be negative, and one must be positive")

    def weights(self) -> list[float]:
        """In the order of the fields."""
        return [getattr(self, part.name) for part in fields(self)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to produce.

    Parameters
    ----------
    rate
        Events a second; as fast as possible when 0.
    seconds, events
        Where to stop, whichever comes first; at least one is required.
    answer
        Also answer the engine's real decisions: each ``Notification Sent`` may be opened, clicked, dismissed.
    """

    rate: float = 1000.0
    users: int = 10_000
    seconds: float | None = None
    events: int | None = None
    seed: int = 7
    mix: Mix = field(default_factory=Mix)
    shares: Shares = field(default_factory=Shares)
    answer: bool = False

    def __post_init__(self) -> None:
        if self.seconds is None and self.events is None:
            raise ValueError("give seconds, events, or both: the simulation must end")
        if self.rate < 0 or self.users < 1:
            raise ValueError(f"rate={self.rate}, users={self.users}: the rate is at least 0, the users at least 1")


class Produced(msgspec.Struct, frozen=True):
    """What was produced and acknowledged. `kinds` counts events by name, and late, duplicate and malformed ones."""

    records: int
    seconds: float
    records_per_second: float
    answers: int
    kinds: dict[str, int]


class Crowd:
    """Invented users and their messages; the same seed gives the same messages but for their times."""

    def __init__(self, users: int, seed: int, mix: Mix, shares: Shares) -> None:
        self._rng = Random(seed)  # noqa: S311 - a simulation
        self._seed = seed
        self._users = users
        self._kinds = list(_NAMES)
        self._cumulative = [sum(mix.weights()[: end + 1]) for end in range(len(self._kinds))]
        self._heads = {kind: _head(name) for kind, name in _NAMES.items()}
        self._shares = shares
        self._contexts: dict[int, bytes] = {}
        self._number = 0
        self.kinds: Counter[str] = Counter()

    def introductions(self, at_ms: int) -> list[tuple[bytes, bytes]]:
        """One identify and one consent for each user, without which nothing may be sent."""
        records = []
        for number in range(self._users):
            user = _user(number)
            identify = Event(
                type="identify",
                user_id=user,
                message_id=f"s{self._seed}-join-{number}",
                timestamp=at_ms,
                context=device_context(meet(user, self._seed)),
                traits={"push_consent": True},
            )
            records.append((user.encode(), encode_event(identify)))
        self.kinds["identify"] += len(records)
        return records

    def messages(self, number: int, at_ms: int) -> list[tuple[bytes, bytes | None]]:
        """The next `number` records, malformed and duplicate ones among them."""
        rng, shares = self._rng, self._shares
        records: list[tuple[bytes, bytes | None]] = []
        kinds = rng.choices(self._kinds, cum_weights=self._cumulative, k=number)
        random = rng.random
        for kind in kinds:
            if len(records) >= number:  # duplicates took their places
                break
            fate = random()
            user = int(random() * self._users)
            if fate < shares.malformed:
                records.append(broken_record(rng, _user(user), at_ms))
                self.kinds["malformed"] += 1
                continue
            late_ms = 0
            if fate < shares.malformed + shares.late:
                late_ms = rng.randrange(60_000, LATE_MS_MAX)
                self.kinds["late"] += 1
            record = self._message(kind, user, at_ms - late_ms)
            records.append(record)
            self.kinds[_NAMES[kind]] += 1
            if random() < shares.duplicate and len(records) < number:
                records.append(record)
                self.kinds["duplicate"] += 1
        return records

    def _message(self, kind: str, user: int, at_ms: int) -> tuple[bytes, bytes]:
        self._number = number = self._number + 1
        key = b"user-%d" % user
        value = b'%b"userId":"%b","messageId":"s%d-%d","timestamp":%d,"context":%b,"properties":%b}' % (
            self._heads[kind],
            key,
            self._seed,
            number,
            at_ms,
            self._context(user),
            self._properties(kind, user, number),
        )
        return key, value

    def _context(self, user: int) -> bytes:
        context = self._contexts.get(user)
        if context is None:
            context = self._contexts[user] = msgspec.json.encode(device_context(meet(_user(user), self._seed)))
        return context

    def _properties(self, kind: str, user: int, number: int) -> bytes:
        # Cheap and repeatable variety: a product and its price from the message's number.
        product = (number * 2654435761 + user) & 0xFFF
        category = CATEGORIES[product & 7].encode()
        if kind == "view":
            return b'{"product_id":"%d","category":"%b","price":%d.99}' % (product, category, product & 31)
        if kind == "cart":
            cart = b'{"product_id":"%d","category":"%b","price":%d.99,"cart_id":"c%d-%d"}'
            return cart % (product, category, product & 31, user, number >> 12)
        if kind == "purchase":
            order = b'{"order_id":"o%d","cart_id":"c%d-%d","revenue":%d.5,"category":"%b"}'
            return order % (number, user, number >> 12, product & 127, category)
        if kind == "opt_out":
            return b"{}"
        return b'{"decisionId":"simulated-%d","campaign":"simulated","category":"simulated"}' % number


def _head(name: str) -> bytes:
    return b'{"type":"track","event":"%b",' % name.encode()


def _user(number: int) -> str:
    return f"user-{number}"


async def simulate(
    bootstrap: str, load: Load, *, clock: Clock | None = None, idempotent: bool = False, **security: Any
) -> Produced:
    """Feed the `events` topic of a broker.

    Parameters
    ----------
    clock
        Where event times come from; the system's clock when None.
    idempotent
        Use an idempotent producer (not on the embedded broker).

    Raises
    ------
    aiokafka.errors.KafkaError
        When the broker cannot be reached or refuses records.
    """
    clock = clock or SystemClock()
    crowd = Crowd(load.users, load.seed, load.mix, load.shares)
    async with EventFeed(bootstrap, idempotent=idempotent, **security) as feed:
        player = Player([], Audience(load.seed), clock, feed)
        started = time.monotonic()
        if load.answer:
            await _introduce(crowd, feed, clock)
            async with TopicReader(bootstrap, [EVENTS], only_new=True, **security) as reader:
                listening = asyncio.create_task(_listen(reader, player))
                try:
                    await _produce(crowd, feed, load, clock, player)
                finally:
                    listening.cancel()
        else:
            await _produce(crowd, feed, load, clock, player)
        await feed.flush()
        seconds = time.monotonic() - started
        return Produced(
            feed.produced, round(seconds, 3), round(feed.produced / seconds, 1), player.answered, dict(crowd.kinds)
        )


async def _introduce(crowd: Crowd, feed: EventFeed, clock: Clock) -> None:
    for number, (key, value) in enumerate(crowd.introductions(clock.now_ms()), 1):
        feed.add(key, value)
        if number % 1000 == 0:
            await feed.send()
    await feed.flush()


async def _produce(crowd: Crowd, feed: EventFeed, load: Load, clock: Clock, player: Player) -> None:
    """In ticks, so that the rate is kept on average even when a tick comes late."""
    started = time.monotonic()
    produced = 0
    limit = load.events if load.events is not None else 2**62
    end = started + load.seconds if load.seconds is not None else float("inf")
    while produced < limit and (now := time.monotonic()) < end:
        due = int((now - started + TICK_S) * load.rate) if load.rate else produced + 2000
        number = min(due, limit) - produced
        for key, value in crowd.messages(min(number, 5000), clock.now_ms()) if number > 0 else ():
            feed.add(key, value)
            produced += 1
        player.deliver_due()
        await feed.send()
        await asyncio.sleep(0 if not load.rate or number > 5000 else TICK_S)


async def _listen(reader: TopicReader, player: Player) -> None:
    while True:
        for record in await reader.read():
            event = decode_event(record.value, record.key)
            if not isinstance(event, Rejected):
                player.notice(event)
