"""The single writer of a model: takes matured outcomes, publishes snapshots, and goes on from one.

The learner is pure: the agent around it reads `outcomes`, asks for a snapshot now and then, and produces it. All that
a learner knows is in its snapshot, metrics and drift detector included, so that one that was killed and restored is
bit for bit the one that never stopped.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Final

import msgspec

from app.core.ids import message_hash
from app.learning.contract import BadModel, Model
from app.learning.drift import DriftState, LossDrift
from app.learning.kinds import new_model, read_model
from app.learning.progressive import Progressive
from app.learning.scorer import Frozen
from app.learning.serving import LEARNER_VERSION, check_version
from schemas.models import ModelSnapshot
from schemas.outcomes import Outcome

RECENT_MAX: Final = 4096
"""Outcome ids remembered. A worker that restarts repeats at most the outcomes of its uncommitted batches."""


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


class Learner:
    """One model, learned in place.

    Parameters
    ----------
    name
        The model's key in `outcomes` and `models`.
    kind
        Which model, see `app.learning.kinds`.

    Attributes
    ----------
    duplicates
        Outcomes that came again and were skipped.
    refused
        Outcomes of another model, or whose label is neither 0 nor 1.
    """

    def __init__(self, name: str, kind: str = "open-mix") -> None:
        self.name = name
        self.kind = kind
        self.model: Model = new_model(kind)
        self.progressive = Progressive()
        self.drift = LossDrift()
        self.duplicates = 0
        self.refused = 0
        self._recent: deque[int] = deque()
        self._known: set[int] = set()

    def learn(self, outcome: Outcome) -> bool:
        """Judge the model by this outcome, then learn it.

        Returns
        -------
        bool
            False when it taught nothing: it was learned before, or is not an example of this model.
        """
        if outcome.model != self.name or outcome.label not in (0, 1):
            self.refused += 1
            return False
        if not self._remember(message_hash(outcome.id)):
            self.duplicates += 1
            return False
        own = self.model.predict_learn_one(outcome.features, outcome.label, outcome.weight)
        self.drift.update(self.progressive.add(outcome.score, own, outcome.label))
        return True

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
        return self.model.examples

    def metrics(self) -> dict[str, float]:
        """The progressive metrics, and counts of drift alarms, duplicates and refused outcomes."""
        result = self.progressive.to_dict()
        result["drift_detections"] = float(self.drift.state.detections)
        result["duplicates"] = float(self.duplicates)
        result["refused"] = float(self.refused)
        return result

    def snapshot(self, next_offset: int, now_ms: int, partition: int) -> ModelSnapshot:
        """The whole learner, unsigned (`schemas.models.encode_snapshot` signs).

        Parameters
        ----------
        next_offset, partition
            The first offset of that partition of `outcomes` that has not been learned.
        now_ms
            Time of the snapshot, milliseconds since 1970.
        """
        state = _State(
            kind=self.kind,
            model=self.model.to_bytes(),
            progressive=self.progressive,
            drift=self.drift.state,
            duplicates=self.duplicates,
            refused=self.refused,
            recent=struct.pack(f">{len(self._recent)}q", *self._recent),
        )
        return ModelSnapshot(
            model=self.name,
            version=self.version,
            partition=partition,
            next_offset=next_offset,
            created_ms=now_ms,
            state=msgspec.json.encode(state),
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
        learner.duplicates = state.duplicates
        learner.refused = state.refused
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
