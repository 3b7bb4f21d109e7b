"""What a worker remembers of the policies that it has served, and an image's policy file that is taken back."""

from __future__ import annotations

from pathlib import Path

from app.core.earlier import NOTHING
from app.core.ids import stable_id
from app.policy.load import load_policy_text
from app.policy_memory import VERSIONS_MAX, PolicyMemory
from app.settings import load_settings


def text(number: int) -> str:
    return f'version: {number}\nname: shop\nsegments:\n  - {{name: s{number}, when: \'count("E", "{number}d") > 1\'}}\n'


def test_served_versions_are_remembered_over_a_restart_with_what_they_asked_for(tmp_path: Path) -> None:
    plan = load_policy_text(text(7))
    PolicyMemory(tmp_path / "a" / "policies.json").remember(plan)
    known = PolicyMemory(tmp_path / "a" / "policies.json").add_to(NOTHING)
    assert known.features == {stable_id(plan.version): frozenset(feature.id for feature in plan.features)}
    assert known.segments == {stable_id("s7"): "s7"}


def test_the_oldest_versions_are_forgotten_and_a_damaged_file_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "policies.json"
    path.write_text("[[")
    memory = PolicyMemory(path)
    for number in range(1, VERSIONS_MAX + 3):
        memory.remember(load_policy_text(text(number)))
    memory.remember(load_policy_text(text(VERSIONS_MAX)))
    known = PolicyMemory(path).add_to(NOTHING)
    assert len(known.features) == VERSIONS_MAX
    assert "s2" not in known.segments.values()


def test_an_empty_policy_setting_means_none() -> None:
    assert load_settings(profile="dev", policy="", shadow_policy="").policy is None
