"""Categories with many values as a bounded number of features.

A city or a phone's model has thousands of values and a model has room for a few thousand weights. So a value stands in
one of `BUCKETS` features of its space, with a sign that is a second hash:

    trait city = "Lyon"   ->   "t.city#=417": -1.0

Collisions: of n values about n² / (2 * 1,024) pairs share a bucket (40 values: one pair; 1,000 values: two in three
share theirs). Half of the pairs have opposite signs, so what one value teaches another is 0 on average over hashes,
and sums of products of hashed values are unbiased (Weinberger et al., with a variance of order 1 / buckets). Rare
values lose most; one with many examples outweighs what shares its bucket. The hash is of the bytes alone, so it is the
same in every process and version.

References
----------
Weinberger, Dasgupta, Langford, Smola, Attenberg, 2009: Feature Hashing for Large Scale Multitask Learning.
"""

from __future__ import annotations

from typing import Any, Final

from app.core.ids import stable_id

BUCKETS: Final = 1_024
VALUE_LENGTH_MAX: Final = 64


def hashed(space: str, value: str) -> tuple[str, float]:
    """Name and value (1 or -1) of the feature that stands for a category.

    Parameters
    ----------
    space
        What the value is of: equal values of two spaces share nothing.

    Examples
    --------
    >>> name, sign = hashed("d", "Pixel 9")
    >>> name.startswith("d#="), abs(sign), hashed("d", "Pixel 9") == (name, sign)
    (True, 1.0, True)
    """
    code = stable_id(f"{space}\x1f{value[:VALUE_LENGTH_MAX]}")
    return f"{space}#={code % BUCKETS}", 1.0 if code // BUCKETS & 1 else -1.0


def trait_feature(trait: str, value: Any) -> tuple[str, float] | None:
    """A trait as a feature: a number as it is, a word or truth value by its hash; None when it is neither."""
    if isinstance(value, bool):
        return hashed(f"t.{trait}", str(value))
    if isinstance(value, int | float):
        return f"t.{trait}", float(value)
    if isinstance(value, str) and value:
        return hashed(f"t.{trait}", value)
    return None
