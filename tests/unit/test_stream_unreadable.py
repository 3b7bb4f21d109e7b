"""Bytes in the place of a row that are none: doubted once, then kept as a dead letter; nobody else notices."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.erasure import mark_key
from app.core.processor import Processor
from app.core.profile import ROW_VERSION, Profile, decode_profile, encode_profile
from app.core.row_heads import BadRow
from app.core.row_parts import Timer
from app.stream.store import StoreDamaged
from schemas.dead_letters import read_dead_letter
from schemas.erasures import Subjects
from tests.support.engine import Died, Rig, make_rig
from tests.support.plans import FixedScorer, campaign_only, make_plan
from tests.support.streams import identify, record, track

SUBJECTS = Subjects(b"test secret of the privacy")
ANN = encode_profile(Profile(offset=3, first_ms=1, timezone="Europe/Vienna", traits={"name": "Ann"}))
GARBAGE = ANN[:-9]


async def worker(path: Path, rows: dict[bytes, bytes], *, rebuilt: bool = True) -> Rig:
    """A worker that has these rows, out of the changelog or of a store that it found."""
    rig = await make_rig(path, processor=Processor(make_plan(), FixedScorer(), campaign_only), subjects=SUBJECTS)
    rig.now_ms = 1_000_000
    rig.table.stores[0].write(rows.items(), added=len(rows), next_offset=40)
    rig.app.durable_producer.begins = 40
    rig.table.rebuilt = {0} if rebuilt else set()
    rig.engine.begin_scan(0)
    rig.table.stores[0].scan(lambda page: rig.engine.visit(0, page))
    rig.engine.assigned({0})
    return rig


async def arrive(rig: Rig, *users: str, start: int = 50) -> None:
    batch = rig.batch(*((user, "") for user in users), start=start)
    batch.records = [record(track("View", 0, user), start + n) for n, user in enumerate(users)]
    await rig.engine.submit(batch)


def row(rig: Rig, key: bytes) -> Profile:
    (raw,) = rig.table.get_many(0, [key])
    assert raw is not None
    return decode_profile(raw)


async def test_one_bad_row_is_kept_as_a_dead_letter_and_its_neighbours_are_folded(tmp_path: Path) -> None:
    rig = await worker(tmp_path, {b"ann": GARBAGE, b"bob": encode_profile(Profile(offset=7, events=4))})
    await arrive(rig, "bob", "ann", "cid", "ann")
    await rig.settled()
    assert [row(rig, key).events for key in (b"ann", b"bob", b"cid")] == [2, 5, 1]
    (letter,) = rig.app.durable_producer.outputs
    assert (letter.topic, letter.key, letter.value) == ("dead-letters", b"ann", GARBAGE)
    told = read_dead_letter(letter.headers)
    assert (told.topic, told.partition, told.offset, told.reason) == ("changelog", 0, 39, "bad_row")
    assert told.detail
    assert "Ann" not in told.detail
    assert len(rig.table.stores[0]) == 3
    await arrive(rig, "ann", start=60)
    assert len(rig.app.durable_producer.outputs) == 1, "once"


async def test_who_starts_anew_has_refused_consent_until_they_give_it_again(tmp_path: Path) -> None:
    rig = await worker(tmp_path, {b"ann": GARBAGE})
    await arrive(rig, "ann")
    assert (row(rig, b"ann").consent, row(rig, b"ann").consent_ms) == (0, 1_000_000)


async def test_nothing_takes_the_place_of_a_bad_row_before_its_bytes_are_kept(tmp_path: Path) -> None:
    rig = await worker(tmp_path, {b"ann": GARBAGE})
    rig.app.durable_producer.fail = {"outputs"}
    with pytest.raises(ConnectionError):
        await arrive(rig, "ann")
    assert rig.app.durable_producer.changelog == []


async def test_a_store_with_a_bad_row_is_first_rebuilt_from_the_changelog(tmp_path: Path) -> None:
    rig = await worker(tmp_path, {b"ann": GARBAGE}, rebuilt=False)
    with pytest.raises(Died):
        await arrive(rig, "ann")
    assert "the next start rebuilds the store from changelog" in rig.app.died[0]
    assert rig.app.durable_producer.outputs == []
    rig.table.close_partition(0)
    store = rig.table._open(0)
    assert (store.next_offset, len(store)) == (0, 0)
    rig.table._keep(0, store)
    assert rig.table.rebuilt == {0}
    rig.table.close_partition(0)
    rig.table._open(0)  # the doubt was for once


@pytest.mark.parametrize("version", [ROW_VERSION + 1, ROW_VERSION + 2])
async def test_a_row_of_a_newer_version_stays_and_the_worker_does_not(tmp_path: Path, version: int) -> None:
    newer = bytes([version]) + encode_profile(Profile())[1:]
    rig = await worker(tmp_path, {b"ann": newer})
    with pytest.raises(BadRow, match=f"row version {version}"):
        await arrive(rig, "ann")
    assert (rig.app.durable_producer.outputs, rig.app.durable_producer.changelog) == ([], [])


@pytest.mark.parametrize("raw", [b"", b"{}", b"\x03\x00"])
async def test_a_header_that_cannot_be_read_is_damage_to_a_store_and_passed_by_in_one_from_the_changelog(
    tmp_path: Path, raw: bytes
) -> None:
    rig = await worker(tmp_path, {b"ann": raw})
    await arrive(rig, "ann")
    assert (row(rig, b"ann").events, len(rig.app.durable_producer.outputs)) == (1, 1)
    rig.table.stores[0].write([(b"bob", raw)], added=1, next_offset=41)
    rig.table.rebuilt.clear()
    with pytest.raises(StoreDamaged, match="not a profile row"):
        rig.table.stores[0].scan(lambda page: rig.engine.visit(0, page))


async def test_a_timer_of_a_bad_row_buries_it(tmp_path: Path) -> None:
    due = encode_profile(Profile(timers=[Timer(1000, 1)], device="phone"))[:-3]
    rig = await worker(tmp_path, {b"ann": due})
    assert await rig.engine.tick() == 1
    await rig.settled()
    assert (row(rig, b"ann").timers, len(rig.app.durable_producer.outputs)) == ([], 1)


async def test_an_erased_users_mark_stays_one(tmp_path: Path) -> None:
    place = mark_key(SUBJECTS, b"ann")
    rig = await worker(tmp_path, {place: GARBAGE})
    await arrive(rig, "ann")
    assert row(rig, place).erased_ms == 1_000_000
    assert rig.table.get_many(0, [b"ann"]) == [None]
    assert len(rig.app.durable_producer.outputs) == 1


@pytest.mark.parametrize("name", [b"name", b"Ann"])
async def test_what_is_found_only_when_somebody_asks_for_it_is_found_all_the_same(tmp_path: Path, name: bytes) -> None:
    """Traits stay encoded until an event asks for them: here one that is not the user's first."""
    bad = ANN.replace(name, b"\xff" * len(name))
    assert decode_profile(bad).offset == 3
    rig = await worker(tmp_path, {b"ann": bad, b"bob": encode_profile(Profile(offset=7, events=4))})
    await arrive(rig, "ann", "bob")
    assert rig.app.durable_producer.outputs == []
    batch = rig.batch(("bob", ""), ("ann", ""), start=60)
    batch.records = [record(track("View", 0, "bob"), 60), record(identify(0, "ann", plan="pro"), 61)]
    await rig.engine.submit(batch)
    await rig.settled()
    (letter,) = rig.app.durable_producer.outputs
    assert (letter.key, dict(letter.headers)["nudge_reason"]) == (b"ann", b"bad_row")
    assert (row(rig, b"bob").events, row(rig, b"bob").offset) == (6, 60)
    assert (row(rig, b"ann").traits, row(rig, b"ann").consent) == ({"plan": "pro"}, 0)


async def test_a_timer_whose_bad_row_cannot_be_buried_ends_the_process_and_holds_nothing_up_for_ever(
    tmp_path: Path,
) -> None:
    """Whoever asked for the turn may take a broker's refusal for a reason to try again, with changed rows in memory."""
    rig = await worker(tmp_path, {b"ann": GARBAGE})
    rig.app.durable_producer.fail.add("outputs")
    with pytest.raises(Died):
        await rig.engine.adjust(0, [b"ann"])
    assert "rows could not be changed" in rig.app.died[-1]
