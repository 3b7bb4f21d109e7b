"""The processor: records and due timers in, effects out. The one door to the decision logic.

A record has exactly one fate, counted under ``("events", fate)``: applied, late (applied, but it triggers nothing),
replayed, duplicate, erased (of a user who was erased), forwarded (of a user whose row was merged into another's) or
rejected (dead-lettered).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from app.core import answers, devices, fold, identity, items, rewards, wishes
from app.core.batch import Batch
from app.core.catalog import NO_CATALOG
from app.core.choices import NOTHING_KNOWN
from app.core.decide import FeaturesOf
from app.core.earlier import NOTHING, Earlier
from app.core.effects import Effects, Record
from app.core.history import Windows
from app.core.index import PlanIndex
from app.core.item_table import NO_ITEMS
from app.core.offers import Offer, offer_all
from app.core.percentiles import Measured
from app.core.persona_table import NO_PERSONAS
from app.core.plan import Plan, Scorer
from app.core.profile import Profile
from app.core.run import Reload, Run
from app.core.turn import Turn
from schemas import events
from schemas.erasures import Subjects
from schemas.events import Event
from schemas.percentiles import Percentiles

HANDLERS: Final[dict[str, Callable[[Batch, Profile, Event, int], None]]] = {
    events.NOTIFICATION_SENT: answers.fold_sent,
    events.NOTIFICATION_FAILED: answers.fold_failed,
    events.NOTIFICATION_OPENED: answers.fold_opened,
    events.NOTIFICATION_CLICKED: answers.fold_clicked,
    events.NOTIFICATION_DISMISSED: answers.fold_dismissed,
    events.NOTIFICATIONS_ENABLED: identity.fold_enabled,
    events.NOTIFICATIONS_DISABLED: answers.fold_opted_out,
    events.ORDER_COMPLETED: fold.fold_order,
    events.DEVICE_TOKEN_REMOVED: devices.fold_token_removed,
}


def make_index(plan: Plan, earlier: Earlier = NOTHING) -> PlanIndex:
    """The plan as a processor needs it. Takes a tenth of a second for 200 segments, so a worker has a thread do it."""
    made = wishes.handlers(plan, rewards.handlers(plan, items.handlers(plan, HANDLERS)))
    return PlanIndex(plan, made, earlier)


class Processor:
    """Folds events into rows, re-evaluates segments, triggers campaigns and arbitrates between them.

    Parameters
    ----------
    plan, scorer
        The compiled policy and the serving model. Both may be set anew between batches.
    features_of
        What the model is told: ``features_of(profile, campaign, now_ms, plan)``.
    subjects
        Keyed hashes of erased users; without them requests to erase are refused.
    """

    def __init__(self, plan: Plan, scorer: Scorer, features_of: FeaturesOf, subjects: Subjects | None = None) -> None:
        self._index = make_index(plan)
        self.scorer = scorer
        self.scorers: dict[str, Scorer] = {}
        """The serving propensity models by name; may be set anew between batches."""
        self.choices = NOTHING_KNOWN
        """What has been learned about variants; may be set anew between batches."""
        self.items = NO_ITEMS
        """What everybody buys; may be set anew between batches."""
        self.buckets: Mapping[int, int] = {}
        """The thresholds of percentiles in force, by id; see `serve`."""
        self.percentiles: Mapping[str, Percentiles] = {}
        """What is known of those thresholds, by number; only told to people."""
        self.personas = NO_PERSONAS
        """What users are like; may be set anew between batches."""
        self.catalog = NO_CATALOG
        """What there is to buy, kept up to date by whoever set it."""
        self._features_of = features_of
        self._subjects = subjects

    @property
    def plan(self) -> Plan:
        """The policy in force."""
        return self._index.plan

    def switch(self, index: PlanIndex) -> None:
        """Go over to another policy version, between batches. Rows follow at their next event, timer or sweep."""
        self._index = index
        if self.buckets:
            index.serve(self.buckets)

    def serve(self, buckets: Mapping[int, int]) -> None:
        """Go over to other thresholds of percentiles, between batches. Rows follow with events, and by `adjust`."""
        self.buckets = buckets
        self._index.serve(buckets)

    @property
    def measured(self) -> tuple[Measured, ...]:
        """The numbers whose percentiles the policy in force asks for."""
        return self._index.plan.measured

    def astray(self, profile: Profile, user: str, now_ms: int) -> bool:
        """Whether a row is of the policy in force, and its segments are not what the thresholds in force say."""
        index = self._index
        if profile.erased_ms or profile.policy != index.policy_id:
            return False
        return any(
            op.evaluate(profile, now_ms, user) is not (op.id in profile.segments)
            for op in index.measured_segments
            if op.id not in index.unready and op.segment.features.isdisjoint(profile.missing)
        )

    @property
    def policy_id(self) -> int:
        """The id of the policy version in force, as rows note it."""
        return self._index.policy_id

    def wants(self, profile: Profile) -> list[int] | None:
        """None for a row that is as the policy in force has it; else the windows that it lacks (perhaps none)."""
        index = self._index
        if profile.erased_ms:
            return None
        if profile.policy == index.policy_id:
            return profile.missing or None
        return index.unasked(profile)

    @property
    def index(self) -> PlanIndex:
        """The policy in force, arranged for look-ups."""
        return self._index

    def process(
        self,
        records: Sequence[Record],
        topic: str,
        partition: int,
        rows: dict[bytes, Profile],
        *,
        now_ms: int,
        acked_offset: int,
        reload: Reload | None = None,
    ) -> Effects:
        """Apply the records of one partition, in the order of their offsets.

        Parameters
        ----------
        rows
            Every existing row of the records' keys; missing ones are created in it. Changed in place.
        now_ms
            Event-time now; an event without a time happened now, and one slightly in the future did, too.
        acked_offset
            Outputs caused by source offsets below this have been acknowledged: rows stop owing them.
        reload
            Gives a row as it was before this call, should an event raise half-way. Without it each row is encoded
            when first touched, which costs a few microseconds a row.
        """
        run = Run(self._turn(now_ms), rows, acked_offset, topic, partition, reload)
        run.records(records)
        return run.effects()

    def fire(
        self, keys: Iterable[bytes], rows: dict[bytes, Profile], *, now_ms: int, mark: int, acked_offset: int
    ) -> Effects:
        """Run everything that is due in these rows at `now_ms`.

        Parameters
        ----------
        mark
            The partition's next source offset: what the rows owe for these timers is acknowledged when that is.
        """
        run = Run(self._turn(now_ms), rows, acked_offset, "", 0, None)
        run.timers(keys, mark)
        return run.effects()

    def sweep(
        self,
        keys: Iterable[bytes],
        rows: dict[bytes, Profile],
        windows: Windows,
        *,
        now_ms: int,
        mark: int,
        acked_offset: int,
    ) -> Effects:
        """Bring rows that wait for no event to the policy in force.

        Parameters
        ----------
        windows
            What was folded from their history. A row that has taken in a later event is left as it is, and counted
            under ``("backfill", "postponed")``.
        """
        run = Run(self._turn(now_ms), rows, acked_offset, "", 0, None)
        run.sweep(keys, mark, windows)
        return run.effects()

    def adjust(
        self, keys: Iterable[bytes], rows: dict[bytes, Profile], *, now_ms: int, mark: int, acked_offset: int
    ) -> Effects:
        """Have rows that wait for no event follow the thresholds of percentiles."""
        run = Run(self._turn(now_ms), rows, acked_offset, "", 0, None)
        run.thresholds(keys, mark)
        return run.effects()

    def offer(
        self, offers: Mapping[bytes, Offer], rows: dict[bytes, Profile], *, now_ms: int, mark: int, acked_offset: int
    ) -> Effects:
        """Tell rows of changes of the catalog; see `fire` for `mark`."""
        run = Run(self._turn(now_ms), rows, acked_offset, "", 0, None)
        offer_all(run, offers, mark)
        return run.effects()

    def _turn(self, now_ms: int) -> Turn:
        return Turn(
            Batch(self._index, now_ms, self.choices, self.scorers, self.items, self.personas, self.catalog),
            self.scorer,
            self._features_of,
            self._subjects,
        )
