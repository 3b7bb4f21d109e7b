"""What the `models` topic says is to be served: the newest snapshot of a model, or an older one that it is pinned to.

Beside a model's own record stand, under names of their own, the versions that are kept to go back to
(``open.kept0`` ...) and the pin (``open.pin``). All are snapshots, signed alike; a pin has no state of a model, only
the version to serve (0: the newest) and why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from app.learning.served_personas import is_personas
from schemas.models import ModelSnapshot, decode_snapshot, supersedes

KEPT_MAX: Final = 8
NOWHERE: Final = -1
"""The partition of records that no learner goes on from."""
_PIN: Final = ".pin"
_KEPT: Final = ".kept"


class Pin(msgspec.Struct, frozen=True):
    """Who pinned the model to a version, and why; `by` is ``operator`` or ``drift``."""

    by: str
    reason: str = ""


def kept_name(model: str, slot: int) -> str:
    """Where a kept version stands."""
    return f"{model}{_KEPT}{slot}"


def pin_record(model: str, version: int, pin: Pin, now_ms: int) -> ModelSnapshot:
    """The record that makes every worker serve `version` of `model`, or the newest again when it is 0."""
    return ModelSnapshot(
        model=model + _PIN,
        version=version,
        partition=NOWHERE,
        next_offset=0,
        created_ms=now_ms,
        state=msgspec.json.encode(pin),
        metrics={},
    )


class ModelBook:
    """The records of the topic, in order, and what follows from them.

    Parameters
    ----------
    wanted
        Which models to remember; a worker needs its own only.
    """

    def __init__(self, secret: bytes, wanted: Callable[[str], bool] = lambda _model: True) -> None:
        self._secret = secret
        self._wanted = wanted
        self._newest: dict[str, ModelSnapshot] = {}
        self._kept: dict[str, dict[str, ModelSnapshot]] = {}
        self._pins: dict[str, ModelSnapshot] = {}

    def apply(self, value: bytes) -> ModelSnapshot:
        """Take a record in. Raises `BadSignature`, or `msgspec.MsgspecError`.

        One of a learner that was deposed is passed by, see `supersedes`.
        """
        snapshot = decode_snapshot(value, self._secret)
        base, dot, suffix = snapshot.model.rpartition(".")
        if dot and suffix == "pin":
            msgspec.json.decode(snapshot.state, type=Pin)
            if self._wanted(base):
                self._pins[base] = snapshot
        elif dot and suffix.startswith("kept"):
            if self._wanted(base):
                self._kept.setdefault(base, {})[suffix] = snapshot
        elif self._wanted(snapshot.model) and supersedes(snapshot, self._newest.get(snapshot.model)):
            self._newest[snapshot.model] = snapshot
        return snapshot

    def models(self) -> list[str]:
        """Names of the models that have a snapshot, and of personas; not of what stands beside them."""
        return sorted(name for name in self._newest if "." not in name or is_personas(name))

    def newest(self, model: str) -> ModelSnapshot | None:
        """The snapshot of the learner that has got furthest."""
        return self._newest.get(model)

    def kept(self, model: str) -> list[ModelSnapshot]:
        """Versions to go back to, newest first."""
        return sorted(self._kept.get(model, {}).values(), key=lambda one: (-one.version, -one.created_ms))

    def pin(self, model: str) -> tuple[int, Pin] | None:
        """The version that the model is pinned to, and why; None when the newest is served."""
        record = self._pins.get(model)
        if record is None or not record.version:
            return None
        return record.version, msgspec.json.decode(record.state, type=Pin)

    def served(self, model: str) -> ModelSnapshot | None:
        """What is to be served. A pin to a version that is not kept any more is none."""
        pinned = self.pin(model)
        if pinned is not None:
            for kept in self.kept(model):
                if kept.version == pinned[0]:
                    return kept
        return self.newest(model)
