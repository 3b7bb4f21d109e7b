"""An alarm for the day on which the model's loss rises.

River's Page-Hinkley test on the log loss, one-sided: a falling loss is no alarm. ADWIN was the other candidate. Its
state can be had only as opaque bytes that depend on River's build (and reading torn ones panics), and a detector that
forgets at each restart never sees a slow change.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from river import drift


class DriftState(msgspec.Struct):
    """All that the test remembers, and how often it has fired."""

    detections: int = 0
    count: float = 0.0
    mean: float = 0.0
    total: float = 0.0
    total_min: float | None = None


class LossDrift:
    """Counts rises of a mean loss.

    Parameters
    ----------
    state
        Where to go on from.
    delta
        Rise of the mean loss (nats) that is tolerated.
    threshold
        Sum of excess losses (nats) at which the alarm goes off; the test then starts anew.

    Examples
    --------
    >>> alarm = LossDrift(delta=0.05, threshold=20.0)
    >>> any(alarm.update(0.3) for _ in range(1000))
    False
    >>> any(alarm.update(0.9) for _ in range(100))
    True
    >>> alarm.state.detections
    1

    References
    ----------
    Page, 1954: Continuous Inspection Schemes.
    """

    def __init__(self, state: DriftState | None = None, *, delta: float = 0.05, threshold: float = 50.0) -> None:
        state = state or DriftState()
        self._detections = state.detections
        self._test: Any = drift.PageHinkley(min_instances=200, delta=delta, threshold=threshold, mode="up")
        self._test._x_mean.n = state.count
        self._test._x_mean._mean = state.mean
        self._test._sum_increase = state.total
        if state.total_min is not None:
            self._test._min_increase = state.total_min

    def update(self, loss: float) -> bool:
        """Whether this loss makes the alarm go off."""
        self._test.update(loss)
        if not self._test.drift_detected:
            return False
        self._detections += 1
        self._test._reset()
        return True

    @property
    def state(self) -> DriftState:
        """What a new instance needs to go on as this one would."""
        test = self._test
        total_min = test._min_increase
        return DriftState(
            detections=self._detections,
            count=float(test._x_mean.n),
            mean=float(test._x_mean.get()),
            total=test._sum_increase,
            total_min=total_min if total_min != float("inf") else None,
        )


DRIFT_CAMPAIGNS_MAX: Final = 32
CAMPAIGN_DELTA: Final = 0.1
CAMPAIGN_THRESHOLD: Final = 40.0
CAMPAIGN_EXAMPLES_MIN: Final = 200


class CampaignDrift(msgspec.Struct):
    """A slower test that looks at each campaign alone: one whose loss rises is lost in the loss of all.

    Page's test again, in three plain numbers a campaign ([examples, mean loss, excess]), with a larger tolerance and
    after more examples, because campaigns are many and each tests on its own. The excess never falls below 0 (Page's
    CUSUM form), so a long good time does not delay the alarm.
    """

    detections: int = 0
    sums: dict[str, list[float]] = {}

    def update(self, campaign: str, loss: float) -> bool:
        """Whether this loss makes the campaign's alarm go off; its test then starts anew."""
        sums = self.sums.get(campaign)
        if sums is None:
            if len(self.sums) >= DRIFT_CAMPAIGNS_MAX:
                del self.sums[min(self.sums, key=lambda other: (self.sums[other][0], other))]
            sums = self.sums[campaign] = [0.0, 0.0, 0.0]
        sums[0] += 1.0
        sums[1] += (loss - sums[1]) / sums[0]
        if sums[0] <= CAMPAIGN_EXAMPLES_MIN:
            return False
        sums[2] = max(0.0, sums[2] + loss - sums[1] - CAMPAIGN_DELTA)
        if sums[2] <= CAMPAIGN_THRESHOLD:
            return False
        self.detections += 1
        del self.sums[campaign]
        return True
