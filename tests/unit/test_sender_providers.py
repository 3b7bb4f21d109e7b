from __future__ import annotations

import fcntl
import ipaddress
import os
from pathlib import Path

import orjson
import pytest

from app.sender.providers import ProviderSettings, build_provider
from app.sender.providers.addresses import AddressRule
from app.sender.providers.answers import read_answer
from app.sender.providers.base import Accepted, BadProvider, Message, Rejected, Retry
from app.sender.providers.console import ConsoleProvider, ConsoleSettings
from app.sender.providers.fcm import read_fcm
from app.sender.providers.http2 import Answer
from app.sender.providers.webhook import WebhookProvider, WebhookSettings, sign

SECRET = b"0123456789abcdef"


def message(n: int = 0) -> Message:
    return Message(id=f"id-{n}", user="u", campaign="c", category="news", title="Hi", body="two\nlines", variant="a")


async def test_the_console_writes_one_json_line_a_message_and_appends(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    for n in range(2):
        provider = ConsoleProvider(ConsoleSettings(str(path)))
        assert await provider.send(message(n)) == Accepted()
        await provider.close()
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["id"] for line in lines] == ["id-0", "id-1"]
    assert lines[0]["body"] == "two\nlines"


@pytest.mark.parametrize("code", ["INVALID for ann@example.com", "token:abc", "x" * 100, "", 7, None])
def test_a_reason_is_googles_word_or_the_status_and_never_what_the_answer_quotes(code: object) -> None:
    body = orjson.dumps({"error": {"status": code, "message": "ann@example.com"}})
    assert read_fcm(Answer(400, {}, body), 0.0) == Rejected("http_400")


async def test_an_accepted_line_is_in_the_file_before_the_provider_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    provider = ConsoleProvider(ConsoleSettings(str(path)))
    await provider.send(message())
    assert path.read_bytes().endswith(b"\n")
    await provider.close()


async def test_a_full_pipe_is_tried_again_and_does_not_block(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    provider = ConsoleProvider(ConsoleSettings(str(path)))
    descriptor = provider._fd
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_NONBLOCK | os.O_WRONLY)
    while True:
        outcome = await provider.send(message())
        if not isinstance(outcome, Accepted):
            break
    assert isinstance(outcome, Retry)
    await provider.close()
    os.close(reader)


def test_a_console_file_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(BadProvider, match="No such file"):
        ConsoleProvider(ConsoleSettings(str(tmp_path / "missing" / "out")))


def test_an_unknown_provider_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(BadProvider, match="'pigeon': expected one of apns, console, fcm"):
        build_provider("pigeon", ProviderSettings())


@pytest.mark.parametrize("name", ["fcm", "apns", "webpush"])
def test_a_push_service_without_settings_is_refused(name: str) -> None:
    with pytest.raises(BadProvider, match=f"{name}: needs"):
        build_provider(name, ProviderSettings())


def test_a_webhook_without_settings_is_refused() -> None:
    with pytest.raises(BadProvider, match="url and a secret"):
        build_provider("webhook", ProviderSettings())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"url": "ftp://example.org"}, "url"),
        ({"url": "nowhere"}, "url"),
        ({"url": "https://"}, "url"),
        ({"url": "http://example.org"}, "https"),
        ({"secret": b"short"}, "secret: 5 bytes"),
        ({"connect_timeout_s": 10.0}, "timeout"),
    ],
)
def test_webhook_settings_that_cannot_work_stop_the_start(changes: dict[str, object], text: str) -> None:
    fields = {"url": "https://example.org/hook", "secret": SECRET} | changes
    with pytest.raises(BadProvider, match=text):
        WebhookProvider(WebhookSettings(**fields))  # type: ignore[arg-type]


def test_the_secret_is_not_printed() -> None:
    assert "0123" not in repr(WebhookSettings("https://example.org", SECRET))


def test_the_signature_is_that_of_the_standard_webhooks_specification() -> None:
    # The test vector of the specification's reference libraries, secret "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" in base64.
    secret = bytes.fromhex("31f290f6bf0629 8aab4f08d43c3f082cf648a362da2da4b0".replace(" ", ""))
    signature = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, "Accepted"),
        (204, "Accepted"),
        (301, "Rejected"),
        (400, "Rejected"),
        (404, "Rejected"),
        (408, "Retry"),
        (410, "Rejected"),
        (429, "Retry"),
        (500, "Unknown"),
        (501, "Rejected"),
        (502, "Unknown"),
        (503, "Retry"),
        (504, "Unknown"),
    ],
)
def test_only_an_answer_that_says_so_means_that_the_message_was_not_sent(status: int, kind: str) -> None:
    assert type(read_answer(status, None, 0.0)).__name__ == kind


@pytest.mark.parametrize(
    ("header", "after_ms"),
    [
        (None, None),
        ("0", 0),
        ("120", 120_000),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("", None),
        ("9" * 5_000, 999_999_999_000),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 5_000),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0),
        ("Thu, 99 Jan 1970 00:00:01 GMT", None),
    ],
)
def test_retry_after_is_read_in_both_forms(header: str | None, after_ms: int | None) -> None:
    assert read_answer(503, header, 5.0) == Retry("http_503", after_ms)


@pytest.mark.parametrize(
    ("address", "public", "loopback", "private"),
    [
        # allowed by the plain rule, by loopback=True, by private=True
        ("8.8.8.8", True, True, True),
        ("2606:4700::1111", True, True, True),
        ("127.0.0.1", False, True, False),
        ("127.9.9.9", False, True, False),
        ("::1", False, True, False),
        ("::ffff:127.0.0.1", False, True, False),
        ("64:ff9b::7f00:1", False, True, False),
        ("10.1.2.3", False, False, True),
        ("192.168.0.1", False, False, True),
        ("172.16.0.1", False, False, True),
        ("fd00::1", False, False, True),
        ("::ffff:10.0.0.1", False, False, True),
        ("2002:0a00:0001::", False, False, True),
        ("64:ff9b::a00:1", False, False, True),
        ("169.254.169.254", False, False, False),
        ("::ffff:169.254.169.254", False, False, False),
        ("fe80::1", False, False, False),
        ("224.0.0.1", False, False, False),
        ("ff02::1", False, False, False),
        ("0.0.0.0", False, False, False),
        ("::", False, False, False),
    ],
)
def test_an_address_of_our_own_network_is_refused_unless_allowed(
    address: str, public: bool, loopback: bool, private: bool
) -> None:
    found = ipaddress.ip_address(address)
    rules = (AddressRule(), AddressRule(loopback=True), AddressRule(private=True))
    assert tuple(rule.allows(found) for rule in rules) == (public, loopback, private)
