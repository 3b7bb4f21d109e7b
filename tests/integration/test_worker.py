"""The worker as a process on a broker: events in, rows and decisions out, stopped and started on the way."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from app.core.profile import decode_profile
from app.embedded import EmbeddedBroker, free_port
from schemas.dead_letters import BYTES_MAX
from schemas.decisions import decode_decision
from schemas.events import Event
from schemas.topics import DEAD_LETTERS, DECISIONS, EVENTS, PROFILES_CHANGELOG, SEGMENTS
from tests.support.crowd import crowd
from tests.support.oracle import compare, oracle
from tests.support.site import POLICIES, Site, eventually

pytestmark = pytest.mark.broker

ECHO = POLICIES / "echo.yaml"


def track(name: str, user: str, number: int, **properties: object) -> Event:
    now_ms = time.time_ns() // 1_000_000
    return Event(
        type="track", event=name, user_id=user, message_id=f"m{number}", timestamp=now_ms, properties=properties
    )


async def processed(site: Site, child: object, count: int) -> None:
    """Wait until the worker has given `count` records a fate."""

    async def done() -> bool:
        fates = ("applied", "late", "duplicate", "replayed", "rejected")
        return sum(site.metric(child, "nudge_events_total", topic="events", outcome=fate) for fate in fates) >= count  # type: ignore[arg-type]

    await eventually(done, f"{count} records are processed")


async def test_events_are_folded_and_poison_is_buried_with_reason_and_place(site: Site) -> None:
    for user, value in crowd(3000, users=300, seed=1, poison_every=50):
        await site.put(EVENTS, user, value)
    await site.flush()
    with site.worker() as worker:
        await site.ready(worker)
        await processed(site, worker, 3000)
        await asyncio.to_thread(worker.stop)
        assert worker.returncode == 0, worker.log_tail()
    truth = oracle(await site.records(EVENTS), ECHO, time.time_ns() // 1_000_000)
    difference = await compare(site, truth)
    assert difference.total() == 0, difference
    buried = await site.read(DEAD_LETTERS)
    assert len(buried) == 60
    assert all(headers["nudge_reason"] and headers["nudge_topic"] == b"events" for *_, headers in buried)


async def test_a_restarted_worker_goes_on_where_it_stopped(site: Site) -> None:
    for turn in (1, 2):
        for user, value in crowd(1000, users=50, seed=turn):
            await site.put(EVENTS, user, value)
        await site.flush()
        with site.worker() as worker:
            await site.ready(worker)
            await processed(site, worker, 1000)
            assert site.metric(worker, "nudge_events_total", topic="events", outcome="replayed") == 0
            await asyncio.to_thread(worker.stop)
            assert worker.returncode == 0, worker.log_tail()
    truth = oracle(await site.records(EVENTS), ECHO, time.time_ns() // 1_000_000)
    assert (await compare(site, truth)).total() == 0


async def test_a_user_who_becomes_known_keeps_what_they_did_before(site: Site) -> None:
    pairs = [(f"anonymous-{n}", f"kim-{n}") for n in range(8)]  # the two of a pair are in different partitions, mostly
    before = [track("Product Viewed", old, n) for n, (old, _new) in enumerate(pairs)]
    aliases = [Event(type="alias", user_id=new, previous_id=old, message_id=f"alias-{new}") for old, new in pairs]
    after = [track("Product Viewed", old, 100 + n) for n, (old, _new) in enumerate(pairs)]
    with site.worker() as worker:
        await site.ready(worker)
        await site.happen_by_key(before)
        await processed(site, worker, len(before))
        await site.happen_by_key(aliases)

        async def merged() -> bool:
            return site.metric(worker, "nudge_merges_total", step="absorbed") == len(pairs)

        await eventually(merged, "the rows are merged")
        await site.happen_by_key(after)

        async def forwarded() -> bool:
            fates = ("applied", "forwarded")
            found = [site.metric(worker, "nudge_events_total", topic="events", outcome=fate) for fate in fates]
            return found == [5 * len(pairs), len(pairs)]

        await eventually(forwarded, "what the old ids do is passed on")
        await asyncio.to_thread(worker.stop)
        assert worker.returncode == 0, worker.log_tail()
    newest = {record.key: record.value for record in await site.records(PROFILES_CHANGELOG)}
    for old, new in pairs:
        assert decode_profile(newest[old.encode()]).merged_into == new
        assert next(iter(decode_profile(newest[new.encode()]).features.values()))[0] == 2


async def test_a_worker_with_an_empty_disk_restores_its_rows_from_the_changelog(site: Site) -> None:
    events = [track("Product Viewed", f"u{n % 20}", n) for n in range(100)]
    await site.happen(events)
    with site.worker("first") as worker:
        await site.ready(worker)
        await processed(site, worker, 100)
        await asyncio.to_thread(worker.stop)
    await site.happen([track("Order Completed", f"u{n}", 1000 + n, revenue=60) for n in range(20)])
    with site.worker("second") as worker:
        await site.ready(worker)
        await processed(site, worker, 20)
        assert site.metric(worker, "nudge_segment_members", segment="busy") == 20
        assert site.metric(worker, "nudge_segment_members", segment="spender") == 20
    truth = oracle(await site.records(EVENTS), ECHO, time.time_ns() // 1_000_000)
    assert (await compare(site, truth)).total() == 0


async def test_partitions_move_to_a_second_worker_and_back_without_a_trace(site: Site) -> None:
    records = list(crowd(4000, users=200, seed=3))

    async def feed(part: list[tuple[str, bytes]]) -> None:
        for user, value in part:
            await site.put(EVENTS, user, value)
        await site.flush()

    async def folded(count: int) -> bool:
        rows = await compare(site, oracle(await site.records(EVENTS), ECHO, time.time_ns() // 1_000_000))
        return rows.lost == 0 and count > 0

    with site.worker("one") as one:
        await site.ready(one)
        await feed(records[:1000])
        with site.worker("two") as two:
            await feed(records[1000:2000])
            await site.ready(two)
            await feed(records[2000:3000])
            await asyncio.to_thread(two.stop)
            assert two.returncode == 0, two.log_tail()
        await feed(records[3000:])

        async def done() -> bool:
            return await folded(len(records))

        await eventually(done, "all events are folded", 90)
    truth = oracle(await site.records(EVENTS), ECHO, time.time_ns() // 1_000_000)
    difference = await compare(site, truth)
    assert difference.total() == 0, difference


async def test_decisions_and_membership_changes_carry_what_a_reader_needs(site: Site) -> None:
    await site.happen([track("Order Completed", "u7", 1, order_id="A-17", revenue=75.0)])
    with site.worker() as worker:
        await site.ready(worker)
        await processed(site, worker, 1)

        async def decided() -> bool:
            return len(await site.records(DECISIONS)) == 1

        await eventually(decided, "a decision is made")
        assert site.metric(worker, "nudge_decisions_total", decision="send", reason="") == 1
    [record] = await site.records(DECISIONS)
    decision, headers = decode_decision(record.value), dict(record.headers)
    assert (record.key, decision.user, decision.campaign) == (b"u7", "u7", "thanks")
    assert decision.content is not None
    assert decision.content.body == "Order A-17"
    assert 0 < decision.open_probability < 1
    assert decision.policy_version.startswith("1+")
    assert headers["ce_id"].decode() == decision.id
    assert headers["ce_type"] == b"dev.nudge.decision.v1"
    assert {value for _, _, value, _ in await site.read(SEGMENTS) if value and b'"enter"' in value}


async def test_without_a_broker_the_worker_lives_says_why_and_is_not_ready(tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    site = Site(nobody, tmp_path, real=False)
    with site.worker() as worker:

        async def alive() -> bool:
            return site.status(worker, "/livez") == 200

        await eventually(alive, "the worker answers")

        async def told() -> bool:
            return nobody in site.get(worker, "/readyz")[1]

        await eventually(told, "readiness names the address")
        assert site.status(worker) == 503
        assert worker.returncode is None


async def test_a_broken_policy_stops_the_worker_at_start_with_the_place(tmp_path: Path) -> None:
    site = Site("127.0.0.1:1", tmp_path, real=False)
    broken = site.directory / "broken.yaml"
    broken.write_text("version: 1\nname: broken\nsegments:\n  - name: x\n    when: cuont('A', '7d') > 1\n")
    with site.process("worker", NUDGE_POLICY=str(broken)) as worker:

        async def ended() -> bool:
            return worker.returncode is not None

        await eventually(ended, "the worker refuses to start")
        assert worker.returncode == 2
        assert "broken.yaml:5:" in worker.log_tail()
        assert "did you mean" in worker.log_tail()


async def test_a_record_of_two_megabytes_is_buried_and_its_neighbours_are_folded(
    embedded: EmbeddedBroker, tmp_path: Path
) -> None:
    # Apache Kafka refuses such a record at the producer, as it is configured by default; this broker takes it.
    site = Site(embedded.bootstrap, tmp_path, real=False)
    await site.start()
    huge = b'{"type":"track","event":"X","userId":"u1","properties":{"x":"' + b"y" * 2_000_000 + b'"}}'
    large = AIOKafkaProducer(bootstrap_servers=site.bootstrap, max_request_size=4_000_000)
    await large.start()
    await site.happen([track("Product Viewed", "u1", 1)])
    await large.send_and_wait(EVENTS, huge, key=b"u1", partition=1)
    await large.stop()
    await site.happen([track("Product Viewed", "u1", 2)])
    with site.worker() as worker:
        await site.ready(worker)
        await processed(site, worker, 3)
        assert site.metric(worker, "nudge_dead_letter_records_total", topic="events", reason="too_large") == 1
        await asyncio.to_thread(worker.stop)
        assert worker.returncode == 0, worker.log_tail()
    await site.stop()
    [(_, key, value, headers)] = await site.read(DEAD_LETTERS)
    assert (key, len(value or b""), headers["nudge_bytes"]) == (b"u1", BYTES_MAX, str(len(huge)).encode())
    [row] = [decode_profile(record.value) for record in (await site.records(PROFILES_CHANGELOG))[-1:]]
    assert row.events == 2
