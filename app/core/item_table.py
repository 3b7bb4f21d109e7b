"""What everybody bought, as the learner publishes it and `app.core.recommend` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from app.core.browsing import Item


@dataclass(frozen=True, slots=True)
class ItemTable:
    """What everybody bought: a bounded snapshot. Version 0 knows nothing.

    Parameters
    ----------
    top
        The best sellers of all categories, best first.
    popular
        By category, its best sellers.
    near
        By the stable id of a product, what is bought with it and how surely: (product, cosine in (0, 1]), best first.
    """

    version: int = 0
    top: tuple[Item, ...] = ()
    popular: Mapping[str, tuple[Item, ...]] = field(default_factory=dict)
    near: Mapping[int, tuple[tuple[Item, float], ...]] = field(default_factory=dict)


NO_ITEMS: Final = ItemTable()
