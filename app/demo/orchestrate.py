"""The demo: a broker, workers, a sender and an audience, started, shown for a minute, counted, and taken away again.

The processes are those of production, started by their command line; only the broker and the people are not.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console

from app.clock import ScaledClock
from app.demo.audience import DAY_MS, Audience
from app.demo.count import Tally
from app.demo.faults import Shares
from app.demo.feed import EventFeed
from app.demo.fleet import ChildFailed, Fleet
from app.demo.journey import Journey, JourneyMissing, load_journey
from app.demo.player import Player
from app.demo.reader import TopicReader
from app.demo.report import WHAT_IS_REAL, Summary, summarise, tables, write_summary
from app.demo.screen import Screen
from app.demo.script import Delivery, write_script
from app.demo.shelf import Shelf, fill, play, stock
from app.embedded import HOST, BrokerUnavailable, EmbeddedBroker, free_port, is_free
from app.topics import create_topics
from schemas.topics import CATALOG, DEAD_LETTERS, DECISIONS, EVENTS, OUTCOMES, PROFILES_CHANGELOG, SEGMENTS

EVENT_DAYS_PER_SECOND: Final = 0.25
"""How fast the clock runs: 15 days in a minute. So 50 ms of real time are 18 minutes of event time, little against a
label horizon of a day; and everybody's daily looks, for personas, are 500 a second."""
SNAPSHOT_INTERVAL_S: Final = 0.7
"""Four hours of event time; the usual two seconds would let a model serve most of a day before its next snapshot."""
BOOT_S: Final = 12.0
"""Real time from the start of the processes until the clock reaches the first event."""
REWRITE_S: Final = 3.0
"""Real time to write the script anew from a later moment, when the start took longer than that."""
SPARE_DAYS: Final = 14.0
"""Read beyond the replay, for such a later moment."""
CONSOLE_PORT: Final = 6080
DRAIN_S_MAX: Final = 30.0
FOLLOW_PAUSE_S: Final = 0.1
_POLL_S: Final = 0.25
_READ: Final = (EVENTS, DECISIONS, SEGMENTS, OUTCOMES, DEAD_LETTERS, PROFILES_CHANGELOG)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may be asked of the demo.

    Parameters
    ----------
    duration_s
        Real time of the replay; starting and counting come on top.
    users
        Keep this many households, all of the period when None.
    summary
        Where to write the summary as JSON.
    plain
        Lines instead of a live screen; always so when standard output is no terminal.
    keep
        Leave the working directory (state, logs, the provider's output) behind.
    console
        Serve the web page beside it.
    """

    duration_s: float = 60.0
    users: int | None = None
    workers: int = 1
    partitions: int = 2
    seed: int = 7
    start: date = date(2017, 3, 1)
    policy: Path = Path("policies/shop.yaml")
    shares: Shares = field(default_factory=Shares)
    summary: Path | None = None
    plain: bool = False
    keep: bool = False
    console: bool = True


class Interrupted(Exception):
    """Somebody asked the demo to end."""


def run(options: Options, console: Console | None = None) -> int:
    """Run the demo as a command.

    Returns
    -------
    int
        Exit status: 0; 1 when a process failed or something was lost or done twice; 2 when the demo cannot start
        here; 130 when it was interrupted.
    """
    console = console or Console()
    try:
        summary = asyncio.run(run_demo(options, console))
    except (KeyboardInterrupt, Interrupted):
        console.print("ended on request; everything that was started has been stopped")
        return 130
    except ChildFailed as exc:
        console.print(f"[bold red]nudge demo:[/] {_plain(exc)}", highlight=False)
        return 1
    except (BrokerUnavailable, JourneyMissing, FileNotFoundError, ValueError) as exc:
        console.print(f"[bold red]nudge demo:[/] {_plain(exc)}", highlight=False)
        return 2
    console.print(tables(summary))
    if options.summary is not None:
        write_summary(summary, options.summary)
        console.print(f"summary written to {options.summary}", highlight=False)
    return 0 if summary.drained and not summary.lost and not summary.duplicates else 1


async def run_demo(options: Options, console: Console) -> Summary:
    """Run the demo; stops and removes everything it started, however it ends.

    Raises
    ------
    ChildFailed
        When a process ended early or did not become ready.
    BrokerUnavailable, JourneyMissing
        When an extra is not installed.
    Interrupted
        On SIGINT or SIGTERM.
    """
    with _interruptible():
        directory = Path(tempfile.mkdtemp(prefix="nudge-demo-"))
        try:
            async with EmbeddedBroker(log_path=directory / "broker.log") as broker:
                return await _Demo(options, console, directory, broker).run()
        except asyncio.CancelledError:
            raise Interrupted from None
        finally:
            if options.keep:
                console.print(f"kept: {directory}", highlight=False)
            else:
                shutil.rmtree(directory, ignore_errors=True)


class _Demo:
    def __init__(self, options: Options, console: Console, directory: Path, broker: EmbeddedBroker) -> None:
        self._options = options
        self._console = console
        self._directory = directory
        self._broker = broker
        self._tally = Tally()
        self._audience = Audience(options.seed)
        self._output = directory / "notifications.jsonl"
        self._days = options.duration_s * EVENT_DAYS_PER_SECOND

    async def run(self) -> Summary:
        options = self._options
        self._console.print(f"[bold]nudge demo[/]: {WHAT_IS_REAL}", highlight=False)
        policy = find_policy(options.policy)
        await create_topics(self._broker.bootstrap, options.partitions)
        loading = asyncio.create_task(asyncio.to_thread(self._load))
        start_ms = _midnight_ms(options.start)
        clock = self._clock(start_ms)
        async with self._fleet(clock, policy) as fleet:
            with self._console.status("starting a broker, a worker and a sender; reading a year of purchases"):
                journey, shelf, script = await loading
                part = self._part(journey, start_ms)
                await fleet.until_ready()
            if (now_ms := clock.now_ms()) > start_ms:
                # A slow machine: begin where the clock stands, rather than with events of the past.
                part = self._part(journey, now_ms + int(REWRITE_S * 1000 * clock.rate))
                shelf, script = await asyncio.to_thread(self._write, part)
            if options.console:
                self._start_console(fleet)
            return await self._show(part, shelf, script, clock, fleet)

    def _load(self) -> tuple[Journey, Shelf, list[Delivery]]:
        options = self._options
        journey = load_journey(options.start, self._days + SPARE_DAYS, households_max=options.users)
        return journey, *self._write(self._part(journey, journey.start_ms))

    def _part(self, journey: Journey, start_ms: int) -> Journey:
        return journey.between(start_ms, start_ms + int(self._days * DAY_MS))

    def _write(self, journey: Journey) -> tuple[Shelf, list[Delivery]]:
        shelf = stock(journey, self._options.seed)
        return shelf, write_script(journey, self._options.seed, self._options.shares, shelf)

    def _clock(self, start_ms: int) -> ScaledClock:
        rate = EVENT_DAYS_PER_SECOND * 86_400
        return ScaledClock(start_ms, time.time_ns() // 1_000_000 + int(BOOT_S * 1000), rate)

    @asynccontextmanager
    async def _fleet(self, clock: ScaledClock, policy: Path) -> AsyncIterator[Fleet]:
        env = {
            "NUDGE_BROKER": self._broker.bootstrap,
            "NUDGE_PROFILE": "dev",
            "NUDGE_IDEMPOTENT": "false",
            "NUDGE_PARTITIONS": str(self._options.partitions),
            "NUDGE_CLOCK": clock.spec(),
            "NUDGE_POLICY": str(policy),
            "NUDGE_LOG_LEVEL": "warning",
            "NUDGE_SNAPSHOT_INTERVAL_S": str(SNAPSHOT_INTERVAL_S),
            "NUDGE_PERCENTILES_INTERVAL_S": "2",
            "NUDGE_ADMIN_TOKEN": secrets.token_hex(16),  # of this demo alone: the console may ask the workers
        }
        fleet = Fleet(env, self._directory)
        try:
            for number in range(1, self._options.workers + 1):
                fleet.start("worker", f"worker-{number}")
            fleet.start("sender", "sender", NUDGE_SENDER_PROVIDER="console", NUDGE_SENDER_OUTPUT=str(self._output))
            yield fleet
        finally:
            fleet.kill()

    def _start_console(self, fleet: Fleet) -> None:
        """The web page, for whoever wants to look; the demo neither waits for it nor fails with it."""
        port = CONSOLE_PORT if is_free(CONSOLE_PORT) else free_port()
        urls = ",".join(fleet.urls())
        fleet.start_extra("console", NUDGE_WORKER_URLS=urls, NUDGE_CONSOLE_HOST=HOST, NUDGE_CONSOLE_PORT=str(port))
        self._console.print(f"console: [bold]http://{HOST}:{port}/[/] while the demo runs", highlight=False)

    async def _show(
        self, journey: Journey, shelf: Shelf, script: list[Delivery], clock: ScaledClock, fleet: Fleet
    ) -> Summary:
        options, tally = self._options, self._tally
        span_ms = journey.end_ms - journey.start_ms

        def progress() -> tuple[float, int]:
            at_ms = min(max(clock.now_ms(), journey.start_ms), journey.end_ms)
            return (at_ms - journey.start_ms) / span_ms, at_ms

        plain = options.plain or not self._console.is_terminal
        screen = Screen(self._console, tally, progress, plain=plain)
        async with (
            EventFeed(self._broker.bootstrap) as feed,
            EventFeed(self._broker.bootstrap, topic=CATALOG) as catalog,
            TopicReader(self._broker.bootstrap, _READ) as reader,
        ):
            player = Player(script, self._audience, clock, feed)
            follower = _Follower(reader, tally, player)
            await fill(shelf, catalog)
            screen.open()
            try:
                background = [
                    follower.follow(),
                    fleet.watch(),
                    self._refresh(screen, fleet),
                    play(shelf, clock, catalog),
                ]
                async with _beside(*background):
                    await player.play(journey.end_ms)
                    drained = await self._drain(feed)
                rss = fleet.worker_rss_bytes()
            finally:
                screen.close()
            screen.say("stopping the worker and the sender, and counting what stands in the topics")
            await fleet.stop()
            await follower.to_end()
            verdict = tally.judge(feed.acknowledged, _deliveries(self._output))
        return summarise(
            tally,
            verdict,
            self._audience.truth,
            replay_s=span_ms / clock.rate / 1000,
            event_time_days=span_ms / DAY_MS,
            drained=drained,
            seed=options.seed,
            worker_rss_bytes=rss,
            items=len(shelf.first),
            changes=sum(change.at_ms < journey.end_ms for change in shelf.changes),
        )

    async def _drain(self, feed: EventFeed) -> bool:
        """Wait until the rows have applied everything that we produced; False when that takes too long."""
        deadline = time.monotonic() + DRAIN_S_MAX
        while self._tally.behind(feed.acknowledged):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_POLL_S)
        return True

    async def _refresh(self, screen: Screen, fleet: Fleet) -> None:
        scrape_due = 0.0
        while True:
            if time.monotonic() >= scrape_due:
                scrape_due = time.monotonic() + 1.0
                screen.gauges = await fleet.gauges("nudge_consumer_lag_records", "nudge_model_version")
            screen.refresh()
            await asyncio.sleep(_POLL_S)


class _Follower:
    """Reads the topics into the tally, and tells the people of their notifications."""

    def __init__(self, reader: TopicReader, tally: Tally, player: Player) -> None:
        self._reader = reader
        self._player = player
        self._take: dict[str, Callable[[Any], None]] = {
            EVENTS: self._event,
            DECISIONS: tally.decision,
            SEGMENTS: tally.membership,
            OUTCOMES: tally.outcome,
            DEAD_LETTERS: tally.dead_letter,
            PROFILES_CHANGELOG: tally.row,
        }
        self._tally = tally

    async def follow(self) -> None:
        """Read for ever, in pauses: the embedded broker's work grows with the number of fetches."""
        while True:
            await self._read()
            await asyncio.sleep(FOLLOW_PAUSE_S)

    async def to_end(self) -> None:
        """Read what is left, now that nobody writes any more."""
        async with await self._reader.successor() as rest:
            while self._take_all(await rest.read()) or not await rest.at_end():
                pass

    async def _read(self) -> None:
        self._take_all(await self._reader.read())

    def _take_all(self, records: list[Any]) -> int:
        for record in records:
            self._take[record.topic](record)
        return len(records)

    def _event(self, record: Any) -> None:
        event = self._tally.event(record)
        if event is not None:
            self._player.notice(event)


def find_policy(path: Path) -> Path:
    """The policy file: as given, or beside the package in a checkout. Raises `FileNotFoundError`."""
    for candidate in (path, Path(__file__).parents[2] / path):
        if candidate.is_file():
            return candidate.resolve()
    raise FileNotFoundError(f"no policy file {path}; give one with --policy")


@asynccontextmanager
async def _beside(*background: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run coroutines while the block runs: an error of theirs ends the block, and they end with it."""
    block = asyncio.current_task()
    assert block is not None, "a coroutine runs in a task"
    failures: list[BaseException] = []

    async def guard(work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as exc:
            failures.append(exc)
            block.cancel()

    tasks = [asyncio.create_task(guard(work)) for work in background]
    try:
        yield
    except asyncio.CancelledError:
        if failures:
            block.uncancel()
            raise failures[0] from None
        raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def _interruptible() -> Any:
    """SIGINT and SIGTERM cancel the current task, so that everything is cleaned up on the way out."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _deliveries(path: Path) -> Counter[str]:
    """Decision ids in the console provider's file."""
    if not path.exists():
        return Counter()
    return Counter(orjson.loads(line)["id"] for line in path.read_bytes().splitlines())


def _midnight_ms(day: date) -> int:
    return (day - date(1970, 1, 1)).days * DAY_MS


def _plain(exc: BaseException) -> str:
    """Rich must not take brackets in a log for markup."""
    return str(exc).replace("[", r"\[")
