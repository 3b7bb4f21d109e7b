"""One broker of three is killed; `python -m tests.chaos failover` kills more of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import failover
from tests.chaos.__main__ import BAD
from tests.chaos.harness import WRONG
from tests.support.kafka import KafkaCluster
from tests.support.site import Site

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


async def test_a_broker_that_dies_moves_its_partitions_and_nothing_is_lost_or_sent_twice(tmp_path: Path) -> None:
    with KafkaCluster() as cluster:
        site = Site(cluster.bootstrap, tmp_path, real=True, partitions=6, cluster=cluster)
        await site.start()
        try:
            figures = await failover.run(site, seed=3, kills=1, away_s=6.0, quiet_s=1.0)
        finally:
            await site.stop()
    print(figures)
    assert figures["fired"], f"no event arrived while a broker was away: {figures}"
    assert not any(figures[name] for name in WRONG), figures
    assert figures["sent"] > 0
    assert not any(figures.get(name) for name in BAD), figures
