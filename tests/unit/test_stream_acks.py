"""Faust's own acknowledgements are off: its streams would keep each acknowledged offset for as long as they run."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.stream.app import StreamApp


@pytest.mark.parametrize("batched", [True, False])
async def test_faust_acknowledges_nothing_of_batched_topics(batched: bool, tmp_path: Path) -> None:
    app = StreamApp("test", client_settings={}, broker="kafka://127.0.0.1:1", datadir=tmp_path, store="memory://")
    topic = app.batched_topic("events") if batched else app.topic("events", value_type=None, key_type=None)
    app.topics.add(topic)
    await app.topics._update_indices()
    assert app.topics.acks_enabled_for("events") is not batched
