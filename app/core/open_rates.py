"""How a user answered in the last month and the last quarter, by time and not by count, in 24 bytes of the row.

`app.core.label_history` forgets by labels: after ten more sends, whether they took a week or a year. Interest also
fades with time, and when the pace of sending changes the two differ. So labels and clicks are counted with weights that
halve every 30 and every 90 days of age, where a label is as old as its send.

    opens, labels (30 d) | opens, labels, clicks (90 d) | seconds since 1970 at which these values hold
"""

from __future__ import annotations

import math
import struct
from typing import Final

from app.core.label_history import RATE_PRIOR_MEAN, RECENT_PRIOR_LABELS

MONTH_S: Final = 30 * 86_400
QUARTER_S: Final = 90 * 86_400
CLICK_PRIOR_MEAN: Final = 0.02

_STATE = struct.Struct("<5fI")
_SECONDS_MAX = 2**32 - 1
_EMPTY = (0.0, 0.0, 0.0, 0.0, 0.0, 0)
_exp2 = math.exp2
_log = math.log


def _logit(part: float, whole: float, prior: float) -> float:
    """Log-odds of the rate, smoothed as if by `RECENT_PRIOR_LABELS` labels of the prior rate."""
    part = min(part, whole) + prior * RECENT_PRIOR_LABELS
    return _log(part / (whole + RECENT_PRIOR_LABELS - part))


PRIOR: Final = (
    _logit(0.0, 0.0, RATE_PRIOR_MEAN),
    _logit(0.0, 0.0, RATE_PRIOR_MEAN),
    _logit(0.0, 0.0, CLICK_PRIOR_MEAN),
)


def count(rates: bytes, at_ms: int, *, labels: float = 0.0, opens: float = 0.0, clicks: float = 0.0) -> bytes:
    """The rates after so much more of what was sent at `at_ms`, which may be before what is counted already.

    Examples
    --------
    >>> rates = count(b"", 0, labels=1.0)
    >>> len(rates), logits(rates, 0)[0] < logits(b"", 0)[0]
    (24, True)
    """
    o30, n30, o90, n90, c90, newest = _STATE.unpack(rates) if rates else _EMPTY
    at = min(max(at_ms // 1000, 0), _SECONDS_MAX)
    if at >= newest:
        month, quarter = _exp2((newest - at) / MONTH_S), _exp2((newest - at) / QUARTER_S)
        o30, n30, o90, n90, c90 = o30 * month, n30 * month, o90 * quarter, n90 * quarter, c90 * quarter
        month = quarter = 1.0
        newest = at
    else:
        month, quarter = _exp2((at - newest) / MONTH_S), _exp2((at - newest) / QUARTER_S)
    return _STATE.pack(
        o30 + month * opens,
        n30 + month * labels,
        o90 + quarter * opens,
        n90 + quarter * labels,
        c90 + quarter * clicks,
        newest,
    )


def joined(rates: bytes, other: bytes) -> bytes:
    """The rates of two rows that become one."""
    if not rates or not other:
        return rates or other
    if _STATE.unpack(rates)[5] < _STATE.unpack(other)[5]:
        rates, other = other, rates
    aged = _STATE.unpack(count(other, _STATE.unpack(rates)[5] * 1000))
    *sums, newest = _STATE.unpack(rates)
    return _STATE.pack(*(a + b for a, b in zip(sums, aged[:5], strict=True)), newest)


def logits(rates: bytes, now_ms: int) -> tuple[float, float, float]:
    """Log-odds now of an open (month, quarter) and of a click (quarter); `PRIOR` for an empty history."""
    if not rates:
        return PRIOR
    o30, n30, o90, n90, c90, newest = _STATE.unpack(rates)
    age = max(now_ms / 1000 - newest, 0.0)
    month, quarter = _exp2(-age / MONTH_S), _exp2(-age / QUARTER_S)
    return (
        _logit(o30 * month, n30 * month, RATE_PRIOR_MEAN),
        _logit(o90 * quarter, n90 * quarter, RATE_PRIOR_MEAN),
        _logit(c90 * quarter, n90 * quarter, CLICK_PRIOR_MEAN),
    )
