"""One call of the processor: whose turn it is, which rows were touched, and what to do when an event raises.

An exception must not lose a neighbour's event nor leave a row half-changed, and the ordinary event must not pay for
that. So nothing is copied beforehand: a row whose event raised is built again, from what it was before the call and
from its earlier records of the same call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from app.core import erasure, merge, owed
from app.core.batch import Batch
from app.core.effects import Effects, Record
from app.core.history import Windows
from app.core.ids import RECENT_BYTES, WORD_BYTES, message_word
from app.core.local_time import instant_ms
from app.core.panes import NEVER_MS
from app.core.profile import Profile, decode_profile, encode_profile
from app.core.raised import where_raised
from app.core.row_heads import BadRow
from app.core.row_parts import Output
from app.core.turn import Turn
from schemas.dead_letters import DeadLetter, cut, dead_letter_headers
from schemas.events import (
    ERASE,
    EVENT_BYTES_MAX,
    MERGE,
    NAME_CHARS_MAX,
    NOTIFICATIONS_DISABLED,
    TYPES,
    USER_CHARS_MAX,
    Event,
    Rejected,
    decode_event,
    parse_event,
)
from schemas.topics import DEAD_LETTERS

_parse: Final = parse_event  # looked up once, see app.core.owed
RETRY_MS: Final = 60_000
"""When a row whose timers raised is tried again."""

FATES: Final = ("applied", "late", "replayed", "duplicate", "erased", "forwarded", "rejected")
Reload = Callable[[bytes], Profile | None]


class Run:
    """Applies records, or due timers, to rows; `effects` then says what is left to be done.

    Parameters are those of `Processor.process`.
    """

    def __init__(
        self,
        turn: Turn,
        rows: dict[bytes, Profile],
        acked_offset: int,
        topic: str,
        partition: int,
        reload: Reload | None,
    ) -> None:
        self.turn = turn
        self.batch = turn.batch
        self.rows = rows
        self.acked_offset = acked_offset
        self.topic = topic
        self.partition = self.batch.partition = partition
        self.changed: dict[bytes, Profile] = {}
        self.fates = dict.fromkeys(FATES, 0)
        self.failed: dict[int, Rejected] = {}
        self.snapshots: dict[bytes, bytes] | None = {} if reload is None else None
        self.reload = reload

    # -- records

    def records(self, records: Sequence[Record]) -> None:
        """Apply records; those that raise are dead-lettered and leave no trace but that."""
        batch, rows, fates = self.batch, self.rows, self.fates
        applied = 0
        for record in records:
            key, value = record.key, record.value
            event = _read(batch, value, key)
            if event is None or key is None:
                fates["rejected"] += 1
                refused = decode_event(value, key)
                assert isinstance(refused, Rejected), "nobody else is refused"
                batch.outputs.append(self._dead_letter(record, refused))
                continue
            offset = record.offset
            profile = rows.get(key)
            if profile is None:
                profile = rows[key] = Profile()
            elif offset <= profile.offset:
                fates["replayed"] += 1
                continue
            batch.untouched = True
            try:
                fate = self._take(profile, event, record, key, offset)
            except BadRow:
                raise  # of all of it, whoever gave us the rows is to see to that
            except Exception as exc:
                batch.cut()
                fate = "rejected"
                why = exc.rejected if isinstance(exc, erasure.Refusal) else None
                self.failed[offset] = why or Rejected("processing_failed", where_raised(exc))
                self._put_back(records, record)
            if fate is None:
                applied += 1
            else:
                fates[fate] += 1
        fates["applied"] += applied

    def _take(self, profile: Profile, event: Event, record: Record, key: bytes, offset: int) -> str | None:
        """Apply the event that the batch has heard to its row; returns its fate, None for nearly all: applied."""
        batch = self.batch
        index = batch.index
        now_ms = batch.now_ms
        stamp = batch.stamp
        at_ms = now_ms
        if stamp is not None:
            at_ms = stamp if isinstance(stamp, int) else instant_ms(stamp)
            if at_ms > now_ms or at_ms < now_ms - index.age_max_ms:
                refusal = self._refuse_time(at_ms)
                # An opt-out counts whatever the device's clock says: as of now, and so does the sender's feed.
                if refusal is not None and event.event != NOTIFICATIONS_DISABLED:
                    if profile.erased_ms:
                        return "erased"
                    self._reject(profile, record, refusal)
                    return "rejected"
                at_ms = now_ms
        recent = profile.recent
        message_id = batch.message_id
        digest = message_word(message_id) if message_id else b""
        if message_id and _remembers(recent, digest):
            profile.offset = offset
            return "duplicate"
        foreign = profile.policy != index.policy_id
        if foreign and profile.erased_ms and erasure.bars(profile, event, at_ms):
            return "erased"
        batch.mark, batch.key, batch.source = offset, key, record
        if key not in self.changed:
            if self.snapshots is None and len(profile.owed) == 0 and not profile.owes_records():
                self.changed[key] = profile  # as `_touch` would
            else:
                self._touch(key, profile)
        forwarded = foreign and self._adopt(profile, event, at_ms, record)
        profile.offset = offset
        if message_id:
            recent = recent + digest  # `+=` would be looked up
            profile.recent = recent if len(recent) <= RECENT_BYTES else recent[-RECENT_BYTES:]
        if forwarded:
            return "forwarded"
        return None if self.turn.event(profile, event, at_ms, offset) else "late"

    def _adopt(self, profile: Profile, event: Event, at_ms: int, record: Record) -> bool:
        """Bring a row that is not of this policy version to it; True if it was merged and the event was passed on."""
        if profile.erased_ms and event.type != ERASE:
            erasure.readmit(self.batch, profile)
        self.turn.adopt(profile)
        if profile.merged_into and event.type not in (ERASE, MERGE):
            merge.forward(self.batch, profile, event, at_ms, record, self.turn.subjects)
            return True
        return False

    def _refuse_time(self, at_ms: int) -> Rejected | None:
        """Out of range either way; a little in the future is a clock that is fast, and means now."""
        plan = self.batch.index.plan
        ahead_ms = at_ms - self.batch.now_ms
        if ahead_ms > plan.future_skew_ms:
            return Rejected("timestamp_in_future", f"{ahead_ms} ms ahead; at most {plan.future_skew_ms}")
        if ahead_ms < -plan.age_max_ms:
            return Rejected("timestamp_too_old", f"{-ahead_ms} ms old; at most {plan.age_max_ms}")
        return None

    def _touch(self, key: bytes, profile: Profile) -> None:
        """Before a row's first change in this call."""
        if self.snapshots is not None and profile.offset >= 0:
            self.snapshots[key] = encode_profile(profile)
        self.changed[key] = profile
        if profile.erased_ms:
            self.batch.moved.add(key)
        owed.trim(profile, self.acked_offset)

    # -- dead letters

    def _dead_letter(self, record: Record, refusal: Rejected) -> Output:
        self.batch.count("dead_letters", refusal.reason)
        letter = DeadLetter(
            topic=self.topic,
            partition=self.partition,
            offset=record.offset,
            reason=refusal.reason,
            detail=refusal.detail,
            at_ms=self.batch.now_ms,
        )
        headers = dead_letter_headers(letter, record.value)
        return Output(DEAD_LETTERS, cut(record.key), cut(record.value), headers)

    def _reject(self, profile: Profile, record: Record, refusal: Rejected) -> None:
        """Dead-letter a record that is refused by the clock or by an exception.

        The row owes the dead letter: a replay might judge the record differently, or pass it by because a later event
        has moved the row's offset on.
        """
        key = record.key
        assert key is not None, "decode_event has checked the key"
        if key not in self.changed:
            self._touch(key, profile)
        self.batch.mark = profile.offset = record.offset
        self.batch.emit(profile, self._dead_letter(record, refusal))
        if profile.erased_ms and self.turn.subjects is not None:
            erasure.tidy_later(self.batch, profile, erasure.mark_key(self.turn.subjects, key))

    def _put_back(self, records: Sequence[Record], broken: Record) -> None:
        """Restore the row that `broken` left half-changed: as before this call, and then its earlier records."""
        key = broken.key
        assert key is not None, "decode_event has checked the key"
        whole = self._before(key) or Profile()
        turn = Turn(
            Batch(self.batch.index, self.batch.now_ms, self.batch.choices, catalog=self.batch.catalog),
            self.turn.scorer,
            self.turn.features_of,
            self.turn.subjects,
        )
        again = Run(turn, {key: whole}, self.acked_offset, self.topic, self.partition, None)
        for record in records:
            if record.offset >= broken.offset:
                break
            if record.key == key and record.offset > whole.offset:
                again._repeat(whole, record, self.failed.get(record.offset))
        self.rows[key] = whole
        self.batch.moved |= again.batch.moved
        if key in self.changed:
            self.changed[key] = whole
        self._reject(whole, broken, self.failed[broken.offset])

    def _repeat(self, profile: Profile, record: Record, refusal: Rejected | None) -> None:
        event = decode_event(record.value, record.key)
        if isinstance(event, Rejected):
            return
        if refusal is not None:
            self._reject(profile, record, refusal)
        else:
            self.batch.hear(event)
            self._take(profile, event, record, record.key or b"", record.offset)

    def _before(self, key: bytes) -> Profile | None:
        if self.reload is not None:
            return self.reload(key)
        assert self.snapshots is not None
        raw = self.snapshots.get(key)
        return None if raw is None else decode_profile(raw)

    # -- timers

    def timers(self, keys: Iterable[bytes], mark: int) -> None:
        """Run what is due in each row; a row whose timers raise is put back and tried again later."""
        batch = self.batch
        batch.mark, batch.source = mark, None
        due: list[tuple[int, bytes]] = []
        for key in keys:
            profile = self.rows.get(key)
            if profile is None:
                continue
            if profile.erased_ms and not erasure.is_mark(key):
                continue  # the mark has a place of its own in the index
            if profile.due_ms() <= batch.now_ms:
                if profile.erased_ms:
                    erasure.tidy(batch, profile, key, self.acked_offset)
                else:
                    profile = self._fire(key, profile)
                self.changed[key] = profile
            if (next_ms := profile.due_ms()) < NEVER_MS:
                due.append((next_ms, key))
        batch.due = due  # the index gave its entries away: it needs the next one of each row, and no other

    def _fire(self, key: bytes, profile: Profile) -> Profile:
        batch = self.batch
        batch.key, batch.user = key, key.decode()
        snapshot = encode_profile(profile)
        batch.untouched = True
        try:
            owed.trim(profile, self.acked_offset)
            if profile.policy != batch.index.policy_id:
                self.turn.adopt(profile)
            self.turn.clock(profile)
        except BadRow:
            raise
        except Exception:
            batch.cut()
            batch.count("timers", "failed")
            profile = self.rows[key] = decode_profile(snapshot)
            _postpone(profile, batch.now_ms)
        else:
            batch.count("timers", "fired")
        return profile

    # -- the backfill

    def sweep(self, keys: Iterable[bytes], mark: int, windows: Windows) -> None:
        """Bring rows to the policy in force; one that raises stays as it is."""
        batch = self.batch
        batch.mark, batch.source = mark, None
        for key in keys:
            profile = self.rows.get(key)
            if (
                profile is None
                or profile.erased_ms
                or profile.merged_into
                or _is_current(profile, batch.index.policy_id)
            ):
                batch.count("backfill", "current")
            elif windows.covers and profile.offset >= windows.next_offset:
                batch.count("backfill", "postponed")
            else:
                self._bring(key, profile, windows)

    def _bring(self, key: bytes, profile: Profile, windows: Windows) -> None:
        self._apart(key, profile, "backfill", lambda: self.turn.backfill(profile, windows.of(key), windows.covers))

    def thresholds(self, keys: Iterable[bytes], mark: int) -> None:
        """Have rows follow the thresholds of percentiles; one that raises stays as it is."""
        batch = self.batch
        batch.mark, batch.source = mark, None
        for key in keys:
            profile = self.rows.get(key)
            if profile is not None and not profile.erased_ms and profile.policy == batch.index.policy_id:
                self._apart(key, profile, "percentiles", partial(self.turn.thresholds, profile))

    def _apart(self, key: bytes, profile: Profile, what: str, change: Callable[[], None]) -> None:
        """Change a row that no event and no timer is about."""
        batch = self.batch
        batch.key, batch.user = key, key.decode()
        snapshot = encode_profile(profile)
        batch.untouched = True
        try:
            owed.trim(profile, self.acked_offset)
            change()
        except BadRow:
            raise
        except Exception:
            batch.cut()
            batch.count(what, "failed")
            self.rows[key] = decode_profile(snapshot)
        else:
            batch.count(what, "evaluated")
            self.changed[key] = profile

    # -- the end

    def effects(self) -> Effects:
        """What the call leaves to be done."""
        effects = Effects(changed=self.changed)
        self.batch.pour(effects)
        for fate, number in self.fates.items():
            if number:
                effects.counts["events", fate] = number
        return effects


