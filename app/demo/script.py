"""What will be sent to `events` in the demo, and when: real purchases, with simulated browsing around them.

A purchase log has no app in it. So each household gets a phone: most purchases are preceded by a visit with views and
a filled cart, and between purchases there are visits that end in nothing and carts that are left behind. The products
looked at are those of the departments in which the household really buys. Purchases are never added or altered.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Literal, NamedTuple

from app.demo.audience import DAY_MS, HOUR_MS, Person, device_context, dice, local_hour, meet, track
from app.demo.faults import Shares, broken_record
from app.demo.journey import Basket, Journey, Line
from app.demo.shelf import Shelf
from schemas.events import (
    APPLICATION_OPENED,
    NOTIFICATIONS_ENABLED,
    ORDER_COMPLETED,
    PRODUCT_ADDED,
    PRODUCT_VIEWED,
    Event,
    encode_event,
)

ONLINE_SHARE: Final = 0.7
"""Share of purchases that a visit with a cart precedes; the others happen in the store."""
VISITS_PER_DAY: Final = 0.22
CARTS_LEFT_PER_DAY: Final = 0.08
"""Of a household of average engagement."""
ALERT_SHARE: Final = 0.7
WISH_SHARE: Final = 0.15
ADDED_TO_WISHLIST: Final = "Product Added to Wishlist"
STOCK_ALERT_REQUESTED: Final = "Stock Alert Requested"
JOIN_SPREAD_MS: Final = 12 * HOUR_MS
_MINUTE_MS: Final = 60_000


class Delivery(NamedTuple):
    """A record that reaches `events` at `at_ms`; its event may be older."""

    at_ms: int
    key: bytes
    value: bytes | None
    kind: Literal["valid", "late", "duplicate", "malformed"]


@dataclass(frozen=True, slots=True)
class _Household:
    person: Person
    baskets: list[Basket]
    shelf: list[Line]
    """Products it really bought in the period: what it looks at."""


def user_of(household: int) -> str:
    """The user id of a household of the study."""
    return f"household-{household}"


def write_script(journey: Journey, seed: int, shares: Shares, shelf: Shelf | None = None) -> list[Delivery]:
    """Everything that reaches `events` from outside during the period, in order of delivery.

    The same arguments give the same script, byte for byte. With a `shelf`, people put what is on it on their lists, and
    ask to be told when what is sold out is back.
    """
    by_household: dict[int, list[Basket]] = {}
    for basket in journey.baskets:
        by_household.setdefault(basket.household, []).append(basket)
    script: list[Delivery] = []
    for number, baskets in by_household.items():
        person = meet(user_of(number), seed)
        products = [line for basket in baskets for line in basket.lines]
        rng = dice(seed, "script", person.user)
        events = list(_life(_Household(person, baskets, products), journey, rng))  # whatever else is drawn meanwhile
        if shelf is not None:
            events = list(_wishing(events, person, shelf, dice(seed, "wishes", person.user)))
        script += _deliver(events, person.user, shares, rng)
    script.sort(key=_when)
    return [delivery for delivery in script if journey.start_ms <= delivery.at_ms < journey.end_ms]


def _when(delivery: Delivery) -> int:
    return delivery.at_ms


def _life(household: _Household, journey: Journey, rng: Random) -> Iterator[Event]:
    """All events of one household, in no order."""
    person = household.person
    first_ms = household.baskets[0].at_ms - HOUR_MS
    joined_ms = max(journey.start_ms, min(first_ms, journey.start_ms + rng.randrange(JOIN_SPREAD_MS)))
    yield from _join(person, joined_ms, journey.traits.get(household.baskets[0].household, {}))
    for basket in household.baskets:
        if rng.random() < ONLINE_SHARE:
            yield from _visit_before(
                person, basket, max(joined_ms, basket.at_ms - rng.randrange(5, 45) * _MINUTE_MS), rng
            )
        yield _order(person, basket)
    busy = math.exp(0.5 * person.engagement)
    for number, at_ms in enumerate(_moments(person, joined_ms, journey.end_ms, VISITS_PER_DAY * busy, rng)):
        yield from _visit(household, at_ms, f"visit-{person.user}-{number}", rng)
    for number, at_ms in enumerate(_moments(person, joined_ms, journey.end_ms, CARTS_LEFT_PER_DAY * busy, rng)):
        yield from _left_cart(household, at_ms, f"left-{person.user}-{number}", rng)


def _moments(person: Person, start_ms: int, end_ms: int, per_day: float, rng: Random) -> Iterator[int]:
    """Poisson in days, moved to near the hour that the person likes."""
    at_ms = start_ms + rng.expovariate(per_day) * DAY_MS
    while at_ms < end_ms:
        to_favourite_h = (person.favourite_hour - local_hour(person.timezone, int(at_ms)) + 12) % 24 - 12
        yield max(start_ms, int(at_ms + (to_favourite_h + rng.gauss(0.0, 2.5)) * HOUR_MS))
        at_ms += rng.expovariate(per_day) * DAY_MS


def _join(person: Person, at_ms: int, traits: dict[str, str]) -> Iterator[Event]:
    yield Event(
        type="identify",
        user_id=person.user,
        message_id=f"join-{person.user}",
        timestamp=at_ms,
        context=device_context(person),
        traits=dict(traits),
    )
    if person.consents:  # the others were never asked
        yield track(person, NOTIFICATIONS_ENABLED, at_ms + 1, f"consent-{person.user}", {})
    yield track(person, APPLICATION_OPENED, at_ms + 2, f"first-{person.user}", {"source": "install"})


def _visit_before(person: Person, basket: Basket, at_ms: int, rng: Random) -> Iterator[Event]:
    """The visit in which a real basket was filled: some of what was bought is looked at and added."""
    cart = _cart(basket)
    yield track(person, APPLICATION_OPENED, at_ms, f"{cart}-open", {"source": "direct"})
    chosen = rng.sample(basket.lines, min(len(basket.lines), rng.randint(1, 4)))
    step_ms = max(1, (basket.at_ms - at_ms) // (2 * len(chosen) + 1))
    for number, line in enumerate(chosen):
        at_ms += step_ms
        yield track(person, PRODUCT_VIEWED, at_ms, f"{cart}-view-{number}", _product(line))
        at_ms += step_ms
        yield track(person, PRODUCT_ADDED, at_ms, f"{cart}-add-{number}", _product(line) | {"cart_id": cart})


def _visit(household: _Household, at_ms: int, name: str, rng: Random) -> Iterator[Event]:
    """Looking without buying."""
    person = household.person
    yield track(person, APPLICATION_OPENED, at_ms, f"{name}-open", {"source": "direct"})
    for number in range(rng.randint(1, 5)):
        at_ms += rng.randint(10, 120) * 1000
        yield track(person, PRODUCT_VIEWED, at_ms, f"{name}-view-{number}", _product(rng.choice(household.shelf)))


def _wishing(events: Iterable[Event], person: Person, shelf: Shelf, rng: Random) -> Iterator[Event]:
    """Some of what is looked at goes on a list; of what is sold out, people ask to be told."""
    for event in events:
        yield event
        product_id, at_ms = event.properties.get("product_id", ""), event.timestamp
        if event.event != PRODUCT_VIEWED or product_id not in shelf or not isinstance(at_ms, int):
            continue
        about = {"product_id": product_id, "category": event.properties["category"]}
        if shelf.sold_out(product_id, at_ms):
            if rng.random() < ALERT_SHARE:
                yield track(person, STOCK_ALERT_REQUESTED, at_ms + 1, f"{event.message_id}-alert", about)
        elif rng.random() < WISH_SHARE:
            yield track(person, ADDED_TO_WISHLIST, at_ms + 1, f"{event.message_id}-wish", about)


def _left_cart(household: _Household, at_ms: int, name: str, rng: Random) -> Iterator[Event]:
    """A visit that fills a cart which is never bought."""
    person = household.person
    yield track(person, APPLICATION_OPENED, at_ms, f"{name}-open", {"source": "direct"})
    for number in range(rng.randint(1, 3)):
        line = rng.choice(household.shelf)
        at_ms += rng.randint(10, 120) * 1000
        yield track(person, PRODUCT_VIEWED, at_ms, f"{name}-view-{number}", _product(line))
        at_ms += rng.randint(5, 60) * 1000
        yield track(person, PRODUCT_ADDED, at_ms, f"{name}-add-{number}", _product(line) | {"cart_id": f"cart-{name}"})


def _order(person: Person, basket: Basket) -> Event:
    products = [_product(line) | {"quantity": line.quantity} for line in basket.lines]
    properties: dict[str, object] = {
        "order_id": str(basket.basket),
        "cart_id": _cart(basket),
        "revenue": basket.revenue,
        "category": basket.category,
        "products": products,
    }
    return track(person, ORDER_COMPLETED, basket.at_ms, f"order-{basket.basket}", properties)


def _cart(basket: Basket) -> str:
    return f"cart-{basket.basket}"


def _product(line: Line) -> dict[str, Any]:
    return {"product_id": line.product_id, "category": line.department, "price": line.price}


def _deliver(events: Iterable[Event], user: str, shares: Shares, rng: Random) -> Iterator[Delivery]:
    """Encode events, and let some come late, some twice, and broken ones between them."""
    key = user.encode()
    for event in events:
        at_ms = event.timestamp
        assert isinstance(at_ms, int), "the script stamps every event with milliseconds"
        value = encode_event(event)
        if rng.random() < shares.late:
            yield Delivery(at_ms + rng.randrange(HOUR_MS, 6 * HOUR_MS), key, value, "late")
        else:
            yield Delivery(at_ms, key, value, "valid")
        if rng.random() < shares.duplicate:
            yield Delivery(at_ms + rng.randrange(10 * _MINUTE_MS), key, value, "duplicate")
        if rng.random() < shares.malformed:
            broken_key, broken = broken_record(rng, user, at_ms)
            yield Delivery(at_ms, broken_key, broken, "malformed")
