"""What the topics say, in bounded aggregates. No user's id is kept here: one user is looked up when asked for."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from app.console.series import POINTS_MAX, auc, calibration, wilson
from app.learning.book import ModelBook
from app.learning.contract import BadModel
from app.learning.served_personas import is_personas, read_served
from schemas.decisions import Decision
from schemas.decoding import json_decoder
from schemas.models import BadSignature, ModelSnapshot
from schemas.outcomes import Outcome
from schemas.policies import BadPolicyVersion, decode_policy_version, head_key
from schemas.segments import MembershipChange

NAMES_MAX: Final = 200
"""Campaigns, variants, segments and versions that are told apart; what comes beyond is left out."""
EXAMPLES_MAX: Final = 4000
RECENT_MAX: Final = 24
CAMPAIGNS_SHOWN: Final = 24
_COURSES: Final = ("auc", "recent_auc", "log_loss", "recent_log_loss", "log_loss_constant")
_METRICS: Final = (*_COURSES, "calibration_ratio", "examples", "drift_detections", "promotions")


class _Made(msgspec.Struct, rename="camel"):
    """The fields of a decision that are counted: skipping the others makes decoding several times as fast."""

    action: str
    campaign: str
    decided_ms: int
    reason: str = ""
    variant: str = ""
    open_probability: float = 0.0
    policy_version: str = ""


class _Matured(msgspec.Struct, rename="camel"):
    model: str
    label: int
    score: float
    campaign: str
    variant: str = ""


class _Version(msgspec.Struct):
    decisions: int = 0
    first_ms: int = 0
    last_ms: int = 0


class _Applied(msgspec.Struct):
    policy: str
    serial: int
    applied_ms: int
    restores: int


class _Arm(msgspec.Struct):
    decided: int = 0
    matured: int = 0
    opened: int = 0


_made = json_decoder(_Made)
_matured = json_decoder(_Matured)
_moved = json_decoder(MembershipChange)
# The fields above must be those of the messages.
assert set(_Made.__struct_fields__) <= set(Decision.__struct_fields__)
assert set(_Matured.__struct_fields__) <= set(Outcome.__struct_fields__)


class Tally:
    """Takes records of `decisions`, `segments`, `outcomes`, `models` and `policy`.

    Records are published at least once, so what a crash repeated counts twice here: these are figures to look at.

    Parameters
    ----------
    secret
        Verifies model snapshots and policy versions.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.unreadable = 0
        self.unsigned = 0
        self.sends = 0
        self.reasons: Counter[str] = Counter()
        self.opened = 0
        self.recent: deque[_Made] = deque(maxlen=RECENT_MAX)
        self.entered: Counter[str] = Counter()
        self.left: Counter[str] = Counter()
        self.by_second: dict[int, list[int]] = {}
        """Second of the record's timestamp to decisions to send, and not to."""
        self._arms: dict[str, dict[str, _Arm]] = {}
        self._versions: dict[str, _Version] = {}
        self._applied: dict[str, _Applied] = {}
        self._in_force: dict[str, str] = {}
        self._examples: deque[tuple[float, int]] = deque(maxlen=EXAMPLES_MAX)
        self._models: dict[str, deque[dict[str, float]]] = {}
        self._personas = ""
        """Under which name there are personas."""
        self._book = ModelBook(secret)

    def decision(self, value: bytes, timestamp_ms: int) -> None:
        """A record of `decisions`."""
        made = _made(value)
        sends = made.action == "send"
        if sends:
            self.sends += 1
            arm = self._arm(made.campaign, made.variant)
            if arm is not None:
                arm.decided += 1
        else:
            self.reasons[made.reason] += 1
        self.recent.append(made)
        second = timestamp_ms // 1000
        counts = self.by_second.get(second)
        if counts is None:
            counts = self.by_second[second] = [0, 0]
            while len(self.by_second) > 2 * POINTS_MAX:
                del self.by_second[min(self.by_second)]
        counts[0 if sends else 1] += 1
        version = self._versions.get(made.policy_version)
        if version is None and len(self._versions) < NAMES_MAX:
            version = self._versions[made.policy_version] = _Version(first_ms=made.decided_ms)
        if version is not None:
            version.decisions += 1
            version.last_ms = max(version.last_ms, made.decided_ms)

    def _arm(self, campaign: str, variant: str) -> _Arm | None:
        arms = self._arms.get(campaign)
        if arms is None:
            if len(self._arms) >= NAMES_MAX:
                return None
            arms = self._arms[campaign] = {}
        arm = arms.get(variant)
        if arm is None and len(arms) < NAMES_MAX:
            arm = arms[variant] = _Arm()
        return arm

    def membership(self, value: bytes) -> None:
        """A record of `segments`."""
        change = _moved(value)
        counter = self.entered if change.change == "enter" else self.left
        if change.segment in counter or len(counter) < NAMES_MAX:
            counter[change.segment] += 1

    def outcome(self, value: bytes) -> None:
        """A record of `outcomes`: an example whose label is known."""
        matured = _matured(value)
        if matured.label not in (0, 1):
            return  # an opt-out or an open that came later, or a basket
        label = matured.label
        self.opened += label
        self._examples.append((matured.score, label))
        arm = self._arm(matured.campaign, matured.variant)
        if arm is not None:
            arm.matured += 1
            arm.opened += label

    def snapshot(self, value: bytes) -> None:
        """A record of `models`; what stands beside a model under a name of its own has no course to show."""
        try:
            found = self._book.apply(value)
        except BadSignature:
            self.unsigned += 1
            return
        if is_personas(found.model):
            self._personas = found.model
        if "." in found.model:
            return
        history = self._models.get(found.model)
        if history is None:
            if len(self._models) >= NAMES_MAX:
                return
            history = self._models[found.model] = deque(maxlen=POINTS_MAX)
        history.append({name: found.metrics[name] for name in _METRICS if name in found.metrics})

    def applied(self, key: bytes | None, value: bytes) -> None:
        """A record of `policy`: a version of the history or, under the policy's own name, the one in force."""
        try:
            found = decode_policy_version(value, self._secret)
        except BadPolicyVersion:
            self.unsigned += 1
            return
        if key == head_key(found.policy) and len(self._in_force) < NAMES_MAX:
            self._in_force[found.policy] = found.version
        # The same content may be applied again, or restored: its newest serial is shown.
        if found.version in self._applied or len(self._applied) < NAMES_MAX:
            self._applied[found.version] = _Applied(found.policy, found.serial, found.at_ms, found.restores)

    def snapshot_of(self, model: str) -> ModelSnapshot | None:
        """The snapshot of a model that workers serve now."""
        return self._book.served(model)

    # -- what the page shows

    def experiments(self) -> list[dict[str, Any]]:
        """Campaigns by decisions to send, with each variant's opens of the notifications whose time is over."""
        busiest = sorted(self._arms, key=lambda name: (-sum(arm.decided for arm in self._arms[name].values()), name))
        return [{"campaign": name, "variants": self._variants(name)} for name in busiest[:CAMPAIGNS_SHOWN]]

    def _variants(self, campaign: str) -> list[dict[str, Any]]:
        shown = []
        for name, arm in sorted(self._arms[campaign].items()):
            low, high = wilson(arm.opened, arm.matured)
            rate = arm.opened / arm.matured if arm.matured else None
            shown.append({"name": name, "rate": rate, "low": low, "high": high, **msgspec.to_builtins(arm)})
        return shown

    def policies(self, running: Mapping[str, int]) -> list[dict[str, Any]]:
        """Versions that were applied, run now, or decided something: those in force first, then the latest.

        Parameters
        ----------
        running
            How many processes run each version.
        """
        in_force = set(self._in_force.values())
        found = []
        for name in {*self._versions, *self._applied, *running}:
            applied = self._applied.get(name)
            found.append(
                {
                    "version": name,
                    "running": running.get(name, 0),
                    "in_force": name in in_force,
                    "applied": msgspec.to_builtins(applied) if applied else None,
                    **msgspec.to_builtins(self._versions.get(name, _Version())),
                }
            )
        found.sort(key=lambda one: (not one["in_force"], -one["running"], -one["last_ms"], one["version"]))
        return found[:CAMPAIGNS_SHOWN]

    def newest_decisions(self) -> list[dict[str, Any]]:
        """The last few, newest first, without their users."""
        return [
            {
                "at_ms": made.decided_ms,
                "action": made.action,
                "campaign": made.campaign,
                "reason": made.reason,
                "variant": made.variant,
                "open_probability": made.open_probability,
            }
            for made in reversed(self.recent)
        ]

    def models(self) -> list[dict[str, Any]]:
        """Each model's newest metrics, their course over the snapshots that were seen, and what it is pinned to."""
        shown = []
        for name, history in sorted(self._models.items()):
            newest, pin = self._book.newest(name), self._book.pin(name)
            shown.append(
                {
                    "name": name,
                    "version": newest.version if newest else 0,
                    "kept": len(self._book.kept(name)),
                    "pinned": {"version": pin[0], "by": pin[1].by} if pin else None,
                    "metrics": history[-1],
                    "series": {metric: [point.get(metric) for point in history] for metric in _COURSES},
                }
            )
        return shown

    def personas(self) -> list[dict[str, Any]]:
        """Names and shares of the personas that are served, those of the largest first."""
        snapshot = self._book.served(self._personas)
        if snapshot is None:
            return []
        try:
            found = read_served(snapshot).personas
        except BadModel:
            return []  # of another build
        return [{"name": one.name, "share": one.share} for one in sorted(found, key=lambda one: -one.share)]

    def served(self) -> dict[str, Any]:
        """How the scores that users met did, over the newest `EXAMPLES_MAX` examples."""
        examples = list(self._examples)
        return {"examples": len(examples), "auc": auc(examples), "calibration": calibration(examples)}
