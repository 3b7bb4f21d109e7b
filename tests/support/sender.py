"""A world for the sender: what survives when the process is killed, and fakes that can be killed at any step."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from app.core.ids import decision_id
from app.sender.backoff import Backoff
from app.sender.courier import CourierSettings
from app.sender.delivery import Deliverer, DeliverySettings
from app.sender.providers.base import Accepted, Message, Outcome, Rejected, Retry, Unknown
from schemas.decisions import ERASED, Content, Decision, decision_headers, encode_decision
from schemas.erasures import Subjects
from schemas.events import Event, decode_event
from schemas.topics import DEAD_LETTERS, EVENTS
from tables.ledger import LedgerEntry, decode_entry

SUBJECTS = Subjects(b"a secret of the tests")
WALL_MS = 1_700_000_000_000
NOW_MS = 1_500_000_000_000


def decision(n: int = 0, **changes: Any) -> Decision:
    """A promotional decision to send to user ``u{n}``."""
    user = f"u{n}"
    fields: dict[str, Any] = {
        "id": decision_id(user, "welcome", "", n),
        "user": user,
        "action": "send",
        "campaign": "welcome",
        "category": "news",
        "variant": "a",
        "decided_ms": NOW_MS,
        "expires_ms": NOW_MS + 3_600_000,
        "content": Content(title="Hello", body="There"),
    }
    return Decision(**(fields | changes))


@dataclass
class FakeRecord:
    key: bytes | None
    value: bytes | None
    offset: int
    timestamp: int = WALL_MS
    headers: Sequence[tuple[str, bytes]] = ()


def record(offset: int, made: Decision, *, traceparent: bytes | None = None, timestamp: int = WALL_MS) -> FakeRecord:
    headers = decision_headers(made, traceparent)
    return FakeRecord(made.user.encode(), encode_decision(made), offset, timestamp, headers)


def erasure(offset: int, n: int = 0, request: str = "r1") -> FakeRecord:
    """The record by which the worker tells the sender to forget user ``u{n}``."""
    made = decision(n, id=f"erase-{n}-{offset}", action="suppress", reason=ERASED, trigger=request, content=None)
    return record(offset, made)


@dataclass
class FakeBatch:
    records: Sequence[FakeRecord]
    topic: str = "decisions"
    partition: int = 3
    completed: bool = False
    given_back: bool = False

    def complete(self) -> None:
        assert not self.completed
        self.completed = True

    def give_back(self) -> None:
        assert not self.completed
        self.given_back = True


@dataclass
class Time:
    """Wall clock and event clock; only `sleep` and a test move them."""

    wall_ms: int = WALL_MS
    now: int = NOW_MS
    rate: float = 1.0
    slept: list[float] = field(default_factory=list)

    def now_ms(self) -> int:
        return self.now

    def wall_s(self) -> float:
        return self.wall_ms / 1_000

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.pass_ms(int(seconds * 1_000) + 1)
        await asyncio.sleep(0)

    def pass_ms(self, ms: int) -> None:
        self.wall_ms += ms
        self.now += ms


Answer = str
"""accepted · lost (accepted, answer lost) · dropped (not accepted, answer lost) · rejected · retry · raises"""


class World:
    """Ledger, topics and provider. `die_at` is the number of the step at which the process is killed."""

    def __init__(self, *, seed: int = 0, answers: dict[str, list[Answer]] | None = None) -> None:
        self.time = Time()
        self.rows: dict[bytes, bytes] = {}
        self.writes: list[list[tuple[bytes, bytes | None]]] = []
        self.produced: list[tuple[str, int | None, bytes | None, bytes | None, list[tuple[str, bytes]]]] = []
        self.attempts: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self.messages: list[Message] = []
        self.opted_out: set[str] = set()
        self.feed_fresh = True
        self.die_at: int | None = None
        self.died = asyncio.Event()
        self.steps = 0
        self._answers = {key: list(found) for key, found in (answers or {}).items()}
        self._random = random.Random(seed)

    async def step(self) -> None:
        """A point at which the process can be killed: from here on nothing it does has an effect."""
        for _ in range(self._random.randrange(3)):
            await asyncio.sleep(0)
        self.steps += 1
        if self.steps == self.die_at:
            self.died.set()
        if self.died.is_set():
            await asyncio.Future()

    # The ledger's table
    def get_many(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.rows.get(key) for key in keys]

    def keys_with_prefix(self, partition: int, prefix: bytes) -> list[bytes]:
        return sorted(key for key in self.rows if key.startswith(prefix))

    async def write(self, partition: int, rows: list[tuple[bytes, bytes | None]]) -> None:
        await self.step()
        self.writes.append(rows)
        for key, value in rows:
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        await self.step()

    # Topics
    async def produce(
        self,
        topic: str,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, bytes]],
    ) -> None:
        await self.step()
        self.produced.append((topic, partition, key, value, headers))
        await self.step()

    # The provider
    async def send(self, message: Message) -> Outcome:
        await self.step()
        self.attempts[message.id] += 1
        script = self._answers.get(message.id, [])
        answer = script.pop(0) if script else "accepted"
        if answer in ("accepted", "lost"):
            self.accepted[message.id] += 1
            self.messages.append(message)
        await self.step()
        if answer == "raises":
            raise RuntimeError("a provider's defect")
        outcomes: dict[str, Outcome] = {
            "accepted": Accepted("p1"),
            "rejected": Rejected("http_400"),
            "retry": Retry("http_503"),
        }
        return outcomes.get(answer, Unknown("read_error"))

    async def close(self) -> None:
        return None

    def suppressed(self, user: str, category: str) -> bool | None:
        if user in self.opted_out:
            return True
        return False if self.feed_fresh else None

    # The process
    def deliverer(self, *, settle_s: float = 0.5, **settings: Any) -> Deliverer:
        """A new process in this world."""
        return Deliverer(
            table=self,
            produce=self.produce,
            providers={"fake": self},
            default="fake",
            clock=self.time,
            suppressed=self.suppressed,
            subjects=SUBJECTS,
            settings=DeliverySettings(CourierSettings(**({"backoff": Backoff(attempts_max=4)} | settings)), settle_s),
            wall_s=self.time.wall_s,
            monotonic_s=self.time.wall_s,
            sleep=self.time.sleep,
        )

    async def run(self, batches: Sequence[FakeBatch], *, die_at: int | None = None) -> bool:
        """Deliver `batches` at once with a new process; False when it was killed on the way."""
        self.steps, self.die_at = 0, die_at
        self.died = asyncio.Event()
        deliverer = self.deliverer()
        delivery = asyncio.gather(*(deliverer.deliver(batch) for batch in batches))
        death = asyncio.create_task(self.died.wait())
        await asyncio.wait({delivery, death}, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        death.cancel()
        if delivery.done():
            await delivery
            return True
        assert self.died.is_set(), "the delivery hangs"
        delivery.cancel()
        await asyncio.gather(delivery, return_exceptions=True)
        return False

    # What a test looks at
    def entry(self, made: Decision) -> LedgerEntry:
        return decode_entry(self.rows[made.id.encode()])

    def receipts(self) -> list[Event]:
        """Receipts as the worker reads them; one that it would refuse fails the test."""
        found = [decode_event(value, key) for topic, _, key, value, _ in self.produced if topic == EVENTS]
        assert all(isinstance(event, Event) for event in found), found
        return found  # type: ignore[return-value]

    def dead_letters(self) -> list[dict[str, str]]:
        return [{k: v.decode() for k, v in headers} for topic, *_, headers in self.produced if topic == DEAD_LETTERS]
