from __future__ import annotations

import asyncio

import pytest

from app.sender.backoff import Backoff
from app.sender.claims import Claims
from app.sender.delivery import Deliverer, DeliverySettings
from app.sender.lane import Lane
from app.sender.providers.base import Accepted, BadProvider, Message, Outcome, Retry, Unknown
from app.sender.recorder import NoRecorder
from app.sender.throttle import ThrottleSettings
from schemas.topics import DAY_MS, EVENTS
from tables.ledger import State
from tests.support.sender import SUBJECTS, WALL_MS, FakeBatch, FakeRecord, World, decision, record


def kinds(world: World) -> list[tuple[str | None, str]]:
    return [(event.message_id, event.properties.get("reason", "")) for event in world.receipts()]


async def test_a_decision_is_sent_recorded_and_told() -> None:
    world, made = World(), decision()
    batch = FakeBatch([record(10, made)])
    assert await world.run([batch])
    assert world.accepted == {made.id: 1}
    entry = world.entry(made)
    assert (entry.state, entry.offset, entry.provider, entry.provider_id) == (State.SENT, 10, "fake", "p1")
    assert kinds(world) == [(f"{made.id}:sent", "")]
    assert batch.completed


async def test_the_receipt_goes_to_the_users_partition_with_the_trace() -> None:
    world, made = World(), decision()
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await world.run([FakeBatch([record(0, made, traceparent=trace)], partition=5)])
    [(topic, partition, key, _, headers)] = world.produced
    assert (topic, partition, key, headers) == (EVENTS, 5, b"u0", [("traceparent", trace)])
    assert world.messages[0].traceparent == trace.decode()


async def test_a_batch_is_reserved_in_one_write_and_recorded_in_another() -> None:
    world = World()
    await world.run([FakeBatch([record(n, decision(n)) for n in range(20)])])
    assert [len(rows) for rows in world.writes] == [2 * 20, 20], "with the entry, a row to find it by its user"


async def test_a_replay_of_a_batch_sends_nothing_and_repeats_the_same_receipts() -> None:
    world = World(answers={decision(1).id: ["rejected"]})
    records = [record(n, decision(n)) for n in range(3)]
    await world.run([FakeBatch(records)])
    first = sorted(world.produced)
    world.produced.clear()
    world.time.pass_ms(5_000)
    again = FakeBatch(records)
    await world.run([again])
    assert sorted(world.produced) == first
    assert all(times == 1 for times in world.attempts.values())
    assert again.completed


async def test_a_second_record_with_the_same_id_is_neither_sent_nor_told() -> None:
    world = World()
    await world.run([FakeBatch([record(0, decision())])])
    await world.run([FakeBatch([record(7, decision())])])
    assert world.attempts[decision().id] == 1
    assert len(world.receipts()) == 1


async def test_overlapping_batches_with_the_same_id_send_it_once() -> None:
    for seed in range(20):
        world = World(seed=seed)
        first, second = FakeBatch([record(0, decision())]), FakeBatch([record(1, decision())])
        await world.run([first, second])
        assert world.attempts[decision().id] == 1, seed
        assert len(kinds(world)) == 1, seed
        assert first.completed
        assert second.completed


async def test_an_expired_decision_fails_without_an_attempt() -> None:
    world, made = World(), decision()
    world.time.now = made.expires_ms + 1
    await world.run([FakeBatch([record(0, made)])])
    assert not world.attempts
    assert kinds(world) == [(f"{made.id}:failed", "expired")]
    assert world.entry(made).state is State.FAILED


async def test_a_decision_that_expires_between_attempts_is_not_sent() -> None:
    made = decision()
    world = World(answers={made.id: ["retry"]})
    world.time.now = made.expires_ms
    await world.run([FakeBatch([record(0, made)])])
    assert world.attempts[made.id] == 1
    assert kinds(world) == [(f"{made.id}:failed", "expired")]


async def test_a_promotional_record_older_than_the_ledgers_memory_is_not_sent() -> None:
    world = World()
    old = WALL_MS - 7 * DAY_MS - 1
    promotional, transactional = decision(0), decision(1, transactional=True)
    await world.run([FakeBatch([record(0, promotional, timestamp=old), record(1, transactional, timestamp=old)])])
    assert set(world.attempts) == {transactional.id}


@pytest.mark.parametrize("transactional", [False, True])
async def test_who_has_opted_out_gets_nothing(transactional: bool) -> None:
    world, made = World(), decision(transactional=transactional)
    world.opted_out.add("u0")
    await world.run([FakeBatch([record(0, made)])])
    assert not world.attempts
    assert kinds(world) == [(f"{made.id}:failed", "opted_out")]


