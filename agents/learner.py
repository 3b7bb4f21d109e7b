"""Outcomes in: the one writer of each model learns in place and publishes signed snapshots.

A batch of outcomes is complete when a snapshot that contains it has been acknowledged, and a snapshot says up to which
offset it has learned. So whoever owns the partition next starts from the snapshot and skips what it holds: no example
is lost and none is learned twice.

Nothing of this stands in the way of folding: the snapshots are read, and what they need is imported, when the first
outcomes come after an assignment, in a thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
import structlog
from faust.types import TP

from app.core.plan import ModelPlan, PersonaPlan
from app.core.raised import where_raised
from app.learning.book import Pin, pin_record
from app.learning.contract import BadModel
from app.learning.served_choices import SUFFIX
from app.learning.served_items import SUFFIX as ITEMS_SUFFIX
from app.learning.served_personas import SUFFIX as PERSONAS_SUFFIX
from app.learning.served_personas import is_personas
from app.stream.app import StreamApp
from app.stream.batch import RecordBatch
from app.stream.broadcast import Apply, read_to_end
from app.stream.commits import digest
from app.stream.refused import bury
from schemas.events import Rejected
from schemas.models import BadSignature, ModelSnapshot, decode_snapshot, encode_snapshot, supersedes
from schemas.outcomes import LATE_OPT_OUT, Outcome, read_outcome
from schemas.topics import DAY_MS, MODELS, OUTCOMES

if TYPE_CHECKING:
    from app.learning.arms import ArmLearner
    from app.learning.items import ItemLearner
    from app.learning.learner import Learner
    from app.learning.personas import PersonaLearner

    AnyLearner = Learner | ArmLearner | ItemLearner | PersonaLearner

log = structlog.get_logger(__name__)

MODELS_MAX: Final = 16
CHUNK: Final = 200
AHEAD_MS_MAX: Final = DAY_MS
"""What was decided later than this from now was not: a model that believed it would take all that it knows for old."""


Reader = Callable[[Mapping[str, Any], str, Apply], Awaitable[None]]


class LearnerObserver(Protocol):
    """Where the learner reports to."""

    def learned(self, learner: Learner) -> None:
        """A snapshot of this learner was published."""

    def refused(self, reason: str) -> None:
        """A record that is no outcome became a dead letter."""

    def passed_by(self, reason: str) -> None:
        """An outcome was not learned."""


def _learner_type() -> type[Learner]:
    """The learner, imported when there is something to learn: NumPy and River cost memory and start-up in others."""
    from app.learning.learner import Learner  # noqa: PLC0415

    return Learner


def _arms_type() -> type[ArmLearner]:
    """As `_learner_type`: it computes with SciPy."""
    from app.learning.arms import ArmLearner  # noqa: PLC0415

    return ArmLearner


def _items_type() -> type[ItemLearner]:
    """As `_learner_type`: only policies that recommend products need it."""
    from app.learning.items import ItemLearner  # noqa: PLC0415

    return ItemLearner


def _load_choosing() -> None:
    """What a snapshot of the arms is computed with: a third of a second, once, that must not stop the event loop."""
    from scipy import special  # noqa: F401, PLC0415


def _load_kinds(kinds: Collection[str]) -> None:
    """Likewise what the models of a policy are made with."""
    from app.learning.kinds import load_kind  # noqa: PLC0415

    for kind in kinds:
        load_kind(kind)


def _personas_type() -> type[PersonaLearner]:
    """As `_learner_type`: only policies with personas need it."""
    from app.learning.personas import PersonaLearner  # noqa: PLC0415

    return PersonaLearner


class _Partition:
    """The models of one outcomes partition and the batches that wait for their snapshot."""

    def __init__(self, next_offset: int) -> None:
        self.next_offset = next_offset
        self.last: Any | None = None
        """The record before it, once one was learned."""
        self.resumed = False
        """Whether its snapshots have been read."""
        self.learners: dict[str, Learner] = {}
        self.arms: dict[str, ArmLearner] = {}
        """What is known about variants, by the model's name; its snapshots stand beside the model's."""
        self.items: dict[str, ItemLearner] = {}
        """What is bought, likewise."""
        self.personas: dict[str, PersonaLearner] = {}
        """What users are like, likewise."""
        self.learned_to: dict[str, int] = {}
        self.waiting: list[RecordBatch] = []
        self.dirty: set[str] = set()
        self.dirty_arms: set[str] = set()
        self.dirty_items: set[str] = set()
        self.dirty_personas: set[str] = set()


class LearnerService:
    """Owns the learners of the outcomes partitions that are ours.

    Parameters
    ----------
    plan_of, pin_of
        What the policy in force says of a model, and the version that it is pinned to, as this worker knows it.
    personas_of
        What it says of personas.
    kinds_of
        The kinds of models that it names.
    read
        Reads a topic to its end.
    """

    def __init__(
        self,
        app: StreamApp,
        secret: bytes,
        observer: LearnerObserver,
        clock_ms: Callable[[], int],
        *,
        interval_s: float,
        plan_of: Callable[[str], ModelPlan] = lambda _model: ModelPlan(),
        pin_of: Callable[[str], tuple[int, Pin] | None] = lambda _model: None,
        personas_of: Callable[[], PersonaPlan | None] = lambda: None,
        kinds_of: Callable[[], frozenset[str]] = frozenset,
        read: Reader = read_to_end,
    ) -> None:
        self._read = read
        self._kinds_of = kinds_of
        self._kinds: frozenset[str] = frozenset()
        self._personas_of = personas_of
        self._plan_of = plan_of
        self._pin_of = pin_of
        self._app = app
        self._secret = secret
        self._observer = observer
        self._clock_ms = clock_ms
        self._interval_s = interval_s
        self._partitions: dict[int, _Partition] = {}
        self._publishing = asyncio.Lock()
        self._resuming = asyncio.Lock()
        self._published_at = time.monotonic()

    # -- SourceClient

    def assigned(self, partitions: set[int]) -> None:
        """Forget everything: what is ours is read again from the snapshots."""
        self._partitions = {}

    async def before_resume(self, offsets: Mapping[int, int]) -> None:
        """These partitions are ours. Their snapshots are read when there is something to learn."""
        self._partitions = {partition: _Partition(offset) for partition, offset in offsets.items()}

    async def _resume(self) -> None:
        """Go on from the snapshot of each model in our partitions that has got furthest."""
        async with self._resuming:
            states = {number: state for number, state in self._partitions.items() if not state.resumed}
            if not states:
                return
            furthest: dict[str, ModelSnapshot] = {}
            behind: set[str] = set()
            """Models whose last record is not their furthest: the last is what a compaction leaves."""

            def keep(key: bytes | None, value: bytes | None, _offset: int) -> None:
                if value is None:  # an operator has deleted it: the model begins anew
                    name = (key or b"").decode(errors="replace")
                    furthest.pop(name, None)
                    behind.discard(name)
                    return
                try:
                    snapshot = decode_snapshot(value, self._secret)
                except (BadSignature, msgspec.MsgspecError) as exc:
                    log.error("snapshot_rejected", error=str(exc))
                    return
                if supersedes(snapshot, furthest.get(snapshot.model)):
                    furthest[snapshot.model] = snapshot
                    behind.discard(snapshot.model)
                else:
                    behind.add(snapshot.model)

            await self._read(self._app.client_settings, MODELS, keep)
            mine = [snapshot for snapshot in furthest.values() if snapshot.partition in states]
            learned = await asyncio.gather(*map(self._learned_to, mine))
            await asyncio.to_thread(self._restore, states, list(zip(mine, learned, strict=True)))
            for snapshot in (furthest[name] for name in sorted(behind)):
                state = states.get(snapshot.partition)
                if state is not None and self._partitions.get(snapshot.partition) is state:
                    log.warning("snapshot_of_a_deposed_learner", model=snapshot.model, action="say the furthest again")
                    await self._send(snapshot)
            for state in states.values():
                state.resumed = True

    def _restore(self, states: Mapping[int, _Partition], snapshots: list[tuple[ModelSnapshot, int]]) -> None:
        _learner_type()
        for snapshot, learned_to in snapshots:
            self._resume_from(states[snapshot.partition], snapshot, learned_to)

    @staticmethod
    def _resume_from(state: _Partition, snapshot: ModelSnapshot, learned_to: int) -> None:
        try:
            if snapshot.model.endswith(SUFFIX):
                state.arms[snapshot.model.removesuffix(SUFFIX)] = _arms_type().restore(snapshot)
            elif snapshot.model.endswith(ITEMS_SUFFIX):
                state.items[snapshot.model.removesuffix(ITEMS_SUFFIX)] = _items_type().restore(snapshot)
            elif is_personas(snapshot.model):
                state.personas[snapshot.model.removesuffix(PERSONAS_SUFFIX)] = _personas_type().restore(snapshot)
            else:
                state.learners[snapshot.model] = _learner_type().restore(snapshot)
        except BadModel as exc:
            log.error("snapshot_rejected", model=snapshot.model, error=str(exc))
            return
        state.learned_to[snapshot.model] = learned_to
        log.info("learner_resumed", model=snapshot.model, version=snapshot.version)

    async def _learned_to(self, snapshot: ModelSnapshot) -> int:
        """The offset of `outcomes` up to which the model has learned; 0 when that was another log, made anew since.

        In another log it would pass by what it has not learned. A record that is gone was not another.
        """
        learned_to = snapshot.next_offset
        end = self._app.batches.highwater(TP(OUTCOMES, snapshot.partition))
        if end is None or learned_to <= end:
            if not snapshot.last:
                return learned_to
            record = await self._app.record_at(OUTCOMES, snapshot.partition, learned_to - 1)
            if record is None or digest(record) == snapshot.last:
                return learned_to
        log.warning(
            "outcomes_made_anew", model=snapshot.model, learned_to=learned_to, end=end, action="learn all of it"
        )
        return 0

    async def drain(self) -> None:
        """Publish now, so that every batch completes."""
        await self.publish()

    # -- outcomes

    async def submit(self, batch: RecordBatch) -> None:
        """Learn a batch; it completes with the next snapshot."""
        if (state := self._partitions.get(batch.partition)) is None:
            return
        if not state.resumed:
            await self._resume()
        if not self._kinds >= (kinds := self._kinds_of()):
            await asyncio.to_thread(_load_kinds, kinds)
            self._kinds |= kinds
        if self._partitions.get(batch.partition) is not state or not batch.begin():
            return
        state.waiting.append(batch)
        for name, learner in state.learners.items():
            learner.configure(self._plan_of(name))
        for index, record in enumerate(batch.records):
            if (refused := self._learn(state, record)) is not None:
                await self._dead_letter(batch.partition, record, refused)
            state.next_offset, state.last = record.offset + 1, record
            if index % CHUNK == CHUNK - 1:
                await asyncio.sleep(0)
        state.next_offset = batch.next_offset
        if time.monotonic() - self._published_at >= self._interval_s:
            await self.publish()

    def _learn(self, state: _Partition, record: Any) -> Rejected | None:
        """Learn a record, or say why not. A defect that it meets must not end one worker after the other."""
        outcome = read_outcome(record.value)
        if isinstance(outcome, Rejected):
            return outcome
        if outcome.decided_ms > self._clock_ms() + AHEAD_MS_MAX:
            return Rejected("timestamp_in_future", "decided more than a day from now")
        try:
            self._teach(state, outcome, record.offset)
        except Exception as exc:
            log.error("outcome_failed", offset=record.offset, error=where_raised(exc))
            return Rejected("processing_failed", where_raised(exc))
        return None

    async def _dead_letter(self, partition: int, record: Any, refused: Rejected) -> None:
        """Acknowledged before the batch can be complete: the record stands in the way until then."""
        self._observer.refused(refused.reason)
        await bury(self._app.durable_producer, OUTCOMES, partition, record, refused, self._clock_ms())

    def _teach(self, state: _Partition, outcome: Outcome, offset: int) -> None:
        if outcome.items:
            self._learn_basket(state, outcome, offset)
            return
        if outcome.persona >= 0:
            self._learn_vector(state, outcome, offset)
            return
        self._learn_choice(state, outcome, offset)
        if outcome.label == LATE_OPT_OUT or offset < state.learned_to.get(outcome.model, -1):
            return
        learner = state.learners.get(outcome.model)
        if learner is None:
            if len(state.learners) >= MODELS_MAX:
                self._observer.passed_by("too_many_models")
                return
            plan = self._plan_of(outcome.model)
            learner = _learner_type()(outcome.model, plan.kind, slow_start=plan.horizon_ms > 0)
            state.learners[outcome.model] = learner
        learner.learn(outcome)
        state.dirty.add(outcome.model)

    @staticmethod
    def _learn_choice(state: _Partition, outcome: Outcome, offset: int) -> None:
        """Which variant was shown, and what came of it. As bounded as the models are, by whose names it is kept."""
        name = outcome.model
        if not outcome.campaign:
            return  # of a propensity model: nothing was chosen
        if offset < state.learned_to.get(name + SUFFIX, -1):
            return
        arms = state.arms.get(name)
        if arms is None:
            if len(state.arms) >= MODELS_MAX:
                return
            arms = state.arms[name] = _arms_type()(name)
        if arms.learn(outcome):
            state.dirty_arms.add(name)

    @staticmethod
    def _learn_basket(state: _Partition, outcome: Outcome, offset: int) -> None:
        name = outcome.model
        if offset < state.learned_to.get(name + ITEMS_SUFFIX, -1):
            return
        if name not in state.items:
            if len(state.items) >= MODELS_MAX:
                return
            state.items[name] = _items_type()(name)
        if state.items[name].learn(outcome):
            state.dirty_items.add(name)

    def _learn_vector(self, state: _Partition, outcome: Outcome, offset: int) -> None:
        name = outcome.model
        if offset < state.learned_to.get(name + PERSONAS_SUFFIX, -1):
            return
        if name not in state.personas:
            if len(state.personas) >= MODELS_MAX:
                return
            state.personas[name] = _personas_type()(name)
        if (plan := self._personas_of()) is not None:
            state.personas[name].configure(plan)
        if state.personas[name].learn(outcome):
            state.dirty_personas.add(name)

    async def publish(self) -> None:
        """Publish a snapshot of each model that learned, then complete the batches they contain."""
        async with self._publishing:
            self._published_at = time.monotonic()
            for partition, state in list(self._partitions.items()):
                waiting = [batch for batch in state.waiting if batch.next_offset <= state.next_offset]
                dirty, state.dirty = state.dirty, set()
                for name in sorted(dirty):
                    learner = state.learners[name]
                    await self._guard(learner)
                    shrinks = learner.shrinks
                    await self._say(learner, state, partition)
                    if learner.shrinks > shrinks:
                        log.warning("model_shrunk", model=name, forgotten="the features with the least evidence")
                    self._observer.learned(learner)
                await self._publish_choices(state, partition)
                for batch in waiting:
                    batch.complete()
                    state.waiting.remove(batch)

    async def _guard(self, learner: Learner) -> None:
        """Keep a version to go back to; after an alarm go back, and forward again when the newest model is better.

        A pin of an operator stands until an operator takes it away. While one stands no version is kept, so that the
        one that is served is not overwritten.
        """
        alarms = learner.take_alarms()
        for detector in alarms:
            log.warning("drift", model=learner.name, detector=detector, version=learner.version)
        pinned = self._pin_of(learner.name)
        now_ms = self._clock_ms()
        if pinned is None:
            if learner.falls_back(alarms) and (version := learner.fallback_version()):
                pin = Pin("drift", f"{alarms[0]} at version {learner.version}")
                await self._send(pin_record(learner.name, version, pin, now_ms))
                log.warning("model_fell_back", model=learner.name, version=version)
            elif (kept := learner.keep(now_ms)) is not None:
                await self._send(kept)
        elif pinned[1].by == "drift" and learner.recovered():
            await self._send(pin_record(learner.name, 0, Pin("drift", "recovered"), now_ms))
            log.info("model_recovered", model=learner.name, version=learner.version)

    async def _say(self, learner: AnyLearner, state: _Partition, partition: int) -> None:
        """Publish a learner's snapshot, unless its partition was given up while others were published."""
        if self._partitions.get(partition) is not state:
            return
        snapshot = learner.snapshot(state.next_offset, self._clock_ms(), partition)
        if state.last is not None:
            snapshot = msgspec.structs.replace(snapshot, last=digest(state.last))
        await self._send(snapshot)
        state.learned_to[snapshot.model] = snapshot.next_offset

    async def _send(self, snapshot: ModelSnapshot) -> None:
        value = encode_snapshot(snapshot, self._secret)
        await self._app.durable_producer.send(MODELS, snapshot.model.encode(), value)

    async def _publish_choices(self, state: _Partition, partition: int) -> None:
        if state.dirty_arms:
            await asyncio.to_thread(_load_choosing)
        arms, state.dirty_arms = state.dirty_arms, set()
        for stop in (stop for name in sorted(arms) for stop in state.arms[name].take_stops()):
            log.warning("variant_stopped", **msgspec.structs.asdict(stop))
        items, state.dirty_items = state.dirty_items, set()
        learned = [state.arms[name] for name in sorted(arms)] + [state.items[name] for name in sorted(items)]
        for learner in learned:
            await self._say(learner, state, partition)
        await self._publish_personas(state, partition)

    async def _publish_personas(self, state: _Partition, partition: int) -> None:
        """As `_publish_choices`; while no version is pinned, others than before are kept to go back to."""
        dirty, state.dirty_personas = state.dirty_personas, set()
        for name in sorted(dirty):
            learner = state.personas[name]
            kept = learner.keep(self._clock_ms()) if self._pin_of(name + PERSONAS_SUFFIX) is None else None
            if kept is not None:
                await self._send(kept)
                log.info("personas_changed", model=name, version=kept.version, personas=len(learner.served.personas))
            await self._say(learner, state, partition)


def attach(app: StreamApp, service: LearnerService, *, interval_s: float) -> Any:
    """Attach the agent that feeds `service`, and its publishing timer."""

    @app.agent(app.batched_topic(OUTCOMES), name="learner", concurrency=1)
    async def learner(fetches: Any) -> None:
        async for batches in fetches:
            try:
                for batch in batches:
                    await service.submit(batch)
            except Exception as exc:
                app.fatal(f"learning {batches!r} failed", exc)

    @app.timer(interval_s, name="snapshots")
    async def snapshots() -> None:
        try:
            await service.publish()
        except Exception as exc:
            app.fatal("a model snapshot could not be published", exc)

    return learner
