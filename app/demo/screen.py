"""What is seen while the demo runs: a live screen on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from app.demo.count import Tally
from app.demo.quality import Quality, percentile, quality_of
from app.demo.report import WHAT_IS_REAL, pairs

PLAIN_EVERY_S: Final = 5.0
_RECENT_LATENCIES: Final = 2000
_RATE_OVER_S: Final = 3.0


class Screen:
    """Shows a tally as it grows.

    Parameters
    ----------
    progress
        Gives the share of the replay that is over, in [0, 1], and the event time in ms.
    """

    def __init__(
        self, console: Console, tally: Tally, progress: Callable[[], tuple[float, int]], *, plain: bool
    ) -> None:
        self._console = console
        self._tally = tally
        self._progress = progress
        self._live = None if plain else Live(console=console, auto_refresh=False, transient=True)
        self._plain_due = 0.0
        self._speed: deque[tuple[float, int]] = deque()
        self._quality_due = 0.0
        self._last_quality = quality_of(())
        self.gauges: dict[str, float] = {}

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def open(self) -> None:
        """Start showing."""
        if self._live is not None:
            self._live.start()

    def close(self) -> None:
        """Stop showing and leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()

    def refresh(self) -> None:
        """Show the present state; call it a few times a second."""
        now = time.monotonic()
        self._speed.append((now, self._tally.events))
        while now - self._speed[0][0] > _RATE_OVER_S:
            self._speed.popleft()
        if self._live is not None:
            self._live.update(self._render(), refresh=True)
        elif now >= self._plain_due:
            self._plain_due = now + PLAIN_EVERY_S
            self.say(self._line())

    def _rate(self) -> float:
        (then, before), (now, after) = self._speed[0], self._speed[-1]
        return (after - before) / (now - then) if now > then else 0.0

    def _line(self) -> str:
        share, at_ms = self._progress()
        tally = self._tally
        quality = self._quality()
        p50, p99 = self._latency()
        return (
            f"{share:4.0%}  {_day(at_ms)}  events {tally.events:,} ({self._rate():,.0f}/s)  decisions to send "
            f"{tally.decisions_sent:,}  not to {tally.suppressed.total():,}  sent {tally.sends:,}  "
            f"AUC {_or_dash(quality.auc)}  event→decision {_or_dash(p50, 0)}/{_or_dash(p99, 0)} ms"
        )

    def _quality(self) -> Quality:
        """At most once a second: it sorts all examples."""
        now = time.monotonic()
        if now >= self._quality_due:
            self._quality_due = now + 1.0
            self._last_quality = quality_of([(score, label) for score, label, _ in self._tally.examples.values()])
        return self._last_quality

    def _latency(self) -> tuple[float | None, float | None]:
        recent = sorted(self._tally.latencies()[-_RECENT_LATENCIES:])
        return percentile(recent, 0.5), percentile(recent, 0.99)

    def _render(self) -> RenderableType:
        share, at_ms = self._progress()
        head = Table.grid(expand=True, padding=(0, 2))
        head.add_column(no_wrap=True)
        head.add_column(ratio=1)
        head.add_row(f"[bold]{_day(at_ms)}[/]", ProgressBar(total=1.0, completed=share))
        body = Table.grid(padding=(0, 4))
        body.add_row(self._flow(), self._learning())
        lower = Table.grid(padding=(0, 4))
        segments = sorted(self._tally.segment_sizes().items(), key=lambda item: -item[1])
        lower.add_row(
            pairs("users in segments", [(name, f"{size:,}") for name, size in segments[:12]]),
            pairs("not sent, because", [(name, f"{n:,}") for name, n in self._tally.suppressed.most_common()]),
        )
        parts = (head, Text(), body, Text(), lower, Text(), self._newest(), Text(WHAT_IS_REAL, style="dim italic"))
        return Panel(Group(*parts), title="nudge demo · Ctrl-C ends it")

    def _flow(self) -> Table:
        tally = self._tally
        names = tally.event_names
        rows = [
            ("events", f"{tally.events:,}"),
            ("events a second", f"{self._rate():,.0f}"),
            ("waiting for a worker", f"{self.gauges.get('nudge_consumer_lag_records', 0.0):,.0f}"),
            ("decisions to send", f"{tally.decisions_sent:,}"),
            ("sent", f"{tally.sends:,}"),
            ("opened", f"{names['Notification Opened']:,}"),
            ("dismissed", f"{names['Notification Dismissed']:,}"),
            ("dead letters", f"{tally.dead_letters.total():,}"),
        ]
        return pairs("flow", rows)

    def _learning(self) -> Table:
        quality = self._quality()
        p50, p99 = self._latency()
        rows = [
            ("examples learned", f"{quality.examples:,}"),
            ("model version", f"{self.gauges.get('nudge_model_version', 0.0):,.0f}"),
            ("AUC", _or_dash(quality.auc)),
            ("log loss", _or_dash(quality.log_loss)),
            ("log loss of a constant", _or_dash(quality.log_loss_constant)),
            ("event → decision p50", f"{_or_dash(p50, 0)} ms"),
            ("event → decision p99", f"{_or_dash(p99, 0)} ms"),
        ]
        return pairs("learning and latency", rows)

    def _newest(self) -> RenderableType:
        newest = self._tally.newest
        if newest is None or newest.content is None:
            return Text("no notification yet", style="dim")
        text = Text.assemble(
            (newest.content.title, "bold"), "  ", newest.content.body, overflow="ellipsis", no_wrap=True
        )
        about = f"{newest.campaign} → {newest.user}, P(open) {newest.open_probability:.2f}"
        return Group(Text(f"newest notification: {about}", style="dim"), text)


def _day(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%a %d %b %Y %H:%M}"


def _or_dash(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
