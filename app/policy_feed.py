"""Keeps a worker at the newest version of its policy that loads.

The `policy` topic goes before the file: whatever is applied there is in force on every worker, now and after a
restart. The file (NUDGE_POLICY) is what a worker serves as long as the topic has no version of that policy. A version
that does not load is refused and counted, and what was served stays; so does a worker that starts serve the newest
version before it that loads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from app.core.earlier import NOTHING, Earlier
from app.core.index import PlanIndex
from app.core.plan import Plan
from app.core.processor import make_index
from app.policy.errors import PolicyErrors
from app.policy.load import load_policy_text
from app.policy.versions import PolicyLog
from app.policy_memory import PolicyMemory
from app.settings import Settings
from app.stream.background import end
from app.stream.broadcast import BroadcastReader
from schemas.policies import PolicyVersion
from schemas.topics import POLICY

log = structlog.get_logger(__name__)

RETRY_S: Final = 5.0
Switch = Callable[[PlanIndex, int], None]


class PolicyMetrics(Protocol):
    """Where refusals are counted."""

    def refused(self, reason: str) -> None:
        """A version was not used: ``signature`` or ``invalid``."""


class PolicyFeed:
    """Reads the topic and switches.

    Parameters
    ----------
    file
        The plan of the policy file, if there is one.
    switch
        Called on the event loop with each policy that comes into force, and its serial (0: from the file).
    """

    def __init__(self, settings: Settings, file: Plan | None, switch: Switch, metrics: PolicyMetrics) -> None:
        self._settings = settings
        self._file = file
        self._switch = switch
        self._metrics = metrics
        self._log = PolicyLog(settings.secret_bytes())
        self._memory = PolicyMemory(settings.data_dir / settings.app_id / "policies.json")
        self._reader = BroadcastReader(settings.client_settings(), POLICY, self._take)
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._serving: tuple[str, int] | None = None
        self.problem: str | None = None

    async def start(self) -> None:
        """Return when a policy is in force; `problem` says meanwhile what is missing."""
        await self._reader.start()
        self._report_refused()
        self._news.clear()
        self._report_unreachable()
        while not await self._follow():
            self.problem = self._missing()
            log.warning("waiting", problem=self.problem)
            await self._news.wait()
            self._news.clear()
        self.problem = None
        self._task = asyncio.create_task(self._run(), name="policy")

    async def stop(self) -> None:
        """Stop reading."""
        if self._task is not None:
            await end(self._task)
        await self._reader.stop()

    def name(self) -> str:
        """The policy that this worker serves; empty as long as that is not clear."""
        if self._settings.policy_name:
            return self._settings.policy_name
        if self._file is not None:
            return self._file.name
        names = self._log.names()
        return names[0] if len(names) == 1 else ""

    def _missing(self) -> str:
        names = self._log.names()
        if len(names) > 1 and not self.name():
            return f"the topic {POLICY!r} has several policies ({', '.join(names)}): set NUDGE_POLICY_NAME to one"
        if self.name() in names:
            return f"no version of policy {self.name()!r} on the topic {POLICY!r} loads"
        return "there is no policy: run `nudge policy apply FILE`, or set NUDGE_POLICY to a file"

    def _report_unreachable(self) -> None:
        head = self._log.head(self.name())
        if head is not None and self._file is not None and head.version != self._file.version:
            log.warning("policy_file_superseded", file=self._file.version, serial=head.serial, topic=head.version)

    # -- the topic

    def _take(self, key: bytes | None, value: bytes | None, offset: int) -> None:
        """One record."""
        if self._log.apply(key, value, offset) is not None:
            self._news.set()
        if self._task is not None:
            self._report_refused()

    def _report_refused(self) -> None:
        for text in self._log.refused:
            self._metrics.refused("signature")
            log.error("policy_refused", error=text)
        self._log.refused.clear()

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._follow()
            except Exception as exc:  # a full disk, perhaps; nobody awaits this task, so it would end unseen
                log.error("policy_not_followed", error=repr(exc), action="try again")
                self._news.set()
                await asyncio.sleep(RETRY_S)

    async def _follow(self) -> bool:
        """Serve the newest version that loads; False when there is none at all."""
        for version in self._log.fallbacks(self.name()):
            if (version.version, version.serial) == self._serving:
                return True
            index = await self._compile(version)
            if index is not None:
                self._serve(index, version.serial)
                return True
            if self._serving:
                return True
        if self._file is not None and not self._serving:
            index = await asyncio.to_thread(make_index, self._file, self._earlier())
            self._serve(index, 0)
        return self._serving is not None

    async def _compile(self, version: PolicyVersion) -> PlanIndex | None:
        """In a thread: a large policy takes a second, which events need not wait for."""
        earlier = self._earlier()

        def compile_it() -> PlanIndex:
            plan = load_policy_text(version.text, f"{version.policy}@{version.serial}")
            return make_index(plan, earlier)

        try:
            return await asyncio.to_thread(compile_it)
        except PolicyErrors as exc:
            error = str(exc)
        except Exception as exc:  # written by another build, perhaps: whatever it is, the one in force is better
            error = repr(exc)
        self._metrics.refused("invalid")
        log.error("policy_refused", policy=version.policy, serial=version.serial, error=error)
        return None

    def _earlier(self) -> Earlier:
        earlier = self._memory.add_to(NOTHING)
        for version in self._log.history(self.name()):
            earlier = earlier.with_version(version.version, version.features, version.segments)
        return earlier

    def _serve(self, index: PlanIndex, serial: int) -> None:
        plan = index.plan
        self._memory.remember(plan)
        self._serving = (plan.version, serial)
        self._switch(index, serial)
        log.info("policy_in_force", policy=plan.name, serial=serial, version=plan.version)
        for warning in plan.warnings:
            log.warning("policy_doubtful", warning=warning)
