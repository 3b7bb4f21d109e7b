"""Pseudonyms: stable, keyed, and they name their key."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.core.plan import Cap
from app.privacy.pseudonyms import BadKeys, Pseudonyms, key_id_of, read_keys
from schemas.events import Event, decode_event, encode_event
from schemas.topics import EVENTS
from tests.support.plans import DAY, campaign, make_plan, on_event
from tests.support.streams import START, FakeRecord, Stream, record, track

OLD, NEW = b"o" * 32, b"n" * 32


def test_a_pseudonym_is_stable_and_names_its_key() -> None:
    pseudonyms = Pseudonyms({"k1": OLD, "k2": NEW}, "k2")
    made = pseudonyms.of("ada@example.org")
    assert made == pseudonyms.of("ada@example.org")
    assert key_id_of(made) == "k2"
    assert "ada" not in made
    assert key_id_of("ada@example.org") is None


def test_it_is_the_hmac_that_the_document_describes() -> None:
    # From: printf %s ada | openssl dgst -sha256 -mac HMAC -macopt hexkey:$(printf 'o%.0s' {1..32} | xxd -p -c 64)
    assert Pseudonyms({"k1": OLD}, "k1").of("ada") == "p:k1:gBgH9FA1LsoQ0PczVw1lWAYLl6g"


def test_doing_it_twice_does_no_harm() -> None:
    pseudonyms = Pseudonyms({"k1": OLD}, "k1")
    assert pseudonyms.of(pseudonyms.of("ada")) == pseudonyms.of("ada")


def test_after_a_rotation_the_old_pseudonym_is_still_recognised() -> None:
    before = Pseudonyms({"k1": OLD}, "k1").of("ada")
    after = Pseudonyms({"k1": OLD, "k2": NEW}, "k2")
    assert after.matches(before, "ada")
    assert after.matches(after.of("ada"), "ada")
    assert not after.matches(before, "eve")
    assert not after.matches("ada", "ada")
    assert after.of("ada", "k1") == before


@pytest.mark.parametrize(
    ("keys", "present"),
    [({}, "k1"), ({"k1": OLD}, "k2"), ({"k1": b"short"}, "k1"), ({"k:1": OLD}, "k:1"), ({"": OLD}, "")],
)
def test_keys_that_cannot_be_used_are_refused_without_being_shown(keys: dict[str, bytes], present: str) -> None:
    with pytest.raises(BadKeys) as refused:
        Pseudonyms(keys, present)
    assert "short" not in str(refused.value)


def test_the_command_prints_them_and_never_the_key() -> None:
    keys = f"k1:{OLD.hex()},k2:{NEW.hex()}"
    result = CliRunner().invoke(
        app, ["pseudonym", "--user", "-"], input="ada\neve\n", env={"NUDGE_PSEUDONYM_KEYS": keys}
    )
    assert result.output.split() == [Pseudonyms(read_keys(keys), "k2").of(name) for name in ("ada", "eve")]
    refused = CliRunner().invoke(app, ["pseudonym", "--user", "ada"], env={"NUDGE_PSEUDONYM_KEYS": "k1:nothex"})
    assert refused.exit_code == 2
    assert "nothex" not in refused.output


def test_a_new_key_keeps_caps_and_opt_outs() -> None:
    old, new = Pseudonyms({"k1": OLD}, "k1"), Pseudonyms({"k1": OLD, "k2": NEW}, "k2")
    before, now = old.of("ada"), new.of("ada")
    stream = Stream(make_plan(campaigns=[campaign("hello", on_event("Go"))], caps=(Cap(1, DAY),)))
    stream.send(track("Go", START, before), track("Notifications Disabled", START + 1, before, category="news"))
    assert len(stream.sends) == 1
    [renewal] = new.renewals("ada")
    stream.at(1000).process([FakeRecord(now.encode(), encode_event(renewal), 10)])
    for offset in (11, 12):  # the request to merge, and the row
        [output] = [output for output in stream.effects.outputs if output.topic == EVENTS]
        stream.process([FakeRecord(output.key, output.value, offset)])
    stream.process([record(track("Go", START + 2000, now), 13)])
    assert stream.reasons[-1:] == ["frequency_cap"]
    assert stream.rows[now.encode()].opted_out == ["news"]


def test_the_command_prints_what_to_say_after_a_rotation() -> None:
    keys = f"k1:{OLD.hex()},k2:{NEW.hex()}"
    result = CliRunner().invoke(app, ["pseudonym", "--user", "ada", "--renew"], env={"NUDGE_PSEUDONYM_KEYS": keys})
    key, _, value = result.output.strip().partition("|")
    event = decode_event(value.encode(), key.encode())
    made = Pseudonyms(read_keys(keys), "k2")
    assert isinstance(event, Event)
    assert (event.type, event.user_id, event.previous_id) == ("alias", made.of("ada"), made.of("ada", "k1"))
