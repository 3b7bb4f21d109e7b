"""The board: the tally and the processes' figures put together, once a second, as the page is sent it."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any, Final

from app.console.feed import TopicFeed
from app.console.scrape import Scraped, buckets, versions
from app.console.series import POINTS_MAX, Rate, Window, histogram_quantile
from app.console.tally import NAMES_MAX, Tally

SEGMENT_POINTS: Final = 60
_DECISION_LAG_S: Final = 2
"""A second's decisions are counted when it is surely over and read."""
_DECISION_MEAN_S: Final = 5
_SERIES: Final = ("events", "p50_ms", "p99_ms", "sends", "suppressed")


class Board:
    """Series in memory and the newest state of everything.

    Parameters
    ----------
    tally, feed
        What the topics say, and how reading them goes.
    """

    def __init__(self, tally: Tally, feed: TopicFeed) -> None:
        self._tally = tally
        self._feed = feed
        # By process: one that was away for a while must not look like a burst when it is back.
        self._events: defaultdict[str, Rate] = defaultdict(Rate)
        self._latency: defaultdict[str, Window] = defaultdict(Window)
        self._processes: Sequence[Scraped] = ()
        self._times: deque[int] = deque(maxlen=POINTS_MAX)
        self._series: dict[str, deque[float | None]] = {name: deque(maxlen=POINTS_MAX) for name in _SERIES}
        self._members: dict[str, deque[int]] = {}

    def tick(self, processes: Sequence[Scraped], now_s: float) -> None:
        """Take a reading of all processes."""
        self._processes = processes
        alive = [process for process in processes if not process.problem]
        latency = self._latencies(alive)
        sends, suppressed = self._decided(int(now_s) - _DECISION_LAG_S)
        self._times.append(int(now_s))
        self._put("events", self._event_rate(alive, now_s))
        self._put("p50_ms", _ms(histogram_quantile(0.5, latency)))
        self._put("p99_ms", _ms(histogram_quantile(0.99, latency)))
        self._put("sends", sends)
        self._put("suppressed", suppressed)
        for name, size in self._sizes(alive).items():
            history = self._members.get(name)
            if history is None and len(self._members) < NAMES_MAX:
                history = self._members[name] = deque(maxlen=POINTS_MAX)
            if history is not None:
                history.append(size)

    def _event_rate(self, alive: Sequence[Scraped], now_s: float) -> float | None:
        rates = [
            rate
            for process in alive
            if process.has("nudge_events_total", topic="events")
            and (rate := self._events[process.url].take(now_s, process.total("nudge_events_total", topic="events")))
            is not None
        ]
        return sum(rates) if rates else None

    def _latencies(self, alive: Sequence[Scraped]) -> dict[float, float]:
        """The histogram from event to decision of the last seconds, over all processes."""
        sums: dict[float, float] = defaultdict(float)
        for process in alive:
            found = buckets(process, "nudge_event_to_decision_seconds")
            for bound, number in self._latency[process.url].take(found).items():
                sums[bound] += number
        return sums

    def _decided(self, second: int) -> tuple[float, float]:
        """Decisions a second, to send and not to, over the `_DECISION_MEAN_S` seconds that end with this one."""
        by_second = self._tally.by_second
        counts = [by_second.get(second - back, (0, 0)) for back in range(_DECISION_MEAN_S)]
        return sum(sends for sends, _ in counts) / _DECISION_MEAN_S, sum(not_ for _, not_ in counts) / _DECISION_MEAN_S

    def _put(self, name: str, value: float | None) -> None:
        self._series[name].append(value if value is None else round(value, 2))

    @staticmethod
    def _sizes(alive: Sequence[Scraped]) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for process in alive:
            for name, size in process.by("nudge_segment_members", "segment").items():
                sizes[name] = sizes.get(name, 0) + int(size)
        return sizes

    def state(self) -> dict[str, Any]:
        """Everything that the page shows."""
        tally = self._tally
        return {
            "now_ms": time.time_ns() // 1_000_000,
            "feed": {"problem": self._feed.problem, "behind": self._feed.behind, "unreadable": tally.unreadable},
            "processes": [self._process(process) for process in self._processes],
            "totals": self._totals(),
            "times": list(self._times),
            "series": {name: list(values) for name, values in self._series.items()},
            "segments": self._segments(),
            "personas": tally.personas(),
            "reasons": tally.reasons.most_common(12),
            "models": tally.models(),
            "served": tally.served(),
            "unsigned_snapshots": tally.unsigned,
            "experiments": tally.experiments(),
            "policies": self._policies(),
            "recent": tally.newest_decisions(),
        }

    def _totals(self) -> dict[str, Any]:
        processes, tally = self._processes, self._tally

        def total(name: str, **labels: str) -> float:
            return sum(process.total(name, **labels) for process in processes)

        newest = {name: values[-1] if values else None for name, values in self._series.items()}
        return {
            "events_per_s": newest["events"],
            "p50_ms": newest["p50_ms"],
            "p99_ms": newest["p99_ms"],
            "events": total("nudge_events_total", topic="events"),
            "lag": total("nudge_consumer_lag_records", topic="events"),
            "users": total("nudge_state_rows", table="profiles"),
            "dead_letters": total("nudge_dead_letter_records_total"),
            "sent": total("nudge_sends_total", outcome="sent"),
            "sends": tally.sends,
            "suppressed": tally.reasons.total(),
            "opened": tally.opened,
        }

    def _segments(self) -> list[dict[str, Any]]:
        tally = self._tally
        names = sorted({*self._members, *tally.entered, *tally.left})
        found = []
        for name in names[:NAMES_MAX]:
            history = list(self._members.get(name, ()))
            step = max(1, len(history) // SEGMENT_POINTS)
            found.append(
                {
                    "name": name,
                    "members": history[-1] if history else None,
                    "series": history[::-step][::-1],
                    "entered": tally.entered[name],
                    "left": tally.left[name],
                }
            )
        return sorted(found, key=lambda one: (-(one["members"] or 0), one["name"]))

    @staticmethod
    def _process(process: Scraped) -> dict[str, Any]:
        return {
            "url": process.url,
            "problem": process.problem,
            "ready": process.ready,
            "lag": process.total("nudge_consumer_lag_records"),
            "rows": process.total("nudge_state_rows", table="profiles"),
            "kind": "worker" if process.has("nudge_state_rows", table="profiles") else "process",
            **versions(process),
        }

    def _policies(self) -> list[dict[str, Any]]:
        """The policy's versions, and how many processes run each now."""
        running: dict[str, int] = {}
        for process in self._processes:
            if version := versions(process)["policy"]:
                running[version] = running.get(version, 0) + 1
        return self._tally.policies(running)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
