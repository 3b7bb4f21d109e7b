"""How two versions of a policy differ, part by part, and what each difference means for the users there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec
from pydantic import BaseModel

from app.core.plan import Plan
from app.policy.shape import check_shape
from app.policy.source import Document

Kind = Literal["segment", "campaign", "default", "trait", "events"]

_SEGMENT_ADDED = "users who belong enter it by the backfill, without waiting for their next event"
_SEGMENT_CHANGED = "every user is judged anew by the backfill; nobody is notified for that"
_SEGMENT_REMOVED = "its members leave it, by the backfill or at their next event; nobody is notified for that"
_CAMPAIGN_REMOVED = "what it waits for is dropped; its sends still count towards caps"
_CAMPAIGN_CHANGED = "from the next event or timer on; waits that have begun keep their length"
_TRIGGER_CHANGED = "waits that began under the old trigger still end as they began"


class Difference(msgspec.Struct, frozen=True):
    """One part that was added, removed or changed. `fields` are those that differ; `means` is for people."""

    kind: Kind
    name: str
    change: Literal["added", "removed", "changed"]
    fields: list[str] = []
    means: str = ""


class PolicyDiff(msgspec.Struct, frozen=True):
    """`windows_added` are the windowed totals that the new version asks for first, with their length in ms."""

    before: str
    after: str
    differences: list[Difference]
    windows_added: dict[str, int]
    windows_removed: list[str]

    @property
    def history_ms(self) -> int:
        """The longest new window: how far back the `events` topic must reach for the backfill to be complete."""
        return max(self.windows_added.values(), default=0)


def diff_policies(before: tuple[str, Plan], after: tuple[str, Plan]) -> PolicyDiff:
    """Compare two valid policies, each given as its text and its plan."""
    old, new = (_parts(text) for text, _ in (before, after))
    differences = []
    for key in sorted(old.keys() | new.keys(), key=lambda part: (_ORDER.index(part[0]), part[1])):
        found = _compare(key, old.get(key), new.get(key))
        if found is not None:
            differences.append(found)
    old_windows, new_windows = ({f.text: f.window_ms for f in plan.features} for _, plan in (before, after))
    return PolicyDiff(
        before=before[1].version,
        after=after[1].version,
        differences=differences,
        windows_added={text: ms for text, ms in new_windows.items() if text not in old_windows},
        windows_removed=[text for text in old_windows if text not in new_windows],
    )


_ORDER: tuple[Kind, ...] = ("events", "trait", "default", "segment", "campaign")
_Key = tuple[Kind, str]


def _parts(text: str) -> dict[_Key, Any]:
    shaped = check_shape(Document(text, "policy"))
    head = shaped.head
    parts: dict[_Key, Any] = {("events", "events"): sorted(head.events) if head.events is not None else None}
    parts |= {("trait", name): trait for name, trait in head.traits.items()}
    parts |= {("default", name): value for name, value in head.defaults}
    parts |= {("default", f"models.{name}"): model for name, model in head.models.items()}
    parts["default", "personas"] = head.personas
    parts |= {("segment", model.name): model for _, model in shaped.segments}
    parts |= {("campaign", model.name): model for _, model in shaped.campaigns}
    return parts


def _compare(key: _Key, old: Any, new: Any) -> Difference | None:
    kind, name = key
    if old == new:
        return None
    if kind in ("default", "events"):
        return Difference(kind, name, "changed", means="from the next event or timer on")
    if old is None:
        return Difference(kind, name, "added", means=_SEGMENT_ADDED if kind == "segment" else "")
    if new is None:
        removed = {"segment": _SEGMENT_REMOVED, "campaign": _CAMPAIGN_REMOVED}
        return Difference(kind, name, "removed", means=removed.get(kind, ""))
    fields = list(_changed_fields(dict(old), dict(new)))
    return Difference(kind, name, "changed", fields, _meaning(kind, fields, old))


def _changed_fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterable[str]:
    return (name for name in new if old.get(name) != new[name])


def _meaning(kind: Kind, fields: list[str], part: BaseModel) -> str:
    if fields == ["description"]:
        return "nothing"
    if kind == "segment":
        return _SEGMENT_CHANGED
    if kind == "campaign":
        return _TRIGGER_CHANGED if "trigger" in fields else _CAMPAIGN_CHANGED
    return "segments that read it are judged anew by the backfill"
