"""The peer: events a user in a hopping window (60 s, moving by 20 s), as QuixStreams' documentation has it.

State in RocksDB with a changelog topic and the library's own defaults. The clock stops when `run` has returned: then
state, changelog and offsets are flushed. It runs in an environment without our packages.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import tempfile
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

from quixstreams import Application


class Countdown:
    """Takes the time at the first event, and stops the application at the last."""

    def __init__(self, application: Application, count: int) -> None:
        self._application = application
        self._left = count
        self.started_s = self.started_cpu_s = 0.0

    def one(self, _event: Any) -> None:
        """One more event is being processed."""
        if not self.started_s:
            self.started_s, self.started_cpu_s = time.monotonic(), time.process_time()
        self._left -= 1
        if self._left == 0:
            self._application.stop()


def run(broker: str, topic: str, count: int, folder: str) -> Countdown:
    """Process `count` events; returns when they are flushed."""
    application = Application(
        broker_address=broker,
        consumer_group=f"peer-{uuid.uuid4().hex[:8]}",
        auto_offset_reset="earliest",
        state_dir=folder,
        loglevel="WARNING",
    )
    countdown = Countdown(application, count)
    events = application.dataframe(application.topic(topic, value_deserializer="json"))
    events = events.update(countdown.one)
    events.hopping_window(timedelta(seconds=60), timedelta(seconds=20)).count().current()
    application.run()
    return countdown


def main() -> None:
    """Be the measured process."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--broker", required=True)
    arguments.add_argument("--topic", required=True)
    arguments.add_argument("--events", type=int, required=True)
    arguments.add_argument("--report", type=Path, required=True)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="nudge-bench-quix-") as folder:
        done = run(options.broker, options.topic, options.events, folder)
        seconds, cpu_s = time.monotonic() - done.started_s, time.process_time() - done.started_cpu_s
    detail = {"quixstreams": importlib.metadata.version("quixstreams")}
    part = options.report.with_suffix(".part")
    part.write_text(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "detail": detail}))
    part.rename(options.report)


if __name__ == "__main__":
    main()
