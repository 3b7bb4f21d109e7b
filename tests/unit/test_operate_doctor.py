"""What the doctor says about what it is shown, and that it never says a secret."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from app.cli import app
from app.embedded import free_port
from app.learning.learner import Learner
from app.operate import check_broker, check_feeds, check_host, doctor
from app.operate.findings import Finding
from app.runtime import Runtime, event_loop
from app.settings import Settings
from app.skew import Reading
from schemas.models import encode_snapshot
from schemas.topics import DAY_MS, DEAD_LETTERS, MODELS, PROFILES_CHANGELOG

GOOD = "f3a9c1d27b604e85a1c2d3e4f5061728394a5b6c7d8e9f00112233445566778b"
NOW_MS = 1_772_442_000_000


def settings(**fields: Any) -> Settings:
    return Settings(**({"secret": GOOD, "privacy_secret": GOOD} | fields))


def status(findings: list[Finding], text: str = "") -> list[str]:
    return [finding.status for finding in findings if text in finding.says]


@pytest.mark.parametrize("weak", ["short", "a" * 64, "0123456789" * 1, "abab" * 20])
def test_a_weak_secret_fails_and_is_not_shown(weak: str) -> None:
    found = check_host.check_secrets(settings(secret=weak))
    assert status(found, "NUDGE_SECRET is weak") == ["fail"]
    assert all(weak not in finding.says + finding.mend for finding in found)


def test_a_random_secret_is_well_and_a_missing_one_for_privacy_a_warning() -> None:
    assert set(status(check_host.check_secrets(settings()))) == {"ok"}
    assert status(check_host.check_secrets(settings(privacy_secret="")), "PRIVACY") == ["warn"]
    assert status(check_host.check_secrets(Settings(profile="dev")), "development") == ["warn"]


@pytest.mark.parametrize(
    ("change", "warned"),
    [
        ({}, ""),
        ({"core": "interpreted"}, "the core is interpreted"),
        ({"loop": "asyncio"}, "own event loop"),
        ({"build": "debug build"}, "not a build for production"),
        ({"build": "free-threaded"}, "not a build for production"),
        ({"python": "CPython 3.14.0b2"}, "tested with 3.11, 3.13"),
        ({"python": "CPython 3.1.4"}, "tested with 3.11, 3.13"),
    ],
)
def test_what_makes_events_dear_or_was_never_tested_is_a_warning(change: dict[str, str], warned: str) -> None:
    here = msgspec.structs.replace(Runtime("CPython 3.13.0", "optimised", "compiled", "uvloop 0.23.0"), **change)
    found = check_host.check_runtime(settings(), here, ["3.11", "3.13"])
    bad = [finding for finding in found if finding.status != "ok"]
    assert len(bad) == bool(warned)
    assert all(warned in finding.says and finding.mend for finding in bad)


def test_an_interpreted_core_is_well_in_development_and_where_nobody_knows_what_was_tested() -> None:
    here = Runtime("CPython 3.99.0", "", "interpreted", "uvloop 0.23.0")
    assert status(check_host.check_runtime(Settings(profile="dev"), here, [])) == ["ok", "ok", "ok"]


def test_listening_to_the_world_is_a_warning() -> None:
    found = check_host.check_addresses(settings(http_host="0.0.0.0", http_port=0))
    assert status(found, "NUDGE_HTTP_HOST=0.0.0.0") == ["warn"]
    assert status(found, "NUDGE_CONSOLE_HOST=127.0.0.1") == ["ok"]


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert status(check_host.check_addresses(settings(http_port=port)), f"port {port}") == ["warn"]


@pytest.mark.parametrize(
    ("broker", "warned"), [("127.0.0.1:9092", 0), ("localhost:9092", 0), ("kafka.example:9092", 1)]
)
def test_plaintext_beyond_this_machine_is_a_warning(broker: str, warned: int) -> None:
    assert len(status(check_host.check_addresses(settings(broker=broker, http_port=0)), "in clear")) == warned


def test_a_folder_that_is_not_there_yet_is_judged_by_the_disk_it_will_be_on(tmp_path: Path) -> None:
    [found, *_] = check_host.check_disk(tmp_path / "not" / "yet")
    assert str(tmp_path) in found.says


def test_a_broken_policy_fails_with_its_place(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("version: 1\nname: broken\nsegments:\n  - name: x\n    when: cuont('A', '7d') > 1\n")
    [found] = check_host.check_policy_file(settings(policy=broken))
    assert found.status == "fail"
    assert "broken.yaml:5" in found.says


@pytest.mark.parametrize(("ahead_ms", "expected"), [(-DAY_MS, "ok"), (4_000, "ok"), (6_000, "warn")])
def test_a_record_from_the_future_means_that_clocks_disagree(ahead_ms: int, expected: str) -> None:
    assert check_broker.judge_clock(NOW_MS + ahead_ms, NOW_MS).status == expected


@pytest.mark.parametrize(
    ("ahead_s", "error_s", "expected"), [(0.2, 0.1, "ok"), (-3.0, 0.1, "warn"), (3.0, 0.1, "warn"), (3.0, 2.5, "ok")]
)
def test_a_clock_that_is_surely_off_is_a_warning(ahead_s: float, error_s: float, expected: str) -> None:
    found = check_broker.judge_skew(Reading(ahead_s, error_s), stamps=True)
    assert found.status == expected
    assert ("ahead of" if ahead_s > 0 else "behind") in found.says


def test_a_broker_that_does_not_stamp_is_a_warning_where_it_could() -> None:
    assert check_broker.judge_skew(None, stamps=False).status == "ok"
    found = check_broker.judge_skew(None, stamps=True)
    assert (found.status, "LogAppendTime" in found.mend) == ("warn", True)


@pytest.mark.parametrize(
    ("topic", "key", "value", "expected"),
    [
        (DEAD_LETTERS, "retention.ms", str(30 * DAY_MS), ["warn"]),
        (DEAD_LETTERS, "retention.ms", "-1", ["warn"]),
        (DEAD_LETTERS, "retention.ms", str(DAY_MS), []),
        (DEAD_LETTERS, "segment.ms", str(7 * DAY_MS), ["warn"]),
        (PROFILES_CHANGELOG, "max.compaction.lag.ms", "9223372036854775807", ["warn"]),
        (PROFILES_CHANGELOG, "max.compaction.lag.ms", str(DAY_MS), []),
        (PROFILES_CHANGELOG, "segment.bytes", str(1 << 30), []),
        (MODELS, "segment.bytes", str(1 << 30), ["warn"]),
        (MODELS, "segment.bytes", str(1 << 20), []),
    ],
)
def test_a_topic_that_keeps_longer_than_we_say_is_a_warning(
    topic: str, key: str, value: str, expected: list[str]
) -> None:
    found = check_broker.longer_kept(topic, {key: value})
    assert status(found) == expected
    assert all(key in finding.mend for finding in found)


def test_topics_that_a_single_broker_can_take_away_are_a_warning_that_names_them() -> None:
    in_sync = {"events": {"min.insync.replicas": "2"}, "decisions": {"min.insync.replicas": "1"}}
    assert check_broker.judge_replicas(1, {"events": 1, "decisions": 1}, in_sync) == []  # it cannot be otherwise
    assert check_broker.judge_replicas(2, {"events": 2, "decisions": 2}, in_sync) == []
    assert check_broker.judge_replicas(3, {"events": 3}, in_sync) == []
    [few] = check_broker.judge_replicas(3, {"events": 3, "models": 1}, in_sync)
    assert (few.status, "models" in few.says, "events" in few.says) == ("warn", True, False)
    [weak] = check_broker.judge_replicas(3, {"events": 3, "decisions": 3}, in_sync)
    assert (weak.status, "decisions" in weak.says, "events" in weak.says) == ("warn", True, False)
    assert "min.insync.replicas=2" in weak.mend


def test_a_snapshot_must_be_ours_and_fresh() -> None:
    raw = encode_snapshot(Learner("open").snapshot(0, NOW_MS, 0), b"ours")
    assert check_feeds.judge_snapshot(raw, b"ours", NOW_MS).status == "ok"
    assert check_feeds.judge_snapshot(raw, b"ours", NOW_MS + 2 * DAY_MS).status == "warn"
    assert check_feeds.judge_snapshot(raw, b"theirs", NOW_MS).status == "fail"
    assert check_feeds.judge_snapshot(b"{", b"ours", NOW_MS).status == "fail"


def test_without_a_broker_the_rest_is_examined_all_the_same_and_the_exit_code_is_1() -> None:
    address = f"127.0.0.1:{free_port()}"
    env = {"NUDGE_SECRET": GOOD, "NUDGE_PRIVACY_SECRET": GOOD, "NUDGE_HTTP_PORT": "0"}
    result = CliRunner().invoke(app, ["doctor", "--json", "--broker", address], env=env)
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert {"versions", "secrets", "disk", "broker"} <= {finding["check"] for finding in found}
    loop = next(finding["says"] for finding in found if "event loop" in finding["says"])
    assert loop == f"event loop: {event_loop()}", "a worker's, not the doctor's own"
    [broker] = [finding for finding in found if finding["status"] == "fail"]
    assert (broker["check"], address in broker["says"]) == ("broker", True)
    assert GOOD not in result.output


def test_a_check_that_raises_is_a_finding_and_hides_no_other() -> None:
    def broken() -> list[Finding]:
        raise OSError("no")

    [found] = doctor._guarded("disk", broken)
    assert (found.status, found.check) == ("fail", "disk")
