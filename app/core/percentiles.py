"""`top(10, …)` and `bottom(10, …)`: thresholds that follow the users, and what is told by them.

A worker counts the numbers of its users in the background (`Sketch`, one for each partition). The counts of all
partitions are added up, and from them come thresholds, the same on every worker; a condition compares the user's own
number with the threshold in force. So an event moves a user at once by the thresholds there are, and the background
moves those who do nothing while the thresholds move.

A threshold is left alone as long as the share of users beyond it is within a tenth of what was asked: else every count
would move some users in and some out.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from app.core.ids import stable_id
from app.core.profile import Profile
from app.core.sketch import Sketch, middle_of
from schemas.percentiles import Percentiles, Threshold, percentiles_key

TOLERANCE: Final = 0.1
"""How far, relative to the share asked for, the share beyond a threshold may drift before the threshold is moved."""
USERS_MIN: Final = 20
"""Below so many users there are no percentiles."""

CountedValue = Callable[[Profile, int, str], "float | None"]
"""``(profile, now_ms, user)`` to a user's number; None for users who are not counted."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A threshold that conditions ask for: the users with the largest (`top`) or least numbers, a share of them."""

    name: str
    top: bool
    share: float
    id: int


@dataclass(frozen=True, slots=True)
class Measured:
    """A number of users whose percentiles conditions ask for.

    Parameters
    ----------
    text
        As the policy writes it.
    features
        Ids of the windows that it reads.
    """

    text: str
    value: CountedValue
    features: frozenset[int]
    cuts: tuple[Cut, ...]


def make_cut(text: str, percent: float, *, top: bool) -> Cut:
    """The threshold of the `percent` largest or least of a number."""
    name = f"{'top' if top else 'bottom'} {percent:g}"
    return Cut(name, top, percent / 100, cut_id(text, name))


def cut_id(text: str, name: str) -> int:
    """The id of a threshold of the number that a policy writes as `text`."""
    return stable_id(f"{name} of {text}")


def joined(measured: Iterable[Measured]) -> tuple[Measured, ...]:
    """Each number once, with all of its thresholds."""
    by_text: dict[str, Measured] = {}
    for one in measured:
        known = by_text.get(one.text)
        cuts = one.cuts if known is None else (*known.cuts, *(cut for cut in one.cuts if cut not in known.cuts))
        by_text[one.text] = Measured(one.text, one.value, one.features, cuts)
    return tuple(by_text.values())


class Thresholds:
    """The thresholds in force, by the id of the cut. Compiled conditions ask it; it is set anew between batches."""

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: Mapping[int, int] = {}

    def serve(self, buckets: Mapping[int, int]) -> None:
        """Replace all of them."""
        self._buckets = buckets

    def get(self, cut: int) -> int | None:
        """The bucket of a threshold; None as long as it is not known."""
        return self._buckets.get(cut)

    def unknown(self, cuts: Iterable[int]) -> bool:
        """Whether one of these is not known."""
        return any(cut not in self._buckets for cut in cuts)


def next_thresholds(measured: Measured, sketch: Sketch, serving: Mapping[str, Threshold]) -> list[Threshold] | None:
    """The thresholds of a number; None when those in force are as good.

    Parameters
    ----------
    sketch
        Of all users.
    serving
        In force, by name.
    """
    if sketch.users < USERS_MIN:
        return None
    found = [_threshold(cut, sketch, serving.get(cut.name)) for cut in measured.cuts]
    changed = {threshold.name: threshold.bucket for threshold in found} != {
        name: threshold.bucket for name, threshold in serving.items()
    }
    return found if changed else None


def _threshold(cut: Cut, sketch: Sketch, serving: Threshold | None) -> Threshold:
    share_of = sketch.share_above if cut.top else sketch.share_below
    best = sketch.cut_above(cut.share) if cut.top else sketch.cut_below(cut.share)
    if serving is not None:
        drifted = abs(share_of(serving.bucket) - cut.share) > TOLERANCE * cut.share
        if not drifted or share_of(serving.bucket) == share_of(best):
            best = serving.bucket
    return Threshold(cut.name, best, middle_of(best), share_of(best))


