"""What the simulations put in place of Kafka's records and of a model."""

from __future__ import annotations

import msgspec


class Record(msgspec.Struct):
    """A consumer record as far as the core reads it."""

    key: bytes
    value: bytes
    offset: int
    timestamp: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


class Even:
    """A model that thinks the same of everything."""

    version = 0

    def open_probability(self, _features: object) -> float:
        """P(open)."""
        return 0.3
