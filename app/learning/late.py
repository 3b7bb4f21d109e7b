"""What an open is worth that comes after its example was learned as "not opened".

Of the sends with the same features let a share `a` be opened in time, `l` late, and p = a + l in all. Every send is an
example once, at the horizon; each late open is one more, with label 1 and weight w. A model that is right about such a
stream says

    (a + w l) / (1 + w l)        which is p, whatever a and l are, if and only if w = 1 / (1 - p).

So no model of the delay is needed, and it holds for every proper loss and for calibration by counting. Its gradient in
log-odds is -1, which with the p of before makes p - 1: that of one example with label 1, so nothing is learned twice.

This is the importance weighting of fake negatives where only late opens were fake negatives. Ktena et al. learn every
open so, hence their weights 1 + p and (1 - p)(1 + p); Yang et al. weigh by the probability of a late open, which is a
second model. Chapelle models the delay. Learning late opens with weight 1 says too little, (a + l) / (1 + l); ignoring
them, a.

References
----------
Chapelle, 2014: Modeling Delayed Feedback in Display Advertising.
Ktena et al., 2019: Addressing Delayed Feedback for Continuous Training with Neural Networks in CTR Prediction.
Yang et al., 2021: Capturing Delayed Feedback in Conversion Rate Prediction via Elapsed-Time Sampling.
"""

from __future__ import annotations

from app.learning.logistic import WEIGHT_MAX


def correction_weight(p: float) -> float:
    """The weight of a late open whose send was given probability `p`, at most `WEIGHT_MAX`; 1 when p is no number.

    Examples
    --------
    >>> correction_weight(0.2), correction_weight(0.99)
    (1.25, 5.0)
    """
    return min(1.0 / (1.0 - p), WEIGHT_MAX) if 0.0 <= p < 1.0 else 1.0
