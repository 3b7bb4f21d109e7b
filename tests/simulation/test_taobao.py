"""On a real click stream, segments and left carts equal an independent recomputation in SQL."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import taobao

DATA = Path(os.environ.get("NUDGE_DATA") or Path(__file__).parents[3] / "shared" / "data") / taobao.FILE


@pytest.mark.skipif(not DATA.is_file(), reason=f"set NUDGE_DATA to a folder with {taobao.FILE}")
def test_segments_and_left_carts_equal_sql_on_a_real_click_stream() -> None:
    figures, found = taobao.differences(taobao.read(DATA))
    assert found == []
    assert figures["events"] == 100_001
    assert figures["carts_left"] > 1000
    assert all(any(sizes) for sizes in figures["members"].values()), "each segment is compared with members in it"
    assert figures["dropped_timers"] == 0
