"""One user's life as the topics tell it: what they did, which segments they moved through, what was decided."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Literal

import msgspec

from app.explain.history import Found, scan
from schemas.decisions import Decision, decode_decision
from schemas.events import Event, decode_event, epoch_ms
from schemas.segments import decode_membership
from schemas.topics import DECISIONS, EVENTS, SEGMENTS

MOMENTS_MAX: Final = 300
_PROPERTIES_SHOWN: Final = 6
_TEXT_CHARS_MAX: Final = 60


class Moment(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that happened to a user.

    `at_ms` is event time; `id` a decision's id; `detail` a line for people.
    """

    at_ms: int
    kind: Literal["event", "segment", "decision"]
    title: str
    detail: str = ""
    id: str = ""
    decision: Decision | None = None


class Life(msgspec.Struct, frozen=True):
    """The moments, newest first, at most `MOMENTS_MAX`; `whole` when the scan reached back as far as was asked."""

    moments: list[Moment]
    whole: bool


async def read_life(
    client_settings: dict[str, Any],
    user: str,
    *,
    partition: int | None,
    since_ms: int = 0,
    seconds_max: float = 10.0,
    topics: tuple[str, ...] = (EVENTS, SEGMENTS, DECISIONS),
) -> Life:
    """Scan the user's partition of the topics, side by side.

    Parameters
    ----------
    partition
        Where the user's records are; None to reckon it with Kafka's default partitioner.
    since_ms
        By Kafka's timestamps.
    """
    key = user.encode()

    async def one(topic: str) -> tuple[str, Found]:
        found = await scan(
            client_settings,
            topic,
            lambda record: record.key == key,
            partition=partition,
            key=key,
            since_ms=since_ms,
            seconds_max=seconds_max,
        )
        return topic, found

    moments: dict[tuple[str, str], Moment] = {}
    whole = True
    for topic, found in await asyncio.gather(*(one(topic) for topic in topics)):
        whole = whole and found.whole
        for record in found.records:
            name, moment = _moment(topic, record)
            if moment is not None:
                moments.setdefault((topic, name), moment)  # what was published again after a crash counts once
    ordered = sorted(moments.values(), key=lambda moment: -moment.at_ms)
    return Life(ordered[:MOMENTS_MAX], whole)


def _moment(topic: str, record: Any) -> tuple[str, Moment | None]:
    """The record's id and what it says; None for one that cannot be read."""
    if topic == EVENTS:
        return _event(record)
    try:
        if topic == SEGMENTS:
            change = decode_membership(record.value)
            verb = "entered" if change.change == "enter" else "left"
            cause = change.reason if change.cause == "event" else f"by the {change.cause}"
            return change.id, Moment(change.at_ms, "segment", f"{verb} {change.segment}", cause)
        made = decode_decision(record.value)
    except msgspec.MsgspecError:
        return "", None
    if made.shadow:
        return "", None
    return made.id, decision_moment(made)


def decision_moment(made: Decision) -> Moment:
    """A decision in a line; the push token does not travel with it."""
    if made.action == "send":
        title = f"decided to send {made.campaign}"
        detail = f"{made.content.title} · " if made.content else ""
        detail += f"variant {made.variant}, P(open) {made.open_probability:.0%}"
    else:
        title, detail = f"did not send {made.campaign}", made.reason
    return Moment(made.decided_ms, "decision", title, detail, made.id, without_tokens(made))


def without_tokens(made: Decision) -> Decision:
    """The decision without the addresses of the user's devices."""
    return msgspec.structs.replace(made, token={}, more_tokens=[])


def _event(record: Any) -> tuple[str, Moment | None]:
    event = decode_event(record.value, record.key)
    if not isinstance(event, Event):
        return "", None
    at_ms = record.timestamp if event.timestamp is None else epoch_ms(event.timestamp)
    # A token in an event's context or traits is not shown: only properties and the names of traits are.
    shown = event.properties if event.type == "track" else dict.fromkeys(event.traits or (), "…")
    detail = ", ".join(f"{name}={_short(value)}" for name, value in list(shown.items())[:_PROPERTIES_SHOWN])
    name = event.message_id or f"@{record.partition}-{record.offset}"
    return name, Moment(at_ms, "event", event.event or event.type, detail)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _TEXT_CHARS_MAX else text[: _TEXT_CHARS_MAX - 1] + "…"