async def test_an_opt_out_between_attempts_ends_the_attempts() -> None:
    made = decision()
    world = World(answers={made.id: ["retry"]})
    slept = world.time.sleep

    async def opt_out_meanwhile(seconds: float) -> None:
        world.opted_out.add("u0")
        await slept(seconds)

    world.time.sleep = opt_out_meanwhile  # type: ignore[method-assign]
    await world.run([FakeBatch([record(0, made)])])
    assert world.attempts[made.id] == 1
    assert kinds(world) == [(f"{made.id}:failed", "opted_out")]


async def test_a_stale_suppression_feed_holds_promotional_messages_back_and_lets_transactional_ones_go() -> None:
    world = World()
    world.feed_fresh = False
    promotional, transactional = decision(0), decision(1, transactional=True)
    slept = world.time.sleep
    seen: list[tuple[set[str], bool]] = []

    async def fresh_after_three_looks(seconds: float) -> None:
        seen.append((set(world.accepted), promotional.id.encode() in world.rows))
        world.feed_fresh = len(seen) >= 3
        await slept(seconds)

    world.time.sleep = fresh_after_three_looks  # type: ignore[method-assign]
    batch = FakeBatch([record(0, promotional), record(1, transactional)])
    await world.run([batch])
    # While it waits it is not even reserved: a kill would otherwise lose it as unknown.
    assert seen == [({transactional.id}, False)] * 3
    assert world.accepted == {promotional.id: 1, transactional.id: 1}
    assert batch.completed


async def test_a_message_that_is_held_back_until_it_expires_fails() -> None:
    world, made = World(), decision()
    world.feed_fresh = False
    world.time.now = made.expires_ms - 5_000
    await world.run([FakeBatch([record(0, made)])])
    assert not world.attempts
    assert kinds(world) == [(f"{made.id}:failed", "expired")]
    assert 5 <= len(world.time.slept) <= 6


async def test_refused_attempts_are_repeated_on_a_bounded_schedule() -> None:
    made = decision()
    world = World(answers={made.id: ["retry"] * 9})
    await world.run([FakeBatch([record(0, made)])])
    assert world.attempts[made.id] == 4
    assert kinds(world) == [(f"{made.id}:failed", "retries_exhausted")]
    assert world.time.slept == [Backoff().delay_ms(made.id, n) / 1_000 for n in (1, 2, 3)]  # type: ignore[operator]


@pytest.mark.parametrize("answer", ["lost", "dropped", "raises"])
async def test_a_lost_answer_ends_a_promotional_message_and_repeats_a_transactional_one(answer: str) -> None:
    promotional, transactional = decision(0), decision(1, transactional=True)
    world = World(answers={promotional.id: [answer], transactional.id: [answer]})
    await world.run([FakeBatch([record(0, promotional), record(1, transactional)])])
    assert world.attempts == {promotional.id: 1, transactional.id: 2}
    assert sorted(kinds(world)) == sorted([(f"{promotional.id}:failed", "unknown"), (f"{transactional.id}:sent", "")])


async def test_what_is_no_decision_goes_to_the_dead_letters_and_its_neighbours_are_sent() -> None:
    world = World()
    bad = FakeRecord(b"u9", b"{", 1)
    batch = FakeBatch([record(0, decision(0)), bad, record(2, decision(2))])
    await world.run([batch])
    [letter] = world.dead_letters()
    assert (letter["nudge_topic"], letter["nudge_partition"], letter["nudge_offset"]) == ("decisions", "3", "1")
    assert letter["nudge_reason"] == "malformed_json"
    assert ("dead-letters", None, b"u9", b"{") in [made[:4] for made in world.produced]
    assert len(world.accepted) == 2
    assert batch.completed


async def test_a_batch_is_not_completed_when_the_ledger_cannot_be_written() -> None:
    world = World()

    async def broken(partition: int, rows: object) -> None:
        raise OSError("disk full")

    world.write = broken  # type: ignore[method-assign]
    batch = FakeBatch([record(0, decision())])
    with pytest.raises(OSError, match="disk full"):
        await world.run([batch])
    assert not world.attempts
    assert not batch.completed


async def test_a_batch_is_not_completed_when_a_receipt_is_not_acknowledged() -> None:
    world = World()
    produce = world.produce

    async def broken(*args: object) -> None:
        raise ConnectionError("no broker")

    world.produce = broken  # type: ignore[method-assign,assignment]
    batch = FakeBatch([record(0, decision())])
    with pytest.raises(ConnectionError):
        await world.run([batch])
    assert not batch.completed
    world.produce = produce  # type: ignore[method-assign]
    await world.run([batch])
    assert world.attempts[decision().id] == 1
    assert kinds(world) == [(f"{decision().id}:sent", "")]


