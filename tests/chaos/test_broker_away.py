"""A short outage of the network to the embedded broker; `python -m tests.chaos broker_away` makes the long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.embedded import HOST, BrokerUnavailable
from tests.chaos import broker_away
from tests.chaos.__main__ import BAD
from tests.chaos.harness import WRONG
from tests.support.proxy import broker_behind_proxy
from tests.support.site import Site

pytestmark = [pytest.mark.broker, pytest.mark.slow]


async def test_a_network_that_holds_everything_back_turns_processes_unready_and_loses_nothing(tmp_path: Path) -> None:
    try:
        with broker_behind_proxy(kafka=False) as proxy:
            site = Site(f"{HOST}:{proxy.port}", tmp_path, real=False)
            site.proxy = proxy
            await site.start()
            try:
                figures = await broker_away.run(site, seed=13, outage_s=1.0, faults=("half-open",))
            finally:
                await site.stop()
    except BrokerUnavailable as exc:
        pytest.skip(str(exc))
    print(figures)
    assert figures["fired"], f"the fault did not fire: {figures}"
    assert not any(figures[name] for name in WRONG), figures
    assert figures["sent"] > 0
    assert not any(figures.get(name) for name in BAD), figures
