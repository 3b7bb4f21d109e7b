from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tables.ledger import (
    BadEntry,
    LedgerEntry,
    State,
    Step,
    decode_entry,
    encode_entry,
    next_step,
    settle,
    sweep,
)

entries = st.builds(
    LedgerEntry,
    state=st.sampled_from(State),
    offset=st.integers(0, 2**62),
    at_ms=st.integers(0, 2**62),
    event_ms=st.integers(-(2**62), 2**62),
    provider=st.text(max_size=20),
    reason=st.text(max_size=20),
    provider_id=st.text(max_size=20),
    attempts=st.integers(0, 100),
)


@given(entries)
def test_an_entry_survives_its_encoding(entry: LedgerEntry) -> None:
    assert decode_entry(encode_entry(entry)) == entry


@given(st.binary(max_size=40), st.sampled_from([0, 1, 8, 9, 10]))
def test_bytes_that_are_no_entry_are_refused_as_such(noise: bytes, kept: int) -> None:
    raw = encode_entry(LedgerEntry(State.SENT, offset=7, at_ms=1))[:kept] + noise
    with contextlib.suppress(BadEntry):  # any other exception fails the test
        assert isinstance(decode_entry(raw), LedgerEntry)


def test_an_entry_without_the_newer_fields_is_read() -> None:
    old = encode_entry(LedgerEntry(State.SENT, offset=7, at_ms=1))
    short = old[:9] + b"\x93" + old[10:13]  # an array of the first three fields only
    assert decode_entry(short) == LedgerEntry(State.SENT, offset=7, at_ms=1)


def test_an_entry_of_another_version_is_refused() -> None:
    with pytest.raises(BadEntry, match="version 9"):
        decode_entry(b"\x09" + encode_entry(LedgerEntry(State.SENT, 0, 0))[1:])


@pytest.mark.parametrize(
    ("state", "transactional", "offset", "step"),
    [
        (None, False, 5, Step.SEND),
        (None, True, 5, Step.SEND),
        (State.RESERVED, False, 5, Step.GIVE_UP),
        (State.RESERVED, True, 5, Step.RESEND),
        (State.RESERVED, False, 6, Step.GIVE_UP),
        (State.SENT, False, 5, Step.REPEAT),
        (State.FAILED, True, 5, Step.REPEAT),
        (State.UNKNOWN, True, 5, Step.REPEAT),
        (State.SENT, True, 6, Step.SKIP),
        (State.UNKNOWN, False, 6, Step.SKIP),
    ],
)
def test_the_step_follows_from_the_entry(state: State | None, transactional: bool, offset: int, step: Step) -> None:
    entry = None if state is None else LedgerEntry(state, offset=5, at_ms=0)
    assert next_step(entry, transactional=transactional, offset=offset) is step


@given(entries, entries)
def test_only_a_reserved_entry_changes_and_only_to_a_final_state(entry: LedgerEntry, final: LedgerEntry) -> None:
    allowed = entry.state is State.RESERVED and final.state is not State.RESERVED
    if allowed:
        assert settle(entry, final) is final
    else:
        with pytest.raises(AssertionError):
            settle(entry, final)


def test_a_sweep_forgets_entries_older_than_retention_and_no_other() -> None:
    rows = [(str(at).encode(), encode_entry(LedgerEntry(State.SENT, 0, at))) for at in (899, 900, 901, 1_000)]
    assert list(sweep(rows, now_ms=1_000, retention_ms=100)) == [(b"899", None)]
