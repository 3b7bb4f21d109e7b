"""From one worker to three and back to one: the rows are, byte by byte, those of a single worker that saw it all."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec

from app.core.profile import decode_profile
from app.embedded import EmbeddedBroker
from schemas.topics import EVENTS, PROFILES_CHANGELOG
from tests.chaos.harness import applied, at_work, feeding, verdict
from tests.support.oracle import state_of
from tests.support.site import Site


async def run(site: Site, *, seed: int = 1, phase_s: float = 8.0, rate: int = 400) -> dict[str, Any]:
    """Each of the three phases lasts `phase_s` under load; then one worker folds the same log on another broker."""
    with contextlib.ExitStack() as stack:
        stay = stack.enter_context(site.worker("stay"))
        await site.ready(stay)
        async with feeding(site, seed, rate) as feed:
            await at_work(site, stay)
            await asyncio.sleep(phase_s)
            guests = [stack.enter_context(site.worker(f"guest-{number}")) for number in range(2)]
            for guest in guests:
                await site.ready(guest)
            await asyncio.sleep(phase_s)
            by_guests = [int(await applied(site, guest)) for guest in guests]
            for guest in guests:
                await asyncio.to_thread(guest.stop, 20.0)
            await asyncio.sleep(phase_s)
        found = await verdict(site, [stay])
        await asyncio.to_thread(stay.stop, 20.0)
    events, rows = await site.records(EVENTS), await _rows(site)
    alone = await _one_worker(site, events)
    return {
        "seed": seed, "events": feed.fed, "events_of_the_guests": by_guests, "rows": len(rows),
        "rows_not_byte_equal": sum(rows.get(key) != alone.get(key) for key in rows.keys() | alone.keys()),
        "fired": int(min(by_guests) > 0), **found,
    }  # fmt: skip


async def _one_worker(site: Site, events: list[Any]) -> dict[bytes, bytes]:
    """The rows that a single worker makes of the same records at the same offsets."""
    folder = site.directory / "alone"
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        # The embedded broker deletes no records, so it has to be another one; Kafka's topics are made anew.
        bootstrap = site.bootstrap if site.real else stack.enter_context(EmbeddedBroker()).bootstrap
        other = Site(bootstrap, folder, real=site.real, partitions=site.partitions)
        await other.start()
        try:
            for record in events:
                await other.repeat(record)
            await other.flush()
            with other.worker("alone") as worker:
                await other.ready(worker)
                await verdict(other, [worker])
                return await _rows(other)
        finally:
            await other.stop()


async def _rows(site: Site) -> dict[bytes, bytes]:
    """By key: the newest row without what depends on the moment of processing, encoded."""
    newest = {record.key: record.value for record in await site.records(PROFILES_CHANGELOG)}
    encode = msgspec.msgpack.Encoder().encode
    return {key: encode(state_of(decode_profile(value))) for key, value in newest.items() if value is not None}