def _read(batch: Batch, raw: bytes | None, key: bytes | None) -> Event | None:
    """As `decode_event`, compiled, and heard by the batch; None where that has something to say against it."""
    if raw is None or not 0 < len(raw) <= EVENT_BYTES_MAX:
        return None
    try:
        event = _parse(raw)
    except (ValueError, RecursionError):
        return None
    batch.hear(event)
    user = batch.user
    if not 0 < len(user) <= USER_CHARS_MAX or key is None or key != user.encode() or len(batch.name) > NAME_CHARS_MAX:
        return None
    kind = batch.kind
    return event if (batch.name if kind == "track" else kind in TYPES) else None


def _remembers(recent: bytes, digest: bytes) -> bool:
    """Whether the hash is one of those remembered, and not the end of one and the beginning of the next."""
    first = digest[0]
    return any(
        recent[at] == first and recent[at : at + WORD_BYTES] == digest for at in range(0, len(recent), WORD_BYTES)
    )


def _is_current(profile: Profile, policy_id: int) -> bool:
    """Whether a row needs no backfill; the mark of an erased user and a forwarding address never do."""
    if profile.erased_ms or profile.merged_into:
        return True
    return profile.policy == policy_id and not profile.missing


def _postpone(profile: Profile, now_ms: int) -> None:
    later_ms = now_ms + RETRY_MS
    for timer in profile.timers:
        timer.due_ms = max(timer.due_ms, later_ms)
    profile.segments_due_ms = max(profile.segments_due_ms, later_ms)
