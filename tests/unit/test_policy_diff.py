from __future__ import annotations

from app.policy.diff import Difference, PolicyDiff, diff_policies
from app.policy.load import load_policy_text

OLD = """
version: 1
name: shop
defaults: {consent: assumed}
traits: {income: {default: unknown}}
segments:
  - {name: busy, when: 'count("Product Viewed", "7d") > 3'}
  - {name: gone, when: 'count("Order Completed", "30d") > 0'}
campaigns:
  - name: hello
    category: promo
    trigger: {enter: busy}
    template: {title: T, body: B}
"""
NEW = """
version: 2
name: shop
defaults: {consent: required, caps: [{limit: 1, window: 1d}]}
traits: {income: {default: unknown}}
segments:
  - {name: busy, description: looks often, when: 'count("Product Viewed", "7d") > 3'}
  - {name: keen, when: 'count("Product Viewed", "30d") > 9'}
campaigns:
  - name: hello
    category: promo
    trigger: {enter: keen}
    template: {title: T, body: other}
"""


def diff(before: str, after: str) -> PolicyDiff:
    return diff_policies((before, load_policy_text(before)), (after, load_policy_text(after)))


def test_a_policy_does_not_differ_from_itself() -> None:
    found = diff(OLD, OLD)
    assert found.differences == []
    assert found.history_ms == 0


def test_each_part_that_was_added_removed_or_changed_is_named_with_its_fields() -> None:
    found = {(part.kind, part.name): part for part in diff(OLD, NEW).differences}
    assert {key: part.change for key, part in found.items()} == {
        ("default", "consent"): "changed",
        ("default", "caps"): "changed",
        ("segment", "busy"): "changed",
        ("segment", "gone"): "removed",
        ("segment", "keen"): "added",
        ("campaign", "hello"): "changed",
    }
    assert found["segment", "busy"] == Difference("segment", "busy", "changed", ["description"], "nothing")
    assert found["campaign", "hello"].fields == ["trigger", "template"]
    assert "backfill" in found["segment", "keen"].means


def test_windows_that_need_history_are_named_with_their_length() -> None:
    found = diff(OLD, NEW)
    assert list(found.windows_added.values()) == [30 * 86_400_000]
    assert found.history_ms == 30 * 86_400_000
    assert len(found.windows_removed) == 1
