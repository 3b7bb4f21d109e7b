"""A user's newest labels in one integer of the row: what an all-time open rate forgets, at nine bytes.

People's interest changes, so the model wants recent rates beside the all-time one. The newest label is the lowest
bit; a leading 1 marks the oldest, so the integer also says how many labels it holds:

    1 0 0 1 1        four labels: opened, opened, ignored, ignored (newest first)
    ^ sentinel
"""

from __future__ import annotations

import math
from typing import Final

EMPTY: Final = 1
LABELS_MAX: Final = 60
"""With the sentinel, 61 bits: MessagePack and JSON readers of 63-bit integers hold it."""

RATE_PRIOR_MEAN: Final = 0.15
RECENT_PRIOR_LABELS: Final = 1.5
"""Prior of a recent rate, weaker than the all-time rate's: with few labels the two must be allowed to differ."""

_MASK = (1 << LABELS_MAX) - 1
_PRIOR_OPENS = RATE_PRIOR_MEAN * RECENT_PRIOR_LABELS


def push_label(history: int, label: int) -> int:
    """The history after one more label (0 or 1); beyond `LABELS_MAX` the oldest goes.

    Examples
    --------
    >>> bin(push_label(push_label(EMPTY, 1), 0))
    '0b110'
    """
    if history >> LABELS_MAX:
        return ((history << 1 | label) & _MASK) | 1 << LABELS_MAX
    return history << 1 | label


def joined(history: int, other: int) -> int:
    """Two histories as one, the labels of `other` first: which came when is not known."""
    for at in range(label_count(history) - 1, -1, -1):
        other = push_label(other, history >> at & 1)
    return other


def label_count(history: int) -> int:
    """Labels held, at most `LABELS_MAX`."""
    return history.bit_length() - 1


def open_run(history: int) -> int:
    """How many of the newest labels in a row are opens.

    Examples
    --------
    >>> open_run(0b1_0111)
    3
    """
    zeros = ~history
    return min((zeros & -zeros).bit_length() - 1, history.bit_length() - 1)


class DecayedRate:
    """An exponentially decayed open rate over a history, smoothed to the prior, as log-odds.

    Label i (0 = newest) weighs `decay ** i`. Eight labels are looked up at once.

    Parameters
    ----------
    decay
        Weight of a label relative to the next newer one, in (0, 1).
    labels
        How many labels are looked at: older ones weigh too little to matter. A multiple of 8 is looked up whole.
    """

    __slots__ = ("_norm", "_step", "_strides", "_table")

    def __init__(self, decay: float, labels: int) -> None:
        self._strides = (labels + 7) // 8
        self._step = decay**8
        self._table = tuple(sum(decay**bit for bit in range(8) if byte >> bit & 1) for byte in range(256))
        reach = 8 * self._strides
        self._norm = tuple((1 - decay ** min(n, reach)) / (1 - decay) for n in range(LABELS_MAX + 1))

    def logit(self, history: int) -> float:
        """Log-odds of the smoothed rate; the prior's for an empty history."""
        count = history.bit_length() - 1
        left = history ^ (1 << count)
        table, step = self._table, self._step
        opens, weight = _PRIOR_OPENS, 1.0
        for _ in range(self._strides):
            if not left:
                break
            opens += weight * table[left & 255]
            left >>= 8
            weight *= step
        return math.log(opens / (self._norm[count] + RECENT_PRIOR_LABELS - opens))


SLOW: Final = DecayedRate(0.95, 60)
MIDDLE: Final = DecayedRate(0.85, 32)
FAST: Final = DecayedRate(0.5, 8)
