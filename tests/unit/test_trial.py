"""A policy tried out on recorded events: the worker's decisions, at their own times, compared with another's."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from app.cli import app
from app.core.features import open_features
from app.core.panes import NEVER_MS
from app.core.percentiles import Board, Tally, counted
from app.core.processor import Processor
from app.learning.arms import ArmLearner
from app.learning.book import ModelBook
from app.learning.learner import Learner
from app.learning.served_choices import read_choices
from app.learning.serving import prior_scorer
from app.policy.load import load_policy_text
from app.trial.compare import Report, compare
from app.trial.order import by_time
from app.trial.records import BadRecording, Recorded, read_recording, write_recording
from app.trial.run import Trial
from app.trial.tutor import Tutor
from schemas.catalog import CatalogItem, encode_item
from schemas.models import encode_snapshot
from schemas.outcomes import Outcome, encode_outcome
from schemas.percentiles import percentiles_key
from tests.support.streams import START, FakeRecord, Stream, track

MINUTE = 60_000
POLICY = """
version: 1
name: shop
defaults: {consent: assumed, caps: [{limit: 2, window: 1d}]}
segments:
  - {name: keen, when: 'count("Product Viewed", "1h") >= 2'}
campaigns:
  - name: cart
    category: promo
    trigger: {absence: {after: Product Added, without: [Order Completed], for: 15m}}
    template: {title: T, body: B}
"""
STRICT = POLICY.replace("limit: 2", "limit: 1").replace("version: 1", "version: 2")


def recorded(name: str, minute: int, user: str = "ann", partition: int = 0) -> Recorded:
    at_ms = START + minute * MINUTE
    value = msgspec.json.encode(track(name, at_ms, user))
    return Recorded(user.encode(), value, partition, minute, at_ms)


def trial(text: str, records: list[Recorded]) -> Trial:
    made = Trial(load_policy_text(text), prior_scorer())
    made.take(records)
    return made


def report(before: str, after: str, records: list[Recorded]) -> Report:
    return compare(trial(before, records), trial(after, records), str, examples_max=5)


CARTS = [recorded("Product Added", minute) for minute in (0, 30, 60)] + [recorded("Application Opened", 100)]


def test_a_wait_ends_at_its_own_time_and_not_at_the_next_event() -> None:
    made = trial(POLICY, [recorded("Product Added", 0), recorded("Application Opened", 300)])
    (said,) = made.spoken["ann"].first
    assert (said.at_ms, said.action) == (START + 15 * MINUTE, "send")


def test_a_segment_is_left_by_the_clock() -> None:
    records = [recorded("Product Viewed", 0), recorded("Product Viewed", 1), recorded("Application Opened", 300)]
    made = trial(POLICY, records)
    assert made.changes == {("keen", "enter"): 1, ("keen", "leave"): 1}
    assert made.members() == {"keen": set()}


def test_a_policy_decides_as_itself() -> None:
    found = report(POLICY, POLICY, CARTS)
    assert found.users_differing == 0
    assert found.examples == []
    assert all(row.before == row.after for row in found.decisions)


def test_a_tighter_cap_shows_in_the_counts_and_in_the_users() -> None:
    found = report(POLICY, STRICT, CARTS)
    assert [(row.action, row.reason, row.before, row.after) for row in found.decisions] == [
        ("send", "", 2, 1),
        ("suppress", "frequency_cap", 1, 2),
    ]
    assert found.users_differing == 1
    (example,) = found.examples
    assert [said.action for said in example.only_before] == ["send"]
    assert [said.reason for said in example.only_after] == ["frequency_cap"]


def test_partitions_that_were_recorded_one_after_the_other_happen_at_the_same_time() -> None:
    records = [recorded("Product Added", 500), recorded("Product Added", 0, "bob", 1), recorded("Go", 20, "bob", 1)]
    made = trial(POLICY, list(by_time(records)))
    assert [said.at_ms for said in made.spoken["bob"].first] == [START + 15 * MINUTE]
    assert made.fates == {"applied": 3}


def test_the_order_of_a_partition_stays_and_its_clock_does_not_go_back() -> None:
    records = [recorded("A", 5), recorded("B", 3), recorded("C", 4, "bob", 1), item(5, 49.0)]
    assert [(one.topic, one.offset, one.at_ms - START) for one in by_time(records)] == [
        ("events", 4, 4 * MINUTE),
        ("catalog", 5, 5 * MINUTE),
        ("events", 5, 5 * MINUTE),
        ("events", 3, 5 * MINUTE),
    ]


TOP = """
version: 1
name: shop
segments:
  - {name: best, when: 'top(10, count("Product Viewed", "1d"))'}
