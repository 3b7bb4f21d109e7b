"""The courier: takes one job to the user's devices, attempt by attempt, until it has an end or must be given back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from app.sender.backoff import Backoff
from app.sender.jobs import Job, message_of
from app.sender.lane import Lane, Stopping
from app.sender.providers import PROVIDER_OF
from app.sender.providers.base import BadProvider, Provider
from app.sender.recorder import Recorder
from app.sender.rules import Conclusion, NextDevice, TryAgain, Verdict, conclude, give_up
from app.sender.throttle import ThrottleSettings


@dataclass(frozen=True, slots=True)
class CourierSettings:
    """Bounds and waits, in wall-clock time.

    Parameters
    ----------
    concurrency
        Messages on the way to one provider at a time.
    attempt_timeout_s
        Less than a stopping process waits for what is on the way.
    hold_poll_s
        How often a message that is held back is looked at again.
    """

    concurrency: int = 64
    attempt_timeout_s: float = 25.0
    backoff: Backoff = field(default_factory=Backoff)
    throttle: ThrottleSettings = field(default_factory=ThrottleSettings)
    hold_poll_s: float = 1.0


class Courier:
    """Chooses the provider by the device, retries, and goes to the next device when one refuses for good.

    Parameters
    ----------
    judge
        Asked immediately before every attempt.

    Raises
    ------
    BadProvider
        If `default` is not among `providers`.
    """

    def __init__(
        self,
        providers: Mapping[str, Provider],
        default: str,
        judge: Callable[[Job], Verdict],
        settings: CourierSettings,
        recorder: Recorder,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        if default not in providers:
            raise BadProvider(f"default provider {default!r}: expected one of {', '.join(sorted(providers))}")
        self._default = default
        self._judge = judge
        self._settings = settings
        self._recorder = recorder
        self._sleep = sleep
        self._stopping = asyncio.Event()
        self._lanes = {
            name: Lane(
                name,
                provider,
                concurrency=settings.concurrency,
                timeout_s=settings.attempt_timeout_s,
                throttle=settings.throttle,
                recorder=recorder,
                sleep=sleep,
                monotonic_s=monotonic_s,
            )
            for name, provider in providers.items()
        }

    async def take(self, job: Job, reserve: Callable[[Job], Awaitable[None]]) -> tuple[Conclusion, str] | None:
        """The job's end and the provider that was asked last ("" for none); None when it must be given back.

        A job that is given back was certainly not sent, unless `maybe_sent` says otherwise.

        Parameters
        ----------
        reserve
            Awaited before the first attempt.
        """
        while True:
            lane = self._lanes[self._route(job)]
            try:
                async with lane.turn(urgent=job.decision.transactional):
                    verdict = self._judge(job)
                    if verdict is Verdict.SEND and not job.reserved:
                        await reserve(job)
                        verdict = self._judge(job)  # again after every wait: an opt-out may have come since
                    if verdict is Verdict.SEND:
                        job.attempts += 1
                        job.tries += 1
                        outcome = await lane.send(message_of(job))
            except Stopping:
                return None
            if verdict is Verdict.HOLD:
                if not await self.pause(self._settings.hold_poll_s):
                    return None
                continue
            if verdict is not Verdict.SEND:
                return give_up(job, verdict.value), ""
            following = conclude(job, lane.name, outcome, self._settings.backoff)
            if isinstance(following, Conclusion):
                return following, lane.name
            if isinstance(following, TryAgain):
                self._recorder.retried(lane.name)
                if not await self.pause(following.delay_ms / 1_000):
                    return None
            else:
                assert isinstance(following, NextDevice)

    def _route(self, job: Job) -> str:
        """The device's kind chooses among the providers in use, and nothing else."""
        name = PROVIDER_OF.get(str(job.device.get("type")), "")
        return name if name in self._lanes else self._default

    async def pause(self, seconds: float) -> bool:
        """Sleep; False as soon as the courier is told to stop."""
        if self._stopping.is_set():
            return False
        sleeping = asyncio.ensure_future(self._sleep(seconds))
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({sleeping, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            stopped.cancel()
        return not self._stopping.is_set()

    @property
    def stopping(self) -> bool:
        """Whether no new attempt begins."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Begin no attempt any more: what waits is given back, what is on the way is awaited."""
        self._stopping.set()
        for lane in self._lanes.values():
            lane.stop()

    def resume(self) -> None:
        """The inverse of `stop`."""
        self._stopping.clear()
        for lane in self._lanes.values():
            lane.resume()

    async def close(self) -> None:
        """Close the providers."""
        for lane in self._lanes.values():
            await lane.close()
