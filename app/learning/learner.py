"""The single writer of a model: takes matured outcomes, publishes snapshots, and goes on from one.

The learner is pure: the agent around it reads `outcomes`, asks for a snapshot now and then, and produces it. All that
a learner knows is in its snapshot, metrics and drift detector included, so that one that was killed and restored is
bit for bit the one that never stopped.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Collection
from typing import Final

import msgspec

from app.core.ids import message_hash
from app.core.plan import ModelPlan
from app.learning.book import KEPT_MAX, NOWHERE, kept_name
from app.learning.contract import BadModel, Model
from app.learning.drift import AdaptiveWindow, AdwinState, CampaignDrift, DriftState, LossDrift
from app.learning.duel import Duel
from app.learning.kinds import new_model, read_model
from app.learning.late import correction_weight
from app.learning.logistic import log_loss
from app.learning.progressive import BLOCK, Progressive
from app.learning.scorer import Frozen
from app.learning.serving import LEARNER_VERSION, check_version, served_state
from schemas.models import ModelSnapshot
from schemas.outcomes import LATE_OPEN, Outcome

RECENT_MAX: Final = 4096
"""Outcome ids remembered. A worker that restarts repeats at most the outcomes of its uncommitted batches."""


STATE_BYTES_MAX: Final = 720_000
"""Of a snapshot: with base64 around it, it stays below the megabyte that Kafka takes."""

CAMPAIGN: Final = "campaign"
"""The detector that looks at each campaign alone."""
KEEP_EXAMPLES_MIN: Final = 500
KEEP_GROWTH: Final = 1.1
"""A version is kept when the model has learned this much more than at the last one."""


class Kept(msgspec.Struct, frozen=True):
    """A version that is kept to go back to."""

    slot: int
    version: int


class _State(msgspec.Struct, kw_only=True):
    version: int = LEARNER_VERSION
    kind: str
    model: bytes
    progressive: Progressive
    drift: DriftState
    duplicates: int
    refused: int
    recent: bytes
    """Hashes of the newest outcome ids, oldest first, 8 bytes each, big-endian."""
    challenger_kind: str = ""
    challenger: bytes = b""
    duel: Duel = msgspec.field(default_factory=Duel)
    promotions: int = 0
    campaign_drift: CampaignDrift = msgspec.field(default_factory=CampaignDrift)
    kept: list[Kept] = []
    calm_from: int = 0
    adwin: AdwinState = msgspec.field(default_factory=AdwinState)
    corrected: int = 0


class Learner:
    """One model, learned in place.

    Parameters
    ----------
    name
        The model's key in `outcomes` and `models`.
    kind, slow_start
        Which model, see `app.learning.kinds.new_model`.

    Attributes
    ----------
    duplicates
        Outcomes that came again and were skipped.
    refused
        Outcomes of another model, or whose label is neither 0 nor 1.
    corrected
        Examples taken back because they were opened after the horizon.
    shrinks
        How often, since the start, features were forgotten for the snapshot to fit a message.
    challenger
        A model of another kind that learns the same examples and is promoted when it is surely better.
    alarms
        Names of the detectors that fired since they were last taken.
    """

    def __init__(self, name: str, kind: str = "open-mix", *, slow_start: bool = False) -> None:
        self.name = name
        self.kind = kind
        self.challenger_kind = ""
        self.challenger: Model | None = None
        self.duel = Duel()
        self.promotions = 0
        self.campaign_drift = CampaignDrift()
        self.alarms: list[str] = []
        self._on_drift = "alarm"
        self._kept: list[Kept] = []
        self._calm_from = 0
        self.model: Model = new_model(kind, slow_start=slow_start)
        self.progressive = Progressive()
        self.drift = LossDrift()
        self.adwin = AdaptiveWindow()
        self.duplicates = 0
        self.refused = 0
        self.corrected = 0
        self.shrinks = 0
        self._recent: deque[int] = deque()
        self._known: set[int] = set()

    def learn(self, outcome: Outcome) -> bool:
        """Judge the model by this outcome, then learn it.

        Returns
        -------
        bool
            False when it taught nothing: it was learned before, or is not an example of this model.
        """
        if outcome.model == self.name and outcome.label == LATE_OPEN:
            return self._correct(outcome)
        if outcome.model != self.name or outcome.label not in (0, 1):
            self.refused += 1
            return False
        if not self._remember(message_hash(outcome.id)):
            self.duplicates += 1
            return False
        label, campaign = outcome.label, outcome.campaign
        own = self.model.predict_learn_one(outcome.features, label, outcome.weight)
        loss = self.progressive.add(outcome.score, own, label, campaign)
        if self.challenger is not None:
            other = self.challenger.predict_learn_one(outcome.features, label, outcome.weight)
            self.duel.add(loss, log_loss(other, label))
            if self.duel.challenger_wins:
                self._promote(self.challenger)
        if self.drift.update(loss):
            self._drifted("page_hinkley")
        if self.adwin.update(loss):
            self._drifted("adwin")
        if campaign and self.campaign_drift.update(campaign, loss):
            self._drifted(CAMPAIGN, campaign)
        return True

    def _correct(self, outcome: Outcome) -> bool:
        """Take back an example that was learned as not opened: see `app.learning.late`."""
        if not self._remember(message_hash(f"{outcome.id}\x1flate")):
            self.duplicates += 1
            return False
        weight = outcome.weight * correction_weight(outcome.score)
        for model in (self.model, self.challenger):
            if model is not None:
                model.learn_one(outcome.features, 1, weight)
        self.progressive.correct(outcome.score, outcome.campaign)
        self.corrected += 1
        return True

    def configure(self, plan: ModelPlan) -> None:
        """What the policy says of this model: its challenger, and what a drift alarm does. May be said again."""
        self._on_drift = plan.on_drift
        wanted = plan.challenger
        if self.challenger is not None and wanted in (self.challenger_kind, self.kind):
            return  # after a promotion the two have changed places
        if wanted == self.challenger_kind or wanted == self.kind:
            return
        self.challenger_kind = wanted
        self.challenger = new_model(wanted, slow_start=plan.horizon_ms > 0) if wanted else None
        self.duel = Duel()

    def _promote(self, challenger: Model) -> None:
        """The challenger serves from the next snapshot on; the champion challenges it."""
        self.kind, self.challenger_kind = self.challenger_kind, self.kind
        self.model, self.challenger = challenger, self.model
        self.duel = Duel()
        self.promotions += 1

    def _drifted(self, detector: str, campaign: str = "") -> None:
        """A campaign's own alarm is answered in its own weight: the others have not drifted."""
        self.alarms.append(detector)
        self._calm_from = self.version + BLOCK
        if campaign and self._on_drift != "alarm":
            self.model.learn_faster(f"c={campaign}")
        elif self._on_drift == "learn_faster":
            self.model.learn_faster()

    def take_alarms(self) -> list[str]:
        """The detectors that fired since the last time."""
        alarms, self.alarms = self.alarms, []
        return alarms

    def falls_back(self, alarms: Collection[str]) -> bool:
        """Whether these alarms are answered by serving an older version; that of one campaign is not."""
        return self._on_drift == "fall_back" and any(alarm != CAMPAIGN for alarm in alarms)

    def fallback_version(self) -> int:
        """A kept version from before the drift began (alarms come late: a block earlier, or the oldest); 0 for none."""
        versions = [kept.version for kept in self._kept]
        before = [version for version in versions if version <= self.version - BLOCK]
        return max(before, default=min(versions, default=0))

    def recovered(self) -> bool:
        """Whether the newest model does better than what was served, on a whole block since the last alarm."""
        served, own = self.progressive.recent()
        return self.version >= self._calm_from + BLOCK and own.loss < served.loss

    def _remember(self, key: int) -> bool:
        if key in self._known:
            return False
        self._known.add(key)
        self._recent.append(key)
        if len(self._recent) > RECENT_MAX:
            self._known.discard(self._recent.popleft())
        return True

    @property
    def version(self) -> int:
        """Examples learned: the same examples give the same version, in whatever process."""
        return self.progressive.learner.examples

    def metrics(self) -> dict[str, float]:
        """The progressive metrics, and counts of drift alarms, duplicates and refused outcomes."""
        result = self.progressive.to_dict()
        result["drift_detections"] = float(self.drift.state.detections)
        result["drift_adwin_detections"] = float(self.adwin.state.detections)
        result["drift_campaign_detections"] = float(self.campaign_drift.detections)
        result["promotions"] = float(self.promotions)
        if self.challenger is not None:
            result["challenger_gain"] = self.duel.mean
            if self.duel.lower_bound > -1.0:
                result["challenger_gain_lower"] = self.duel.lower_bound
        result["duplicates"] = float(self.duplicates)
        result["refused"] = float(self.refused)
        result["corrected"] = float(self.corrected)
        return result

    def snapshot(self, next_offset: int, now_ms: int, partition: int) -> ModelSnapshot:
        """The whole learner, unsigned (`schemas.models.encode_snapshot` signs).

        What does not fit a message is forgotten first, in the learner as well: a snapshot that cannot be published
        would stop all learning, and who goes on from it must know what this one knows.

        Parameters
        ----------
        next_offset, partition
            The first offset of that partition of `outcomes` that has not been learned.
        now_ms
            Time of the snapshot, milliseconds since 1970.
        """
        state = self._encode()
        while len(state) > STATE_BYTES_MAX and self._shrink():
            self.shrinks += 1
            state = self._encode()
        return ModelSnapshot(
            model=self.name,
            version=self.version,
            partition=partition,
            next_offset=next_offset,
            created_ms=now_ms,
            state=state,
            metrics=self.metrics(),
        )

    def _shrink(self) -> bool:
        models = [self.model] if self.challenger is None else [self.model, self.challenger]
        return any([model.shrink() for model in models])  # noqa: C419 - both, not the first that can

    def _encode(self) -> bytes:
        state = _State(
            kind=self.kind,
            model=self.model.to_bytes(),
            progressive=self.progressive,
            drift=self.drift.state,
            duplicates=self.duplicates,
            refused=self.refused,
            recent=struct.pack(f">{len(self._recent)}q", *self._recent),
            challenger_kind=self.challenger_kind,
            challenger=self.challenger.to_bytes() if self.challenger is not None else b"",
            duel=self.duel,
            promotions=self.promotions,
            campaign_drift=self.campaign_drift,
            kept=self._kept,
            calm_from=self._calm_from,
            adwin=self.adwin.state,
            corrected=self.corrected,
        )
        return msgspec.json.encode(state)

    def keep(self, now_ms: int) -> ModelSnapshot | None:
        """The model alone as a version to go back to, when one is due and no alarm is recent; the oldest gives way."""
        version = self.version
        last = max((kept.version for kept in self._kept), default=0)
        if version < max(last * KEEP_GROWTH, last + KEEP_EXAMPLES_MIN) or version < self._calm_from:
            return None
        oldest = min(self._kept, key=lambda kept: kept.version, default=None)
        slot = len(self._kept) if len(self._kept) < KEPT_MAX or oldest is None else oldest.slot
        self._kept = [kept for kept in self._kept if kept.slot != slot] + [Kept(slot, version)]
        return ModelSnapshot(
            model=kept_name(self.name, slot),
            version=version,
            partition=NOWHERE,
            next_offset=0,
            created_ms=now_ms,
            state=served_state(self.kind, self.model.to_bytes()),
            metrics=self.metrics(),
        )

    @classmethod
    def restore(cls, snapshot: ModelSnapshot) -> Learner:
        """The learner that took this snapshot. Raises `BadModel`."""
        state = _read(snapshot)
        learner = cls(snapshot.model, state.kind)
        learner.model = read_model(state.kind, state.model)
        learner.progressive = state.progressive
        learner.drift = LossDrift(state.drift)
        learner.adwin = AdaptiveWindow(state.adwin)
        learner.challenger_kind = state.challenger_kind
        learner.challenger = read_model(state.challenger_kind, state.challenger) if state.challenger_kind else None
        learner.duel = state.duel
        learner.promotions = state.promotions
        learner.campaign_drift = state.campaign_drift
        learner._kept = state.kept
        learner._calm_from = state.calm_from
        learner.duplicates = state.duplicates
        learner.refused = state.refused
        learner.corrected = state.corrected
        learner._recent = deque(struct.unpack(f">{len(state.recent) // 8}q", state.recent))
        learner._known = set(learner._recent)
        return learner

    def scorer(self) -> Frozen:
        """What a worker would serve if it had a snapshot taken now."""
        return self.model.freeze(self.version)


def _read(snapshot: ModelSnapshot) -> _State:
    try:
        state = msgspec.json.decode(snapshot.state, type=_State)
    except msgspec.MsgspecError as exc:
        raise BadModel(f"snapshot of model {snapshot.model!r}: {exc}") from exc
    check_version(state.version, snapshot)
    if len(state.recent) % 8:
        raise BadModel(f"snapshot of model {snapshot.model!r}: torn list of outcome ids")
    return state
