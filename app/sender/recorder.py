"""What the sender tells the metrics: a small interface, so that delivery does not depend on a metrics library."""

from __future__ import annotations

from typing import Protocol


class Recorder(Protocol):
    """Every label has few values; none is an id."""

    def settled(self, provider: str, outcome: str) -> None:
        """A decision got its final state: `nudge_sends_total{provider,outcome}`.

        `outcome` is one of sent, failed, unknown, expired, opted_out; `provider` is ``none`` where none was asked.
        """
        ...

    def retried(self, provider: str) -> None:
        """An attempt was answered with "not now"."""
        ...

    def took(self, provider: str, seconds: float) -> None:
        """An attempt was answered after this long."""
        ...

    def removed(self, provider: str) -> None:
        """The provider said that a token is gone."""
        ...

    def broken(self, provider: str, is_broken: bool) -> None:
        """The provider's circuit breaker has opened or closed."""
        ...

    def given_back(self, decisions: int) -> None:
        """So many decisions were left to the next sender."""
        ...

    def held(self, decisions: int) -> None:
        """So many decisions wait for a fresh suppression feed: they will be looked at again."""
        ...

    def repeated(self, decisions: int) -> None:
        """So many records had a decision that was final already."""
        ...

    def dead_lettered(self, reason: str) -> None:
        """A record of `decisions` could not be read."""
        ...


class NoRecorder:
    """Records nothing."""

    def settled(self, provider: str, outcome: str) -> None: ...

    def retried(self, provider: str) -> None: ...

    def took(self, provider: str, seconds: float) -> None: ...

    def removed(self, provider: str) -> None: ...

    def broken(self, provider: str, is_broken: bool) -> None: ...

    def given_back(self, decisions: int) -> None: ...

    def held(self, decisions: int) -> None: ...

    def repeated(self, decisions: int) -> None: ...

    def dead_lettered(self, reason: str) -> None: ...
