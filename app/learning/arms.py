"""The single writer of what is known about variants: counts, posteriors and linear models, from matured outcomes.

Why not River's bandits: a worker must choose without River, give exact propensities, and read plain numbers. River's
`ThompsonSampling` and `LinUCBDisjoint` are what these are checked against.

Like the learner of a model, all that it knows is in its snapshot; a restored one is bit for bit the one that never
stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from app.core.choices import DIMENSIONS, context_of
from app.core.profile import HOURS_PER_WEEK
from app.learning.contract import BadModel
from app.learning.guard import must_stop
from app.learning.recent import RecentIds
from app.learning.served_choices import SUFFIX, VERSION, Served, full, times
from app.learning.thompson import probabilities_of_best, pseudo_counts
from schemas.models import ModelSnapshot
from schemas.outcomes import LATE_OPEN, LATE_OPT_OUT, Outcome

VARIANTS_MAX: Final = 64
"""Of a campaign, those of the past included; beyond, the one that learned last longest ago is forgotten."""
ARMS_MAX: Final = 2000
"""Of all campaigns; beyond, the campaign that learned last longest ago is forgotten."""
LINEAR_MAX: Final = 100
"""Linear models, of some two kilobytes each: so a snapshot stays below the megabyte that Kafka takes."""
PENALTY_MAX: Final = 1000.0
"""As in a policy: beyond it the record is damaged."""
RECENT_MAX: Final = 2048


class Linear(msgspec.Struct):
    """LinUCB's state of a variant: the inverse of I + sum of x xᵀ (its lower triangle), and the sum of y x."""

    lower: list[list[float]]
    reward: list[float]

    @classmethod
    def untaught(cls) -> Linear:
        """Ridge of 1: no observation."""
        rows = [[float(row == column) for column in range(row + 1)] for row in range(DIMENSIONS)]
        return cls(rows, [0.0] * DIMENSIONS)

    def correct(self, x: list[float], by: float) -> None:
        """The reward of an observation that was learned was so much more."""
        for at, value in enumerate(x):
            self.reward[at] += by * value

    def learn(self, x: list[float], y: float) -> None:
        """One observation, by the formula of Sherman and Morrison."""
        moved = times(full(self.lower), x)
        scale = 1.0 + sum(value * step for value, step in zip(x, moved, strict=True))
        for at, row in enumerate(self.lower):
            factor = moved[at] / scale
            for column in range(at + 1):
                row[column] -= factor * moved[column]
        self.correct(x, y)


class Arm(msgspec.Struct):
    """One variant. `stopped` stays until its limit is changed; `touched` is when it last learned, in outcomes.

    `rewards`, `gain` and `squares` are the number, sum and sum of squares of the rewards of the kind `reward`, with its
    `penalty`; empty where the open is the reward. `linear` learned from that kind, too.
    """

    sends: int = 0
    opens: int = 0
    opt_outs: int = 0
    limit: float = 0.0
    stopped: bool = False
    touched: int = 0
    linear: Linear | None = None
    reward: str = ""
    rewards: int = 0
    gain: float = 0.0
    squares: float = 0.0
    penalty: float = 0.0


class Stop(msgspec.Struct, frozen=True):
    """A variant that the guard has stopped: `opt_outs` of `sends`, where the rate `limit` is tolerated."""

    campaign: str
    variant: str
    sends: int
    opt_outs: int
    limit: float


class ChoicesState(msgspec.Struct, kw_only=True):
    """A snapshot's state."""

    version: int = VERSION
    outcomes: int = 0
    campaigns: dict[str, dict[str, Arm]] = {}
    served: dict[str, Served] = {}
    thompson: list[str] = []
    recent: bytes = b""
    hour_sends: list[int] = []
    hour_opens: list[int] = []
    rewards: dict[str, str] = {}


