"""A second policy beside the live one: it decides about some of the users, and nothing follows from it.

For each user in the sample, and as long as memory holds them, there is a shadow row. It begins as a copy of the live
row and then goes its own way: own segments, own waits, own caps. Its decisions leave as records that say `shadow` and
that no sender sends; everything else that it has to say is dropped. It is never stored: after a restart, or when memory
is short, a shadow row begins anew as a copy, and its windows that the live policy does not ask for begin empty.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

import msgspec

from app.core import owed
from app.core.decide import FeaturesOf
from app.core.effects import Effects, Record
from app.core.history import Windows
from app.core.ids import BUCKETS, bucket
from app.core.plan import Plan
from app.core.processor import Processor
from app.core.profile import Profile, decode_profile, encode_profile
from app.core.row_parts import Output
from app.core.run import Reload
from schemas.decisions import Decision, decision_headers, decode_decision, encode_decision
from schemas.erasures import Subjects
from schemas.topics import DECISIONS

ROWS_MAX: Final = 2_000
_SALT: Final = "shadow"
_ACKNOWLEDGED: Final = 2**62


class ShadowedProcessor:
    """The live processor, and beside it one under the shadow policy.

    Parameters
    ----------
    share
        Of the users, by a stable hash: about as much is added to the cost of an event.
    rows_max
        Shadow rows in memory; the one that was not touched for longest is forgotten.
    """

    def __init__(
        self,
        live: Processor,
        plan: Plan,
        features_of: FeaturesOf,
        subjects: Subjects | None = None,
        *,
        share: float,
        rows_max: int = ROWS_MAX,
    ) -> None:
        self._live = live
        self._shadow = Processor(plan, live.scorer, features_of, subjects)
        self._limit = share * BUCKETS
        self._rows_max = rows_max
        self._rows: dict[bytes, Profile] = {}

    def process(
        self,
        records: Sequence[Record],
        topic: str,
        partition: int,
        rows: dict[bytes, Profile],
        *,
        now_ms: int,
        acked_offset: int,
        reload: Reload | None = None,
    ) -> Effects:
        """As `Processor.process`, with the shadow's decisions among the outputs."""
        watched = [record for record in records if record.key is not None and self._watches(record.key)]
        for record in watched:
            if record.key is not None:
                self._mirror(record.key, rows.get(record.key))
        effects = self._live.process(
            records, topic, partition, rows, now_ms=now_ms, acked_offset=acked_offset, reload=reload
        )
        if watched:
            self._follow(
                effects,
                [record.key for record in watched if record.key is not None],
                rows,
                lambda: self._shadow.process(
                    watched, topic, partition, self._rows, now_ms=now_ms, acked_offset=_ACKNOWLEDGED
                ),
            )
        return effects

    def fire(
        self, keys: Iterable[bytes], rows: dict[bytes, Profile], *, now_ms: int, mark: int, acked_offset: int
    ) -> Effects:
        """As `Processor.fire`; the shadow's timers share the index with those of the row."""
        keys = list(keys)
        mine = [key for key in keys if key in self._rows]
        effects = self._live.fire(keys, rows, now_ms=now_ms, mark=mark, acked_offset=acked_offset)
        if mine:
            self._follow(
                effects,
                mine,
                rows,
                lambda: self._shadow.fire(mine, self._rows, now_ms=now_ms, mark=mark, acked_offset=_ACKNOWLEDGED),
            )
        return effects

    def sweep(
        self,
        keys: Iterable[bytes],
        rows: dict[bytes, Profile],
        windows: Windows,
        *,
        now_ms: int,
        mark: int,
        acked_offset: int,
    ) -> Effects:
        """As `Processor.sweep`: the shadow has no part in it."""
        return self._live.sweep(keys, rows, windows, now_ms=now_ms, mark=mark, acked_offset=acked_offset)

    def adjust(
        self, keys: Iterable[bytes], rows: dict[bytes, Profile], *, now_ms: int, mark: int, acked_offset: int
    ) -> Effects:
        """As `Processor.adjust`: the shadow has no part in it."""
        return self._live.adjust(keys, rows, now_ms=now_ms, mark=mark, acked_offset=acked_offset)

    def _watches(self, key: bytes) -> bool:
        return bucket(key.decode(errors="replace"), _SALT) < self._limit

    def _mirror(self, key: bytes, live: Profile | None) -> None:
        """Before an event: have a shadow row that has seen just what the live one has."""
        row = self._rows.pop(key, None)
        if live is not None and not live.erased_ms and (row is None or row.offset != live.offset):
            row = decode_profile(encode_profile(live))
            owed.settle(row)
        if live is not None and row is not None and row.offset == live.offset:
            self._rows[key] = row  # at the end: it was touched last

    def _follow(
        self, effects: Effects, keys: Collection[bytes], rows: dict[bytes, Profile], run: Callable[[], Effects]
    ) -> None:
        """Let the shadow do the same, and add what it says. Whatever it does wrong must not touch the live rows."""
        self._shadow.scorer, self._shadow.choices = self._live.scorer, self._live.choices
        self._shadow.items = self._live.items
        if self._shadow.buckets is not self._live.buckets:
            self._shadow.serve(self._live.buckets)
        found = run()
        effects.due += found.due
        for output in found.outputs:
            if output.topic == DECISIONS and (made := decode_decision(output.value or b"")).campaign:
                effects.outputs.append(_shadow_of(made, output))
        for labels, number in found.counts.items():
            if labels[0] == "decisions":
                effects.counts["shadow_decisions", *labels[1:]] += number
        for key in keys:
            live, row = rows.get(key), self._rows.get(key)
            if row is not None:
                owed.settle(row)
            if live is None or live.erased_ms or live.offset < 0:
                self._rows.pop(key, None)
        while len(self._rows) > self._rows_max:
            del self._rows[next(iter(self._rows))]


def _shadow_of(made: Decision, output: Output) -> Output:
    """The record under an id of its own: the live policy may decide the same about the same."""
    shadow = msgspec.structs.replace(made, id=f"{made.id}.shadow", shadow=True, token={}, more_tokens=[])
    trace = dict(output.headers).get("traceparent")
    return Output(DECISIONS, output.key, encode_decision(shadow), decision_headers(shadow, trace))
