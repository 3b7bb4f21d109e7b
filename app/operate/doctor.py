"""What is wrong with an installation, and how to mend it. Nothing is changed; the broker is asked the time with empty
records.

A check is a function that gives findings; a check that raises is itself a finding, so that one broken thing does not
hide the others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from app.operate.check_broker import check_broker, check_clock, check_topic_settings
from app.operate.check_feeds import check_models, check_policy
from app.operate.check_host import (
    check_addresses,
    check_disk,
    check_files,
    check_policy_file,
    check_runtime,
    check_secrets,
    check_versions,
)
from app.operate.findings import Finding, Findings
from app.runtime import Runtime, tested
from app.settings import Settings
from schemas.topics import EVENTS, MODELS, POLICY

_READING: Final = {
    "clock": (EVENTS, check_clock),
    "policy": (POLICY, check_policy),
    "models": (MODELS, check_models),
}
"""What reads a topic. One that is missing is told already, and a broker may make it when asked for it: as it likes."""


async def examine(settings: Settings, here: Runtime) -> Findings:
    """Every check; those that need a broker are left out when none answers.

    Parameters
    ----------
    here
        What a worker would have that is started here: to be asked before this has an event loop of its own.
    """
    found = [
        *_guarded("versions", check_versions),
        *_guarded("runtime", lambda: check_runtime(settings, here, tested())),
        *_guarded("secrets", lambda: check_secrets(settings)),
        *_guarded("addresses", lambda: check_addresses(settings)),
        *_guarded("disk", lambda: check_disk(settings.data_dir)),
        *_guarded("files", check_files),
        *_guarded("policy", lambda: check_policy_file(settings)),
    ]
    broker, topics = await check_broker(settings)
    found += broker
    if all(finding.status != "fail" for finding in broker):
        found += await _guarded_async("topics", check_topic_settings(settings))
        for name, (topic, check) in _READING.items():
            if topic in topics:
                found += await _guarded_async(name, check(settings))
    return found


def _guarded(name: str, check: Callable[[], Findings]) -> Findings:
    try:
        return check()
    except Exception as exc:
        return [_broken(name, exc)]


async def _guarded_async(name: str, check: Awaitable[Findings]) -> Findings:
    try:
        return await check
    except Exception as exc:
        return [_broken(name, exc)]


def _broken(name: str, exc: Exception) -> Finding:
    return Finding(name, "fail", f"the check itself failed: {type(exc).__name__}: {exc}", "see the message")
