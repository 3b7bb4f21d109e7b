"""Two versions side by side: a row that has been through another build's hands decides as if it had not.

The other build is a newer one, which writes fields that this one does not know, or an older one, which writes none of
the newest fields where they say nothing. Rows go back and forth between them as partitions do in a rolling upgrade. Or
it is one of version 2 or 3, whose rows come to this build and not back again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.effects import Effects
from app.core.ids import full_id
from app.core.interest import worth
from app.core.profile import COMMON_FIELDS, Profile, decode_profile, encode_profile
from app.core.row_parts import Rare
from app.core.timers import HORIZON, REWARD
from tests.property.test_core_replay import PLAN, batches_of, play
from tests.support.old_rows import version_3, version_4
from tests.support.streams import START, Stream

FRESH = msgspec.msgpack.decode(msgspec.msgpack.encode(Rare()))


def with_rare(raw: bytes, change: Callable[[list[Any]], list[Any]]) -> bytes:
    """The row with other rare fields: to these a build may add, and only to these."""
    row = decode_profile(raw)
    encoded = row.rare_bytes()
    rare = msgspec.msgpack.decode(encoded) if encoded else FRESH
    common = {name: getattr(row, name) for name in COMMON_FIELDS}
    changed = msgspec.msgpack.encode(change(list(rare)))
    return encode_profile(Profile(**common, owes_records=row.owes_records(), encoded=changed))


def by_newer(raw: bytes) -> bytes:
    """The row as a build writes it that has two more fields."""
    return with_rare(raw, lambda rare: [*rare, *FRESH[len(rare) :], {"new": [1, 2]}, "more"][: len(FRESH) + 2])


def by_older(raw: bytes) -> bytes:
    """The row as a build writes it that lacks the last fields: as many as say nothing here."""

    def fewer(rare: list[Any]) -> list[Any]:
        del rare[len(FRESH) :]
        while rare and rare[-1] == FRESH[len(rare) - 1]:
            rare.pop()
        return rare

    return with_rare(raw, fewer)


def by_version_4(raw: bytes) -> bytes:
    """The row as the last build of version 4 writes it."""
    return version_4(decode_profile(raw))


def by_version_3(raw: bytes) -> bytes:
    """The row as the last build of version 3 writes it."""
    head, fields = version_3(decode_profile(raw))
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
    head, fields = version_3(row)
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
            build = self.dice.choice([by_newer, by_older, by_version_2, by_version_3, by_version_4, None])
            if build is not None:
                self.rows[key] = decode_profile(build(encode_profile(row)))
                self.rewritten += 1
        return effects


@settings(max_examples=60)
@given(batches_of, st.integers(0, 2**32))
def test_rows_that_go_back_and_forth_between_builds_lose_nothing_and_decide_the_same(steps: Any, seed: int) -> None:
    plain, mixed = Stream(PLAN), Mixed(PLAN, dice=random.Random(seed))
    play(steps, plain)
    play(steps, mixed)
    assert mixed.outputs == plain.outputs
    assert mixed.rows == plain.rows


def test_a_row_of_a_newer_build_is_really_longer_and_one_of_an_older_shorter() -> None:
    raw = encode_profile(Profile(events=3, offset=7))
    consented = encode_profile(Profile(events=3, offset=7, consent=1))
    assert len(by_newer(consented)) > len(consented) > len(by_older(consented))
    assert len(by_version_2(raw)) >= len(by_version_3(raw)) > len(by_version_4(raw))
    for row in (raw, consented):
        builds = (by_newer, by_older, by_version_2, by_version_3, by_version_4)
        assert [decode_profile(build(row)) == decode_profile(row) for build in builds] == [True] * 5
