"""What processing a batch leaves to be done: the pure core's only product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from app.core.profile import Profile
from app.core.row_parts import Output

Name = TypeVar("Name")


class Record(Protocol):
    """What the core reads of a Kafka record (aiokafka's records have it)."""

    @property
    def key(self) -> bytes | None:
        """The user."""

    @property
    def value(self) -> bytes | None:
        """The message."""

    @property
    def offset(self) -> int:
        """In its partition."""

    @property
    def timestamp(self) -> int:
        """Wall time, milliseconds."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """Trace context, perhaps; whatever else producers send, and Kafka lets a header have no value."""


class Tally(dict[Name, int]):
    """Numbers by name, 0 of a name that is not there.

    Two are made for each slice of a batch: a `collections.Counter` takes as long to make as an event to be decoded.
    """

    __slots__ = ()

    def __missing__(self, _name: Name) -> int:
        return 0


@dataclass(slots=True)
class Effects:
    """The shell makes these durable in order: rows, then outputs, then the offset.

    Parameters
    ----------
    changed
        Rows to write, by key. A row's outbox already holds its outputs.
    outputs
        Records to produce: decisions, membership changes, outcomes, dead letters.
    due
        (due time in ms, key): the row's next timer is now this early; the index needs it.
    counts
        Increments of metrics: (metric, label value, ...) to number.
    members
        Segment name to change of its size.
    moved
        Keys of `changed` whose row has become the mark of an erased user, or has ceased to be one: what was kept
        under the other key must be deleted.
    wished
        (hash of an item, key): the row wants the item now, as it did not before.
    latencies_ms
        Source record timestamps (ms) of events that led to a decision, for event-to-decision time.
    """

    changed: dict[bytes, Profile] = field(default_factory=dict)
    outputs: list[Output] = field(default_factory=list)
    due: list[tuple[int, bytes]] = field(default_factory=list)
    counts: Tally[tuple[str, ...]] = field(default_factory=Tally)
    members: Tally[str] = field(default_factory=Tally)
    latencies_ms: list[int] = field(default_factory=list)
    moved: set[bytes] = field(default_factory=set)
    wished: list[tuple[int, bytes]] = field(default_factory=list)
