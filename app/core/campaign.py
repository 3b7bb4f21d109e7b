"""A campaign of a plan: what makes it a candidate, who may hear it, in which words, when, and what it learns from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from app.core.ids import set_default_id, stable_id
from app.core.profile import Profile

Where = Callable[[Mapping[str, Any]], bool]
"""A condition over the properties of an event, or the facts of an item."""


@dataclass(frozen=True, slots=True)
class ItemTrigger:
    """Who is told of a change of the catalog, and of which.

    Parameters
    ----------
    interest
        What the user did with the item within `within_ms`: bits of `app.core.wishes.KINDS`.
    affinity
        The least interest in its category with which a user is told who did nothing with the item; 0 is never.
    by
        Of `price_drop`: the least drop, as a share of the price before.
    price_from
        Of `price_drop`: cheaper items are not worth a message.
    """

    interest: int
    within_ms: int = 30 * 86_400_000
    affinity: float = 0.0
    by: float = 0.0
    price_from: float = 0.0


@dataclass(frozen=True, slots=True)
class Trigger:
    """What makes a campaign a candidate.

    event: the event `event` (with `where`) · absence: `event` without one of `cancel` for `wait_ms`, keyed by
    `key_property` · dormancy: no event `event` (any of the user's own when empty) for `wait_ms` ·
    enter / leave: the segment `segment` · schedule: the cron line `cron` on the user's clock, for each user up to
    `spread_ms` later, by a stable hash · price_drop / back_in_stock: an item of the
    catalog, for those whom `item` names (with `where` over its facts).
    """

    kind: Literal["event", "absence", "dormancy", "enter", "leave", "schedule", "price_drop", "back_in_stock"]
    event: str = ""
    where: Where | None = None
    wait_ms: int = 0
    cancel: frozenset[str] = frozenset()
    key_property: str = ""
    segment: str = ""
    cron: str = ""
    spread_ms: int = 0
    item: ItemTrigger | None = None


class RenderedContent(Protocol):
    """What a template gives."""

    title: str
    body: str
    deep_link: str


@dataclass(frozen=True, slots=True)
class Variant:
    """One wording. `render(context)` never raises: a missing value takes its default."""

    name: str
    weight: float
    render: Callable[[Mapping[str, Any]], RenderedContent]
    eligible: Callable[[Profile, int, str], bool] | None = None
    """Who may get this wording: ``(profile, now_ms, user)``; everybody when None."""
    about: frozenset[str] | None = None
    """The roots of the context that the wording speaks of; it may speak of any when None."""


@dataclass(frozen=True, slots=True)
class Novelty:
    """How much less a variant is worth to a user who has just seen it, and how fast it recovers.

    `penalty` is in rates of opening (of `contextual`) or a share (of `thompson`), in [0, 1].
    """

    penalty: float
    half_life_ms: int


@dataclass(frozen=True, slots=True)
class SendTime:
    """Wait up to `within_ms` for the user's best hour; the share `explore` takes any hour of it.

    `choose` says what the best hour is: the one with the highest estimate, or the best of a curve that is drawn
    (`app.core.slot_bandit`). With `novelty` an hour in which the user has just been sent the campaign is worth less;
    its penalty is a share of the user's mean response.
    """

    within_ms: int
    explore: float = 0.1
    choose: Literal["best", "thompson"] = "best"
    novelty: Novelty | None = None


@dataclass(frozen=True, slots=True)
class Recommend:
    """Products for the template: see `app.core.recommend`. `kinds` are asked in this order until there are `count`.

    With `segments`, the popular products are those of the first of them that the user is in.
    """

    kinds: tuple[Literal["viewed", "popular", "also_bought"], ...]
    count: int = 3
    exclude_bought: bool = True
    window_ms: int = 30 * 86_400_000
    per_category: int = 1
    segments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reward:
    """What a learned choice of variants is to bring about within `window_ms` of the sending.

    A conversion is the event `event`; its worth is its property `value` (a path) over `value_max`, at most 1, or 1
    without one. An opt-out takes `opt_out_penalty` away, in the same unit.
    """

    kind: Literal["open", "click", "conversion"]
    window_ms: int
    event: str = ""
    value: str = ""
    value_max: float = 1.0
    opt_out_penalty: float = 0.0

    @property
    def name(self) -> str:
        """Another one when anything of it changes: what was learned from other rewards then counts no more."""
        parts = (self.window_ms, self.event, self.value, self.value_max, self.opt_out_penalty)
        return f"{self.kind}:{stable_id(repr(parts)):08x}"


@dataclass(frozen=True, slots=True)
class Campaign:
    """Something that may be worth saying. `audience(profile, now_ms, user)` restricts who may hear it."""

    name: str
    category: str
    trigger: Trigger
    variants: tuple[Variant, ...]
    audience: Callable[[Profile, int, str], bool] | None = None
    value: float = 1.0
    cost: float = 0.0
    transactional: bool = False
    expires_ms: int = 3_600_000
    cool_down_ms: int = 0
    quiet_hours: Literal["defer", "drop", "ignore"] = "defer"
    id: int = 0
    category_id: int = 0
    audience_text: str = ""
    """The condition that `audience` was compiled from, for explanations."""
    experiment: str = ""
    """Salt of the hashes that choose variants and who is held out; the campaign's name when empty."""
    choose: Literal["fixed", "thompson", "contextual"] = "fixed"
    explore: float = 0.05
    """Share of decisions whose variant is drawn by the weights alone; of no matter to `fixed`."""
    novelty: Novelty | None = None
    holdout_share: float = 0.0
    """Share of users to whom the campaign is not sent when it would be, so that its effect can be measured."""
    send_time: SendTime | None = None
    """Whether, and how long, it waits for a good hour; None sends at once."""
    opt_out_limit: float = 0.0
    """The tolerated rate of opt-outs: a variant that surely exceeds it is stopped. 0 is none."""
    recommend: Recommend | None = None
    """Which products the template is given as `items`."""
    reward: Reward | None = None
    """What `choose` learns from; None is the open, learned when its example is."""

    def __post_init__(self) -> None:
        set_default_id(self, "id", self.name)
        set_default_id(self, "category_id", self.category)
