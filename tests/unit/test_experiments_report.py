"""From recorded decisions and events to a report."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from app.cli import app
from app.experiments.analysis import Report, analyse
from app.experiments.collect import collect
from app.experiments.ledger import HOLDOUT, Ledger, Unit
from app.experiments.sources import BadDump, Recorded, read_lines
from schemas.decisions import Decision, encode_decision
from schemas.events import Event, encode_event
from schemas.topics import DECISIONS, EVENTS

HOUR = 3_600_000
DAY = 24 * HOUR
RATES = {"plain": 0.10, "warm": 0.20}


def decision(n: int, variant: str = "plain", at_ms: int = HOUR, **fields: object) -> Decision:
    made: dict[str, object] = {
        "id": f"d{n}", "user": f"u{n}", "action": "send", "campaign": "hello", "category": "c", "decided_ms": at_ms,
        "variant": variant, "propensity": 0.5,
    }  # fmt: skip
    return Decision(**(made | fields))  # type: ignore[arg-type]


def event(user: str, name: str, at_ms: int, **properties: object) -> Recorded:
    value = encode_event(Event(type="track", event=name, user_id=user, timestamp=at_ms, properties=properties))
    return Recorded(EVENTS, user, value, 0)


def made(one: Decision) -> Recorded:
    return Recorded(DECISIONS, one.user, encode_decision(one), 0)


def units_of(*records: Recorded, window_ms: int = DAY) -> list[Unit]:
    ledger = Ledger(window_ms)
    assert collect([*records, event("clock", "Tick", 100 * DAY)], ledger) == 0
    return ledger.units()


def history(users: int, seed: int = 1, *, holdout: float = 0.0) -> list[Recorded]:
    rng = random.Random(seed)
    records = []
    for n in range(users):
        held = rng.random() < holdout
        variant = rng.choice(list(RATES))
        one = decision(n, variant, HOUR + n, features={"s=big": 1.0} if n % 2 else {})
        if held:
            one = msgspec.structs.replace(
                one, action="suppress", reason="campaign_holdout", variant="", propensity=holdout
            )
        records.append(made(one))
        if not held and rng.random() < RATES[variant]:
            records.append(event(f"u{n}", "Notification Opened", 2 * HOUR + n, decisionId=f"d{n}"))
        if rng.random() < (0.05 if held else 0.12):
            records.append(event(f"u{n}", "Order Completed", 3 * HOUR))
    rng.shuffle(records)
    return records


def test_the_first_decision_counts_whatever_order_the_records_have() -> None:
    first, second = decision(1), decision(1, "warm", 5 * HOUR, id="later")
    opened = event("u1", "Notification Opened", 6 * HOUR, decisionId="later")
    (unit,) = units_of(opened, made(second), made(first))
    assert (unit.variant, unit.done) == ("plain", set())


def test_answers_outside_the_window_or_to_something_else_do_not_count() -> None:
    late = event("u1", "Notification Opened", HOUR + DAY, decisionId="d1")
    other = event("u1", "Notifications Disabled", 2 * HOUR, decisionId="other")
    before = event("u1", "Order Completed", HOUR - 1)
    assert units_of(made(decision(1)), late, other, before)[0].done == set()
    inside = [event("u1", "Order Completed", HOUR), event("u1", "Notifications Disabled", HOUR + DAY - 1)]
    assert units_of(made(decision(1)), *inside)[0].done == {"conversion", "opt_out"}


def test_a_unit_whose_window_is_open_is_not_counted_yet() -> None:
    ledger = Ledger(DAY)
    collect([made(decision(1)), made(decision(2, at_ms=3 * HOUR)), event("x", "Tick", HOUR + DAY)], ledger)
    assert [unit.user for unit in ledger.units()] == ["u1"]
    assert ledger.immature == 1


def test_suppressed_candidates_are_no_units_but_those_held_out_are() -> None:
    capped = decision(1, action="suppress", reason="frequency_cap")
    held = decision(2, action="suppress", reason="campaign_holdout", variant="", propensity=0.1)
    assert [unit.variant for unit in units_of(made(capped), made(held))] == [HOLDOUT]


def report_of(records: list[Recorded], **options: object) -> Report:
    return analyse("hello", units_of(*records), **options)  # type: ignore[arg-type]


def test_a_better_variant_is_found_and_the_assignment_is_in_order() -> None:
    report = report_of(history(4000))
    assert not report.ratio_mismatch
    assert report.warnings == []
    (opens,) = [one for one in report.comparisons if one.metric == "open"]
    assert (opens.variant, opens.control) == ("warm", "plain")
    assert 0 < opens.always_low < opens.low < 0.1 < opens.high < opens.always_high
    assert opens.p_adjusted < 0.05
    assert {one.segment for one in report.by_segment} == {"big"}


def test_conversions_are_compared_with_those_held_out() -> None:
    report = report_of(history(6000, holdout=0.3))
    assert not report.ratio_mismatch
    conversions = [one for one in report.comparisons if one.metric == "conversion"]
    assert [(one.variant, one.control) for one in conversions] == [("plain", HOLDOUT), ("warm", HOLDOUT)]
    assert all(one.always_low > 0 for one in conversions)
    assert all(one.control == "plain" for one in report.comparisons if one.metric == "open")


def test_lost_units_are_noticed() -> None:
    kept = [
        one for one in history(6000) if one.topic == EVENTS or b'"variant":"warm"' not in one.value or hash_keeps(one)
    ]
    report = report_of(kept)
    assert report.ratio_mismatch
    assert "do not read" in report.warnings[0]


def hash_keeps(record: Recorded) -> bool:
    return int(record.key[1:]) % 5 != 0


def test_a_variant_that_nobody_got_is_a_mismatch() -> None:
    assert report_of([made(decision(n)) for n in range(200)]).ratio_mismatch


def test_a_report_of_learned_choices_says_what_it_cannot_say() -> None:
    report = report_of([made(decision(n, chooser="thompson")) for n in range(4)])
    assert any("nudge evaluate" in warning for warning in report.warnings)


def test_the_guard_stops_a_variant_with_too_many_opt_outs() -> None:
    records = history(2000)
    leaving = [f"u{n}" for n in range(0, 2000, 10)]
    records += [event(user, "Notifications Disabled", 2 * HOUR) for user in leaving]
    report = report_of(records, opt_out_limit=0.02)
    assert [guard.stop for guard in report.guards] == [True, True]
    assert not any(guard.stop for guard in report_of(records).guards)


def dump(path: Path, records: list[Recorded]) -> Path:
    lines = []
    for one in records:
        if one.topic == DECISIONS:
            line = {"topic": one.topic, "key": one.key, "value": msgspec.Raw(one.value)}
        else:
            line = {"topic": one.topic, "key": one.key, "payload": one.value.decode(), "ts": 1}
        lines.append(msgspec.json.encode(line))
    path.write_bytes(b"\n".join([*lines, b'{"topic":"else","payload":"x"}', b""]))
    return path


def test_the_command_reads_a_dump_and_prints_tables_or_json(tmp_path: Path) -> None:
    path = dump(tmp_path / "dump.jsonl", [*history(3000), event("clock", "Tick", 9 * DAY)])
    shown = CliRunner().invoke(app, ["experiments", "report", "--from", str(path)])
    assert shown.exit_code == 0
    assert "hello" in shown.output
    assert "warm − plain" in shown.output
    found = CliRunner().invoke(app, ["experiments", "report", "--from", str(path), "--json"])
    report = msgspec.json.decode(found.output)["reports"][0]
    assert sum(report["units"].values()) == 3000


def test_every_comparison_within_a_segment_is_shown_when_it_is_asked_for(tmp_path: Path) -> None:
    command = [
        "experiments",
        "report",
        "--from",
        str(dump(tmp_path / "dump.jsonl", [*history(2_000), event("clock", "Tick", 9 * DAY)])),
    ]
    for asked in ("big", "all"):
        shown = CliRunner().invoke(app, [*command, "--segment", asked]).output
        assert f"by segment: {asked}" in shown
        assert shown.count(" in big") >= 4
    missing = CliRunner().invoke(app, [*command, "--segment", "small"]).output
    assert "segments that have: big" in missing


def test_a_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / "dump.jsonl"
    path.write_text('{"topic": "events"}\n{"topic": \n')
    with pytest.raises(BadDump, match=r"dump\.jsonl:2"):
        list(read_lines(path, [EVENTS]))


def test_the_plan_names_users_and_effects() -> None:
    sized = CliRunner().invoke(app, ["experiments", "plan", "--baseline", "15%", "--effect", "3%", "--json"])
    assert msgspec.json.decode(sized.output)["control_units_fixed"] == 2400
    found = CliRunner().invoke(app, ["experiments", "plan", "--baseline", "15%", "--units", "2400"])
    assert "+3.00%" in found.output
    assert CliRunner().invoke(app, ["experiments", "plan", "--baseline", "15%"]).exit_code == 2
    assert CliRunner().invoke(app, ["experiments", "plan", "--baseline", "x", "--units", "9"]).exit_code == 2
