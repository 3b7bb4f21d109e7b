from __future__ import annotations

import pytest

from tests.chaos import kill
from tests.support.site import Site

pytestmark = [pytest.mark.broker, pytest.mark.slow]


async def test_killed_workers_lose_nothing_and_do_nothing_twice(site: Site) -> None:
    figures = await kill.run(site, kills=3, workers=2, seed=11)
    print(figures)
    assert figures["kills_in_flight"] >= 1, f"no kill hit a worker at work: {figures}"
    differences = ("lost", "over_counted", "rows_different", "decisions_missing", "decisions_spurious")
    assert not any(figures[name] for name in (*differences, "dead_letters_missing")), figures
