"""A worker's policy: which version is served, and what becomes of one that could not be."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app import policy_feed
from app.core.index import PlanIndex
from app.policy.load import load_policy_text
from app.policy.versions import PolicyLog
from app.policy_feed import PolicyFeed
from app.settings import load_settings
from schemas.policies import encode_policy_version, head_key
from tests.support.site import eventually

TEXT = 'version: 1\nname: shop\nsegments:\n  - {name: s, when: \'count("E", "7d") > 1\'}\n'


class NoMetrics:
    def refused(self, reason: str) -> None: ...


async def test_a_version_that_a_full_disk_kept_from_being_served_is_served_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_feed, "RETRY_S", 0.01)
    settings = load_settings(profile="dev", data_dir=tmp_path, policy="", policy_name="shop")
    served: list[int] = []

    def switch(_index: PlanIndex, serial: int) -> None:
        served.append(serial)

    feed = PolicyFeed(settings, None, switch, NoMetrics())
    refuses = tmp_path / settings.app_id
    refuses.touch()  # a file where the directory should be
    following = asyncio.create_task(feed._run())
    version = PolicyLog(b"").successor(load_policy_text(TEXT), "shop", TEXT, author="ann", at_ms=0)
    feed._take(head_key("shop"), encode_policy_version(version, settings.secret_bytes()), 0)
    await asyncio.sleep(0.1)
    assert served == []
    refuses.unlink()

    async def done() -> bool:
        return served == [1]

    await eventually(done, "the version is in force", 10)
    following.cancel()
