"""How often what acts by itself acts without cause: the guard that stops variants, the duel that promotes challengers.

Both are asked over and over, as in production, about things of which it is known that there is nothing to find:
variants whose opt-outs are exactly as frequent as is tolerated, and challengers that are as good as the champion.
"""

from __future__ import annotations

import random

from app.learning.duel import Duel
from app.learning.guard import must_stop
from app.learning.logistic import log_loss, sigmoid

LOOK_EVERY = 20
"""Sends, or examples, between two looks."""


def false_stops(seed: int, *, limit: float, variants: int, sends: int = 10_000) -> float:
    """Share of variants that were ever stopped, of those whose opt-out rate is `limit` itself."""
    rng = random.Random(seed)
    stopped = 0
    for _ in range(variants):
        opt_outs = 0
        for send in range(1, sends + 1):
            opt_outs += rng.random() < limit
            if not send % LOOK_EVERY and must_stop(send, opt_outs, limit):
                stopped += 1
                break
    return stopped / variants


def false_promotions(seed: int, *, duels: int, examples: int = 10_000) -> float:
    """Share of duels that were ever won, between two models that are wrong alike: by .3 in log-odds, at random."""
    rng = random.Random(seed)
    won = 0
    for _ in range(duels):
        duel = Duel()
        for example in range(1, examples + 1):
            logit = rng.gauss(-1.5, 1.0)
            label = int(rng.random() < sigmoid(logit))
            losses = [log_loss(sigmoid(logit + rng.gauss(0.0, 0.3)), label) for _ in range(2)]
            duel.add(*losses)
            if not example % LOOK_EVERY and duel.challenger_wins:
                won += 1
                break
    return won / duels
