"""Fault tests by hand: ``python -m tests.chaos kill --kills 20 --json [--kafka]``; docs/chaos.md lists them."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from app.embedded import HOST, EmbeddedBroker
from tests.chaos.harness import WRONG
from tests.support.builds import NoHistory
from tests.support.kafka import KafkaBroker, KafkaCluster
from tests.support.proxy import Proxy, broker_behind_proxy
from tests.support.site import PARTITIONS, Site

NAMES = (
    "kill",
    "points",
    "storm",
    "suspend",
    "starts",
    "bad_input",
    "corruption",
    "disk_full",
    "broker_away",
    "failover",
    "rolling",
    "scale",
    "poison",
    "recovery",
    "slow_provider",
    "soak",
    "upgrade",
)
BAD = (
    "wedged",
    "sent_twice",
    "sent_expired",
    "too_slow",
    "replayed",
    "rows_not_byte_equal",
    "untold",
    "missing_sends",
    "spurious_sends",
    "too_many_unknown",
    "leaks",
)
_PARTITIONS = {"failover": 6, "scale": 6, "starts": 6}
_BEHIND_A_PROXY = ("broker_away", "soak")
_ON_A_CLUSTER = ("failover",)


async def _run(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    if options.name in _BEHIND_A_PROXY:
        with broker_behind_proxy(kafka=options.kafka) as proxy:
            return await _on(f"{HOST}:{proxy.port}", directory, options, proxy)
    if options.name in _ON_A_CLUSTER:
        assert options.kafka, "the embedded broker is always one: use --kafka"
        with KafkaCluster() as cluster:
            return await _on(cluster.bootstrap, directory, options, cluster=cluster)
    if options.kafka:
        with KafkaBroker() as real:
            return await _on(real.bootstrap, directory, options)
    with EmbeddedBroker() as broker:
        return await _on(broker.bootstrap, directory, options)


async def _on(
    bootstrap: str,
    directory: Path,
    options: argparse.Namespace,
    proxy: Proxy | None = None,
    cluster: KafkaCluster | None = None,
) -> dict[str, Any]:
    recipe = importlib.import_module(f"tests.chaos.{options.name}")
    settings = {name: json.loads(value) for name, value in options.settings}
    partitions = _PARTITIONS.get(options.name, PARTITIONS)
    site = Site(bootstrap, directory, real=options.kafka, partitions=partitions, cluster=cluster)
    site.proxy = proxy
    await site.start()
    try:
        figures: dict[str, Any] = await recipe.run(site, seed=options.seed, **settings)
        return figures
    finally:
        await site.stop()


def main() -> None:
    """Run one fault test; exit 1 when its fault did not fire, or something was lost or done twice.

    The logs and stores of a run that ended badly are kept, and the place is told.
    """
    arguments = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    arguments.add_argument("name", choices=NAMES)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--kafka", action="store_true", help="on real Apache Kafka instead of the embedded broker")
    arguments.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments.epilog = "Any other --NAME VALUE is a setting of the recipe, its value in JSON."
    options, rest = arguments.parse_known_args()
    if len(rest) % 2 or not all(name.startswith("--") for name in rest[::2]):
        arguments.error(f"not --NAME VALUE: {' '.join(rest)}")
    options.settings = [(name[2:].replace("-", "_"), value) for name, value in zip(rest[::2], rest[1::2], strict=True)]
    directory, failed = Path(tempfile.mkdtemp(prefix="nudge-chaos-")), True
    try:
        figures = asyncio.run(_run(options, directory))
        failed = not figures["fired"] or any(figures.get(name, 0) for name in (*WRONG, *BAD))
    except NoHistory as exc:
        failed = False
        raise SystemExit(print(f"skipped: {exc}")) from None
    finally:
        if failed:
            print(f"logs and stores are kept in {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory)
    for name, value in figures.items():
        print(f"{name}: {value}")
    if options.json:
        print(json.dumps(figures))
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
