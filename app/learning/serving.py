"""What a worker serves: the model of a snapshot without the learner's books, and without importing River."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from app.learning import constant, mix_state, trees_state
from app.learning.contract import BadModel
from app.learning.open_state import FTRL, KIND, Config, OpenState, fold_terms, read_state, untaught
from app.learning.scaling import Scaler
from app.learning.scorer import PRIOR_VERSION, Frozen, FrozenModel
from schemas.models import ModelSnapshot

LEARNER_VERSION: Final = 1
"""Version of the learner's state in a snapshot."""


class _ModelOnly(msgspec.Struct):
    kind: str
    model: bytes
    version: int = LEARNER_VERSION


def _freeze(state: OpenState, version: int) -> FrozenModel:
    return fold_terms(state.weights, Scaler(state.scaler), state.slope, state.offset, version)


_READ: Final[dict[str, Callable[[bytes, int], Frozen]]] = {
    mix_state.KIND: lambda raw, version: mix_state.freeze(mix_state.read_state(raw), version),
    trees_state.KIND: lambda raw, version: trees_state.freeze(trees_state.read_state(raw), version),
    KIND: lambda raw, version: _freeze(read_state(raw), version),
    FTRL: lambda raw, version: _freeze(read_state(raw, FTRL), version),
    constant.KIND: lambda raw, version: constant.ConstantModel.from_bytes(raw).freeze(version),
}
_PRIOR: Final[dict[str, Callable[[], Frozen]]] = {
    mix_state.KIND: lambda: mix_state.freeze(mix_state.untaught(mix_state.MixConfig()), PRIOR_VERSION),
    trees_state.KIND: lambda: trees_state.freeze(trees_state.untaught(trees_state.TreesConfig()), PRIOR_VERSION),
    KIND: lambda: _freeze(untaught(Config()), PRIOR_VERSION),
    FTRL: lambda: _freeze(untaught(Config(), FTRL), PRIOR_VERSION),
    constant.KIND: lambda: constant.ConstantModel().freeze(PRIOR_VERSION),
}
SERVED_KINDS: Final = tuple(_READ)


def check_version(version: int, snapshot: ModelSnapshot) -> None:
    """Raises `BadModel` when the learner's state is of a version that this build does not read."""
    if version != LEARNER_VERSION:
        raise BadModel(f"snapshot of model {snapshot.model!r}: state {version}; this build reads {LEARNER_VERSION}")


def read_scorer(snapshot: ModelSnapshot) -> Frozen:
    """The model to serve from a snapshot. Raises `BadModel`."""
    try:
        state = msgspec.json.decode(snapshot.state, type=_ModelOnly)
    except msgspec.MsgspecError as exc:
        raise BadModel(f"snapshot of model {snapshot.model!r}: {exc}") from exc
    check_version(state.version, snapshot)
    if state.kind not in _READ:
        raise BadModel(f"snapshot of model {snapshot.model!r}: model kind {state.kind!r}; known: {SERVED_KINDS}")
    return _READ[state.kind](state.model, snapshot.version)


def prior_scorer(kind: str = mix_state.KIND) -> Frozen:
    """What a worker serves before the first snapshot: the prior, as version 0. Raises `BadModel`."""
    if kind not in _PRIOR:
        raise BadModel(f"model kind {kind!r}; known: {SERVED_KINDS}")
    return _PRIOR[kind]()


def served_state(kind: str, model: bytes) -> bytes:
    """The state of a snapshot that is only to be served: a model without the learner's books."""
    return msgspec.json.encode(_ModelOnly(kind, model))
