"""How long somebody's transaction has held a partition back."""

from __future__ import annotations

from structlog.testing import capture_logs

from app.stream.committed import LONG_S, Held

TP = ("events", 3)


def test_a_transaction_that_stays_open_is_timed_and_said_once() -> None:
    held = Held()
    with capture_logs() as said:
        for now in (0.0, 30.0, LONG_S, 2 * LONG_S):
            held.look({TP: (7, 9), ("events", 4): (9, 9)}, now)
    assert held.seconds == {TP: 2 * LONG_S, ("events", 4): 0.0}
    assert [(entry["event"], entry["offset"], entry["seconds"]) for entry in said] == [("transaction_open", 7, 60)]


def test_short_transactions_one_after_the_other_are_none_that_stays_open() -> None:
    held = Held()
    with capture_logs() as said:
        for now in range(200):
            held.look({TP: (now, now + 2)}, float(now))
    assert (held.seconds, said) == ({TP: 0.0}, [])


def test_a_partition_that_is_free_or_no_longer_ours_is_held_no_more() -> None:
    held = Held()
    held.look({TP: (7, 9)}, 0.0)
    held.look({TP: (9, 9)}, 70.0)
    held.look({TP: (9, 12)}, 80.0)
    assert held.seconds == {TP: 0.0}
    held.look({}, 90.0)
    assert held.seconds == {}


def test_a_broker_that_knows_no_transactions_holds_nothing_back() -> None:
    held = Held()
    held.look({TP: (-1, 9)}, 0.0)
    assert held.seconds == {TP: 0.0}
