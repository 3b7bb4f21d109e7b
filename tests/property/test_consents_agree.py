"""Whom the row says to have refused, the sender's feed of opt-outs holds back, too."""

from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st

from app.sender.suppressions import AGE_MS_MAX, AHEAD_MS_MAX, Suppressions
from schemas.events import Event, decode_event
from tests.support.plans import make_plan
from tests.support.streams import START, USER, Stream, track

_EDGES = [0, 1, AHEAD_MS_MAX, AHEAD_MS_MAX + 1, -1, -AGE_MS_MAX, -AGE_MS_MAX - 1, 2**50, -START]
_TOLD = st.tuples(st.booleans(), st.sampled_from(["", "news"]), st.sampled_from(_EDGES), st.integers(0, 3))


@given(st.lists(_TOLD, max_size=12))
def test_no_consent_event_is_refused_by_the_row_and_not_by_the_feed(told: list[tuple[bool, str, int, int]]) -> None:
    stream, feed, now_ms = Stream(make_plan()), Suppressions(b"key"), START
    feed.caught_up(0)
    for given_, category, ahead_ms, later_ms in told:
        now_ms += later_ms
        name = "Notifications Enabled" if given_ else "Notifications Disabled"
        raw = track(name, now_ms + ahead_ms, **({"category": category} if category else {}))
        stream.at(now_ms - START).send(raw)
        event = decode_event(orjson.dumps(raw), USER.encode())
        assert isinstance(event, Event)
        feed.feed(event, received_ms=now_ms, wall_ms=0)
        row = stream.row
        if row.consent == 0:
            assert feed.check(USER, "", 0) is True
        if "news" in row.opted_out:
            assert feed.check(USER, "news", 0) is True
