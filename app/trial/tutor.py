"""What is learned in a trial: as a worker's learner does, from the examples that the trial's own decisions make.

Examples are learned when they mature, by the clock of the recording, and every `every_ms` what has been learned is
served. Left out is what an operator or a drift alarm does: pins, and going back to an older version.

Or nothing is learned and snapshots of the `models` topic are served: `serve`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from app.core.panes import NEVER_MS
from app.core.plan import ModelPlan
from app.core.processor import Processor
from app.learning.arms import ArmLearner
from app.learning.book import ModelBook
from app.learning.items import ItemLearner
from app.learning.learner import Learner
from app.learning.personas import PersonaLearner
from app.learning.served_choices import SUFFIX as CHOICES
from app.learning.served_choices import read_choices
from app.learning.served_items import SUFFIX as ITEMS
from app.learning.served_items import read_items
from app.learning.served_personas import SUFFIX as PERSONAS
from app.learning.served_personas import read_personas
from app.learning.serving import read_scorer
from schemas.models import ModelSnapshot
from schemas.outcomes import LATE_OPT_OUT, decode_outcome

LEARNED_EVERY_MS: Final = 3_600_000


class Known(NamedTuple):
    """What was served at the end under a name of the `models` topic: so many examples had been learned."""

    name: str
    examples: int


class Tutor:
    """The learners of one trial; `next_ms` is when what they know is served next.

    Parameters
    ----------
    processor
        Whose models, choices, items and personas are set.
    """

    def __init__(self, processor: Processor, every_ms: int = LEARNED_EVERY_MS) -> None:
        self._processor = processor
        self._every_ms = every_ms
        self._learners: dict[str, Learner] = {}
        self._arms: ArmLearner | None = None
        self._items: ItemLearner | None = None
        self._personas: PersonaLearner | None = None
        self._dirty: set[str] = set()
        self.next_ms = NEVER_MS

    def learn(self, values: Iterable[bytes | None], now_ms: int) -> None:
        """Records of the topic `outcomes`, as the trial makes them."""
        for value in values:
            self._learn(value or b"")
        if self._dirty:
            self.next_ms = min(self.next_ms, now_ms + self._every_ms)

    def _learn(self, value: bytes) -> None:
        outcome, plan = decode_outcome(value), self._processor.plan
        name = outcome.model
        if outcome.items:
            self._items = self._items or ItemLearner(name)
            self._items.learn(outcome)
            self._dirty.add(ITEMS)
            return
        if outcome.persona >= 0:
            self._personas = self._personas or PersonaLearner(name)
            if plan.personas is not None:
                self._personas.configure(plan.personas)
            self._personas.learn(outcome)
            self._dirty.add(PERSONAS)
            return
        if outcome.campaign:
            self._arms = self._arms or ArmLearner(name)
            if self._arms.learn(outcome):
                self._dirty.add(CHOICES)
        if outcome.label == LATE_OPT_OUT:
            return
        if name not in self._learners:
            model = plan.models.get(name, ModelPlan())
            self._learners[name] = Learner(name, model.kind, slow_start=model.horizon_ms > 0)
            self._learners[name].configure(model)
        self._learners[name].learn(outcome)
        self._dirty.add(name)

    def publish(self, now_ms: int) -> None:
        """Serve what has been learned by now."""
        dirty, self._dirty, self.next_ms = self._dirty, set(), NEVER_MS
        for suffix, learner in ((CHOICES, self._arms), (ITEMS, self._items), (PERSONAS, self._personas)):
            if learner is not None and suffix in dirty:
                _serve(self._processor, learner.snapshot(0, now_ms, 0))
        for name in dirty & self._learners.keys():
            if name == self._processor.plan.model:
                self._processor.scorer = self._learners[name].scorer()
            else:
                self._processor.scorers[name] = self._learners[name].scorer()

    def known(self) -> list[Known]:
        """What had been learned, by name."""
        found = [Known(name, learner.version) for name, learner in self._learners.items()]
        if self._arms is not None:
            found.append(Known(self._arms.name + CHOICES, self._arms.outcomes))
        if self._items is not None:
            found.append(Known(self._items.name + ITEMS, self._items.baskets))
        if self._personas is not None:
            found.append(Known(self._personas.name + PERSONAS, self._personas.vectors))
        return sorted(found)


def serve(processor: Processor, book: ModelBook) -> list[Known]:
    """Serve what the `models` topic says is to be served. Raises `BadModel`."""
    model = processor.plan.model
    found = []
    for name in (model, model + CHOICES, model + ITEMS, model + PERSONAS, *processor.index.propensities):
        snapshot = book.served(name)
        if snapshot is not None:
            _serve(processor, snapshot)
            found.append(Known(name, snapshot.version))
    return sorted(found)


def _serve(processor: Processor, snapshot: ModelSnapshot) -> None:
    name, model = snapshot.model, processor.plan.model
    if name == model + CHOICES:
        processor.choices = read_choices(snapshot)
    elif name == model + ITEMS:
        processor.items = read_items(snapshot)
    elif name.startswith(model + PERSONAS):
        processor.personas = read_personas(snapshot)
    elif name.partition(".")[0] == model:
        processor.scorer = read_scorer(snapshot)
    else:
        processor.scorers[name.partition(".")[0]] = read_scorer(snapshot)
