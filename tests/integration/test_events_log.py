"""What stands in `events` on Apache Kafka: transactions of producers, and a topic that was made anew under its rows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from app.core.profile import decode_profile
from app.operate import lift as lifting
from app.topics import create_topics
from schemas.events import Event, encode_event
from schemas.topics import EVENTS, PROFILES_CHANGELOG
from tests.support.site import Site, eventually

pytestmark = pytest.mark.kafka


@pytest.fixture
async def site(kafka: str, tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(kafka, tmp_path, real=True)
    await made.start()
    yield made
    await made.stop()


def view(user: str, number: int) -> Event:
    now_ms = time.time_ns() // 1_000_000
    return Event(type="track", event="Product Viewed", user_id=user, message_id=f"m{number}", timestamp=now_ms)


def applied(site: Site, worker: object) -> float:
    return site.metric(worker, "nudge_events_total", topic="events", outcome="applied")  # type: ignore[arg-type]


async def views(site: Site) -> dict[str, int]:
    """Events of each user's row."""
    newest = {record.key: record.value for record in await site.records(PROFILES_CHANGELOG)}
    return {key.decode(): decode_profile(raw).events for key, raw in newest.items() if raw is not None}


async def test_events_of_aborted_transactions_are_not_folded_and_the_lag_reaches_zero(site: Site) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=site.bootstrap, transactional_id=f"shop-{site.run}")
    await producer.start()

    async def transaction(users: list[str], *, commit: bool) -> None:
        await producer.begin_transaction()
        for number, user in enumerate(users):
            raw = encode_event(view(user, number))
            await producer.send(EVENTS, raw, key=user.encode(), partition=int(user[1:]) % site.partitions)
        await (producer.commit_transaction() if commit else producer.abort_transaction())

    def lag() -> list[float]:
        partitions = [str(partition) for partition in range(site.partitions)]
        return [site.metric(worker, "nudge_consumer_lag_records", topic="events", partition=p) for p in partitions]

    async def settled() -> bool:
        return applied(site, worker) == 8 and lag() == [0.0, 0.0]

    try:
        with site.worker() as worker:
            await site.ready(worker)
            await transaction(["u0", "u1", "u2", "u3"], commit=True)
            await transaction(["u0", "u1", "u4", "u5"], commit=False)
            await transaction(["u2", "u3", "u6", "u7"], commit=True)
            await transaction(["u8", "u9"], commit=False)
            await eventually(settled, "what was committed is folded, and nothing waits behind the last markers")
            await site.happen([view("u0", 10)])  # the reader has passed the markers
            await producer.begin_transaction()
            await producer.send_and_wait(EVENTS, encode_event(view("u9", 1)), key=b"u9", partition=1)
            await site.happen([view("u1", 11)])

            async def held_back() -> bool:
                return applied(site, worker) == 9 and lag() == [0.0, 2.0]

            await eventually(held_back, "nothing is read behind an open transaction, and the lag says so")
            await producer.abort_transaction()

            async def over() -> bool:
                return applied(site, worker) == 10 and lag() == [0.0, 0.0]

            await eventually(over, "the event behind it is folded")
            await asyncio.to_thread(worker.stop)
            assert worker.returncode == 0, worker.log_tail()
    finally:
        await producer.stop()
    assert await views(site) == {"u0": 2, "u1": 2, "u2": 2, "u3": 2, "u6": 1, "u7": 1}


async def make_anew(site: Site) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=site.bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([EVENTS])

        async def gone() -> bool:
            return EVENTS not in await admin.list_topics()

        await eventually(gone, "the topic is deleted")
    finally:
        await admin.close()
    await create_topics(site.bootstrap, site.partitions, 1)


async def fold_and_end(site: Site, number: int) -> None:
    with site.worker() as worker:
        await site.ready(worker)

        async def done() -> bool:
            return applied(site, worker) == number

        await eventually(done, "all is folded")
        await asyncio.to_thread(worker.stop)
        assert worker.returncode == 0, worker.log_tail()


