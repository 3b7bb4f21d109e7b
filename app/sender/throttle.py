"""When a provider may be asked again: its rate, the pauses it asks for, and a circuit breaker. Pure.

The breaker is our own, since those that exist wrap a call and raise: here messages wait their turn instead, in the
order of their urgency, and a test moves the clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from app.sender.providers.base import Accepted, Outcome, Rejected, Retry


@dataclass(frozen=True, slots=True)
class ThrottleSettings:
    """Bounds of a `Throttle`.

    Parameters
    ----------
    rate_per_s
        Attempts a second; 0 for no bound.
    failures_max
        So many attempts in a row without an answer to the message open the breaker.
    open_s, open_s_max
        How long it stays open: `open_s`, doubled each time the probe fails.
    pause_ms_max
        Bound on the pause that a ``Retry-After`` may impose.
    """

    rate_per_s: float = 0.0
    failures_max: int = 20
    open_s: float = 2.0
    open_s_max: float = 60.0
    pause_ms_max: int = 120_000


class Throttle:
    """Closed, open, or half-open: after `open_s` one attempt at a time goes through, until one is answered.

    An answer is `Accepted` or `Rejected`: the provider works, whatever it thinks of the message. A ``Retry-After``
    pauses without counting as a failure.
    """

    def __init__(self, settings: ThrottleSettings) -> None:
        self._settings = settings
        self._failures = 0
        self._opened = 0  # how often in a row
        self._resume_s = -math.inf
        self._rate_free_s = -math.inf

    @property
    def broken(self) -> bool:
        """Whether the breaker is open or half-open."""
        return self._opened > 0

    def wait_s(self, now_s: float, under_way: int) -> float:
        """How long until another attempt may begin: 0 for now, infinite for "when one has ended"."""
        if now_s < self._resume_s:
            return self._resume_s - now_s
        if self._opened and under_way:
            return math.inf
        return max(0.0, self._rate_free_s - now_s)

    def begin(self, now_s: float) -> None:
        """An attempt begins."""
        if self._settings.rate_per_s:
            # At most a tenth of a second's worth may be saved up.
            self._rate_free_s = max(self._rate_free_s, now_s - 0.1) + 1.0 / self._settings.rate_per_s

    def ended(self, outcome: Outcome, now_s: float) -> None:
        """An attempt was answered, or not."""
        if isinstance(outcome, Accepted | Rejected):
            self._failures = self._opened = 0
            return
        if isinstance(outcome, Retry) and outcome.after_ms:
            pause_s = min(outcome.after_ms, self._settings.pause_ms_max) / 1_000
            self._resume_s = max(self._resume_s, now_s + pause_s)
            return
        if now_s < self._resume_s:
            return  # it began before the breaker opened
        self._failures += 1
        if self._opened or self._failures >= self._settings.failures_max:
            open_s = min(self._settings.open_s * 2**self._opened, self._settings.open_s_max)
            self._opened = min(self._opened + 1, 16)
            self._resume_s = now_s + open_s
