"""The dashboard: fresh, whole, and about metrics that exist."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.deploy import DEPLOY, documents, exposed, labels_of, queried, recorded, selectors

FILE = DEPLOY / "grafana" / "dashboards" / "nudge.json"
BUILD = runpy.run_path(str(DEPLOY / "grafana" / "build.py"))
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]] + [
    (annotation["name"], annotation["expr"]) for annotation in DASHBOARD["annotations"]["list"]
]
PROMTOOL = shutil.which("promtool")


def test_the_dashboard_is_what_its_list_of_panels_makes() -> None:
    assert BUILD["render"]() == FILE.read_text(), "run `python deploy/grafana/build.py`"


@pytest.mark.parametrize(("title", "expression"), QUERIES, ids=[title for title, _ in QUERIES])
def test_a_query_asks_for_metrics_and_labels_that_exist(title: str, expression: str) -> None:
    names = queried(expression)
    assert names
    assert names <= exposed() | recorded()
    for metric, labels in selectors(expression):
        assert labels <= labels_of().get(metric, set()) | {"instance", "job"}, metric


def test_prometheus_can_read_every_query(tmp_path: Path) -> None:
    if PROMTOOL is None:
        pytest.skip("promtool is not installed (Debian: in the package prometheus)")
    plain = [
        expression.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$__all", ".*")
        for _, expression in QUERIES
    ]
    rules = {"groups": [{"name": "q", "rules": [{"record": f"q{n}", "expr": each} for n, each in enumerate(plain)]}]}
    path = tmp_path / "rules.yaml"
    path.write_text(json.dumps(rules))  # JSON is YAML
    done = subprocess.run(
        [PROMTOOL, "check", "rules", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_two_panels_overlap_and_none_sticks_out() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} is on {taken[x, y]}"
                taken[x, y] = panel["title"]


def test_grafana_finds_its_data_source_and_its_dashboards() -> None:
    (source,) = documents(DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yaml")
    (provider,) = documents(DEPLOY / "grafana" / "provisioning" / "dashboards" / "nudge.yaml")
    assert source["datasources"][0]["type"] == "prometheus"
    (compose,) = documents(DEPLOY / "compose.yaml")
    mounts = "\n".join(str(volume) for volume in compose["services"]["grafana"]["volumes"])
    assert f":{provider['providers'][0]['options']['path']}:ro" in mounts
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    assert "prometheus" in compose["services"]
