"""How two policies decide over the same events, as figures, and as the users who show it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from app.trial.run import Said, Spoken, Trial


class DecisionRow(msgspec.Struct, frozen=True):
    """Decisions of one kind. `reason` is empty for those to send."""

    campaign: str
    action: str
    reason: str
    before: int
    after: int


class SegmentRow(msgspec.Struct, frozen=True):
    """A segment at the end: users in it under both policies, or under one alone, and how often anybody entered."""

    segment: str
    both: int
    only_before: int
    only_after: int
    entered_before: int
    entered_after: int


class UserRow(msgspec.Struct, frozen=True):
    """A user about whom the two decide differently: the first decisions that only one of them makes."""

    user: str
    only_before: list[Said]
    only_after: list[Said]


class ThresholdRow(msgspec.Struct, frozen=True):
    """Where a percentile begins at the end under each policy; None where it is not asked for, or not known yet."""

    percentile: str
    before: float | None
    after: float | None


class ModelRow(msgspec.Struct, frozen=True):
    """How many examples each policy's model had learned that was served at the end; None where it had none."""

    model: str
    before: int | None
    after: int | None


class Report(msgspec.Struct, frozen=True):
    """The outcome of a trial. Deterministic: the same recording, policies and model give the same report."""

    before: str
    after: str
    events: int
    users: int
    users_differing: int
    decisions: list[DecisionRow]
    segments: list[SegmentRow]
    examples: list[UserRow]
    thresholds: list[ThresholdRow] = []
    catalog_changes: int = 0
    """Changes of the catalog that were told, by the policy that told more."""
    models_from: str = "untaught"
    """``learned`` from the recording, of the `models` ``topic``, or ``untaught``."""
    models: list[ModelRow] = []
    personas: list[str] = []
    """Names of the personas that the policy after tells apart at the end."""


def compare(
    before: Trial,
    after: Trial,
    name_of: Callable[[str], str],
    *,
    examples_max: int,
    models_from: str = "untaught",
) -> Report:
    """Compare two trials over the same recording.

    Parameters
    ----------
    name_of
        How a user is named in the examples: users whose name sorts first are shown.
    models_from
        Where the models come from, as `Report` names it.
    """
    users = before.spoken.keys() | after.spoken.keys()
    differing = [user for user in users if _digest(before, user) != _digest(after, user)]
    shown = sorted(differing, key=name_of)[:examples_max]
    return Report(
        before=before.plan.version,
        after=after.plan.version,
        events=sum(after.fates.values()),
        users=after.users(),
        users_differing=len(differing),
        decisions=[
            DecisionRow(*kind, before.decisions[kind], after.decisions[kind])
            for kind in sorted(before.decisions.keys() | after.decisions.keys())
        ],
        segments=_segments(before, after),
        examples=[_example(before, after, user, name_of(user)) for user in shown],
        thresholds=_thresholds(before, after),
        catalog_changes=max(before.catalog_changes, after.catalog_changes),
        models_from=models_from,
        models=_models(before, after),
        personas=after.personas(),
    )


def _thresholds(before: Trial, after: Trial) -> list[ThresholdRow]:
    old, new = (
        {f"{cut.name} of {number}": cut.value for number, of in trial.thresholds().items() for cut in of.cuts}
        for trial in (before, after)
    )
    return [ThresholdRow(name, old.get(name), new.get(name)) for name in sorted(old.keys() | new.keys())]


def _models(before: Trial, after: Trial) -> list[ModelRow]:
    old, new = dict(before.models()), dict(after.models())
    return [ModelRow(name, old.get(name), new.get(name)) for name in sorted(old.keys() | new.keys())]


def _digest(trial: Trial, user: str) -> bytes:
    spoken = trial.spoken.get(user)
    return b"" if spoken is None else spoken.digest


def _segments(before: Trial, after: Trial) -> list[SegmentRow]:
    old, new = before.members(), after.members()
    rows = []
    for name in sorted(old.keys() | new.keys()):
        was, now = old.get(name, set()), new.get(name, set())
        entered = before.changes[name, "enter"], after.changes[name, "enter"]
        rows.append(SegmentRow(name, len(was & now), len(was - now), len(now - was), *entered))
    return rows


def _example(before: Trial, after: Trial, user: str, name: str) -> UserRow:
    nothing = Spoken()
    old = before.spoken.get(user, nothing).first
    new = after.spoken.get(user, nothing).first
    return UserRow(
        user=name,
        only_before=[said for said in old if said not in new],
        only_after=[said for said in new if said not in old],
    )
