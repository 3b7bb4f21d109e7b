"""What stands on disk and in the changelog when users are erased and come back."""

from __future__ import annotations

from pathlib import Path

import msgspec

from app.core.erasure import TIDY_MS, is_mark, mark_key
from app.core.processor import Processor
from app.core.profile import decode_profile
from schemas.erasures import Subjects
from schemas.events import Event, encode_event
from schemas.topics import DECISIONS, ERASURES
from tests.support.engine import Rig, make_rig
from tests.support.plans import FixedScorer, campaign, campaign_only, make_plan, on_event

SUBJECTS = Subjects(b"a secret of the tests")
USER = "canary-1"
START = 1_772_442_000_000


async def rig_at(path: Path, committed: int = 0) -> Rig:
    plan = make_plan(campaigns=[campaign("hello", on_event("Order Completed"))])
    processor = Processor(plan, FixedScorer(), campaign_only, SUBJECTS)
    rig = await make_rig(path, committed=committed, processor=processor, subjects=SUBJECTS)
    rig.now_ms = START
    return rig


def happens(name: str, user: str = USER, at_ms: int = START) -> tuple[str, str]:
    event = Event(type="track", event=name, user_id=user, timestamp=at_ms)
    return user, encode_event(event).decode()


def erased(user: str = USER) -> tuple[str, str]:
    return user, encode_event(SUBJECTS.request(user, "r1")).decode()


def stored(rig: Rig) -> dict[bytes, bytes]:
    """Everything in the store, which must agree with its own count."""
    found: dict[bytes, bytes] = {}
    rig.table.stores[0].scan(found.update)
    return found


async def test_the_row_goes_and_the_mark_comes_in_store_and_changelog(tmp_path: Path) -> None:
    rig = await rig_at(tmp_path)
    await rig.engine.submit(rig.batch(happens("Seen"), happens("Seen", "other-2"), start=0))
    await rig.engine.submit(rig.batch(erased(), start=2))
    await rig.settled()
    mark = mark_key(SUBJECTS, USER.encode())
    assert set(stored(rig)) == {b"other-2", mark}
    assert len(rig.table.stores[0]) == 2
    newest = {key: value for _, key, value in rig.app.durable_producer.changelog}
    assert newest[USER.encode()] is None
    assert newest[mark] == stored(rig)[mark]


async def test_born_and_erased_in_one_batch_counts_as_one_mark(tmp_path: Path) -> None:
    rig = await rig_at(tmp_path)
    many = [happens("Seen", f"u{n}") for n in range(100)]
    await rig.engine.submit(rig.batch(happens("Order Completed"), *many, erased(), erased("nobody-9"), start=0))
    await rig.settled()
    assert len(stored(rig)) == len(rig.table.stores[0]) == 102
    assert sum(map(is_mark, stored(rig))) == 2


async def test_the_log_read_again_from_its_beginning_brings_nobody_back(tmp_path: Path) -> None:
    log = [happens("Order Completed"), happens("Seen", "other-2"), erased()]
    rig = await rig_at(tmp_path)
    await rig.engine.submit(rig.batch(*log, start=0))
    await rig.settled()
    before = stored(rig)
    rig.table.close_partition(0)
    again = await rig_at(tmp_path, committed=3)
    await again.engine.submit(again.batch(*log, start=0))
    await again.engine.submit(again.batch(happens("Order Completed"), start=3))
    await again.settled()
    assert stored(again) == before
    assert [output.topic for output in again.app.durable_producer.outputs] == []


async def test_a_crash_before_the_outputs_left_publishes_the_receipt_from_the_mark(tmp_path: Path) -> None:
    rig = await rig_at(tmp_path)
    await rig.engine.submit(rig.batch(happens("Seen"), erased(), start=0))
    await rig.settled()
    rig.table.close_partition(0)
    again = await rig_at(tmp_path, committed=0)
    assert {output.topic for output in again.app.durable_producer.outputs} == {DECISIONS, ERASURES}


async def test_the_mark_forgets_the_name_when_its_outputs_are_acknowledged(tmp_path: Path) -> None:
    rig = await rig_at(tmp_path)
    await rig.engine.submit(rig.batch(happens("Order Completed"), erased(), start=0))
    await rig.settled()
    mark = mark_key(SUBJECTS, USER.encode())
    assert USER.encode() in stored(rig)[mark], "it owes records that name the user"
    rig.now_ms = START + TIDY_MS + 2000
    await rig.engine.tick()
    await rig.settled()
    assert USER.encode() not in stored(rig)[mark]
    assert decode_profile(stored(rig)[mark]).erased_ms == START
    assert len(stored(rig)) == 1


async def test_a_user_who_comes_back_has_a_row_and_no_mark_until_erased_again(tmp_path: Path) -> None:
    rig = await rig_at(tmp_path)
    await rig.engine.submit(rig.batch(happens("Seen"), erased(), start=0))
    await rig.settled()
    rig.now_ms = START + TIDY_MS + 2000
    await rig.engine.tick()  # the mark is in the cache now
    await rig.engine.submit(rig.batch(happens("Notifications Enabled", at_ms=rig.now_ms), start=2))
    await rig.settled()
    assert set(stored(rig)) == {USER.encode()}
    rig.now_ms += 2 * TIDY_MS
    await rig.engine.tick()
    await rig.engine.submit(rig.batch(erased(), happens("Seen", at_ms=rig.now_ms), start=3))
    await rig.settled()
    assert set(stored(rig)) == {mark_key(SUBJECTS, USER.encode())}
    assert len(rig.table.stores[0]) == 1


async def test_the_bytes_leave_the_disk_with_the_next_compaction(tmp_path: Path) -> None:
    rig = await rig_at(tmp_path)
    rich = msgspec.json.encode({"type": "identify", "userId": USER, "traits": {"email": "canary@example.org"}}).decode()
    await rig.engine.submit(rig.batch((USER, rich), *(happens("Seen", f"u{n}") for n in range(50)), start=0))
    await rig.settled()
    rig.table.stores[0].flush()
    assert _holding(tmp_path, b"canary")
    await rig.engine.submit(rig.batch(erased(), start=51))
    await rig.settled()
    rig.now_ms = START + TIDY_MS + 2000
    await rig.engine.tick()
    await rig.settled()
    rig.table.stores[0].compact()
    rig.table.close_partition(0)
    await rig_at(tmp_path, committed=52)  # opening writes a new manifest, which names no old boundary
    assert _holding(tmp_path, b"canary") == []


def _holding(path: Path, text: bytes) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file() and text in file.read_bytes()]
