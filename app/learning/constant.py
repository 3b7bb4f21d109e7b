"""The model that knows only the base rate: what any other must beat, and a safe thing to fall back on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Self

import msgspec

from app.learning.contract import BadModel, decode_state
from app.learning.logistic import FASTER, capped_weight
from app.learning.scorer import FrozenModel

KIND: Final = "constant"
STATE_VERSION: Final = 1
PRIOR_EXAMPLES: Final = 10.0


class _State(msgspec.Struct, kw_only=True):
    kind: str = KIND
    version: int = STATE_VERSION
    examples: int = 0
    positives: float = 0.15 * PRIOR_EXAMPLES
    weight: float = PRIOR_EXAMPLES


class ConstantModel:
    """The weighted share of positives, with a prior worth `PRIOR_EXAMPLES` examples.

    Examples
    --------
    >>> model = ConstantModel()
    >>> round(model.predict_proba_one({"c=any": 1.0}), 3)
    0.15
    """

    def __init__(self) -> None:
        self._state = _State()

    @property
    def examples(self) -> int:
        """Learned so far."""
        return self._state.examples

    def learn_one(self, x: Mapping[str, float], y: int, w: float = 1.0) -> None:
        """See `Model.learn_one`."""
        w = capped_weight(w)
        if w:
            self._state.examples += 1
            self._state.positives += w * y
            self._state.weight += w

    def predict_learn_one(self, x: Mapping[str, float], y: int, w: float = 1.0) -> float:
        """See `Model.predict_learn_one`."""
        p = self.predict_proba_one(x)
        self.learn_one(x, y, w)
        return p

    def learn_faster(self, name: str = "") -> None:
        """See `Model.learn_faster`."""
        if name:
            return
        self._state.positives *= FASTER
        self._state.weight *= FASTER

    def shrink(self) -> bool:
        """See `Model.shrink`: it knows no features."""
        return False

    def _logit(self) -> float:
        rate = self._state.positives / self._state.weight
        return math.log(rate / (1.0 - rate))

    def predict_proba_one(self, x: Mapping[str, float]) -> float:
        """See `Model.predict_proba_one`."""
        return self.freeze(0).open_probability(x)

    def explain_one(self, x: Mapping[str, float]) -> dict[str, float]:
        """See `Model.explain_one`."""
        return {"bias": self._logit()}

    def freeze(self, version: int) -> FrozenModel:
        """See `Model.freeze`."""
        return FrozenModel(version, self._logit(), {})

    def to_bytes(self) -> bytes:
        """See `Model.to_bytes`."""
        return msgspec.json.encode(self._state)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Raises `BadModel`."""
        state = decode_state(raw, _State, KIND, STATE_VERSION, "a constant model")
        if not 0.0 < state.positives < state.weight:
            raise BadModel("a constant model knows a rate between 0 and 1")
        model = cls()
        model._state = state
        return model
