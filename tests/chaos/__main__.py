"""Long runs of fault tests by hand: ``python -m tests.chaos kill --kills 20 --workers 2 --json``."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from pathlib import Path

from app.embedded import EmbeddedBroker
from tests.chaos import kill
from tests.support.kafka import KafkaBroker
from tests.support.site import Site


async def _run(options: argparse.Namespace) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="nudge-chaos-") as directory:
        if options.kafka:
            with KafkaBroker() as real:
                return await _on(real.bootstrap, Path(directory), options)
        with EmbeddedBroker() as broker:
            return await _on(broker.bootstrap, Path(directory), options)


async def _on(bootstrap: str, directory: Path, options: argparse.Namespace) -> dict[str, object]:
    site = Site(bootstrap, directory, real=options.kafka)
    await site.start()
    try:
        return await kill.run(site, kills=options.kills, workers=options.workers, seed=options.seed)
    finally:
        await site.stop()


def main() -> None:
    """Run one fault test; exit 1 when something was lost or done twice."""
    arguments = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    arguments.add_argument("name", choices=["kill"])
    arguments.add_argument("--kills", type=int, default=20)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--kafka", action="store_true", help="on real Apache Kafka instead of the embedded broker")
    arguments.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = arguments.parse_args()
    figures = asyncio.run(_run(options))
    for name, value in figures.items():
        print(f"{name}: {value}")
    if options.json:
        print(json.dumps(figures))
    wrong = ("lost", "over_counted", "rows_different", "decisions_missing", "decisions_spurious")
    raise SystemExit(any(figures[name] for name in wrong))


if __name__ == "__main__":
    main()
