"""The simulated half of the demo: people who answer our notifications. A log of purchases cannot contain them.

Everyone has hidden tastes (a propensity to open, an hour of the day, likings for campaigns) and tires of messages;
tired people dismiss, and some switch notifications off. All of it is drawn from hashes of the seed and ids, so a
decision is answered the same way however often, and in whatever order, it is asked about; only fatigue depends on what
was sent before. The engine sees none of it: it must learn from the answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from random import Random
from typing import Final
from zoneinfo import ZoneInfo

import xxhash

from schemas.events import (
    APPLICATION_OPENED,
    NOTIFICATION_CLICKED,
    NOTIFICATION_DISMISSED,
    NOTIFICATION_OPENED,
    NOTIFICATIONS_DISABLED,
    Event,
)

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000
TIMEZONES: Final = ("America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles")
_TIMEZONE_WEIGHTS: Final = (40, 35, 10, 15)
_DEVICES: Final = ("ios", "android", "web")
_DEVICE_WEIGHTS: Final = (45, 45, 10)

OPEN_LOGIT: Final = -1.1
"""Log odds of an open by an average person at an average hour who is not tired: about 1 in 4."""
ENGAGEMENT_EFFECT: Final = 1.3
"""How much one standard deviation of engagement adds to the log odds; engaged people also browse more."""
HOUR_EFFECT: Final = 1.2
TASTE_EFFECT: Final = 0.6
DEVICE_EFFECT: Final = {"ios": 0.2, "android": 0.0, "web": -0.8}
FATIGUE_EFFECT: Final = 0.45
"""How much each recent notification takes from the log odds."""
FATIGUE_HALF_LIFE_MS: Final = 36 * HOUR_MS
CLICK_GIVEN_OPEN: Final = 0.35
DISMISS_LOGIT: Final = -2.0
OPT_OUT_GIVEN_DISMISS: Final = 0.02
OPT_OUT_PER_FATIGUE: Final = 0.015
DELAY_MEDIAN_MS: Final = 12 * 60_000
DELAY_SPREAD: Final = 1.2
"""Standard deviation of the logarithm of the delay until an answer."""
DELAY_MAX_MS: Final = 20 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Person:
    """Who somebody is; what the engine may see are only the time zone and the device.

    Parameters
    ----------
    engagement
        Standard normal: how much they care for the shop.
    favourite_hour
        Local hour in [0, 24) at which they answer best.
    """

    user: str
    timezone: str
    device: str
    engagement: float
    favourite_hour: float
    consents: bool


@dataclass(slots=True)
class Fatigue:
    """Notifications that somebody still feels: each counts one and fades by half in `FATIGUE_HALF_LIFE_MS`."""

    level: float = 0.0
    at_ms: int = 0

    def felt(self, at_ms: int) -> float:
        """The level at a time (an earlier one than the last notification's counts as that)."""
        return float(self.level * 0.5 ** (max(at_ms - self.at_ms, 0) / FATIGUE_HALF_LIFE_MS))

    def add(self, at_ms: int) -> None:
        """One more notification."""
        self.level = self.felt(at_ms) + 1.0
        self.at_ms = max(self.at_ms, at_ms)


@dataclass(frozen=True, slots=True)
class Sent:
    """A notification that reached a phone."""

    decision_id: str
    user: str
    campaign: str
    category: str
    variant: str
    at_ms: int


Answer = tuple[int, Event]


def dice(seed: int, *parts: str) -> Random:
    """Random numbers that depend on nothing but the arguments."""
    return Random(xxhash.xxh3_64_intdigest("\x1f".join((str(seed), *parts)).encode()))  # noqa: S311 - a simulation


def meet(user: str, seed: int) -> Person:
    """The person behind a user id."""
    rng = dice(seed, "person", user)
    # Most like evenings, some lunch time, a few mornings.
    favourite = rng.choices((19.5, 12.5, 8.5), (60, 25, 15))[0] + rng.gauss(0.0, 1.5)
    return Person(
        user=user,
        timezone=rng.choices(TIMEZONES, _TIMEZONE_WEIGHTS)[0],
        device=rng.choices(_DEVICES, _DEVICE_WEIGHTS)[0],
        engagement=rng.gauss(0.0, 1.0),
        favourite_hour=favourite % 24,
        consents=rng.random() < 0.92,
    )


def open_probability(person: Person, sent: Sent, fatigue: float, seed: int) -> float:
    """The hidden truth: the probability that `person` opens this notification.

    Parameters
    ----------
    fatigue
        What the person felt when it arrived, 0 or more (see `Fatigue`).
    """
    distance = (local_hour(person.timezone, sent.at_ms) - person.favourite_hour) / 24 * math.tau
    logit = (
        OPEN_LOGIT
        + ENGAGEMENT_EFFECT * person.engagement
        + HOUR_EFFECT * math.cos(distance)
        + TASTE_EFFECT * (_taste(seed, "", sent.campaign) + _taste(seed, person.user, sent.category))
        + DEVICE_EFFECT[person.device]
        - FATIGUE_EFFECT * fatigue
    )
    return 1.0 / (1.0 + math.exp(-logit))


def answers(person: Person, sent: Sent, fatigue: float, seed: int) -> list[Answer]:
    """What the person does about a notification: event times and events, earliest first; nothing when it is ignored.

    An open may be followed by a click and a visit; what is not opened may be dismissed, and a dismissal may end in
    notifications being switched off, the likelier the more tired the person is.
    """
    rng = dice(seed, "answer", sent.decision_id)
    opens = rng.random() < open_probability(person, sent, fatigue, seed)
    delay_ms = min(DELAY_MAX_MS, int(DELAY_MEDIAN_MS * math.exp(rng.gauss(0.0, DELAY_SPREAD))))
    at_ms = sent.at_ms + max(1_000, delay_ms)
    if opens:
        return _opened(person, sent, at_ms, clicks=rng.random() < CLICK_GIVEN_OPEN)
    if rng.random() < 1.0 / (1.0 + math.exp(-(DISMISS_LOGIT + 0.5 * fatigue))):
        leaves = rng.random() < OPT_OUT_GIVEN_DISMISS + OPT_OUT_PER_FATIGUE * fatigue
        return _dismissed(person, sent, at_ms, leaves=leaves)
    return []


def _opened(person: Person, sent: Sent, at_ms: int, *, clicks: bool) -> list[Answer]:
    found = [(at_ms, _answer(sent, NOTIFICATION_OPENED, "opened", at_ms))]
    if clicks:
        at_ms += 5_000
        found.append((at_ms, _answer(sent, NOTIFICATION_CLICKED, "clicked", at_ms)))
        visit = track(
            person, APPLICATION_OPENED, at_ms + 1_000, f"{sent.decision_id}:visit", {"source": "notification"}
        )
        found.append((at_ms + 1_000, visit))
    return found


def _dismissed(person: Person, sent: Sent, at_ms: int, *, leaves: bool) -> list[Answer]:
    found = [(at_ms, _answer(sent, NOTIFICATION_DISMISSED, "dismissed", at_ms))]
    if leaves:
        at_ms += 20_000
        found.append((at_ms, track(person, NOTIFICATIONS_DISABLED, at_ms, f"{sent.decision_id}:disabled", {})))
    return found


def _answer(sent: Sent, name: str, suffix: str, at_ms: int) -> Event:
    properties = {
        "decisionId": sent.decision_id,
        "campaign": sent.campaign,
        "category": sent.category,
        "variant": sent.variant,
    }
    return Event(
        type="track",
        event=name,
        user_id=sent.user,
        message_id=f"{sent.decision_id}:{suffix}",
        timestamp=at_ms,
        properties=properties,
    )


def track(person: Person, name: str, at_ms: int, message_id: str, properties: dict[str, object]) -> Event:
    """A track event of a person's device."""
    return Event(
        type="track",
        event=name,
        user_id=person.user,
        message_id=message_id,
        timestamp=at_ms,
        context=device_context(person),
        properties=properties,
    )


def device_context(person: Person) -> dict[str, object]:
    """What a Segment SDK adds to each message, as far as the engine reads it."""
    return {"timezone": person.timezone, "device": {"type": person.device}}


def local_hour(timezone: str, at_ms: int) -> float:
    """Hour of the day in [0, 24) where the person is."""
    return (at_ms / HOUR_MS + _offset_hours(timezone, at_ms // HOUR_MS)) % 24


@lru_cache(maxsize=4096)
def _offset_hours(timezone: str, hour: int) -> float:
    offset = datetime.fromtimestamp(hour * 3600, UTC).astimezone(ZoneInfo(timezone)).utcoffset()
    assert offset is not None, "an aware datetime has an offset"
    return offset.total_seconds() / 3600


@lru_cache(maxsize=65_536)
def _taste(seed: int, user: str, name: str) -> float:
    """Standard normal: how much a user (everyone, when empty) likes a campaign or category."""
    return dice(seed, "taste", user, name).gauss(0.0, 1.0)


@dataclass(slots=True)
class Audience:
    """Everyone, with what they still feel of earlier notifications.

    A notification that arrives again (same decision id) is noticed only once: the phone shows it as one.
    """

    seed: int
    people: dict[str, Person] = field(default_factory=dict)
    fatigue: dict[str, Fatigue] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    truth: dict[str, float] = field(default_factory=dict)
    """By decision id, the probability of the open: what a perfect model would say."""

    def person(self, user: str) -> Person:
        """The person behind a user id, met before or not."""
        found = self.people.get(user)
        if found is None:
            found = self.people[user] = meet(user, self.seed)
        return found

    def receive(self, sent: Sent) -> Sequence[Answer]:
        """A phone buzzes: what comes of it."""
        if sent.decision_id in self.seen:
            return ()
        self.seen.add(sent.decision_id)
        person = self.person(sent.user)
        fatigue = self.fatigue.setdefault(sent.user, Fatigue())
        felt = fatigue.felt(sent.at_ms)
        self.truth[sent.decision_id] = open_probability(person, sent, felt, self.seed)
        fatigue.add(sent.at_ms)
        return answers(person, sent, felt, self.seed)


def sent_of(event: Event, at_ms: int) -> Sent | None:
    """Read a ``Notification Sent`` receipt; None when it does not name its decision and user.

    Parameters
    ----------
    at_ms
        The event time of the receipt.
    """
    properties = event.properties
    decision_id = properties.get("decisionId")
    if not isinstance(decision_id, str) or not event.user_id:
        return None
    texts = {name: str(properties.get(name, "")) for name in ("campaign", "category", "variant")}
    return Sent(decision_id, event.user_id, texts["campaign"], texts["category"], texts["variant"], at_ms)
