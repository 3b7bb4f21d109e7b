"""Rules and alerts: valid, tested each, about metrics that exist, and with a runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from app.settings import Settings
from schemas.contracts import dead_letter_headers_schema
from tests.support.deploy import DEPLOY, ROOT, RULES, documents, exposed, labels_of, queried, recorded, rules, selectors

PROMTOOL = shutil.which("promtool")
TESTS = sorted((DEPLOY / "prometheus" / "tests").glob("*.yaml"))
ALERTS = [rule for rule in rules() if "alert" in rule]
RUNBOOKS = ROOT / "docs" / "runbooks"
SCRAPED = {"job", "instance"}
HEADERS = set(dead_letter_headers_schema()["properties"])


@pytest.fixture
def promtool() -> str:
    if PROMTOOL is None:
        pytest.skip("promtool is not installed (Debian: in the package prometheus)")
    return PROMTOOL


@pytest.mark.parametrize(
    ("command", "files"),
    [
        (["check", "rules"], RULES),
        (["check", "config"], [DEPLOY / "prometheus" / "prometheus.yml"]),
        (["test", "rules"], TESTS),
    ],
    ids=["rules", "config", "tests"],
)
def test_promtool_finds_nothing_wrong(promtool: str, command: list[str], files: list[Path]) -> None:
    done = subprocess.run(
        [promtool, *command, *map(str, files)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_an_alert_that_does_not_fire(promtool: str, tmp_path: Path) -> None:
    text = TESTS[0].read_text().replace("../rules/", f"{DEPLOY}/prometheus/rules/")
    broken = tmp_path / "broken.yaml"
    broken.write_text(text.replace('values: "1 1 0x20"', 'values: "1x20"'))
    done = subprocess.run(
        [promtool, "test", "rules", str(broken)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert "NudgeProcessDown" in done.stdout + done.stderr


def test_the_tests_name_the_order_of_all_groups() -> None:
    groups = [group["name"] for path in RULES for document in documents(path) for group in document["groups"]]
    for path in TESTS:
        (document,) = documents(path)
        order = document["group_eval_order"]
        assert order[0] == "nudge-recording"
        assert sorted(order) == sorted(groups)


def test_every_alert_is_shown_to_fire_and_to_keep_quiet() -> None:
    firing, quiet = set(), set()
    for path in TESTS:
        for document in documents(path):
            for test in document["tests"]:
                for case in test["alert_rule_test"]:
                    (firing if case["exp_alerts"] else quiet).add(case["alertname"])
    names = {rule["alert"] for rule in ALERTS}
    assert firing == names
    # The others have a series in their test that must not fire beside the one that must.
    assert names - quiet <= {"NudgeRestarting", "NudgeRebalancing"}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_asks_for_metrics_that_exist(rule: dict[str, str]) -> None:
    names = queried(rule["expr"])
    assert names
    assert names <= exposed() | recorded()
    for metric, labels in selectors(rule["expr"]):
        assert labels <= labels_of().get(metric, set()) | SCRAPED, metric


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    runbook = ROOT / rule["annotations"]["runbook"]
    text = runbook.read_text()
    assert f"`{rule['alert']}`" in text, f"{runbook.name} does not name the alert"
    for heading in ("## What it means", "## What to look at", "## What to do"):
        assert heading in text, f"{runbook.name}: {heading}"


def test_every_runbook_belongs_to_an_alert_and_stands_in_the_list() -> None:
    used = {Path(rule["annotations"]["runbook"]).name for rule in ALERTS}
    there = {path.name for path in RUNBOOKS.glob("*.md")} - {"index.md"}
    assert there == used
    listed = set(re.findall(r"\]\(([a-z-]+\.md)\)", (RUNBOOKS / "index.md").read_text()))
    assert listed == used


@pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)
def test_a_runbook_names_metrics_and_settings_that_exist(path: Path) -> None:
    text = path.read_text()
    known = exposed() | {name.removesuffix("_bucket") for name in exposed()} | HEADERS
    assert set(re.findall(r"\bnudge_[a-z_]+\b", text)) <= known
    settings = {f"NUDGE_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"\bNUDGE_[A-Z_]+\b", text)) <= settings


def test_the_names_in_a_query_are_found() -> None:
    query = (
        'histogram_quantile(0.99, sum by (le, job) (rate(a_b{x="y_z", job=~"n"}[5m]))) > 1 and on (c) d:e_f:g offset 5m'
    )
    assert queried(query) == {"a_b", "d:e_f:g"}
    assert selectors(query) == [("a_b", {"x", "job"})]
