"""The models that can be asked for by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from app.learning.constant import ConstantModel
from app.learning.contract import BadModel, Model
from app.learning.mix import MixModel
from app.learning.mix_state import SLOW_START
from app.learning.trees import TreesModel
from app.learning.trees_state import TreesConfig


def _lr() -> type[Model]:
    """River's regression is imported when a policy asks for it: it brings SciPy's statistics, a second of CPU."""
    from app.learning.model import OpenModel  # noqa: PLC0415

    return OpenModel


def _ftrl() -> type[Model]:
    """As `_lr`."""
    from app.learning.model import FtrlModel  # noqa: PLC0415

    return FtrlModel


_KINDS: Final[dict[str, Callable[[], type[Model]]]] = {
    "open-mix": lambda: MixModel,
    "open-trees": lambda: TreesModel,
    "open-lr": _lr,
    "open-ftrl": _ftrl,
    "constant": lambda: ConstantModel,
}
KINDS: Final = tuple(_KINDS)


def load_kind(kind: str) -> type[Model]:
    """The class of a model, with what it computes with. Raises `BadModel` for an unknown kind."""
    try:
        return _KINDS[kind]()
    except KeyError:
        raise BadModel(f"model kind {kind!r}; known are {', '.join(KINDS)}") from None


def new_model(kind: str, *, slow_start: bool = False) -> Model:
    """An untaught model, `slow_start` for one with few examples. Raises `BadModel` for an unknown kind."""
    if slow_start and kind == "open-mix":
        return MixModel(SLOW_START)
    if slow_start and kind == "open-trees":
        return TreesModel(TreesConfig(mix=SLOW_START))
    return load_kind(kind)()


def read_model(kind: str, raw: bytes) -> Model:
    """A model from `Model.to_bytes`. Raises `BadModel`."""
    return load_kind(kind).from_bytes(raw)
