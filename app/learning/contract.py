"""The contract of every model: four verbs, plain numbers, no pickle.

A model is deterministic: nothing in it draws a random number, so the same examples in the same order give the same
bits. There is nothing to seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, Self, TypeVar

import msgspec

from app.learning.scorer import Frozen


class BadModel(ValueError):
    """The bytes are not the state of a model that this build reads."""


class Versioned(Protocol):
    """A state that says what it is the state of."""

    kind: str
    version: int


_State = TypeVar("_State", bound=Versioned)


def decode_state(raw: bytes, of: type[_State], kind: str, version: int, what: str) -> _State:
    """The state of `what` (for people), as JSON, of this kind and version. Raises `BadModel` for anything else."""
    try:
        state = msgspec.json.decode(raw, type=of)
    except msgspec.MsgspecError as exc:
        raise BadModel(f"not the state of {what}: {exc}") from exc
    if state.kind != kind or state.version != version:
        raise BadModel(f"{state.kind} version {state.version}; this build reads {kind} version {version}")
    return state


class Model(Protocol):
    """An online binary classifier over features that come and go."""

    @property
    def examples(self) -> int:
        """Learned so far."""
        ...

    def learn_one(self, x: Mapping[str, float], y: int, w: float = 1.0) -> None:
        """Update in place. `y` is 0 or 1; `w` is capped at `WEIGHT_MAX`, and 0 or less teaches nothing.

        A feature value that is not finite, or beyond `VALUE_MAX`, counts as missing.
        """
        ...

    def predict_learn_one(self, x: Mapping[str, float], y: int, w: float = 1.0) -> float:
        """Test, then train: what `predict_proba_one` says, followed by `learn_one`."""
        ...

    def predict_proba_one(self, x: Mapping[str, float]) -> float:
        """P(y = 1), strictly between 0 and 1, for any `x` whatever; asking changes nothing."""
        ...

    def explain_one(self, x: Mapping[str, float]) -> dict[str, float]:
        """Contribution of each feature in log-odds; with ``bias`` they sum to the logit of the prediction."""
        ...

    def learn_faster(self, name: str = "") -> None:
        """What was learned counts for less from now on, so that the next examples count for more: after a drift.

        With the name of a feature only that one's weight, and then nearly as if it were new.
        """
        ...

    def shrink(self) -> bool:
        """Forget the quarter of the features that has least evidence. False when there is none to forget."""
        ...

    def freeze(self, version: int) -> Frozen:
        """A fast, immutable copy that gives the same probabilities."""
        ...

    def to_bytes(self) -> bytes:
        """The whole state as JSON of plain numbers. Reading it back and going on equals never having stopped."""
        ...

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """What `to_bytes` wrote. Raises `BadModel`."""
        ...
