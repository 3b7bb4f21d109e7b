"""Alarms for the day on which the model's loss rises: three one-sided tests, for a falling loss is none.

- Page-Hinkley on every example: soonest where the loss rises much.
- River's ADWIN on means of blocks: no tolerance to be set, so it sees small rises, later.
- Page's test again for each campaign alone: what happens to one of many is lost in the loss of all.

River gives ADWIN's state only as opaque bytes that depend on its build (and reading torn ones panics). So what is kept
is the block means that it was fed, and a restored detector is fed them again.

`import river.drift` brings all of SciPy's statistics: a second of CPU, beside a worker that has just come back and has
a backlog to fold. So Page-Hinkley, five numbers, is written out here (a test holds it to River's, bit for bit), and
ADWIN is taken from River's compiled module, without the package around it.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec
from river._river_rust.drift import AdaptiveWindowing

INSTANCES_MIN: Final = 200
"""Losses before Page-Hinkley judges."""


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
        self._delta = delta
        self._threshold = threshold
        self._detections = state.detections
        self._count = state.count
        self._mean = state.mean
        self._total = state.total
        self._total_min = math.inf if state.total_min is None else state.total_min

    def update(self, loss: float) -> bool:
        """Whether this loss makes the alarm go off."""
        self._count += 1.0
        self._mean += (1.0 / self._count) * (loss - self._mean)
        self._total = self._total + (loss - self._mean) - self._delta
        self._total_min = min(self._total_min, self._total)
        if self._count < INSTANCES_MIN or self._total - self._total_min <= self._threshold:
            return False
        self._detections += 1
        self._count = self._mean = self._total = 0.0
        self._total_min = math.inf
        return True

    @property
    def state(self) -> DriftState:
        """What a new instance needs to go on as this one would."""
        total_min = self._total_min if self._total_min != math.inf else None
        return DriftState(self._detections, self._count, self._mean, self._total, total_min)


BLOCK: Final = 64
"""Examples whose mean loss is one value for ADWIN."""
BLOCKS_MAX: Final = 256
"""Means that are remembered; beyond it the older half is forgotten, and with it the window's older part."""
LOSS_MAX: Final = 4.0
"""Nats. ADWIN's bound is for bounded values, and one surprise must not decide."""
ADWIN_DELTA: Final = 0.002


class AdwinState(msgspec.Struct):
    """The means since the window began, the growing block, and how often the mean rose."""

    detections: int = 0
    means: list[float] = []
    total: float = 0.0
    examples: int = 0


class AdaptiveWindow:
    """Counts rises of a mean loss by River's ADWIN, over a window of 8,192 to 16,384 examples at most.

    A mean of `BLOCK` losses, times the root of `BLOCK`, varies as one loss does: that is the scale that ADWIN's bound
    is for. One look a block keeps it below a tenth of a microsecond an example.

    Examples
    --------
    >>> window = AdaptiveWindow()
    >>> any(window.update(0.6) for _ in range(6400)), any(window.update(0.3) for _ in range(6400))
    (False, False)
    >>> any(window.update(0.6) for _ in range(6400))
    True

    References
    ----------
    Bifet, Gavaldà, 2007: Learning from Time-Changing Data with Adaptive Windowing.
    """

    def __init__(self, state: AdwinState | None = None) -> None:
        self.state = state or AdwinState()
        self._window = self._fed()

    def _fed(self) -> Any:
        window = AdaptiveWindowing(delta=ADWIN_DELTA, clock=1, max_buckets=5, min_window_length=5, grace_period=10)
        for mean in self.state.means:
            window.update(mean)
        return window

    def update(self, loss: float) -> bool:
        """Whether this loss makes the alarm go off; after a change of the mean, up or down, the window begins anew."""
        state = self.state
        state.total += min(loss, LOSS_MAX)
        state.examples += 1
        if state.examples < BLOCK:
            return False
        mean = round(state.total / BLOCK * math.sqrt(BLOCK), 5)
        state.total, state.examples = 0.0, 0
        before = self._estimation()
        if self._window.update(mean):
            rose: bool = self._estimation() > before
            state.means = []
            state.detections += rose
            self._window = self._fed()
            return rose
        state.means.append(mean)
        if len(state.means) > BLOCKS_MAX:
            state.means = state.means[-BLOCKS_MAX // 2 :]
            self._window = self._fed()
        return False

    def _estimation(self) -> float:
        width = self._window.get_width()
        return float(self._window.get_total() / width) if width else 0.0


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
    alarms: dict[str, int] = {}
    """Of the campaigns that had one lately, so many at most as there are tests."""

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
        self.alarms[campaign] = self.alarms.pop(campaign, 0) + 1
        if len(self.alarms) > DRIFT_CAMPAIGNS_MAX:
            del self.alarms[next(iter(self.alarms))]
        return True
