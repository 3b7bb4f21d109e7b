"""A replay is looked at: the log of the rows has their last events where they say, another log has not."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.processor import Processor
from app.core.profile import decode_profile
from app.stream.replays import LOOKS
from tests.support.engine import Died, Rig, make_rig
from tests.support.plans import FixedScorer, campaign_only, make_plan
from tests.support.streams import record, track


async def folded(path: Path, *users: str, start: int = 0) -> Rig:
    """A worker that was assigned the partition again, and whose rows have seen an event of each user in turn."""
    rig = await make_rig(path, processor=Processor(make_plan(), FixedScorer(), campaign_only))
    await arrive(rig, *users, start=start)
    await rig.settled()
    rig.engine.assigned({0})
    return rig


async def arrive(rig: Rig, *users: str, start: int) -> None:
    rig.app.batches.barrier.forget(("events", 0))  # as before a partition is read from elsewhere
    batch = rig.batch(*((user, "") for user in users), start=start)
    batch.records = [record(track("View", 0, user), start + n) for n, user in enumerate(users)]
    await rig.engine.submit(batch)


def events_of(rig: Rig, user: str) -> int:
    (value,) = rig.table.get_many(0, [user.encode()])
    return decode_profile(value).events if value else 0


async def test_a_row_that_has_seen_more_than_the_log_has_ends_the_worker_before_its_event_is_lost(
    tmp_path: Path,
) -> None:
    rig = await folded(tmp_path, *"abc", "ann", start=100)
    rig.app.end = 2  # the topic was made anew
    with pytest.raises(Died):
        await arrive(rig, "new", "ann", start=0)
    (why,) = rig.app.died
    assert "events[0]" in why
    assert "offset 103, and the log ends at 2" in why
    assert "ann" not in why
    assert rig.app.batches.barrier.committable(("events", 0)) is None, "the batch is not complete"


async def test_a_log_that_has_somebody_elses_event_in_the_place_of_the_rows_is_another(tmp_path: Path) -> None:
    rig = await folded(tmp_path, *"abc", "ann", start=100)
    rig.app.end, rig.app.log = 5_000, {103: b"bob"}  # made anew, and longer than the old one by now
    with pytest.raises(Died):
        await arrive(rig, "ann", start=50)
    assert "somebody else's event" in rig.app.died[0]


@pytest.mark.parametrize("log", [{103: b"ann"}, {}])
async def test_a_replay_of_the_same_log_is_passed_by(tmp_path: Path, log: dict[int, bytes]) -> None:
    """Nothing at the place says nothing: somebody may have had the topic compacted."""
    rig = await folded(tmp_path, *"abc", "ann", start=100)
    rig.app.end, rig.app.log = 200, log
    await arrive(rig, "ann", start=100)
    await rig.settled()
    assert (events_of(rig, "ann"), rig.app.died) == (1, [])


async def test_a_replay_that_a_batch_shows_to_be_one_is_not_looked_up_and_others_a_few_times(tmp_path: Path) -> None:
    rig = await folded(tmp_path, "ann", "bob")
    looked: list[int] = []

    async def key_at(_topic: str, _partition: int, offset: int) -> bytes:
        looked.append(offset)
        return b"bob"

    rig.app.key_at = key_at  # type: ignore[method-assign]
    rig.app.end = 2
    await arrive(rig, "ann", "bob", start=0)
    assert looked == []
    for _ in range(LOOKS + 3):
        await arrive(rig, "bob", start=0)
    assert looked == [1] * LOOKS