"""


def viewed(views: dict[str, int], minute: int) -> list[Recorded]:
    users = [user for user, count in views.items() for _ in range(count)]
    return numbered([recorded("Product Viewed", minute, user) for user in users], minute * 10_000)


def numbered(records: list[Recorded], start: int) -> list[Recorded]:
    return [msgspec.structs.replace(record, offset=start + number) for number, record in enumerate(records)]


def test_users_are_counted_for_percentiles_by_the_clock_and_rows_follow() -> None:
    crowd = {f"u{number}": number + 1 for number in range(40)}
    made = trial(TOP, [*viewed(crowd, 0), recorded("Go", 4)])
    assert made.members() == {"best": set()}, "before the first count with users nobody enters"
    made.take([recorded("Go", 6)])
    assert made.members() == {"best": {b"u36", b"u37", b"u38", b"u39"}}
    (found,) = made.thresholds().values()
    assert [(cut.name, cut.value) for cut in found.cuts] == [("top 10", 36.0)]
    made.take([*viewed(dict.fromkeys(list(crowd)[:10], 60), 7), recorded("Go", 9)])
    assert made.members() == {"best": {b"u36", b"u37", b"u38", b"u39"} | {f"u{n}".encode() for n in range(10)}}
    made.take([recorded("Go", 16)])
    assert made.members() == {"best": {b"u6", b"u7", b"u8", b"u9"}}, "others leave without an event of theirs"


def test_a_trial_counts_as_the_census_of_a_worker_does() -> None:
    rng = random.Random(5)
    made, worker = Trial(load_policy_text(TOP), prior_scorer()), Stream(load_policy_text(TOP))
    board = Board()
    for minute in range(1, 120, 5):
        views = [recorded("Product Viewed", minute, f"u{int(rng.paretovariate(0.7)) % 60}") for _ in range(100)]
        batch = numbered(views, minute * 1000)
        made.take(batch)
        worker.at(minute * MINUTE).process([FakeRecord(one.key, one.value, one.offset) for one in batch])
        made.advance(START + (minute + 5) * MINUTE)
        count_as_a_worker(worker.at((minute + 5) * MINUTE), board)
    best = worker.plan.segments[0].id
    assert made.members()["best"] == {key for key, row in worker.rows.items() if best in row.segments}
    assert sum(made.changes.values()) == len(worker.changes) > 20
    assert board.moves > 5
    assert made.thresholds().keys() == board.thresholds().keys()


def count_as_a_worker(worker: Stream, board: Board) -> None:
    """What `app.stream.census` does with a partition: count, decide, and look through the rows once more."""
    processor, now_ms = worker.processor, worker.now_ms
    (one,) = processor.measured
    for decides in (True, False):
        tally = Tally([one], processor.policy_id)
        astray = [
            key
            for key, row in worker.rows.items()
            if tally.put(row, now_ms, key.decode()) and processor.astray(row, key.decode(), now_ms)
        ]
        worker._settle(processor.adjust(astray, worker.rows, now_ms=now_ms, mark=0, acked_offset=0))
        record = counted(one, tally.sketches[one.text], 0, now_ms)
        board.take(percentiles_key(record), record)
        if decides and (moved := board.due(one, 1, now_ms)) is not None:
            board.take(percentiles_key(moved), moved)
            processor.serve(board.buckets())


SHELF = """
version: 1
name: shop
defaults: {consent: assumed, caps: [{limit: 100, window: 1d}]}
campaigns:
  - name: cheaper
    category: wish
    trigger: {price_drop: {by: 10%, interest: [viewed], affinity: 2}}
    quiet_hours: ignore
    template: {title: Cheaper, body: 'Now {{ item.price }}'}
  - name: back
    category: wish
    trigger: {back_in_stock: {interest: waited}}
    quiet_hours: ignore
    template: {title: T, body: B}
