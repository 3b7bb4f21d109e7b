"""From memberships to what is worth knowing about a policy's segments."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec

from app.core.plan import Plan
from app.overlap.membership import Memberships

SAME_FROM: Final = 0.95
"""Jaccard index from which two segments are called the same."""
INSIDE_FROM: Final = 0.95
"""Share of a segment's users who are in the other, from which it is said to lie inside."""


SMALL_SHARE_MAX: Final = 1 / 3
"""Share of the segments that may be too small before that is the policy's fault and not theirs."""
HOME_FROM: Final = 0.8
"""Share of a small segment's users who are in another, from which it is said to be a part of it."""


class SegmentSize(msgspec.Struct, frozen=True):
    """Users in a segment (an estimate when `share` of the report is below 1), and their share of all."""

    segment: str
    users: int
    of_all: float
    too_small: bool
    users_min: int = 0


class Pair(msgspec.Struct, frozen=True):
    """Two segments with users in common.

    `jaccard` is |A ∩ B| / |A ∪ B|; `lift` how many times more often than by chance a user of one is in the other.
    """

    a: str
    b: str
    both: int
    jaccard: float
    a_in_b: float
    b_in_a: float
    lift: float
    kind: Literal["same", "a_inside_b", "b_inside_a", "overlap"]


class Contest(msgspec.Struct, frozen=True):
    """Two campaigns of a category that start on entering segments with `users` in common: they take turns at caps."""

    a: str
    b: str
    category: str
    users: int


class OverlapReport(msgspec.Struct, frozen=True):
    """What there is to say. `in_none` are users in no segment; `unknown` memberships of segments the policy lacks.

    `unreadable` are records of the changelog that are no rows: their users are left out.
    """

    policy: str
    users: int
    share: float
    in_none: int
    unknown: int
    segments: list[SegmentSize]
    pairs: list[Pair]
    contests: list[Contest]
    combinations: int = 0
    hints: list[str] = []
    unreadable: int = 0


def report(memberships: Memberships, plan: Plan, *, users_min: int | None = None) -> OverlapReport:
    """Sizes, pairs from the most alike down, and campaigns that contend.

    Parameters
    ----------
    users_min
        A segment with fewer users is too small: too little to learn from, or to measure an effect on. Else as the
        policy says of each.
    """
    scale = 1.0 / memberships.share
    names = {segment.id: segment.name for segment in plan.segments}
    sizes: Counter[int] = Counter()
    both: Counter[tuple[int, int]] = Counter()
    in_none = unknown = 0
    for segments, users in memberships.combinations().items():
        known = [segment for segment in segments if segment in names]
        sizes.update(dict.fromkeys(known, users))
        in_none += users if not known else 0
        unknown += users * (len(segments) - len(known))
        for pair in itertools.combinations(known, 2):
            both[pair] += users
    kept = max(1, len(memberships))
    least = {segment.id: segment.users_min if users_min is None else users_min for segment in plan.segments}
    order = sorted(names.items(), key=lambda item: (-sizes[item[0]], item[1]))
    found = [
        SegmentSize(name, round(sizes[i] * scale), sizes[i] / kept, sizes[i] * scale < least[i], least[i])
        for i, name in order
    ]
    pairs = [_pair(names, sizes, pair, common, kept, scale) for pair, common in both.items()]
    return OverlapReport(
        policy=plan.version,
        users=round(len(memberships) * scale),
        share=memberships.share,
        in_none=round(in_none * scale),
        unknown=round(unknown * scale),
        segments=found,
        pairs=sorted(pairs, key=lambda pair: (-pair.jaccard, pair.a, pair.b)),
        contests=_contests(plan, both, scale),
        combinations=len(memberships.combinations()),
        hints=list(_hints(found, pairs)),
        unreadable=memberships.unreadable,
    )


def _hints(segments: Sequence[SegmentSize], pairs: Sequence[Pair]) -> Iterator[str]:
    """What to do about segments that are too small, or not worth having beside another."""
    small = [one for one in segments if one.too_small]
    if len(small) > len(segments) * SMALL_SHARE_MAX:
        yield f"{len(small)} of {len(segments)} segments are smaller than they should be: the policy divides too finely"
    for one in small:
        shares = [(pair.a_in_b, pair.b) for pair in pairs if pair.a == one.segment]
        shares += [(pair.b_in_a, pair.a) for pair in pairs if pair.b == one.segment]
        share, other = max(shares, default=(0.0, ""))
        least = f"{one.segment} has {one.users:,} users, fewer than {one.users_min:,}"
        if share >= HOME_FROM:
            yield f"{least}; {share:.0%} of them are in {other} as well: it could be part of that"
        else:
            yield f"{least}: widen its condition, or give it up"
    for pair in pairs:
        if pair.kind == "same":
            yield f"{pair.a} and {pair.b} say nearly the same: one of them is enough"


def _pair(
    names: Mapping[int, str], sizes: Mapping[int, int], pair: tuple[int, int], both: int, users: int, scale: float
) -> Pair:
    one, other = sorted(pair, key=lambda segment: names[segment])
    a, b = sizes[one], sizes[other]
    jaccard = both / (a + b - both)
    kind: Literal["same", "a_inside_b", "b_inside_a", "overlap"] = "overlap"
    if jaccard >= SAME_FROM:
        kind = "same"
    elif both / a >= INSIDE_FROM:
        kind = "a_inside_b"
    elif both / b >= INSIDE_FROM:
        kind = "b_inside_a"
    lift = both * users / (a * b)
    return Pair(names[one], names[other], round(both * scale), jaccard, both / a, both / b, lift, kind)


def _contests(plan: Plan, both: Mapping[tuple[int, int], int], scale: float) -> list[Contest]:
    ids = {segment.name: segment.id for segment in plan.segments}
    entering = [c for c in plan.campaigns if c.trigger.kind == "enter" and c.trigger.segment in ids]
    found = []
    for one, other in itertools.combinations(sorted(entering, key=lambda campaign: campaign.name), 2):
        pair = sorted((ids[one.trigger.segment], ids[other.trigger.segment]))
        common = both.get((pair[0], pair[1]), 0)
        if one.category == other.category and common:
            found.append(Contest(one.name, other.name, one.category, round(common * scale)))
    return sorted(found, key=lambda contest: (-contest.users, contest.a, contest.b))
