"""The documentation: generated pages are whole, the tutorial works, and lists in words are complete."""

from __future__ import annotations

import json
import re
import runpy
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.core.features import open_features
from app.core.processor import Processor
from app.factory import prior_scorer
from app.policy.load import load_policy
from app.settings import Settings
from benchmarks.core import BenchRecord
from schemas.decisions import decode_decision
from schemas.events import REASONS
from schemas.topics import DECISIONS, TOPICS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
HOOKS = runpy.run_path(str(DOCS / "hooks.py"))
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
GENERATED = {"reference/settings.md", "reference/cli.md", *HOOKS["PAPERS"].values()}


def nav_pages(node: Any) -> list[str]:
    """The pages of mkdocs' navigation."""
    if isinstance(node, str):
        return [node]
    children = node.values() if isinstance(node, dict) else node
    return [page for child in children for page in nav_pages(child)]


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    nav = nav_pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    missing = {*PAGES, *GENERATED} - set(nav)
    assert not missing, f"add to `nav` in mkdocs.yml: {', '.join(sorted(missing))}"
    assert len(nav) == len(set(nav))
    assert set(nav) <= {*PAGES, *GENERATED}


def test_every_setting_is_explained() -> None:
    page = HOOKS["settings_page"]()
    for name, field in Settings.model_fields.items():
        assert field.description, f"{name} has no description"
        assert re.search(rf"^\| `NUDGE_{name.upper()}` \|", page, re.MULTILINE)
    assert "nudge-development-secret" not in page


def test_every_command_is_explained() -> None:
    page = HOOKS["cli_page"]()
    for command in ("worker", "sender", "topics create", "policy validate", "schemas export"):
        assert f"\n## nudge {command}\n" in page
    assert "--check" in page
    for section in page.split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        assert body.strip().partition("\n")[0] not in ("", "```text"), f"{title} has no help"


@pytest.mark.parametrize(
    ("markdown", "folder", "page", "expected"),
    [
        ("[a](docs/policy.md#x)", "", "architecture.md", "[a](policy.md#x)"),
        ("[a](../ARCHITECTURE.md)", "docs", "policy.md", "[a](architecture.md)"),
        ("[a](../../benchmarks/README.md)", "docs/adr", "adr/1.md", "[a](../benchmarks.md)"),
        ("[a](../pyproject.toml) [b](https://x.y/z)", "docs", "policy.md", "a [b](https://x.y/z)"),
        ("[a](../capacity.md#b)", "docs/runbooks", "runbooks/x.md", "[a](../capacity.md#b)"),
    ],
)
def test_links_that_lead_out_of_the_folder_are_mended(markdown: str, folder: str, page: str, expected: str) -> None:
    assert HOOKS["mended"](markdown, folder, page) == expected


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_that_exist(page: str) -> None:
    # As they are read in the repository; mkdocs checks the site's, and anchors.
    for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", (DOCS / page).read_text()):
        if "://" not in target:
            place = (DOCS / page).parent / target
            made = place.resolve().relative_to(DOCS.resolve()).as_posix() if DOCS in place.resolve().parents else ""
            assert place.exists() or made in GENERATED, target


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_a_page_exist(page: str) -> None:
    known = {words for words, _ in HOOKS["commands"](HOOKS["get_command"](HOOKS["app"]), ())}
    known_starts = {words[:length] for words in known for length in range(1, len(words) + 1)}
    for text in blocks(page, "sh"):
        for line in re.findall(r"^\s*(?:[A-Z_]+=\S+ )*nudge (.*)$", text, re.MULTILINE):
            words = tuple(re.findall(r"^[a-z]+(?: [a-z]+)?", line)[0].split())
            assert words in known_starts or words[:1] in known, line


@pytest.mark.parametrize("page", PAGES)
def test_settings_in_a_page_exist(page: str) -> None:
    known = {f"NUDGE_{name.upper()}" for name in Settings.model_fields} | {"NUDGE_TEST_KAFKA", "NUDGE_DATA"}
    # Not in Python: that is somebody's own program with variables of its own.
    text = re.sub(r"^```python\n.*?^```", "", (DOCS / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"\bNUDGE_[A-Z][A-Z_]*[A-Z]\b", text)) <= known


def test_every_topic_and_every_reason_is_in_the_list() -> None:
    page = (DOCS / "messages.md").read_text()
    for topic in TOPICS:
        days = f"{topic.retention_ms // 86_400_000} days"
        kept = "newest of each key" if topic.cleanup == "compact" else days
        partitions = "as `events`" if topic.partitions == "events" else topic.partitions
        row = f"| `{topic.name}` | {topic.key} | {topic.value} | {partitions} | {kept} | {topic.purpose} |"
        assert row in page, f"docs/messages.md lacks the line:\n{row}"
    assert set(re.findall(r"^\| `(\w+)` \| [^|]+ \|$", page, re.MULTILINE)) == set(REASONS)


def test_the_tutorial_sends_what_it_says(tmp_path: Path) -> None:
    policy = tmp_path / "coffee.yaml"
    policy.write_text(blocks("tutorial.md", "yaml")[0])
    processor = Processor(load_policy(policy), prior_scorer(), open_features)
    lines = [line.split("|", 1) for line in blocks("tutorial.md", "text")[0].splitlines()]
    now_ms = time.time_ns() // 1_000_000

    def run(first_offset: int) -> list[tuple[str, str]]:
        records = [
            BenchRecord(key.encode(), json.dumps(json.loads(value)).encode(), offset)
            for offset, (key, value) in enumerate(lines, first_offset)
        ]
        effects = processor.process(records, "events", 0, rows, now_ms=now_ms, acked_offset=0)
        decisions = [decode_decision(out.value) for out in effects.outputs if out.topic == DECISIONS and out.value]
        return [(made.user, made.content.title if made.content else made.reason) for made in decisions]

    rows: dict[bytes, Any] = {}
    assert run(0) == [("ann", "Coffee, Ann?")]
    assert "`Coffee, Ann?`" in (DOCS / "tutorial.md").read_text()
    assert run(100) == [], "the file sent again must change nothing"