class ArmLearner:
    """What is known about the variants of every campaign of one model.

    Parameters
    ----------
    name
        The model's name; the snapshot's is that and `SUFFIX`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.outcomes = 0
        self.campaigns: dict[str, dict[str, Arm]] = {}
        self.hour_sends = [0] * HOURS_PER_WEEK
        self.hour_opens = [0] * HOURS_PER_WEEK
        self._thompson: set[str] = set()
        self._rewards: dict[str, str] = {}
        """What each campaign's choice learns from, where it is not the open."""
        self._linear: dict[tuple[str, str], Arm] = {}
        self._served: dict[str, Served] = {}
        self._dirty: set[str] = set()
        self._recent = RecentIds(RECENT_MAX)
        self._stops: list[Stop] = []

    def learn(self, outcome: Outcome) -> bool:
        """Count an outcome, what came after it, or its reward. False when it teaches nothing (again)."""
        late = outcome.label == LATE_OPT_OUT
        if outcome.label == LATE_OPEN:
            return self._learn_late_open(outcome)
        if not outcome.variant or not (late or outcome.label in (0, 1)):
            return False
        if outcome.gain is not None:
            return self._learn_reward(outcome, outcome.gain)
        if not self._recent.add(f"{outcome.id}\x1flate" if late else outcome.id):
            return False
        arm = self._arm(outcome.campaign, outcome.variant)
        self.outcomes += 1
        arm.touched = self.outcomes
        arm.opt_outs += outcome.opted_out > 0
        if not late:
            arm.sends += 1
            arm.opens += outcome.label
            if 0 <= outcome.hour < HOURS_PER_WEEK:
                self.hour_sends[outcome.hour] += 1
                self.hour_opens[outcome.hour] += outcome.label
            self._learn_choice(outcome, arm, None if outcome.reward else outcome.label)
        if arm.limit != outcome.opt_out_limit:
            arm.limit, arm.stopped = outcome.opt_out_limit, False
        if not arm.stopped and must_stop(arm.sends, arm.opt_outs, arm.limit):
            arm.stopped = True
            self._stops.append(Stop(outcome.campaign, outcome.variant, arm.sends, arm.opt_outs, arm.limit))
        self._dirty.add(outcome.campaign)
        return True

    def _learn_late_open(self, outcome: Outcome) -> bool:
        """A send that was counted as silence was opened after its horizon: count it as the open that it is."""
        arm = self.campaigns.get(outcome.campaign, {}).get(outcome.variant)
        if arm is None or arm.opens >= arm.sends or not self._recent.add(f"{outcome.id}\x1fopened"):
            return False
        self.outcomes += 1
        arm.opens += 1
        if 0 <= outcome.hour < HOURS_PER_WEEK:
            self.hour_opens[outcome.hour] += 1
        if arm.linear is not None and not arm.reward:
            arm.linear.correct(context_of(outcome.features), 1.0)
        self._dirty.add(outcome.campaign)
        return True

    def _learn_reward(self, outcome: Outcome, gain: float) -> bool:
        """Count what a decision brought, unless the campaign asks for something else by now."""
        known = 0.0 <= outcome.penalty <= PENALTY_MAX and -outcome.penalty <= gain <= 1.0
        if not known or not self._recent.add(f"{outcome.id}\x1freward"):
            return False
        arm = self._arm(outcome.campaign, outcome.variant)
        self.outcomes += 1
        arm.touched = self.outcomes
        self._learn_choice(outcome, arm, gain)
        arm.rewards += 1
        arm.gain += gain
        arm.squares += gain * gain
        arm.penalty = outcome.penalty
        self._dirty.add(outcome.campaign)
        return True

    def _asks_for(self, campaign: str, reward: str, arm: Arm) -> None:
        """Note what the campaign's choice learns from; what the arm knows of another reward is forgotten."""
        if reward:
            self._rewards[campaign] = reward
        else:
            self._rewards.pop(campaign, None)
        if arm.reward != reward:
            arm.reward, arm.rewards, arm.gain, arm.squares = reward, 0, 0.0, 0.0
            if arm.linear is not None:
                arm.linear = Linear.untaught()

    def _learn_choice(self, outcome: Outcome, arm: Arm, reward: float | None) -> None:
        """What only one way to choose asks for: it costs time or room, so no other campaign pays for it.

        Parameters
        ----------
        reward
            What the decision brought; None when that is not known yet.
        """
        self._asks_for(outcome.campaign, outcome.reward, arm)
        if outcome.chooser == "thompson":
            self._thompson.add(outcome.campaign)
        elif outcome.chooser == "contextual":
            if arm.linear is None:
                if len(self._linear) >= LINEAR_MAX:
                    self._linear.pop(min(self._linear, key=lambda key: (self._linear[key].touched, key))).linear = None
                arm.linear = Linear.untaught()
                self._linear[outcome.campaign, outcome.variant] = arm
            if reward is not None:
                arm.linear.learn(context_of(outcome.features), reward)

    def _arm(self, campaign: str, variant: str) -> Arm:
        arm = self.campaigns.get(campaign, {}).get(variant)
        if arm is not None:
            return arm
        if sum(map(len, self.campaigns.values())) >= ARMS_MAX:
            others = [name for name in self.campaigns if name != campaign]
            self._forget_campaign(
                min(others, key=lambda name: max(arm.touched for arm in self.campaigns[name].values()))
            )
        arms = self.campaigns.setdefault(campaign, {})
        if len(arms) >= VARIANTS_MAX:
            oldest = min(arms, key=lambda name: (arms[name].touched, name))
            del arms[oldest]
            self._linear.pop((campaign, oldest), None)
        arms[variant] = Arm()
        return arms[variant]

    def _forget_campaign(self, campaign: str) -> None:
        for variant in self.campaigns.pop(campaign):
            self._linear.pop((campaign, variant), None)
        self._served.pop(campaign, None)
        self._dirty.discard(campaign)
        self._thompson.discard(campaign)
        self._rewards.pop(campaign, None)

    def take_stops(self) -> list[Stop]:
        """The variants that were stopped since the last time, and why."""
        stops, self._stops = self._stops, []
        return stops

    def stopped(self) -> dict[str, list[str]]:
        """By campaign, the variants that the guard has stopped."""
        found = {name: sorted(key for key, arm in arms.items() if arm.stopped) for name, arms in self.campaigns.items()}
        return {name: variants for name, variants in found.items() if variants}

    def _refresh(self) -> None:
        """Bring what is served of the campaigns that learned up to date."""
        for name in sorted(self._dirty):
            arms = self.campaigns[name]
            running = {variant: arm for variant, arm in arms.items() if not arm.stopped}
            stopped = sorted(variant for variant, arm in arms.items() if arm.stopped)
            best = _best(running, self._rewards.get(name, "")) if name in self._thompson else {}
            self._served[name] = Served(best, stopped)
        self._dirty.clear()

    def snapshot(self, next_offset: int, now_ms: int, partition: int) -> ModelSnapshot:
        """The whole state, unsigned; arguments as of `Learner.snapshot`."""
        self._refresh()
        state = ChoicesState(
            outcomes=self.outcomes,
            campaigns=self.campaigns,
            served=self._served,
            thompson=sorted(self._thompson),
            recent=self._recent.to_bytes(),
            hour_sends=self.hour_sends,
            hour_opens=self.hour_opens,
            rewards=self._rewards,
        )
        return ModelSnapshot(
            model=self.name + SUFFIX,
            version=self.outcomes,
            partition=partition,
            next_offset=next_offset,
            created_ms=now_ms,
            state=msgspec.json.encode(state),
            metrics={"outcomes": float(self.outcomes), "stopped": float(sum(map(len, self.stopped().values())))},
        )

    @classmethod
    def restore(cls, snapshot: ModelSnapshot) -> ArmLearner:
        """The learner that took this snapshot. Raises `BadModel`."""
        try:
            state = msgspec.json.decode(snapshot.state, type=ChoicesState)
            recent = RecentIds.from_bytes(state.recent, RECENT_MAX)
        except (msgspec.MsgspecError, ValueError) as exc:
            raise BadModel(f"snapshot {snapshot.model!r}: {exc}") from exc
        if state.version != VERSION:
            raise BadModel(f"snapshot {snapshot.model!r}: state {state.version}; this build reads {VERSION}")
        learner = cls(snapshot.model.removesuffix(SUFFIX))
        learner.outcomes = state.outcomes
        learner.campaigns = state.campaigns
        learner._served = state.served
        learner._thompson = set(state.thompson)
        learner._rewards = state.rewards
        learner._linear = {
            (name, variant): arm
            for name, arms in state.campaigns.items()
            for variant, arm in arms.items()
            if arm.linear is not None
        }
        if len(state.hour_sends) == len(state.hour_opens) == HOURS_PER_WEEK:
            learner.hour_sends, learner.hour_opens = state.hour_sends, state.hour_opens
        learner._recent = recent
        return learner


def _best(arms: Mapping[str, Arm], reward: str) -> dict[str, float]:
    names = sorted(arms)
    shares = probabilities_of_best([_counts(arms[name], reward) for name in names])
    return dict(zip(names, shares, strict=True))


def _counts(arm: Arm, reward: str) -> tuple[float, float]:
    if not reward:
        return arm.opens, arm.sends - arm.opens
    if arm.reward != reward:
        return pseudo_counts(0, 0.0, 0.0, 0.0)
    return pseudo_counts(arm.rewards, arm.gain, arm.squares, arm.penalty)
