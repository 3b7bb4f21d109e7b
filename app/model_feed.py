"""Keeps a worker at the models that are to be served, and shows the learner's figures as metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from app.core.processor import Processor
from app.learning.book import NOWHERE, ModelBook, Pin
from app.learning.contract import BadModel
from app.learning.served_choices import SUFFIX, read_choices
from app.learning.served_items import SUFFIX as ITEMS_SUFFIX
from app.learning.served_items import read_items
from app.learning.served_personas import personas_name, read_personas
from app.learning.serving import read_scorer
from app.metrics import Metrics
from app.settings import Settings
from app.stream.broadcast import BroadcastReader
from schemas.models import BadSignature, ModelSnapshot
from schemas.topics import MODELS, OUTCOMES

if TYPE_CHECKING:
    from app.learning.learner import Learner  # brings River, which only the owner of the outcomes needs

log = structlog.get_logger(__name__)


class ModelFeed:
    """Keeps the processor's scorer and choices at what the topic says: the newest, or the version it is pinned to."""

    def __init__(self, processor: Processor, settings: Settings, metrics: Metrics) -> None:
        self._processor = processor
        self._metrics = metrics
        self._book = ModelBook(settings.secret_bytes(), self._wanted)
        self._serving: dict[str, ModelSnapshot] = {}
        self.reader = BroadcastReader(settings.client_settings(), MODELS, self.apply)

    def _wanted(self, model: str) -> bool:
        plan = self._processor.plan
        beside = (plan.model + SUFFIX, plan.model + ITEMS_SUFFIX, personas_name(plan.model))
        return model == plan.model or model in beside or model in self._processor.index.propensities

    def pin(self, model: str) -> tuple[int, Pin] | None:
        """The version that the model is pinned to, if it is."""
        return self._book.pin(model)

    def apply(self, _key: bytes | None, value: bytes | None, _offset: int) -> None:
        """One record of the `models` topic."""
        if value is None:
            return
        try:
            snapshot = self._book.apply(value)
            if snapshot.partition != NOWHERE and self._book.newest(snapshot.model) is not snapshot:
                return  # of a learner that was deposed, or not asked for
            model = self._processor.plan.model
            if snapshot.model == model + SUFFIX:
                self._processor.choices = read_choices(snapshot)
                self._metrics.variants_stopped.set(snapshot.metrics.get("stopped", 0.0))
                self._metrics.model_version.labels(snapshot.model).set(snapshot.version)
            elif snapshot.model == model + ITEMS_SUFFIX:
                self._processor.items = read_items(snapshot)
                self._metrics.model_version.labels(snapshot.model).set(snapshot.version)
            elif snapshot.model.startswith(personas_name(model)):
                self._serve_personas(personas_name(model))
            elif self._wanted(served := snapshot.model.partition(".")[0]):
                self._serve(served)
        except (BadSignature, BadModel, msgspec.MsgspecError) as exc:
            self._metrics.snapshots_rejected.inc()
            log.error("snapshot_rejected", error=str(exc))

    def _serve_personas(self, name: str) -> None:
        snapshot = self._book.served(name)
        if snapshot is None or snapshot is self._serving.get(name):
            return
        self._processor.personas = table = read_personas(snapshot)
        self._serving[name] = snapshot
        self._show(name, snapshot)
        self._metrics.persona_silhouette.set(snapshot.metrics.get("silhouette", 0.0))
        self._metrics.persona_share.clear()
        for persona in table.personas:
            share = snapshot.metrics.get(f"share_p{persona.id}", 0.0)
            self._metrics.persona_share.labels(f"p{persona.id}").set(share)

    def _serve(self, model: str) -> None:
        snapshot = self._book.served(model)
        if snapshot is None or snapshot is self._serving.get(model):
            return
        scorer = read_scorer(snapshot)
        if model == self._processor.plan.model:
            self._processor.scorer = scorer
        else:
            self._processor.scorers[model] = scorer
        self._serving[model] = snapshot
        self._show(model, snapshot)

    def _show(self, model: str, snapshot: ModelSnapshot) -> None:
        pinned = self._book.pin(model)
        self._metrics.model_version.labels(model).set(snapshot.version)
        self._metrics.model_pinned.labels(model).set(pinned[0] if pinned else 0)
        self._metrics.snapshot_created.labels(model).set(snapshot.created_ms / 1000)


GAUGES: Final = {
    "auc": "model_auc",
    "log_loss": "model_log_loss",
    "log_loss_constant": "model_log_loss_constant",
    "brier": "model_brier",
    "calibration_ratio": "model_calibration",
    "precision": "model_precision",
    "recall": "model_recall",
    "f1": "model_f1",
    "recent_auc": "model_recent_auc",
    "recent_log_loss": "model_recent_log_loss",
    "recent_calibration_ratio": "model_recent_calibration",
    "examples": "model_examples",
    "challenger_gain": "model_challenger_gain",
}
DETECTORS: Final = {
    "page_hinkley": "drift_detections",
    "adwin": "drift_adwin_detections",
    "campaign": "drift_campaign_detections",
}


class LearnerMetrics:
    """Turns a learner's progressive metrics into gauges and counters."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._before: dict[tuple[str, str], float] = {}

    def learned(self, learner: Learner) -> None:
        """A snapshot was published."""
        metrics, model = self._metrics, learner.name
        values = learner.metrics()
        for name, attribute in GAUGES.items():
            if name in values:  # those still undefined (no example yet, or of one class only) are left out
                getattr(metrics, attribute).labels(model).set(values[name])
        metrics.model_promotions.labels(model).inc(self._rise(model, "promotions", values))
        for detector, name in DETECTORS.items():
            metrics.drift.labels(model, detector).inc(self._rise(model, name, values))
        for campaign, sums in learner.progressive.campaigns.items():
            found = sums.to_dict()
            metrics.campaign_log_loss.labels(model, campaign).set(found["log_loss"])
            if "calibration_ratio" in found:
                metrics.campaign_calibration.labels(model, campaign).set(found["calibration_ratio"])
            for name, gauge in metrics.campaign_quality.items():
                if name in found:
                    gauge.labels(model, campaign).set(found[name])

    def _rise(self, model: str, name: str, values: Mapping[str, float]) -> float:
        before = self._before.get((model, name), 0.0)
        self._before[model, name] = values[name]
        return max(0.0, values[name] - before)

    def refused(self, reason: str) -> None:
        """A record that is no outcome became a dead letter."""
        self._metrics.dead_letters.labels(OUTCOMES, reason).inc()

    def passed_by(self, reason: str) -> None:
        """An outcome was not learned."""
        self._metrics.events.labels(OUTCOMES, reason).inc()
