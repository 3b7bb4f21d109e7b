"""What the files in deploy/ refer to: the metrics that queries name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import yaml
from prometheus_client import CollectorRegistry

from app.metrics import Metrics

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
RULES: Final = sorted((DEPLOY / "prometheus" / "rules").glob("*.yaml"))

# Of prometheus_client's own collectors on Linux, and of Prometheus itself.
_GIVEN: Final = frozenset(
    {"up", "process_start_time_seconds", "process_resident_memory_bytes", "process_cpu_seconds_total"}
)
_STRINGS: Final = re.compile(r'"[^"]*"|\'[^\']*\'')
_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
# fmt: off
_WORDS: Final = frozenset({
    "Inf", "NaN",
    "abs", "absent", "and", "avg", "bool", "by", "changes", "clamp_max", "clamp_min", "count", "deriv", "group_left",
    "group_right", "histogram_quantile", "ignoring", "increase", "label_replace", "max", "max_over_time", "min",
    "min_over_time", "offset", "on", "or", "rate", "sum", "time", "topk", "unless", "vector", "without", "label_values",
})
# fmt: on


class _Strict(yaml.SafeLoader):
    """Refuses a key that stands twice, as Docker Compose and Kubernetes do; YAML's own loader lets the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"key stands twice: {twice}", node.start_mark)
        return super().construct_mapping(node, deep)


def documents(path: Path) -> list[Any]:
    """The YAML documents of a file."""
    text = path.read_text()
    return [document for document in yaml.load_all(text, _Strict) if document is not None]


def exposed() -> set[str]:
    """Every sample name that a worker or a sender exposes."""
    names = set(_GIVEN)
    for metric in vars(Metrics(CollectorRegistry())).values():
        if hasattr(metric, "_labelnames"):
            name = metric._name
            suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(metric._type, [""])
            names |= {name + suffix for suffix in suffixes}
    return names


def labels_of() -> dict[str, set[str]]:
    """The labels of each metric of ours by its sample names."""
    found: dict[str, set[str]] = {}
    for metric in vars(Metrics(CollectorRegistry())).values():
        if hasattr(metric, "_labelnames"):
            for suffix in ("", "_total", "_bucket", "_sum", "_count"):
                found[metric._name + suffix] = set(metric._labelnames)
    return found


def rules() -> list[dict[str, Any]]:
    """Every recording and alert rule."""
    return [
        rule
        for path in RULES
        for document in documents(path)
        for group in document["groups"]
        for rule in group["rules"]
    ]


def recorded() -> set[str]:
    """The names that recording rules make."""
    return {rule["record"] for rule in rules() if "record" in rule}


def queried(expression: str) -> set[str]:
    """The metric names in a PromQL expression."""
    text = _STRINGS.sub("", expression)
    text = re.sub(r"\{[^}]*\}", "", text)
    text = re.sub(r"\[[^\]]*\]|\b\d+[smhdwy]\b", "", text)
    text = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", text)
    return {name for name in _NAME.findall(text) if name not in _WORDS and not name.startswith("$")}


def selectors(expression: str) -> list[tuple[str, set[str]]]:
    """Metric and the labels that it is selected by, of each selector in a PromQL expression."""
    found = re.findall(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\}", expression)
    return [(name, set(re.findall(r"([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)", _STRINGS.sub("", body)))) for name, body in found]