"""


def item(minute: int, price: float, item_id: str = "p", stock: int | None = None) -> Recorded:
    value = encode_item(CatalogItem(id=item_id, price=price, stock=stock, category="SHOES"))
    return Recorded(item_id.encode(), value, 0, minute, START + minute * MINUTE, topic="catalog")


def looked(minute: int, user: str, item_id: str, name: str = "Product Viewed", category: str = "") -> Recorded:
    at_ms = START + minute * MINUTE
    message = track(name, at_ms, user, product_id=item_id, category=category)
    return Recorded(user.encode(), msgspec.json.encode(message), 0, minute, at_ms)


def told(made: Trial) -> dict[str, list[tuple[str, int]]]:
    return {
        user: [(said.campaign, (said.at_ms - START) // MINUTE) for said in spoken.first if said.action == "send"]
        for user, spoken in made.spoken.items()
    }


def test_a_change_of_the_catalog_is_told_once_to_whom_it_concerns() -> None:
    records = [
        item(0, 50.0),
        looked(1, "ann", "p"),
        looked(2, "bob", "q"),
        *(looked(minute, "cat", "other", category="SHOES") for minute in (3, 4, 5)),
        item(10, 40.0),
        looked(11, "dan", "p"),
        item(12, 39.0),  # not a tenth below what ann was told
        item(20, 30.0, stock=0),
        looked(21, "eve", "p", "Stock Alert Requested"),
        item(30, 39.0, stock=5),
    ]
    made = trial(SHELF, list(by_time(records)))
    made.finish()
    assert told(made) == {"ann": [("cheaper", 10)], "cat": [("cheaper", 10)], "eve": [("back", 30)]}
    assert made.catalog_changes == 3


def test_a_policy_without_triggers_on_the_catalog_keeps_none() -> None:
    made = trial(POLICY, [item(0, 50.0), looked(1, "ann", "p"), item(2, 40.0)])
    made.finish()
    assert (made.wants_catalog, made.catalog_changes, made.spoken) == (False, 0, {})


TAUGHT = """
version: 1
name: shop
models: {churn: {horizon: 1d}}
personas: {}
segments:
  - {name: leaving, when: churn_risk() > 0.6}
