"""How long the group must still count us as a member: the permission to write to the partitions that are ours.

The coordinator lets a member go no sooner than a session timeout after the last heartbeat that reached it. A heartbeat
was sent before it arrived, so until a session timeout after the *sending* of the last answered one nobody else can own
our partitions. A process that was suspended finds its lease run out when it wakes, and asks before it writes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

_POLL_S: Final = 0.05
SILENT_S_MAX: Final = 8.0
"""From then on a process is not ready. A connection may look alive for long after its other end has gone, but a
heartbeat is answered every 1 to 3 s."""


def boot_time() -> float:
    """Seconds on a clock that also counts the time in which the machine slept, where there is one."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


class LeaseLost(RuntimeError):
    """The group went on without us: our partitions may have another owner, and what is in flight is void."""


class Lease:
    """Renewed in the consumer's thread, asked in the event loop.

    Parameters
    ----------
    session_s
        The group's session timeout.
    clock
        Seconds, never going back.
    """

    def __init__(self, session_s: float, clock: Callable[[], float] = boot_time) -> None:
        self.session_s = session_s
        self.clock = clock
        self._until = 0.0
        self._lost = False

    def renew(self, asked_at: float) -> None:
        """The coordinator has answered, as to a member, what was asked at `asked_at`."""
        self._lost = False
        self._until = max(self._until, asked_at + self.session_s)

    def lose(self) -> None:
        """The coordinator does not know us any more, until we have joined anew."""
        self._lost = True
        self._until = 0.0

    @property
    def valid(self) -> bool:
        """Whether nobody else can own our partitions now."""
        return self.clock() < self._until

    @property
    def silent_s(self) -> float:
        """How long ago that was asked which the coordinator answered last, as to a member."""
        return self.clock() - self._until + self.session_s

    async def confirm(self) -> None:
        """Return when the lease is valid; after a pause this waits for the coordinator's next answer.

        Raises
        ------
        LeaseLost
            When it says that we are no member.
        """
        while not self.valid:
            if self._lost:
                raise LeaseLost(
                    f"the group took our partitions away: no heartbeat reached it for {self.session_s:g} s "
                    "(suspended, starved or cut off)"
                )
            await asyncio.sleep(_POLL_S)
