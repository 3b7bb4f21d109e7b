"""Which policy versions this worker has served, on its disk: what rows of each were asked for.

Versions that came by the `policy` topic are known from there; this is for those that came from a file. Losing it costs
exactness of a backfill, nothing else: a row of a version that nobody remembers is taken to lack no window.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
import structlog

from app.core.earlier import Earlier
from app.core.plan import Plan

log = structlog.get_logger(__name__)

VERSIONS_MAX: Final = 50


class _Served(msgspec.Struct, array_like=True):
    version: str
    features: list[str]
    segments: list[str]


class PolicyMemory:
    """A small JSON file, oldest version first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._served: list[_Served] = []
        try:
            self._served = msgspec.json.decode(path.read_bytes(), type=list[_Served])
        except FileNotFoundError:
            pass
        except (OSError, msgspec.MsgspecError) as exc:
            log.warning("policy_memory_lost", path=str(path), error=str(exc))

    def add_to(self, earlier: Earlier) -> Earlier:
        """`earlier` and what is remembered."""
        for served in self._served:
            earlier = earlier.with_version(served.version, served.features, served.segments)
        return earlier

    def remember(self, plan: Plan) -> None:
        """Note that the plan is served. Raises `OSError` when the disk refuses."""
        self._served = [served for served in self._served if served.version != plan.version]
        features = [feature.text for feature in plan.features]
        self._served.append(_Served(plan.version, features, [segment.name for segment in plan.segments]))
        del self._served[:-VERSIONS_MAX]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        whole = self._path.with_suffix(".new")
        whole.write_bytes(msgspec.json.encode(self._served))
        whole.replace(self._path)
