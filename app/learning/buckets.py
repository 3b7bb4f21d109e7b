"""Which users taught something: told by hash buckets of them, never by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.core.ids import BUCKETS
from app.core.personas import BUCKET

NOBODY: Final = -1


def bucket_of(features: Mapping[str, float]) -> int:
    """The hash bucket of the user whom an outcome is about; `NOBODY` where none, or none that there is, is said.

    Examples
    --------
    >>> bucket_of({"bucket": 17.0}), bucket_of({}), bucket_of({"bucket": 1e300})
    (17, -1, -1)
    """
    number = features.get(BUCKET, -1.0)
    return int(number) if 0 <= number < BUCKETS else NOBODY
