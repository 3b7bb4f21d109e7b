"""Where records come from: the topics `events` and `catalog`, or the demo's real purchases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import Any

from app.trial.records import Recorded
from app.whole_topic import read_whole
from schemas.topics import CATALOG, EVENTS


def from_topic(settings: Mapping[str, Any], at_ms: Callable[[int], int]) -> Iterator[Recorded]:
    """Everything that the topics hold now, partition by partition; `at_ms` turns wall time to event time.

    The catalog is compacted: of changes that are older than a day the topic may have kept only the last.
    """
    for topic in (CATALOG, EVENTS):
        for records in read_whole(settings, topic):
            for one in records:
                yield Recorded(one.key, one.value, one.partition, one.offset, at_ms(one.timestamp), topic=topic)


def from_demo(start: date, days: float, users: int, seed: int) -> Iterator[Recorded]:
    """The demo's purchases, the visits around them and its catalog, without answers: nothing was ever sent.

    Raises
    ------
    app.demo.journey.JourneyMissing
        When the extra `demo` is not installed.
    """
    from app.demo.faults import Shares  # noqa: PLC0415 - the demo's data are an extra
    from app.demo.journey import load_journey  # noqa: PLC0415
    from app.demo.script import write_script  # noqa: PLC0415
    from app.demo.shelf import stock  # noqa: PLC0415
    from schemas.catalog import encode_item  # noqa: PLC0415

    journey = load_journey(start, days, households_max=users)
    shelf = stock(journey, seed)
    for item in shelf.first:
        yield Recorded(item.id.encode(), encode_item(item), 0, 0, journey.start_ms, topic=CATALOG)
    for number, change in enumerate(shelf.changes, 1):
        yield Recorded(change.item.id.encode(), encode_item(change.item), 0, number, change.at_ms, topic=CATALOG)
    for offset, delivery in enumerate(write_script(journey, seed, Shares(), shelf)):
        yield Recorded(delivery.key, delivery.value, 0, offset, delivery.at_ms)
