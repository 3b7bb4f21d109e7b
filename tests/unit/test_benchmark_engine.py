"""What the engine's benchmark says about contenders that ran, and about those that did not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.policy.load import load_policy
from benchmarks.common import Result
from benchmarks.engine import chosen, median, ratios_of, summary
from benchmarks.nudge_worker import POLICIES
from benchmarks.peers.environment import PeerUnavailable, built, checked
from benchmarks.peers.streams import _POM
from tests.support import kafka


def result(seconds: float, work_cpu_s: float | None = None) -> Result:
    return Result("it", 1_000, 10, seconds, rss_mb_max=1.0, cpu_s=4.0, detail={"segments": 20}, work_cpu_s=work_cpu_s)


def test_processor_time_is_that_of_the_work_where_the_contender_took_it() -> None:
    assert result(1.0, work_cpu_s=0.5).cpu_seconds_per_million == 500
    assert result(1.0).cpu_seconds_per_million == 4_000


def test_the_ratio_to_kafka_streams_is_per_processor_second_and_the_others_per_second() -> None:
    nudge, fast = result(1.0, work_cpu_s=1.0), result(0.5, work_cpu_s=2.0)
    others = {"faust": result(50.0), "floor": fast, "floor_with_rows": result(2.0), "quix": fast, "kafka_streams": fast}
    others["floor_with_undecoded_rows"] = fast
    found = ratios_of({"nudge": nudge, **others})
    assert found == {
        "ratio_vs_faust": 50.0,
        "ratio_vs_quix": 0.5,
        "ratio_vs_kafka_streams": 2.0,
        "share_of_floor": 0.5,
        "share_of_floor_with_rows": 2.0,
        "share_of_floor_with_undecoded_rows": 0.5,
    }


def test_a_peer_that_could_not_run_is_null_with_its_reason() -> None:
    outcomes = {"nudge": result(1.0), "faust": result(2.0), "floor": result(1.0), "quix": "no network"}
    found = summary(chosen(["--peers", "quix"]), [outcomes])
    assert found["ratio_vs_quix"] is None
    assert found["ratio_vs_kafka_streams"] is None
    assert found["peers_missing"] == {"quix": "no network", "kafka_streams": "not asked for (--peers)"}
    assert "quix" not in found["contenders"]


def test_a_ratio_is_the_median_of_those_of_the_turns_and_not_that_of_the_medians() -> None:
    turns = [{"nudge": result(seconds), "faust": result(other)} for seconds, other in ((1, 40), (2, 120), (4, 200))]
    found = summary(chosen([]), turns)
    assert found["ratios_by_turn"]["ratio_vs_faust"] == [40, 60, 50]
    assert found["ratio_vs_faust"] == 50
    assert found["events_per_second"] == 500


def test_the_median_is_of_the_runs_that_succeeded() -> None:
    runs = ["it died", result(3.0), result(1.0), result(2.0)]
    assert median(runs) == result(2.0)
    assert median(["it died", "again"]) == "it died"


def test_peers_bring_a_real_kafka_unless_a_broker_is_given() -> None:
    assert chosen(["--peers", "quix"]).kafka
    assert not chosen(["--peers", "quix", "--broker", "127.0.0.1:9092"]).kafka
    assert not chosen([]).kafka


def test_an_unknown_peer_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        chosen(["--peers", "quix,flink"])
    assert "unknown peers: flink" in capsys.readouterr().err


@pytest.mark.parametrize("number", POLICIES)
def test_the_policies_have_as_many_segments_as_they_say(number: int) -> None:
    assert len(load_policy(POLICIES[number]).segments) == number


def _builder(calls: list[Path], steps: Callable[[Path], None]) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        calls.append(folder)
        steps(folder)

    return build


def test_a_peer_is_built_once_and_again_when_its_sources_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "source"
    source.write_text("1")
    calls: list[Path] = []
    build = _builder(calls, lambda folder: (folder / "it").touch())
    first = built("it", [source], build)
    assert (first / "it").exists()
    assert built("it", [source], build) == first
    assert len(calls) == 1
    source.write_text("2")
    assert built("it", [source], build) != first


def test_a_build_that_fails_leaves_nothing_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "source"
    source.write_text("1")
    calls: list[Path] = []
    build = _builder(calls, lambda _folder: checked(["sh", "-c", "echo no network; exit 3"], "building it"))
    with pytest.raises(PeerUnavailable, match=r"building it ended with 3: no network"):
        built("it", [source], build)
    assert not calls[0].exists()


def test_the_java_peer_is_of_the_broker_s_release() -> None:
    assert f"<kafka.version>{kafka.kafka_version()}</kafka.version>" in _POM.read_text()
