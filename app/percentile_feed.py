"""Keeps a worker at the thresholds of percentiles that are in force, from the moment that a policy asks for some."""

from __future__ import annotations

import msgspec
import structlog

from app.core.percentiles import Board
from app.core.processor import Processor
from app.metrics import Metrics
from app.settings import Settings
from app.stream.broadcast import BroadcastReader
from schemas.percentiles import decode_percentiles
from schemas.topics import PERCENTILES

log = structlog.get_logger(__name__)

READ_S_MAX = 30.0


class PercentileReader:
    """Reads the topic `percentiles` and serves what it says.

    Until it has been read, whoever is in a segment with a percentile stays and nobody enters: so nothing has to wait
    for it.
    """

    def __init__(self, processor: Processor, settings: Settings, metrics: Metrics) -> None:
        self._processor = processor
        self._metrics = metrics
        self._reader = BroadcastReader(settings.client_settings(), PERCENTILES, self.apply)
        self._following = False
        self._ready = False
        self.board = Board()

    async def follow(self) -> bool:
        """Begin to read, if it was not begun; True when what was there has been read. Raises `TimeoutError`."""
        if not self._following:
            self._following = True
            try:
                await self._reader.start(READ_S_MAX)
            except TimeoutError:
                self._following = False
                await self._reader.stop()
                raise TimeoutError(f"topic {PERCENTILES!r} cannot be read; `nudge topics create` makes it") from None
            self._ready = True
            self._serve()
        return self._ready

    async def stop(self) -> None:
        """Stop reading."""
        await self._reader.stop()

    def apply(self, key: bytes | None, value: bytes | None, _offset: int) -> None:
        """One record of the topic."""
        if key is None:
            return
        try:
            moved = self.board.take(key, None if value is None else decode_percentiles(value))
        except msgspec.MsgspecError as exc:
            log.error("percentiles_rejected", error=str(exc))
            return
        if moved and self._ready:
            self._serve()

    def _serve(self) -> None:
        """Thresholds come into force between two batches: this runs on the event loop."""
        self._processor.serve(self.board.buckets())
        metrics, served = self._metrics, self.board.thresholds()
        self._processor.percentiles = dict(served)
        for gauge in (metrics.percentile_threshold, metrics.percentile_share):
            gauge.clear()
        for one in self._processor.measured:
            record = served.get(one.text)
            for cut in record.cuts if record is not None else ():
                name = f"{cut.name} {one.text}"
                metrics.percentile_threshold.labels(name).set(cut.value)
                metrics.percentile_share.labels(name).set(cut.share)
