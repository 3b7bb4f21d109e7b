"""What the engine needs of the pure core, and whom it reports to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from app.core.effects import Effects
from app.core.history import Windows
from app.core.profile import Profile


class BatchProcessor(Protocol):
    """The pure core, as `app.core.processor.Processor` gives it."""

    def process(
        self,
        records: Sequence[Any],
        topic: str,
        partition: int,
        rows: dict[bytes, Profile],
        *,
        now_ms: int,
        acked_offset: int,
        reload: Callable[[bytes], Profile | None],
    ) -> Effects:
        """Apply records to rows; `reload` gives a row as it was before this call."""
        ...

    def sweep(
        self,
        keys: Iterable[bytes],
        rows: dict[bytes, Profile],
        windows: Windows,
        *,
        now_ms: int,
        mark: int,
        acked_offset: int,
    ) -> Effects:
        """Bring rows that wait for no event to the policy in force."""
        ...

    def adjust(
        self, keys: Iterable[bytes], rows: dict[bytes, Profile], *, now_ms: int, mark: int, acked_offset: int
    ) -> Effects:
        """Have rows that wait for no event follow the percentiles."""
        ...

    def fire(
        self, keys: Iterable[bytes], rows: dict[bytes, Profile], *, now_ms: int, mark: int, acked_offset: int
    ) -> Effects:
        """Run what is due in these rows."""
        ...


class Observer(Protocol):
    """Where the engine reports to (the metrics)."""

    def effects(self, effects: Effects, partition: int) -> None:
        """A batch was processed."""

    def batch(self, records: int, seconds: float) -> None:
        """How large it was and how long the processing took."""

    def durable(self, effects: Effects) -> None:
        """Its effects are durable."""

    def members(self, partition: int, counts: Mapping[int, int] | None) -> None:
        """Members by segment id of a restored partition; None when the partition was given up."""