async def test_a_slow_message_does_not_keep_its_neighbours_unrecorded() -> None:
    world, slow = World(), decision(0)
    gate, recorded = asyncio.Event(), asyncio.Event()
    send, write = world.send, world.write

    async def send_slowly(message: Message) -> Outcome:
        if message.id == slow.id:
            await gate.wait()
        return await send(message)

    async def write_and_tell(partition: int, rows: list[tuple[bytes, bytes | None]]) -> None:
        await write(partition, rows)
        if decision(1).id.encode() in world.rows and world.entry(decision(1)).state is State.SENT:
            recorded.set()

    world.send, world.write = send_slowly, write_and_tell  # type: ignore[method-assign]
    deliverer = world.deliverer(settle_s=0.01)
    delivery = asyncio.create_task(deliverer.deliver(FakeBatch([record(0, slow), record(1, decision(1))])))
    await asyncio.wait_for(recorded.wait(), 5)
    assert world.entry(slow).state is State.RESERVED
    gate.set()
    await asyncio.wait_for(delivery, 5)
    assert world.entry(slow).state is State.SENT


async def test_no_more_messages_than_allowed_are_on_the_way_to_a_provider() -> None:
    world = World()
    now, most = 0, 0
    send = world.send

    async def counted(message: Message) -> Outcome:
        nonlocal now, most
        now += 1
        most = max(most, now)
        outcome = await send(message)
        now -= 1
        return outcome

    world.send = counted  # type: ignore[method-assign]
    await world.deliverer(concurrency=4).deliver(FakeBatch([record(n, decision(n)) for n in range(40)]))
    assert most == 4


async def test_a_device_chooses_among_the_providers_in_use_only() -> None:
    world = World()
    used: list[str] = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        async def send(self, message: Message) -> Outcome:
            used.append(self.name)
            return Accepted()

        async def close(self) -> None:
            used.append(f"{self.name} closed")

    deliverer = Deliverer(
        table=world,
        produce=world.produce,
        providers={"fcm": Named("fcm"), "apns": Named("apns")},
        default="fcm",
        clock=world.time,
        suppressed=world.suppressed,
        subjects=SUBJECTS,
        settings=DeliverySettings(),
        wall_s=world.time.wall_s,
    )
    tokens = [{}, {"type": "ios"}, {"type": "web"}, {"type": ["ios"]}, {"type": "fridge"}]
    for n, token in enumerate(tokens):
        await deliverer.deliver(FakeBatch([record(n, decision(n, token=token))]))
    await deliverer.close()
    assert used == ["fcm", "apns", "fcm", "fcm", "fcm", "fcm closed", "apns closed"]


def test_a_default_provider_that_is_not_configured_is_refused() -> None:
    world = World()
    with pytest.raises(BadProvider, match="'fcm'"):
        Deliverer(
            table=world,
            produce=world.produce,
            providers={"console": world},
            default="fcm",
            clock=world.time,
            suppressed=world.suppressed,
            subjects=SUBJECTS,
            settings=DeliverySettings(),
        )


async def test_a_retry_after_stops_the_whole_lane() -> None:
    world = World()

    class Busy:
        async def send(self, message: Message) -> Outcome:
            return Retry("http_429", after_ms=2_000)

        async def close(self) -> None: ...

    lane = Lane(
        "busy",
        Busy(),
        concurrency=2,
        timeout_s=1,
        throttle=ThrottleSettings(pause_ms_max=10_000),
        recorder=NoRecorder(),
        sleep=world.time.sleep,
        monotonic_s=world.time.wall_s,
    )
    message = Message(id="1", user="u", campaign="c", category="n", title="t", body="b")
    async with lane.turn():
        await lane.send(message)
    assert world.time.slept == []
    async with lane.turn():
        assert world.time.slept == [pytest.approx(2.0, abs=0.01)]


async def test_a_provider_that_hangs_is_an_unknown_outcome() -> None:
    class Hanging:
        async def send(self, message: Message) -> Outcome:
            await asyncio.Future()
            raise AssertionError

        async def close(self) -> None: ...

    lane = Lane("hanging", Hanging(), concurrency=1, timeout_s=0.01, throttle=ThrottleSettings(), recorder=NoRecorder())
    message = Message(id="1", user="u", campaign="c", category="n", title="t", body="b")
    async with lane.turn():
        assert await lane.send(message) == Unknown("timeout")


async def test_claims_are_released_when_a_batch_fails_or_is_cancelled() -> None:
    claims = Claims()
    with pytest.raises(OSError, match="x"):
        async with claims.hold([b"a", b"b"]):
            raise OSError("x")
    assert len(claims) == 0

    async def hold_for_ever() -> None:
        async with claims.hold([b"a"]):
            await asyncio.Future()

    holder = asyncio.create_task(hold_for_ever())
    await asyncio.sleep(0)
    waiter = asyncio.create_task(hold_for_ever())
    await asyncio.sleep(0)
    holder.cancel()
    await asyncio.gather(holder, return_exceptions=True)
    await asyncio.sleep(0)
    assert len(claims) == 1
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    assert len(claims) == 0
