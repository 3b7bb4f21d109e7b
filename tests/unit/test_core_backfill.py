"""Rows brought to a new policy version: judged once, with the windows that history gives them."""

from __future__ import annotations

import random

from app.core.earlier import NOTHING
from app.core.history import Windows
from app.core.history_fold import HistoryFold
from app.core.plan import Plan
from app.core.processor import make_index
from app.core.profile import Profile
from app.policy.load import load_policy_text
from tests.support.streams import START, FakeRecord, Stream, record, track

HOUR = 3_600_000
OLD = """
version: 1
name: shop
defaults: {consent: assumed}
segments:
  - {name: buyer, when: 'did("Order Completed", "7d")'}
  - {name: gone, when: 'count("Product Viewed", "1d") >= 1'}
"""
NEW = """
version: 2
name: shop
defaults: {consent: assumed}
segments:
  - {name: buyer, when: 'did("Order Completed", "7d")'}
  - {name: keen, when: 'count("Product Viewed", "7d") >= 3'}
  - {name: calm, when: 'not did("Product Viewed", "7d", where=price > 5)'}
campaigns:
  - {name: hello, category: promo, trigger: {enter: keen}, template: {title: T, body: B}}
"""


def plan(text: str) -> Plan:
    return load_policy_text(text)


def switch(stream: Stream, before: str = OLD, after: str = NEW) -> None:
    old, new = plan(before), plan(after)
    known = NOTHING.with_version(old.version, [f.text for f in old.features], [s.name for s in old.segments])
    stream.processor.switch(make_index(new, known))
    stream.plan = new


def sweep(stream: Stream, *, history: bool = True, upto: int | None = None) -> dict[str, int]:
    """Sweep every row, with the history before the offset `upto` (all of it when not given)."""
    records = stream.log[:upto]
    wants = [stream.processor.wants(row) or [] for row in stream.rows.values()]
    covers = frozenset(feature for features in wants for feature in features)
    windows = Windows()
    if history and covers:
        fold = HistoryFold(stream.plan, covers, list(stream.rows))
        for each in records:
            fold.add([each], stream.now_ms)
        windows = fold.read_to(len(records))
    effects = stream.processor.sweep(
        list(stream.rows), stream.rows, windows, now_ms=stream.now_ms, mark=len(stream.log), acked_offset=0
    )
    stream._settle(effects)
    return {labels[1]: number for labels, number in effects.counts.items() if labels[0] == "backfill"}


def changes(stream: Stream) -> list[tuple[str, str, str]]:
    return [(change.segment, change.change, change.cause) for change in stream.changes]


def test_a_user_enters_a_new_segment_by_what_happened_before_it_existed() -> None:
    stream = Stream(plan(OLD))
    stream.send(*[track("Product Viewed", START + n, price=9) for n in range(3)])
    switch(stream)
    assert sweep(stream) == {"evaluated": 1}
    assert changes(stream)[1:] == [("gone", "leave", "backfill"), ("keen", "enter", "backfill")]
    assert stream.row.missing == []
    assert stream.sends == [], "nobody is notified for a change of policy"


def test_a_second_sweep_changes_nothing() -> None:
    stream = Stream(plan(OLD))
    stream.send(*[track("Product Viewed", START + n) for n in range(3)])
    switch(stream)
    sweep(stream)
    before = len(stream.outputs)
    assert sweep(stream) == {"current": 1}
    assert len(stream.outputs) == before


def test_a_segment_is_not_judged_by_a_window_that_is_not_rebuilt_yet() -> None:
    stream = Stream(plan(OLD))
    stream.send(*[track("Product Viewed", START + n, price=9) for n in range(3)])
    switch(stream)
    stream.at(HOUR).send(track("Product Viewed", START + HOUR, price=1))
    assert [name for name, _, cause in changes(stream) if cause != "event"] == ["gone"], "calm would be wrong"
    assert len(stream.row.missing) == 2
    sweep(stream)
    assert ("keen", "enter", "backfill") in changes(stream)
    assert "calm" not in {name for name, *_ in changes(stream)}
    stream.at(2 * HOUR).send(track("Product Viewed", START + 2 * HOUR))
    assert next(iter(stream.row.features.values()))


def test_a_row_with_an_event_beyond_the_history_that_was_read_waits() -> None:
    stream = Stream(plan(OLD))
    stream.send(*[track("Product Viewed", START + n) for n in range(3)])
    switch(stream)
    stream.send(track("Product Viewed", START + 4))
    assert sweep(stream, upto=3) == {"postponed": 1}
    assert sweep(stream, upto=4) == {"evaluated": 1}
    assert stream.row.missing == []


def test_a_row_of_a_version_that_nobody_remembers_is_judged_with_what_it_has() -> None:
    stream = Stream(plan(OLD))
    stream.send(track("Order Completed", START))
    stream.processor.switch(make_index(plan(NEW)))
    stream.plan = plan(NEW)
    assert sweep(stream) == {"evaluated": 1}
    assert stream.row.missing == []
    assert ("calm", "enter", "backfill") in changes(stream)


def test_a_rollback_makes_changes_with_ids_of_their_own() -> None:
    stream = Stream(plan(OLD))
    stream.send(*[track("Product Viewed", START + n) for n in range(3)])
    for before, after in ((OLD, NEW), (NEW, OLD), (OLD, NEW)):
        switch(stream, before, after)
        sweep(stream)
        stream.send(track("Application Opened", START + 9))
    ids = [change.id for change in stream.changes]
    assert len(set(ids)) == len(ids)
    assert changes(stream).count(("keen", "enter", "backfill")) == 2


def messages(rng: random.Random, count: int) -> list[FakeRecord]:
    made = []
    for number in range(count):
        name = rng.choice(["Product Viewed", "Order Completed", "Application Opened"])
        message = track(
            name, START - rng.randrange(6 * 24 * HOUR), rng.choice(["u1", "u2", "u3"]), price=rng.randrange(9)
        )
        message["messageId"] = f"m{rng.randrange(max(1, number // 2), number + 2)}"  # some are sent again
        made.append(record(message, number))
    return made


def test_rows_are_the_same_as_if_the_policy_had_always_been_in_force() -> None:
    for seed in range(25):
        rng = random.Random(seed)
        log = messages(rng, 80)
        switched, read = sorted(rng.sample(range(10, 80), 2))
        always, late = Stream(plan(NEW)), Stream(plan(OLD))
        always.process(log)
        late.log = log
        late.process(log[:switched])
        switch(late)
        late.process(log[switched:read])
        sweep(late, upto=read)
        late.process(log[read:])
        for hours in (0, 50, 90, 200):
            late.at(hours * HOUR).fire()
            always.at(hours * HOUR).fire()
            assert same(late, always), f"seed {seed}, {hours} hours later"


def same(one: Stream, other: Stream) -> bool:
    return {key: tidy(row) for key, row in one.rows.items()} == {key: tidy(row) for key, row in other.rows.items()}


def tidy(row: Profile) -> tuple[object, ...]:
    """What a row holds; when a user entered a segment depends on when it was first asked."""
    return row.features, set(row.segments), row.missing, row.policy, row.offset
