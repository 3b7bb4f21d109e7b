"""Wherever a sender begins with `events`, no decision that it may still send is older than an opt-out before that."""

from __future__ import annotations

import random

import pytest

from app.sender.since import Marks, read_note


class World:
    """One partition: a worker that folds, decides, publishes and commits, and a sender that looks and commits."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.marks = Marks("workers")
        self.events = self.folded = self.worker_committed = 0
        self.owed: list[int] = []
        """What the worker has decided and not published yet, by the offset that it was decided at."""
        self.decisions: list[int] = []
        self.sender_committed, self.note = 0, ""
        self.seen: dict[int, int] | None = None
        """What the workers had committed, of a look that has not asked for the end of `decisions` yet."""

    def happen(self) -> None:
        self.events += self.dice.randint(1, 5)

    def fold(self) -> None:
        for offset in range(self.folded, min(self.events, self.folded + 3)):
            self.owed.append(offset)
            self.folded = offset + 1

    def publish(self) -> None:
        count = self.dice.randint(0, len(self.owed))
        self.decisions += self.owed[:count]
        del self.owed[:count]

    def commit_work(self) -> None:
        self.worker_committed = self.owed[0] if self.owed else self.folded

    def crash(self) -> None:
        """What was not committed is published again: the rows owe it."""
        self.owed = list(range(self.worker_committed, self.folded))

    def read(self) -> None:
        if self.events:
            newest = self.dice.randrange(self.events)
            self.marks.propose(0, newest, "")

    def look(self) -> None:
        if self.seen is None:
            self.seen = {0: self.worker_committed}
        else:
            for partition in self.marks.folded(self.seen):
                self.marks.ripen(partition, len(self.decisions), self.sender_committed)
            self.seen = None

    def commit_sent(self) -> None:
        self.sender_committed = self.dice.randint(self.sender_committed, len(self.decisions))
        self.note = self.marks.note(0, self.sender_committed)

    def start_again(self) -> bool:
        """A sender that was killed, and its disk with it. Returns whether it reads less than everything."""
        self.marks, self.seen = Marks("workers"), None
        mark = read_note(self.note, "workers")
        if mark is None:
            return False
        assert all(decided >= mark.offset for decided in self.decisions[self.sender_committed :] + self.owed)
        return mark.offset > 0


@pytest.mark.parametrize("first", range(0, 150, 50))
def test_no_decision_that_waits_was_made_before_an_opt_out_that_is_not_read_again(first: int) -> None:
    shorter = 0
    for seed in range(first, first + 50):
        world = World(seed)
        steps = [world.happen, world.fold, world.publish, world.commit_work, world.read, world.look, world.commit_sent]
        for _ in range(200):
            world.dice.choice(steps)()
            if world.dice.random() < 0.02:
                world.crash()
            if world.dice.random() < 0.03:
                shorter += world.start_again()
    assert shorter > 20, "nearly always everything would be read"


def test_the_note_of_other_workers_and_what_is_no_note_say_nothing() -> None:
    marks = Marks("workers")
    marks.propose(0, 7, "d")
    assert marks.folded({0: 7}) == {}, "the workers have committed what stands before it only"
    assert list(marks.folded({0: 8})) == [0]
    marks.ripen(0, 3, done=0)
    assert (marks.note(0, 2), marks.note(1, 9)) == ("", "")
    note = marks.note(0, 3)
    assert read_note(note, "workers")
    assert [read_note(text, "workers") for text in ("", "{", "[]", '{"group":"workers"}')] == [None] * 4
    assert read_note(note, "others") is None


def test_a_commit_carries_the_newest_mark_that_it_has_come_to() -> None:
    marks, ends = Marks("workers"), {}
    for offset, end in ((10, 5), (20, 9), (30, 12)):
        marks.propose(0, offset, "")
        for partition in marks.folded({0: 1_000}):
            marks.ripen(partition, end, done=0)
        ends[end] = read_note(marks.note(0, end), "workers")
    assert [mark and mark.offset for mark in ends.values()] == [10, 20, 20], "a third one waits for the second"
    marks.ripen(0, 15, done=9)
    assert [mark and mark.offset for mark in (read_note(marks.note(0, at), "workers") for at in (14, 15))] == [20, 30]
    assert marks.folded({0: 30}) == {}, "the workers were set back: they decide again what they decided before"
    assert marks.note(0, 15) == ""


def test_of_partitions_that_are_no_longer_ours_nothing_is_kept() -> None:
    marks = Marks("workers")
    marks.propose(0, 7, "")
    assert marks.folded({0: 8})
    marks.ripen(0, 3, done=0)
    marks.keep([1])
    assert (marks.folded({0: 8}), marks.note(0, 3)) == ({}, "")
