"""Damaged files of a row store: noticed at the next start, and rebuilt from the changelog."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from schemas.topics import MODELS
from tests.chaos.harness import applied, at_work, put, verdict
from tests.support.crowd import crowd
from tests.support.site import Site, eventually

VICTIMS = ("*.sst", "MANIFEST-*", "CURRENT")


async def run(site: Site, *, seed: int = 1, events: int = 2000) -> dict[str, Any]:
    """Fold, stop, damage one kind of file of each store, start again: once for each kind. Then a false snapshot."""
    damaged, told = 0, 0
    for turn, pattern in enumerate(VICTIMS):
        with site.worker("disk") as worker:
            await site.ready(worker)
            await put(site, crowd(events, users=300, seed=seed * 10 + turn))
            await at_work(site, worker, events // 2)
            found = await verdict(site, [worker])
            await asyncio.to_thread(worker.stop)
        for path in sorted((site.directory / "disk").rglob(pattern)):
            damaged += _damage(path)
        with site.worker("disk") as worker:
            await site.ready(worker)
            told += "store_damaged" in worker.log_tail()
            await put(site, crowd(200, users=300, seed=seed * 100 + turn))
            found = await verdict(site, [worker])
            await asyncio.to_thread(worker.stop)
    rejected = await _false_snapshot(site)
    return {
        "seed": seed, "files_damaged": damaged, "starts_that_said_so": told, "snapshots_rejected": rejected,
        "fired": int(damaged > 0), **found,
    }  # fmt: skip


async def _false_snapshot(site: Site) -> int:
    with site.worker("disk") as worker:
        await site.ready(worker)
        await site.put(MODELS, "u0", b'{"model":"open","version":9,"signature":"false"}', key=b"open")
        await site.flush()

        async def rejected() -> bool:
            return "snapshot_rejected" in worker.log_tail()

        await eventually(rejected, "the snapshot is rejected", 30)
        assert await applied(site, worker) >= 0
        assert worker.returncode is None
    return 1


def _damage(path: Path) -> int:
    """Flip sixteen bytes in the middle; returns 1 when the file was long enough to be damaged."""
    raw = bytearray(path.read_bytes())
    if not raw:
        return 0
    for at in range(len(raw) // 2, min(len(raw), len(raw) // 2 + 16)):
        raw[at] ^= 0xFF
    path.write_bytes(raw)
    return 1
