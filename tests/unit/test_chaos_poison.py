"""What the poison recipe calls a pause."""

from __future__ import annotations

from types import SimpleNamespace

from tests.chaos.poison import _later_ms


def test_an_event_after_poison_is_as_late_as_it_took_longer_than_the_one_before() -> None:
    stream = [SimpleNamespace(offset=offset, timestamp=1_000 + 10 * offset) for offset in range(4)]
    folded = {0: 1_005, 2: 1_065, 3: 1_035}  # offset 1 is poison, the event after it took 45 ms, the others 5
    assert _later_ms(stream, folded) == {1: 40.0, 2: 0.0}
