"""What a sender reads of `events` at its start: what came since, not everything, and everything in doubt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from app.sender.since import Since
from app.stream.commits import Commit, decode_note, encode_note, look, read_commits, write_commit
from schemas.events import NOTIFICATIONS_DISABLED, Event
from schemas.topics import DECISIONS, EVENTS
from tests.support.sender import decision
from tests.support.site import Site, eventually


@pytest.fixture
async def real(kafka: str, tmp_path: Path) -> AsyncIterator[Site]:
    """A site on Apache Kafka: the embedded broker forgets what a commit carries."""
    made = Site(kafka, tmp_path, real=True)
    await made.start()
    yield made
    await made.stop()


def events(count: int) -> list[Event]:
    return [Event(type="track", event="Product Viewed", user_id="u0", message_id=f"m{n}") for n in range(count)]


async def commit(site: Site, group: str, topic: str, offset: int, note: str = "") -> None:
    await write_commit({"bootstrap_servers": site.bootstrap}, group, topic, 0, Commit(offset, note))


async def since(site: Site, newest: int = 0, done: Mapping[int, int] | None = None, group: str = "") -> Since:
    """The sender's, after it has read `events` up to the record `newest`."""
    settings = {"bootstrap_servers": site.bootstrap}
    record = (await look(settings, EVENTS, {0: newest}))[0].record
    return Since(
        settings,
        workers=group or f"worker-{site.run}",
        senders=f"sender-{site.run}",
        newest=lambda: {0: record},
        done=lambda: done or {},
    )


@pytest.mark.broker
async def test_where_nothing_waits_to_be_sent_a_start_reads_what_the_workers_have_not_committed(site: Site) -> None:
    await site.happen(events(30))
    await site.decide([decision(0)])
    assert await (await since(site)).starts([0, 1]) == {}, "a first start reads everything"
    await commit(site, f"worker-{site.run}", EVENTS, 20)
    await commit(site, f"sender-{site.run}", DECISIONS, 1)
    assert await (await since(site)).starts([0, 1]) == {0: 20}
    await site.decide([decision(0)])
    assert await (await since(site)).starts([0, 1]) == {}, "it may have been decided before anything was folded"


@pytest.mark.kafka
async def test_what_a_commit_says_is_where_the_next_life_begins_and_in_doubt_everything_is_read(real: Site) -> None:
    site = real
    workers, senders = f"worker-{site.run}", f"sender-{site.run}"
    await site.happen(events(30))
    await site.decide([decision(0) for _ in range(5)])
    await commit(site, workers, EVENTS, 20)
    life = await since(site, newest=15, done={0: 4})
    await life.refresh()
    assert life.note(DECISIONS, 0, 4) == "", "what waits at 4 may be older"
    await commit(site, senders, DECISIONS, 5, note := encode_note("", life.note(DECISIONS, 0, 5)))
    await site.decide([decision(0)])
    assert await (await since(site)).starts([0, 1]) == {0: 15}
    assert await (await since(site, group="others")).starts([0, 1]) == {}
    await commit(site, workers, EVENTS, 15)
    assert await (await since(site)).starts([0, 1]) == {}, "the workers have gone back"
    await commit(site, workers, EVENTS, 20)
    other = note.replace('offset\\":15', 'offset\\":14')
    await commit(site, senders, DECISIONS, 5, other)
    assert await (await since(site)).starts([0, 1]) == {}, "another record stands there"
    await commit(site, senders, DECISIONS, 5)
    assert await (await since(site)).starts([0, 1]) == {}, "set by hand"


@pytest.mark.kafka
async def test_decisions_of_another_log_are_sent_from_its_beginning(real: Site) -> None:
    hour_ms = time.time_ns() // 1_000_000 + 3_600_000
    made = [decision(2 * n, expires_ms=hour_ms) for n in range(10)]
    await real.decide(made)
    await commit(real, f"sender-{real.run}", DECISIONS, 6, encode_note("of another log", ""))
    with real.sender() as child:
        await real.ready(child)
        await real.all_told(made)
        assert "topic_is_another" in real.log(child)
        await asyncio.to_thread(child.stop)
    with real.sender() as child:
        await real.ready(child)
        assert "topic_is_another" not in real.log(child)
    assert set(real.lines().values()) == {1}


@pytest.mark.kafka
async def test_a_sender_that_comes_back_reads_what_is_new_and_misses_no_opt_out(real: Site) -> None:
    site, hour_ms = real, time.time_ns() // 1_000_000 + 3_600_000
    made = [decision(2 * n, expires_ms=hour_ms) for n in range(200)]
    await site.happen(events(500))
    with site.sender() as child:
        await site.ready(child)
        sent = iter(made[:-10])

        async def noted() -> bool:
            await site.decide([next(sent)])
            folded = [record.offset for record in await site.records(EVENTS) if record.partition == 0]
            await commit(site, f"worker-{site.run}", EVENTS, max(folded) + 1)
            await asyncio.sleep(0.5)
            settings = {"bootstrap_servers": site.bootstrap}
            found = await read_commits(settings, f"sender-{site.run}", DECISIONS, [0])
            return any(decode_note(at.note).app for at in found.values())

        await eventually(noted, "a commit carries a mark")
        child.kill()
    late = made[-10:]
    stop = [Event(type="track", event=NOTIFICATIONS_DISABLED, user_id=late[0].user, message_id="stop")]
    await site.happen([*stop, *events(100)])
    await site.decide(late)
    with site.sender("elsewhere") as child:
        await site.ready(child)
        await site.all_told(late)
        assert "topic_is_another" not in site.log(child), "the last life's commit knows the record before it"
        assert '"read_whole": 1' in site.log(child), "partition 0 is read from the mark, partition 1 has none"
    assert (site.lines()[late[0].id], [site.lines()[each.id] for each in late[1:]]) == (0, [1] * 9)