async def refuses(site: Site) -> None:
    with site.worker() as worker:

        async def ended() -> bool:
            return worker.returncode is not None

        await eventually(ended, "the worker ends")
        assert worker.returncode == 70
        assert "is not the log that the rows were folded from" in site.log(worker)


async def lift(site: Site, *options: str) -> None:
    async def lifted() -> bool:
        """Once the group has let the worker go."""
        return (await site.command("topics", "lift", "--yes", *options)).returncode == 0

    await eventually(lifted, "the topic is lifted")
    assert "there is nothing to do" in (await site.command("topics", "lift", "--yes")).stdout


async def test_of_a_log_that_lost_its_end_the_rest_is_not_folded_again_and_what_follows_is(site: Site) -> None:
    """40 events are more than the 32 ids that a row remembers: what is read twice would count twice."""
    kept = [*(view(f"u{n}", number) for number in range(40) for n in (2, 3)), view("u0", 0), view("u1", 0)]
    lost = [view(f"u{n}", number) for number in range(40, 50) for n in (2, 3)]
    await site.happen([*kept, *lost])
    await fold_and_end(site, 102)
    await make_anew(site)
    await site.happen(kept)
    await site.happen([view(f"u{n}", 100) for n in range(4)])
    await refuses(site)
    await lift(site)
    await site.happen([view(f"u{n}", 101) for n in range(4)])
    await fold_and_end(site, 8)
    assert await views(site) == {"u0": 3, "u1": 3, "u2": 52, "u3": 52}


async def test_in_a_mirrored_log_what_rows_have_folded_is_not_folded_again_also_after_an_interruption(
    site: Site,
) -> None:
    users = [f"u{n}" for n in range(4)]
    old = [view(user, number) for number in range(50) for user in users]
    await site.happen(old)
    await fold_and_end(site, 200)
    await make_anew(site)
    await site.happen(old[40:])
    await site.happen([view(user, 100) for user in users])
    await refuses(site)
    told = await site.command("topics", "lift")
    assert told.stdout.count("say --mirrored") == site.partitions
    settings, group = {"bootstrap_servers": site.bootstrap}, f"worker-{site.run}"

    def interrupted(_offsets: int) -> None:
        raise InterruptedError

    async def empty() -> bool:
        return await lifting.members(settings, group) == 0

    await eventually(empty, "the group has let the worker go")
    for what in await lifting.examine(settings, group, mirrored=True):
        with pytest.raises(InterruptedError):
            await lifting.lift(settings, what, group, interrupted)
    await lift(site)
    await fold_and_end(site, 4)
    assert await views(site) == dict.fromkeys(users, 51)


async def test_after_events_was_made_anew_a_worker_ends_before_it_loses_any_and_goes_on_once_it_was_lifted(
    site: Site,
) -> None:
    users = [f"u{n}" for n in range(4)]
    await site.happen([view(user, number) for number in range(10) for user in users])
    with site.worker() as worker:
        await site.ready(worker)

        async def done() -> bool:
            return applied(site, worker) == 40

        await eventually(done, "all is folded")
        await asyncio.to_thread(worker.stop)
    await make_anew(site)
    await site.happen([view(user, 100) for user in users])
    with site.worker() as worker:

        async def ended() -> bool:
            return worker.returncode is not None

        await eventually(ended, "the worker ends")
        assert worker.returncode == 70
        assert "is not the log that the rows were folded from" in site.log(worker)
        assert "nudge topics lift" in site.log(worker)
    assert await views(site) == dict.fromkeys(users, 10)

    async def lifted() -> bool:
        """Once the group has let the worker go."""
        return (await site.command("topics", "lift", "--yes")).returncode == 0

    await eventually(lifted, "the topic is lifted")
    again_lifted = await site.command("topics", "lift", "--yes")
    assert "there is nothing to do" in again_lifted.stdout
    await site.happen([view(user, 101) for user in users])
    with site.worker() as worker:
        await site.ready(worker)

        async def again() -> bool:
            return applied(site, worker) == 8

        await eventually(again, "the events of the new topic are folded, those from before it was lifted too")
        await asyncio.to_thread(worker.stop)
        assert worker.returncode == 0, worker.log_tail()
    assert await views(site) == dict.fromkeys(users, 12)
