"""The clock: between batches, whatever is due is looked at."""

from __future__ import annotations

from typing import Any

from app.stream.app import StreamApp
from app.stream.engine import Engine


def attach(app: StreamApp, engine: Engine, *, interval_s: float) -> Any:
    """Attach the timer that ticks `engine`."""

    @app.timer(interval_s, name="timers")
    async def timers() -> None:
        try:
            await engine.tick()
        except Exception as exc:
            app.fatal("firing timers failed", exc)

    return timers
