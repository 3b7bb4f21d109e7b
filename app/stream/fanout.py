"""From a change of the catalog to the users it concerns, spread over partitions, at a bounded cost (ADR 6).

Each worker does it for its own partitions, in the background and for at most a share of its time:

* those who want the *item* are found in an index of the partition (`app.stream.wish_index`), built from the store when
  the partition comes to us and kept up by what the core reports; so a change costs as much as it concerns users;
* those who like its *category* are found in a pass over all rows of the partition, in which all changes that wait are
  asked at once; so a pass costs the same however many changes there are, and the next begins when it has ended.

Nothing here is durable, and need not be: a partition that comes to us is offered again what has changed lately, and the
rows know what they were told. What is older than `Recent.keep_ms` is not offered any more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from app.core.campaign import ItemTrigger
from app.core.catalog import Change
from app.core.effects import Effects
from app.core.offers import Offer, Round, for_wishes, likes_categories
from app.core.profile import Profile
from app.stream.background import Background
from app.stream.engine import Engine
from app.stream.pace import Pace
from app.stream.unreadable import decode_row
from app.stream.wish_index import WishIndex

PAGE_ROWS: Final = 64
CHANGES_MAX: Final = 20_000
ROUND_MAX: Final = 500
"""Changes whose users are looked up at a time."""
LAG_MAX: Final = 2_000
_LOOK_S: Final = 0.5
_WAIT_FOR_LAG_S: Final = 0.25


class OfferingProcessor(Protocol):
    """What the fan-out asks of the core, as `app.core.processor.Processor` answers it."""

    def offer(
        self, offers: Mapping[bytes, Offer], rows: dict[bytes, Profile], *, now_ms: int, mark: int, acked_offset: int
    ) -> Effects:
        """Tell rows of changes."""


class Recent:
    """The newest changes of the catalog, oldest first: at most `CHANGES_MAX`, none older than `keep_ms`."""

    def __init__(self, keep_ms: int = 86_400_000) -> None:
        self.keep_ms = keep_ms
        self._changes: deque[Change] = deque(maxlen=CHANGES_MAX)
        self.news = asyncio.Event()

    def add(self, change: Change) -> None:
        """A change, later than all before."""
        self._changes.append(change)
        self.news.set()

    def since(self, version: int, now_ms: int) -> list[Change]:
        """Those later than `version` that are not too old."""
        if not self._changes or self._changes[-1].offset <= version:
            return []
        oldest_ms = now_ms - self.keep_ms
        while self._changes and self._changes[0].at_ms < oldest_ms:
            self._changes.popleft()
        return [change for change in self._changes if change.offset > version and change.at_ms >= oldest_ms]

    def __len__(self) -> int:
        return len(self._changes)


class _Partition:
    """How far a partition has come; `tenure` is another object when it came back to us."""

    def __init__(self, tenure: object) -> None:
        self.tenure = tenure
        self.index = WishIndex()
        self.next_index: WishIndex | None = None
        self.is_built = False
        self.wished_to = -1
        self.affine_to = -1

    def add(self, item: int, key: bytes) -> None:
        self.index.add(item, key)
        if self.next_index is not None:
            self.next_index.add(item, key)


class FanOut(Background):
    """Offers the changes of `recent` to the rows of an engine's partitions, for as long as it runs.

    Parameters
    ----------
    triggers
        The triggers on the catalog of the policy in force; without any there is no index and nothing is done.
    share
        Of the time, at most, that it works; a pass pauses altogether while its partition lags by `LAG_MAX` records.
    """

    task_name = "fan-out"

    def __init__(
        self,
        engine: Engine,
        processor: OfferingProcessor,
        recent: Recent,
        triggers: Callable[[], Sequence[ItemTrigger]],
        now_ms: Callable[[], int],
        *,
        share: float,
    ) -> None:
        self._engine = engine
        self._processor = processor
        self._recent = recent
        self._triggers = triggers
        self._now_ms = now_ms
        self._pace = Pace(share)
        self._partitions: dict[int, _Partition] = {}
        engine.on_wished = self.wished

    def wished(self, partition: int, wishes: Iterable[tuple[int, bytes]]) -> None:
        """Rows want items that they did not want before."""
        state = self._state(partition)
        if state is not None:
            for item, key in wishes:
                state.add(item, key)

    def entries(self) -> int:
        """Entries of the indexes, over all partitions."""
        return sum(len(state.index) for state in self._partitions.values())

    def waiting(self) -> int:
        """Changes that some partition has not been asked about yet."""
        if not self._triggers():
            return 0
        now_ms = self._now_ms()
        return max((len(self._recent.since(state.wished_to, now_ms)) for state in self._states()), default=0)

    def _states(self) -> list[_Partition]:
        return [state for partition in self._engine.tenures() if (state := self._state(partition)) is not None]

    def _state(self, partition: int) -> _Partition | None:
        """What is known of a partition, begun anew when it has come to us again; None when it is not ours."""
        tenure = self._engine.tenures().get(partition)
        state = self._partitions.get(partition)
        if tenure is None:
            self._partitions.pop(partition, None)
            return None
        if state is None or state.tenure is not tenure:
            state = self._partitions[partition] = _Partition(tenure)
        return state

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
            except Exception as exc:
                self._engine.app.fatal("the fan-out of the catalog failed", exc)
            try:
                async with asyncio.timeout(_LOOK_S):  # wait_for may swallow the cancellation of `stop`
                    await self._recent.news.wait()
            except TimeoutError:
                continue
            self._recent.news.clear()

    async def _look(self) -> None:
        """One round over the partitions that are ours; not while they are being given up."""
        triggers = self._triggers()
        if not triggers:
            self._partitions.clear()
            return
        likes = likes_categories(triggers)
        for partition in list(self._engine.tenures()):
            state = self._state(partition)
            if state is not None and self._engine.app.batches.flow_active:
                if not state.is_built or state.index.worn:
                    await self._build(partition, state)
                if state.is_built:
                    await self._tell_wishes(partition, state)
                    if likes:
                        await self._tell_likes(partition, state)

    # -- those who want the item

    async def _build(self, partition: int, state: _Partition) -> None:
        """Read every row once; what is wished meanwhile is in both indexes."""
        fresh = state.next_index = WishIndex() if state.is_built else state.index
        async for page in self._pages(partition, state):
            for key, profile in page:
                for item in profile.browsing.wishes if profile.browsing is not None else ():
                    fresh.add(item, key)
        if self._state(partition) is state:
            fresh.built()
            state.index, state.next_index, state.is_built = fresh, None, True

    async def _tell_wishes(self, partition: int, state: _Partition) -> None:
        while changes := self._recent.since(state.wished_to, self._now_ms())[:ROUND_MAX]:
            if not await self._offer(partition, for_wishes(changes, state.index.keys)):
                return
            state.wished_to = changes[-1].offset

    async def _offer(self, partition: int, offers: Mapping[bytes, Offer]) -> bool:
        """Offer to rows, a few at a time; False when the partition is being given up."""
        keys = list(offers)
        for start in range(0, len(keys), PAGE_ROWS):
            page = {key: offers[key] for key in keys[start : start + PAGE_ROWS]}
            now_ms = self._now_ms()
            with self._pace:
                effects = await self._engine.visit_rows(
                    partition,
                    list(page),
                    lambda _keys, rows, offers=page, now_ms=now_ms, **at: self._processor.offer(
                        offers, rows, now_ms=now_ms, **at
                    ),
                )
            if effects is None:
                return False
            await self._pace.rest()
        return True

    # -- those who like its category

    async def _tell_likes(self, partition: int, state: _Partition) -> None:
        """One pass for all changes that wait."""
        changes = self._recent.since(state.affine_to, self._now_ms())
        if not changes:
            return
        offered = Round(changes)
        if offered:
            async for page in self._pages(partition, state):
                offers = {key: offer for key, profile in page if (offer := offered.of(profile)) is not None}
                if offers and not await self._offer(partition, offers):
                    return
            if self._state(partition) is not state:
                return
        state.affine_to = offered.end

    async def _pages(self, partition: int, state: _Partition) -> AsyncIterator[list[tuple[bytes, Profile]]]:
        """Every row of the store, a page at a time; ends early when the partition is no longer ours."""
        await self._engine.settled(partition)
        cursor = b""
        while True:
            await self._rest(partition, state)
            store = self._engine.table.stores.get(partition)
            if store is None or self._state(partition) is not state:  # a store is closed before the engine is told
                return
            with self._pace:
                page = store.page(cursor, PAGE_ROWS)
                rows = [(key, row) for key, value in page if (row := decode_row(value, whole=True)) is not None]
            yield rows
            if len(page) < PAGE_ROWS:
                return
            cursor = page[-1][0]

    async def _rest(self, partition: int, state: _Partition) -> None:
        """Between two pages: whoever wants an item does not wait for the end of a pass."""
        await self._pace.rest()
        for other in list(self._engine.tenures()):
            known = self._state(other)
            if known is not None and known.is_built:
                await self._tell_wishes(other, known)
        source = (self._engine.source, partition)
        while self._engine.lag().get(source, 0) > LAG_MAX and self._state(partition) is state:  # noqa: ASYNC110
            await asyncio.sleep(_WAIT_FOR_LAG_S)