"""
DAY = 1440
VISITS = [recorded("Product Viewed", day * DAY + user, f"u{day}-{user}") for day in range(8) for user in range(40)]


def taught(records: list[Recorded], every_ms: int = 3_600_000, book: ModelBook | None = None) -> Trial:
    made = Trial(load_policy_text(TAUGHT), prior_scorer(), learned_every_ms=every_ms, book=book)
    made.take(records)
    return made


def test_what_the_recording_teaches_is_served_from_then_on() -> None:
    made, other = taught(VISITS), taught(VISITS, every_ms=0)
    assert (other.changes, other.models()) == ({}, [])
    assert made.changes["leaving", "enter"] > 100, "nobody comes back, which the first days teach"
    assert {name for name, examples in made.models() if examples > 100} == {"churn", "open.personas"}
    again = taught(VISITS)
    assert compare(made, again, str, examples_max=5).users_differing == 0
    assert (again.changes, again.models(), again.personas()) == (made.changes, made.models(), made.personas())


def test_a_tutor_learns_as_the_learner_does() -> None:
    plan = load_policy_text(TAUGHT)
    processor = Processor(plan, prior_scorer(), open_features)
    tutor, learner, arms = Tutor(processor, 1000), Learner("open"), ArmLearner("open")
    outcomes = [answer(number) for number in range(300)]
    tutor.learn(map(encode_outcome, [*outcomes, outcomes[7]]), START)
    for outcome in outcomes:
        learner.learn(outcome)
        arms.learn(outcome)
    assert (tutor.next_ms, processor.scorer.version) == (START + 1000, 0)
    tutor.publish(START + 1000)
    assert tutor.known() == [("open", 300), ("open.choices", 300)]
    assert processor.scorer.open_probability({"c=a": 1.0}) == learner.scorer().open_probability({"c=a": 1.0}) > 0.7
    assert processor.choices == read_choices(arms.snapshot(0, START + 1000, 0))
    assert tutor.next_ms == NEVER_MS, "until there is something new"


def answer(number: int, model: str = "open", campaign: str = "a") -> Outcome:
    return Outcome(
        id=f"o{number}", model=model, label=1, features={f"c={campaign}": 1.0} if campaign else {}, score=0.5,
        model_version=0, campaign=campaign, variant="v", decided_ms=START, matured_ms=START,
    )  # fmt: skip


def test_a_snapshot_of_the_topic_is_served_in_place_of_learning() -> None:
    learner = Learner("churn", slow_start=True)
    for number in range(500):
        learner.learn(answer(number, "churn", ""))
    book = ModelBook(b"secret")
    book.apply(encode_snapshot(learner.snapshot(0, START, 0), b"secret"))
    made = taught(VISITS[:80], book=book)
    assert made.models() == [("churn", 500)]
    assert made.members()["leaving"] >= {f"u0-{user}".encode() for user in range(40)}, "at their first look"


def test_a_recording_survives_a_round_trip_without_what_is_no_event(tmp_path: Path) -> None:
    file = tmp_path / "week.jsonl"
    broken = Recorded(b"ann", b"{", 0, 9, START)
    gone = Recorded(b"p", None, 0, 12, START, topic="catalog")
    no_item = Recorded(b"other", item(1, 5.0).value, 0, 13, START, topic="catalog")
    assert write_recording(file, [*CARTS, item(11, 5.0), broken, gone, no_item]) == (6, 2)
    assert list(read_recording(file)) == [*CARTS, item(11, 5.0), gone]


def test_bare_events_are_taken_and_anything_else_is_named(tmp_path: Path) -> None:
    file = tmp_path / "bare.jsonl"
    file.write_bytes(b"\n".join(record.value or b"" for record in CARTS) + b"\n\n[]\n")
    reading = read_recording(file)
    assert [next(reading).at_ms for _ in CARTS] == [record.at_ms for record in CARTS]
    with pytest.raises(BadRecording, match=r"bare\.jsonl:6"):
        next(reading)


BAD_LINES = {
    '{"at": "yesterday", "value": {"id": "p"}}': "RFC3339",
    '{"at": 5, "value": {"id": "p", "price": -1}}': "price",
    '{"at": 5, "value": null}': "give its id as `key`",
    '{"at": 5, "key": "q", "value": {"id": "p"}}': "not the item's id",
    '{"id": "p", "price": 5}': "missing required field `at`",
    '{"topic": "decisions", "key": "a", "offset": 1, "at": 5, "value": {}}': "only 'events' and 'catalog'",
}


@pytest.mark.parametrize(("line", "says"), BAD_LINES.items())
def test_a_line_of_the_catalog_that_is_none_is_named(line: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "catalog.jsonl"
    file.write_text('{"at": "2026-03-02T09:00:00Z", "value": {"id": "p", "price": 5}}\n' + line)
    reading = read_recording(file, "catalog")
    assert next(reading) == Recorded(b"p", b'{"id": "p", "price": 5}', 0, 1, START, topic="catalog")
    with pytest.raises(BadRecording, match=r"catalog\.jsonl:2") as refused:
        next(reading)
    assert says in str(refused.value)


def test_the_command_takes_a_catalog_beside_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUDGE_PROFILE", "dev")
    (tmp_path / "shelf.yaml").write_text(SHELF)
    events, catalog = tmp_path / "events.jsonl", tmp_path / "catalog.jsonl"
    write_recording(events, [looked(1, "ann", "p")])
    write_recording(catalog, [item(0, 50.0), item(10, 40.0)])
    command = ["policy", "simulate", "--policy", str(tmp_path / "shelf.yaml"), "--events", str(events)]
    found = CliRunner().invoke(app, [*command, "--catalog", str(catalog), "--json"])
    assert found.exit_code == 0, found.output
    (row,) = msgspec.json.decode(found.stdout, type=Report).decisions
    assert (row.campaign, row.action, row.after) == ("cheaper", "send", 1)
    without = CliRunner().invoke(app, command)
    assert "give --catalog FILE" in without.output
    assert CliRunner().invoke(app, [*command, "--count-every", "often"]).exit_code == 2


def test_the_command_names_users_only_when_told_and_says_the_same_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUDGE_PROFILE", "dev")
    files = {"old.yaml": POLICY, "new.yaml": STRICT}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    events = tmp_path / "events.jsonl"
    write_recording(events, CARTS)
    command = ["policy", "simulate", "--policy", str(tmp_path / "new.yaml"), "--events", str(events)]
    command += ["--baseline", str(tmp_path / "old.yaml")]
    first = CliRunner().invoke(app, [*command, "--json"])
    assert first.exit_code == 0, first.output
    assert CliRunner().invoke(app, [*command, "--json"]).output == first.output
    assert "ann" not in first.output
    shown = CliRunner().invoke(app, [*command, "--show-users"])
    assert "  ann\n" in shown.output
    assert "frequency_cap" in shown.output
    assert CliRunner().invoke(app, command[:4]).exit_code == 2
    untaught = CliRunner().invoke(app, [*command, "--models", "untaught"])
    assert "models: untaught" in untaught.output