class Board:
    """What the topic has said: each partition's users by number, and the thresholds in force.

    `moves` is how often thresholds have changed since it was read from its beginning, `counts` how often a partition's
    users have.
    """

    def __init__(self) -> None:
        self._sketches: dict[str, dict[int, Percentiles]] = {}
        self._cuts: dict[str, Percentiles] = {}
        self._keys: dict[bytes, Percentiles] = {}
        self.moves = 0
        self.counts = 0

    def take(self, key: bytes, record: Percentiles | None) -> bool:
        """One record, oldest first, or None where one was deleted; whether thresholds have changed."""
        if record is None:
            old = self._keys.pop(key, None)
            if old is not None and old.partition >= 0:
                self._sketches[old.number].pop(old.partition, None)
            return old is not None and old.partition < 0 and self._move(old.number, None)
        if key != percentiles_key(record):
            return False
        self._keys[key] = record
        if record.partition < 0:
            return self._move(record.number, record)
        self._sketches.setdefault(record.number, {})[record.partition] = record
        self.counts += 1
        return False

    def _move(self, number: str, record: Percentiles | None) -> bool:
        self.moves += 1
        if record is None:
            self._cuts.pop(number, None)
        else:
            self._cuts[number] = record
        return True

    def buckets(self) -> dict[int, int]:
        """Every threshold by its id, as conditions ask for them."""
        return {cut_id(record.number, cut.name): cut.bucket for record in self._cuts.values() for cut in record.cuts}

    def thresholds(self) -> Mapping[str, Percentiles]:
        """The newest thresholds, by number."""
        return self._cuts

    def lacks(self, measured: Measured) -> bool:
        """Whether one of its thresholds is not there."""
        there = self._cuts.get(measured.text)
        return there is None or not {cut.name for cut in measured.cuts} <= {cut.name for cut in there.cuts}

    def older_than(self, at_ms: int, wanted: Container[str]) -> list[bytes]:
        """Keys of records from before `at_ms`, but for the numbers that are still wanted."""
        return [key for key, record in self._keys.items() if record.at_ms < at_ms and record.number not in wanted]

    def due(self, measured: Measured, partitions: int, now_ms: int) -> Percentiles | None:
        """The record of new thresholds, once every partition has been counted and they must change."""
        counted = self._sketches.get(measured.text, {})
        if any(partition not in counted for partition in range(partitions)):
            return None
        sketch = Sketch()
        for partition in range(partitions):
            sketch.add(zip(counted[partition].buckets, counted[partition].counts, strict=True))
        serving = self._cuts.get(measured.text)
        known = {} if serving is None else {cut.name: cut for cut in serving.cuts}
        cuts = next_thresholds(measured, sketch, known)
        if cuts is None:
            return None
        return Percentiles(number=measured.text, partition=-1, at_ms=now_ms, users=sketch.users, cuts=cuts)


def counted(measured: Measured, sketch: Sketch, partition: int, at_ms: int) -> Percentiles:
    """The record of one partition's users."""
    buckets = sorted(sketch.counts)
    counts = [sketch.counts[bucket] for bucket in buckets]
    return Percentiles(
        number=measured.text, partition=partition, at_ms=at_ms, users=sketch.users, buckets=buckets, counts=counts
    )


class Tally:
    """What a pass over rows has found: users by number, rows, and those of which it cannot be told yet.

    Parameters
    ----------
    policy_id
        Of the policy in force: rows of another one are counted as `unreached`, and so are those whose windows are
        still being rebuilt.
    """

    def __init__(self, measured: Iterable[Measured], policy_id: int) -> None:
        self._measured = tuple(measured)
        self._policy_id = policy_id
        self.sketches = {one.text: Sketch() for one in self._measured}
        self.rows = self.unreached = 0

    def put(self, profile: Profile, now_ms: int, user: str) -> bool:
        """One row; whether its user could be counted. A row that stands for nobody is passed by."""
        if profile.erased_ms or profile.merged_into:
            return False
        self.rows += 1
        measured = self._measured
        if profile.policy != self._policy_id or not all(one.features.isdisjoint(profile.missing) for one in measured):
            self.unreached += 1
            return False
        for one in measured:
            number = one.value(profile, now_ms, user)
            if number is not None:
                self.sketches[one.text].put(number)
        return True
