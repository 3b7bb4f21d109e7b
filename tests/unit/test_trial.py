"""A policy tried out on recorded events: the worker's decisions, at their own times, compared with another's."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from app.cli import app
from app.learning.serving import prior_scorer
from app.policy.load import load_policy_text
from app.trial.compare import Report, compare
from app.trial.records import BadRecording, Recorded, read_recording, write_recording
from app.trial.run import Trial
from tests.support.streams import START, track

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


def test_each_partition_has_a_clock_of_its_own() -> None:
    records = [recorded("Product Added", 500), recorded("Product Added", 0, "bob", 1), recorded("Go", 20, "bob", 1)]
    made = trial(POLICY, records)
    assert [said.at_ms for said in made.spoken["bob"].first] == [START + 15 * MINUTE]
    assert made.fates == {"applied": 3}


def test_a_recording_survives_a_round_trip_without_what_is_no_event(tmp_path: Path) -> None:
    file = tmp_path / "week.jsonl"
    broken = Recorded(b"ann", b"{", 0, 9, START)
    assert write_recording(file, [*CARTS, broken]) == (4, 1)
    assert list(read_recording(file)) == CARTS


def test_bare_events_are_taken_and_anything_else_is_named(tmp_path: Path) -> None:
    file = tmp_path / "bare.jsonl"
    file.write_bytes(b"\n".join(record.value or b"" for record in CARTS) + b"\n\n[]\n")
    reading = read_recording(file)
    assert [next(reading).at_ms for _ in CARTS] == [record.at_ms for record in CARTS]
    with pytest.raises(BadRecording, match=r"bare\.jsonl:6"):
        next(reading)


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
