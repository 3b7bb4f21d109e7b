"""When to try again: a bounded schedule, the same for the same message and attempt."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.ids import BUCKETS, bucket


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with jitter over the upper half of each step.

    Parameters
    ----------
    attempts_max
        Attempts in all, the first included.
    retry_after_ms_max
        A provider that asks for a longer pause than this is not asked again.
    """

    attempts_max: int = 5
    base_ms: int = 500
    step_ms_max: int = 30_000
    retry_after_ms_max: int = 120_000

    def delay_ms(self, message_id: str, attempt: int, after_ms: int | None = None) -> int | None:
        """Wall-clock wait before the attempt after number `attempt` (from 1); None when there is none.

        The jitter is a hash of the id and the attempt, so that messages refused together do not come back together.
        It never undercuts `after_ms`, the provider's ``Retry-After``.

        Examples
        --------
        >>> [Backoff(attempts_max=4).delay_ms("id", attempt) for attempt in (1, 2, 3, 4)]
        [412, 562, 1829, None]
        >>> Backoff().delay_ms("id", 1, after_ms=2_000), Backoff().delay_ms("id", 1, after_ms=3_600_000)
        (2412, None)
        """
        if attempt >= self.attempts_max or (after_ms or 0) > self.retry_after_ms_max:
            return None
        step_ms = min(self.base_ms << (attempt - 1), self.step_ms_max)
        jitter = bucket(message_id, f"backoff{attempt}") / BUCKETS
        return (after_ms or 0) + int(step_ms * (0.5 + 0.5 * jitter))
