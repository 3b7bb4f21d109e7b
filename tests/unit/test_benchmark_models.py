"""The progressive benchmark does not look ahead: no label is learned before its time."""

from __future__ import annotations

import random
from itertools import groupby

import pytest

from benchmarks.models import HORIZON_MS, Replay, Send, exact_auc
from benchmarks.models_taobao import HOUR_S, START_S, examples

DAY_MS = 86_400_000
START_MS = 1_600_000_000_000


def sends(labels_seed: int, altered_from: int | None = None) -> list[Send]:
    """12 daily broadcasts to 40 users; the labels from broadcast `altered_from` on are turned round."""
    rng = random.Random(labels_seed)
    result = []
    for number in range(12):
        for user in range(40):
            opened = int(rng.random() < 0.1 + 0.02 * user)
            if altered_from is not None and number >= altered_from:
                opened = 1 - opened
            result.append(Send(START_MS + number * DAY_MS, f"u{user}", f"b{number}", opened, 0))
    return result


def scores(log: list[Send]) -> dict[str, list[float]]:
    replay = Replay()
    return {
        name: [scored.score for scored in replay.broadcast(list(part))]
        for name, part in groupby(log, key=lambda send: send.campaign)
    }


def test_no_label_is_learned_before_its_time() -> None:
    wait = HORIZON_MS // DAY_MS
    plain, altered = scores(sends(1)), scores(sends(1, altered_from=2))
    for number in range(2 + wait):  # broadcast 2's labels are known when 2 + wait goes out
        assert altered[f"b{number}"] == plain[f"b{number}"]
    assert altered[f"b{2 + wait}"] != plain[f"b{2 + wait}"]


def test_an_hours_features_do_not_know_the_hour() -> None:
    events = sorted((START_S + hour * HOUR_S + 60 * user, f"u{user}") for hour in range(6) for user in range(5))
    cut = START_S + 3 * HOUR_S
    plain = list(examples(events))
    blind = list(examples([event for event in events if event[0] < cut]))
    assert [x for x, _ in plain[3]] == [x for x, _ in blind[3]]
    assert {y for _, y in plain[3]} == {1}
    assert {y for _, y in blind[3]} == {0}


def test_auc_counts_ties_half() -> None:
    assert exact_auc([0.5, 0.5], [0, 1]) == pytest.approx(0.5)
