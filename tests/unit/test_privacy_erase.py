"""The erase command without a broker: what it refuses, and what it says."""

from __future__ import annotations

import asyncio

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.embedded import free_port
from app.privacy.erase import LOG_TOPICS, Erasing, logs_gone_ms, request_erasure
from schemas.erasures import LEDGER, PROFILE, ErasureReceipt, Subjects, decode_receipt, encode_receipt
from schemas.topics import BY_NAME, CATALOG, DAY_MS

SUBJECTS = Subjects(b"a secret of the tests")


def test_a_user_id_that_cannot_be_one_is_refused_before_anything_is_asked() -> None:
    nowhere = {"bootstrap_servers": f"127.0.0.1:{free_port()}"}
    with pytest.raises(ValueError, match="257"):
        asyncio.run(request_erasure(nowhere, SUBJECTS, ["ok", "x" * 257], aliases=False, idempotent=False))


def test_without_a_broker_the_command_fails_and_names_the_setting() -> None:
    address = f"127.0.0.1:{free_port()}"
    env = {"NUDGE_PROFILE": "dev"}
    result = CliRunner().invoke(app, ["erase", "--user", "u1", "--broker", address], env=env)
    assert result.exit_code == 1
    assert "NUDGE_BROKER" in result.stderr
    assert address in result.stderr


def test_naming_nobody_is_an_error() -> None:
    assert CliRunner().invoke(app, ["erase"], env={"NUDGE_PROFILE": "dev"}).exit_code == 2


def test_a_request_is_complete_when_worker_and_sender_have_reported() -> None:
    erasing = Erasing("u1", "r1")
    for part, done in ((PROFILE, False), (LEDGER, True)):
        receipt = ErasureReceipt(subject="s", request="r1", part=part, at_ms=1, partition=0, offset=2, erased={})
        erasing.receipts[part] = decode_receipt(encode_receipt(receipt))
        assert erasing.done is done


def test_every_log_that_names_users_is_gone_in_time() -> None:
    assert set(LOG_TOPICS) == {"events", "decisions", "segments", "dead-letters"}
    for name in LOG_TOPICS:
        config = BY_NAME[name].config()
        assert int(config["retention.ms"]) + int(config["segment.ms"]) <= logs_gone_ms(0)
    assert logs_gone_ms(0) == 8 * DAY_MS


def test_state_that_was_erased_may_be_kept_uncompacted_for_a_day_at_most() -> None:
    compacted = [topic for topic in BY_NAME.values() if topic.cleanup == "compact" and topic.name != CATALOG]
    assert {topic.config()["max.compaction.lag.ms"] for topic in compacted} == {str(DAY_MS)}


def test_a_subject_depends_on_the_secret_and_cannot_be_guessed_without() -> None:
    assert SUBJECTS.of(b"u1") == Subjects(b"a secret of the tests").of(b"u1")
    assert SUBJECTS.of(b"u1") != Subjects(b"another").of(b"u1")
    assert SUBJECTS.of(b"u1") != SUBJECTS.of(b"u2")
