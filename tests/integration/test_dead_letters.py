"""Dead letters on a broker: listed, shown, given back once."""

from __future__ import annotations

import json

import pytest

from app.operate.dead_letters import REPLAY_HEADER
from schemas.events import Event, encode_event
from schemas.topics import DEAD_LETTERS, EVENTS
from tests.integration.test_worker import processed
from tests.support.site import POLICIES, Site, eventually

pytestmark = pytest.mark.broker


async def test_a_letter_is_listed_shown_and_given_back_once(site: Site) -> None:
    ahead = encode_event(Event(type="track", event="Seen", user_id="u1", timestamp=4_102_444_800_000))
    await site.put(EVENTS, "u1", ahead)
    await site.put(EVENTS, "u2", b"{ canary")
    await site.flush()
    with site.worker() as worker:
        await site.ready(worker)
        await processed(site, worker, 2)

        async def buried() -> bool:
            return len(await site.records(DEAD_LETTERS)) == 2

        await eventually(buried, "both are dead letters")
        listed = await site.command("dead-letters", "list", "--json")
        found = json.loads(listed.stdout)
        assert {(count["reason"], count["count"]) for count in found["counts"]} == {
            ("timestamp_in_future", 1),
            ("malformed_json", 1),
        }
        assert "canary" not in listed.stdout
        [place] = [letter["letter"] for letter in found["letters"] if letter["reason"] == "timestamp_in_future"]
        shown = await site.command("dead-letters", "show", place)
        assert ahead.decode() in shown.stdout
        tried = await site.command("dead-letters", "replay", place, "--dry-run")
        assert "would be replayed to events 1-0" in tried.stdout
        done = await site.command("dead-letters", "replay", place)
        assert "1 replayed" in done.stdout, done.stderr
        await processed(site, worker, 3)
        again = await site.command("dead-letters", "replay", place)
        assert (again.returncode, "replayed before" in again.stdout) == (1, True)
    [given_back] = [record for record in await site.records(EVENTS) if REPLAY_HEADER in dict(record.headers)]
    assert (given_back.partition, given_back.key, given_back.value) == (1, b"u1", ahead)
    assert dict(given_back.headers)[REPLAY_HEADER] == f"dead-letters/{place}".encode()


async def test_the_doctor_finds_a_healthy_site_well_and_a_wrong_setting_with_its_mend(site: Site) -> None:
    await site.happen([Event(type="track", event="Seen", user_id="u1")])
    ours = {"NUDGE_HTTP_PORT": "0", "NUDGE_POLICY": str(POLICIES / "echo.yaml")}
    well = await site.command("doctor", "--json", **ours)
    found = {(each["check"], each["status"]) for each in json.loads(well.stdout)}
    assert well.returncode == 0, well.stdout
    assert {("broker", "ok"), ("clock", "ok"), ("models", "ok")} <= found
    wrong = await site.command("doctor", **ours, NUDGE_PARTITIONS="7")
    assert wrong.returncode == 1
    assert "2 partitions; expected 7" in wrong.stdout
    assert "NUDGE_PARTITIONS" in wrong.stdout
    told = await site.command("topics", "check", NUDGE_PARTITIONS="7")
    assert told.returncode == 1
    assert "events: 2 partitions; expected 7\n  → delete and create it, or give NUDGE_PARTITIONS" in told.stdout
