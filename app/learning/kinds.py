"""The models that can be asked for by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from app.learning.constant import ConstantModel
from app.learning.contract import BadModel, Model
from app.learning.mix import MixModel
from app.learning.model import FtrlModel, OpenModel

_NEW: Final[dict[str, Callable[[], Model]]] = {
    "open-mix": MixModel,
    "open-lr": OpenModel,
    "open-ftrl": FtrlModel,
    "constant": ConstantModel,
}
_READ: Final[dict[str, Callable[[bytes], Model]]] = {
    "open-mix": MixModel.from_bytes,
    "open-lr": OpenModel.from_bytes,
    "open-ftrl": FtrlModel.from_bytes,
    "constant": ConstantModel.from_bytes,
}
KINDS: Final = tuple(_NEW)


def new_model(kind: str) -> Model:
    """An untaught model. Raises `BadModel` for an unknown kind."""
    try:
        return _NEW[kind]()
    except KeyError:
        raise BadModel(f"model kind {kind!r}; known are {', '.join(KINDS)}") from None


def read_model(kind: str, raw: bytes) -> Model:
    """A model from `Model.to_bytes`. Raises `BadModel`."""
    try:
        return _READ[kind](raw)
    except KeyError:
        raise BadModel(f"model kind {kind!r}; known are {', '.join(KINDS)}") from None
