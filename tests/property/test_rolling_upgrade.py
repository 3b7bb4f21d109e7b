"""Two versions side by side: a row that has been through another build's hands decides as if it had not.

The other build is a newer one, which writes fields that this one does not know, or an older one, which writes none of
the newest fields where they say nothing. Rows go back and forth between them as partitions do in a rolling upgrade. Or
it is one of version 2, whose rows come to this build and not back again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.effects import Effects
from app.core.ids import full_id
from app.core.interest import worth
from app.core.profile import Profile, decode_profile, encode_profile
from app.core.timers import HORIZON, REWARD
from tests.property.test_core_replay import PLAN, batches_of, play
from tests.support.streams import START, Stream

FRESH = msgspec.msgpack.decode(msgspec.msgpack.encode(Profile()))


def split(raw: bytes) -> tuple[bytes, list[Any]]:
    """The header of a stored row, and its fields."""
    row = decode_profile(raw)
    body = msgspec.msgpack.encode(row)
    assert raw.endswith(body)
    return raw[: -len(body)], msgspec.msgpack.decode(body, strict=False)


def by_newer(raw: bytes) -> bytes:
    """The row as a build writes it that has two more fields."""
    head, fields = split(raw)
    return head + msgspec.msgpack.encode([*fields, {"new": [1, 2]}, "more"])


def by_older(raw: bytes) -> bytes:
    """The row as a build writes it that lacks the last fields: as many as say nothing here."""
    head, fields = split(raw)
    while fields and fields[-1] == FRESH[len(fields) - 1]:
        fields.pop()
    return head + msgspec.msgpack.encode(fields)


def by_version_2(raw: bytes) -> bytes:
    """The row as the last build of version 2 writes it."""
    row = decode_profile(raw)
    for timer in row.timers:
        if timer.kind in (HORIZON, REWARD):
            timer.key = full_id(timer.key)
        timer.propensity = float(timer.propensity)
    for one in (*row.pending, *row.rewards):
        one.id, one.propensity = full_id(one.id), float(one.propensity)
    row.weariness = float(row.weariness)
    head, fields = split(encode_profile(row))
    fields[20] = {name: [worth(level, START), START] for name, level in row.affinity.items()}
    return b"\x02" + head[1:] + msgspec.msgpack.encode(fields)


@dataclass
class Mixed(Stream):
    """A stream whose rows are rewritten by other builds between batches."""

    dice: random.Random = field(default_factory=random.Random)
    rewritten: int = 0

    def _settle(self, effects: Effects) -> Effects:
        effects = super()._settle(effects)
        for key, row in self.rows.items():
            build = self.dice.choice([by_newer, by_older, by_version_2, None])
            if build is not None:
                self.rows[key] = decode_profile(build(encode_profile(row)))
                self.rewritten += 1
        return effects


@settings(max_examples=60, deadline=None)
@given(batches_of, st.integers(0, 2**32))
def test_rows_that_go_back_and_forth_between_builds_lose_nothing_and_decide_the_same(steps: Any, seed: int) -> None:
    plain, mixed = Stream(PLAN), Mixed(PLAN, dice=random.Random(seed))
    play(steps, plain)
    play(steps, mixed)
    assert mixed.outputs == plain.outputs
    assert {key: encode_profile(row) for key, row in mixed.rows.items()} == {
        key: encode_profile(row) for key, row in plain.rows.items()
    }


def test_a_row_of_a_newer_build_is_really_longer_and_one_of_an_older_shorter() -> None:
    raw = encode_profile(Profile(events=3, offset=7))
    assert len(by_newer(raw)) > len(raw) > len(by_older(raw))
    assert len(by_version_2(raw)) > len(raw)
    assert decode_profile(by_newer(raw)) == decode_profile(by_older(raw)) == decode_profile(raw)
    assert decode_profile(by_version_2(raw)) == decode_profile(raw)
