"""What an expression is compiled against, and what compiling gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from app.core.expression_ir import Condition, Scalar
from app.core.percentiles import Measured, Thresholds
from app.core.plan import Feature, RfmGrid
from app.core.profile import Profile
from app.core.rfm import Lifecycle

ANY_EVENT: Final = "*"
TRAITS_EVENT: Final = "$traits"


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled condition over a profile.

    Parameters
    ----------
    evaluate
        ``(profile, now_ms, user)`` to whether it holds.
    next_change
        ``(profile, now_ms, user)`` to the earliest instant after `now_ms` at which the clock alone may change that:
        early perhaps, never late; `NEVER_MS` when it cannot.
    features
        What it reads, with those of the segments it names.
    events
        Names of the events that can change it: ``*`` any, ``$traits`` an identify.
    clocked
        Whether `next_change` can be anything but `NEVER_MS`.
    condition
        From which the functions were made.
    """

    text: str
    evaluate: Callable[[Profile, int, str], bool]
    next_change: Callable[[Profile, int, str], int]
    features: tuple[Feature, ...]
    events: frozenset[str]
    clocked: bool
    condition: Condition | None = None
    open_scores: frozenset[str] = frozenset()
    """Campaigns or categories (empty: all) whose open probability it reads itself."""
    measured: tuple[Measured, ...] = ()
    """Numbers whose percentiles it asks for, with those of the segments it names."""
    named: tuple[tuple[str, int], ...] = ()
    """Events that its own text names, and at which character."""

    @property
    def cuts(self) -> frozenset[int]:
        """Ids of the thresholds that it asks for."""
        return frozenset(cut.id for one in self.measured for cut in one.cuts)


@dataclass(frozen=True, slots=True)
class ExpressionContext:
    """The policy around an expression.

    Parameters
    ----------
    traits
        Declared traits, which may be written as bare names, and their defaults (None: none).
    segments
        Segments that are compiled already, for ``in_segment``.
    segment_names
        Every segment of the policy, for messages.
    event_names
        The event names that are known, or None when any is.
    flags
        Feature flags, and the share of users who have each.
    campaigns
        Campaigns and the category of each, for `open_probability`.
    thresholds
        Those in force, which what was compiled asks for when it is evaluated.
    personas
        Whether the policy asks for personas.
    models
        Models with a horizon, for `propensity`; None when any name is one.
    open_model
        The model of opens, which has none.
    """

    default_timezone: str = "UTC"
    rfm: RfmGrid = field(default_factory=RfmGrid)
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    traits: Mapping[str, Scalar | None] = field(default_factory=dict)
    segments: Mapping[str, Expression] = field(default_factory=dict)
    segment_names: frozenset[str] = frozenset()
    event_names: frozenset[str] | None = None
    flags: Mapping[str, float] = field(default_factory=dict)
    campaigns: Mapping[str, str] = field(default_factory=dict)
    thresholds: Thresholds = field(default_factory=Thresholds)
    personas: bool = False
    models: frozenset[str] | None = None
    open_model: str = "open"
