"""Where the time comes from: the system, or an accelerated clock that replays recorded history.

The core never asks for the time; the shell asks here and passes it down.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Event-time 'now' in milliseconds since 1970, and how fast it runs."""

    @property
    def rate(self) -> float:
        """Event-time seconds in one second."""
        ...

    def now_ms(self) -> int:
        """The time."""
        ...

    def at_ms(self, wall_ms: int) -> int:
        """What it showed at a wall time."""
        ...


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The machine's clock."""

    rate: float = 1.0

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def at_ms(self, wall_ms: int) -> int:
        return wall_ms


@dataclass(frozen=True, slots=True)
class ScaledClock:
    """`rate` event-time seconds pass in each second since `wall_ms`, when it read `event_ms`."""

    event_ms: int
    wall_ms: int
    rate: float

    def now_ms(self) -> int:
        return self.event_ms + int((time.time_ns() / 1e6 - self.wall_ms) * self.rate)

    def at_ms(self, wall_ms: int) -> int:
        return self.event_ms + int((wall_ms - self.wall_ms) * self.rate)

    def spec(self) -> str:
        """The text that `clock_from_spec` reads."""
        return f"scaled:{self.event_ms}:{self.wall_ms}:{self.rate}"


def clock_from_spec(spec: str) -> Clock:
    """Read ``system`` or ``scaled:EVENT_MS:WALL_MS:RATE``.

    Raises
    ------
    ValueError
        With the text and what was expected.
    """
    if spec == "system":
        return SystemClock()
    kind, *rest = spec.split(":")
    try:
        event_ms, wall_ms, rate = rest
        if kind == "scaled" and float(rate) > 0:
            return ScaledClock(int(event_ms), int(wall_ms), float(rate))
    except ValueError:
        pass
    raise ValueError(f"{spec!r}: expected 'system' or 'scaled:EVENT_MS:WALL_MS:RATE' with RATE > 0")
