"""Settings: 12-factor, read once at start from `NUDGE_*` variables, checked before anything connects.

An error names the variable, the value and the mend; secrets are never printed.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.clock import Clock, clock_from_spec

HTTPS: Final = r"^https://[^\s@]+$"
PROVIDERS: Final = ("console", "webhook", "fcm", "apns", "webpush")
DEV_SECRET = "nudge-development-secret"  # noqa: S105 - refused outside the dev profile
TOKEN_CHARS_MIN = 16


class ConfigurationError(Exception):
    """The configuration cannot be used; the message says which variable and how to mend it."""


class Settings(BaseSettings):
    """Everything that may differ between two installations."""

    model_config = SettingsConfigDict(env_prefix="NUDGE_", extra="ignore", frozen=True)

    broker: str = Field("127.0.0.1:9092", description="Kafka bootstrap servers, HOST:PORT[,HOST:PORT…]")
    profile: Literal["prod", "dev"] = Field("prod", description="dev: fast rebalances, unsigned defaults allowed")
    app_id: str = Field("nudge", pattern=r"^[A-Za-z0-9._-]+$", description="consumer group of the workers")
    sender_id: str = Field("nudge-sender", pattern=r"^[A-Za-z0-9._-]+$", description="consumer group of the senders")
    partitions: int = Field(8, ge=1, le=1024, description="partitions of `events` and the topics bound to it")
    replication: int = Field(1, ge=1, le=7, description="replication factor for `nudge topics create`")
    data_dir: Path = Field(Path("data"), description="where the row stores live; one directory a process")
    policy: Path | None = Field(None, description="the policy file, until the topic `policy` has a version of it")
    policy_name: str = Field("", description="which policy of the topic `policy`; else the file's, or the only one")
    shadow_policy: Path | None = Field(None, description="a policy on trial: its decisions are written down, not sent")
    shadow_share: float = Field(0.05, gt=0, le=1, description="of the users, on whom the shadow policy is tried")
    backfill_share: float = Field(
        0.2, gt=0, le=1, description="of a worker's time, at most, for bringing rows to a new policy version"
    )
    segment_settle_s: float = Field(
        21_600.0, ge=0, description="how long a segment must be smaller than its minimum size before the log says so"
    )
    percentiles_interval_s: float = Field(
        300.0, gt=0, description="how often the users are counted for top() and bottom(), where a policy has them"
    )
    catalog_items_max: int = Field(
        100_000, ge=1, le=10_000_000, description="items of the catalog that a worker keeps, 1 KB each at most"
    )
    clock: str = Field("system", description="system, or scaled:EVENT_MS:WALL_MS:RATE for a replay")
    http_host: str = Field("127.0.0.1", description="address of /metrics, /livez and /readyz")
    http_port: int = Field(6066, ge=0, le=65535, description="port of the same; 0 takes a free one")
    instance_id: str = Field("", description="static group membership: the same id after a restart, no rebalance")
    idempotent: bool = Field(True, description="idempotent producer; false only for the embedded broker")
    cache_rows: int = Field(1_000, ge=100, description="decoded rows kept in memory")
    row_memory_mb: int = Field(
        128,
        ge=0,
        description="rows kept in memory, those written last (in a sender at most 16); half may be not in RocksDB yet",
    )
    rocksdb_cache_mb: int = Field(32, ge=4, description="RocksDB block cache of the process")
    rocksdb_memtable_mb: int = Field(8, ge=1, description="RocksDB write buffer of one partition")
    watchdog_stall_s: float = Field(
        120.0, ge=5, le=3600, description="a worker ends itself when work waits and nothing has moved for so long"
    )
    watchdog_block_s: float = Field(
        30.0, ge=2, le=600, description="a worker ends itself when its event loop was blocked for so long"
    )
    snapshot_interval_s: float = Field(2.0, gt=0, description="how often the learner publishes its models")
    secret: SecretStr = Field(SecretStr(DEV_SECRET), description="signs model snapshots and policies (HMAC-SHA-256)")
    privacy_secret: SecretStr = Field(
        SecretStr(""), description="keys the hashes of users (erasure, ledger); never change it; else NUDGE_SECRET"
    )
    admin_token: SecretStr = Field(SecretStr(""), description="asks a worker for a user's row; empty: nobody can")
    worker_urls: str = Field(
        "http://127.0.0.1:6066", description="HTTP endpoints of the workers (and senders), for explain and console"
    )
    console_host: str = Field("127.0.0.1", description="address of the console")
    console_port: int = Field(6080, ge=0, le=65535, description="port of the console; 0 takes a free one")
    console_token: SecretStr = Field(SecretStr(""), description="needed in the console to look at one user")
    log_format: Literal["console", "json"] = Field("json", description="log lines for people or for machines")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="how to speak to Kafka"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="how to log in, with a SASL protocol"
    )
    sasl_username: str = Field("", description="who logs in")
    sasl_password: SecretStr = Field(SecretStr(""), description="with which password")
    ssl_cafile: Path | None = Field(None, description="CA bundle; without it the system's")
    ssl_certfile: Path | None = Field(None, description="our certificate, where Kafka asks for one")
    ssl_keyfile: Path | None = Field(None, description="its key")

    sender_provider: str = Field("console", description="console, webhook, or push services: fcm,apns,webpush")
    sender_output: Path | None = Field(None, description="console provider: a file instead of standard output")
    sender_concurrency: int = Field(64, ge=1, le=4096, description="messages on the way to one provider at a time")
    sender_rate: float = Field(0.0, ge=0, description="messages a second to one provider; 0 for no bound")
    webhook_url: str = Field("", description="where the webhook provider posts")
    webhook_secret: SecretStr = Field(SecretStr(""), description="signs what it posts (HMAC-SHA-256)")
    webhook_private: bool = Field(False, description="allow private webhook addresses (link-local never)")
    push_ca_file: Path | None = Field(None, description="PEM of further authorities that push services may have")
    push_timeout_s: float = Field(10.0, ge=1.0, le=20.0, description="how long a push service may take")
    fcm_credentials: Path | None = Field(None, description="JSON file of the Google service account")
    fcm_url: str = Field("https://fcm.googleapis.com", pattern=HTTPS, description="an https:// URL")
    fcm_token_url: str = Field("", pattern=f"^$|{HTTPS}", description="instead of the one in the credentials")
    apns_key: Path | None = Field(None, description="the .p8 file")
    apns_key_id: str = Field("", description="of the key, as Apple names it")
    apns_team_id: str = Field("", description="of the app's team")
    apns_topic: str = Field("", description="the app's bundle id")
    apns_url: str = Field("https://api.push.apple.com", pattern=HTTPS, description="an https:// URL")
    webpush_key: Path | None = Field(None, description="PEM file of the VAPID key, on P-256")
    webpush_subject: str = Field("", description="whom a push service may write to: mailto:ADDRESS or https://…")

    @field_validator("broker")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        for server in value.split(","):
            host, colon, port = server.strip().rpartition(":")
            if not (colon and host and port.isdigit() and 0 < int(port) < 65536):
                raise ValueError(f"{server!r} is not HOST:PORT")
        return value

    @field_validator("policy", "shadow_policy", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return None if value == "" else value  # so that an image's default can be taken back

    @field_validator("worker_urls")
    @classmethod
    def _urls(cls, value: str) -> str:
        for url in filter(None, value.split(",")):
            if not re.fullmatch(r"https?://[A-Za-z0-9.\[\]:_-]+/?", url.strip()):
                raise ValueError(f"{url.strip()!r} is not http://HOST:PORT")
        return value

    @field_validator("sender_provider")
    @classmethod
    def _known_providers(cls, value: str) -> str:
        for name in value.split(","):
            if name.strip() not in PROVIDERS:
                raise ValueError(f"{name.strip()!r} is not one of {', '.join(PROVIDERS)}")
        return value

    @field_validator("clock")
    @classmethod
    def _readable_clock(cls, value: str) -> str:
        clock_from_spec(value)
        return value

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if self.profile == "prod" and self.secret.get_secret_value() == DEV_SECRET:
            raise ValueError(
                "secret: NUDGE_SECRET is not set. It signs model snapshots and policies: set it to 32 or more random "
                "characters, the same for all workers, or NUDGE_PROFILE=dev on your own machine"
            )
        if self.profile == "prod" and self.security_protocol == "SASL_PLAINTEXT":
            raise ValueError("security_protocol: SASL_PLAINTEXT sends the password in clear; use SASL_SSL")
        if self.security_protocol.startswith("SASL") and not self.sasl_username:
            raise ValueError("sasl_username: NUDGE_SASL_USERNAME is required with a SASL protocol")
        for provider, name in (
            ("webhook", "webhook_url"),
            ("fcm", "fcm_credentials"),
            ("apns", "apns_key"),
            ("webpush", "webpush_key"),
        ):
            if provider in self.sender_providers() and not getattr(self, name):
                raise ValueError(f"{name}: NUDGE_{name.upper()} is required with NUDGE_SENDER_PROVIDER={provider}")
        ipaddress.ip_address(self.http_host)
        if not ipaddress.ip_address(self.console_host).is_loopback and not self.console_token.get_secret_value():
            raise ValueError(
                "console_host: NUDGE_CONSOLE_HOST is not a loopback address: set NUDGE_CONSOLE_TOKEN, which is then "
                "needed to look at users"
            )
        for name in ("admin_token", "console_token"):
            token = getattr(self, name).get_secret_value()
            if self.profile == "prod" and 0 < len(token) < TOKEN_CHARS_MIN:
                raise ValueError(f"{name}: a token has {TOKEN_CHARS_MIN} or more characters; `openssl rand -hex 32`")
        return self

    def worker_endpoints(self) -> list[str]:
        """`worker_urls` one by one, without a slash at the end."""
        return [url.strip().rstrip("/") for url in self.worker_urls.split(",") if url.strip()]

    def sender_providers(self) -> list[str]:
        """The providers' names; the first is for devices whose own provider is not in use."""
        return list(dict.fromkeys(name.strip() for name in self.sender_provider.split(",")))

    def make_clock(self) -> Clock:
        """The clock that `clock` names."""
        return clock_from_spec(self.clock)

    def secret_bytes(self) -> bytes:
        """The key that signs snapshots and policies."""
        return self.secret.get_secret_value().encode()

    def privacy_bytes(self) -> bytes:
        """The key of the hashes by which erased users are recognised."""
        return self.privacy_secret.get_secret_value().encode() or self.secret_bytes()

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context for Kafka, None for a plaintext protocol."""
        if not self.security_protocol.endswith("SSL"):
            return None
        context = ssl.create_default_context(cafile=str(self.ssl_cafile) if self.ssl_cafile else None)
        if self.ssl_certfile:
            context.load_cert_chain(str(self.ssl_certfile), str(self.ssl_keyfile) if self.ssl_keyfile else None)
        return context

    def client_settings(self) -> dict[str, Any]:
        """Connection settings for aiokafka's clients."""
        settings: dict[str, Any] = {
            "bootstrap_servers": self.broker,
            "security_protocol": self.security_protocol,
            "ssl_context": self.ssl_context(),
        }
        if self.security_protocol.startswith("SASL"):
            settings |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password.get_secret_value(),
            }
        return settings

    def shown(self) -> dict[str, str]:
        """Every setting as `NUDGE_NAME: value`, secrets redacted."""
        return {
            f"NUDGE_{name.upper()}": "********"
            if isinstance(value, SecretStr) and value.get_secret_value()
            else str(value if not isinstance(value, SecretStr) else "")
            for name, value in ((name, getattr(self, name)) for name in type(self).model_fields)
        }


def load_settings(**overrides: Any) -> Settings:
    """Read the environment.

    Raises
    ------
    ConfigurationError
        One line for each problem: variable, value, mend.
    """
    try:
        return Settings(**overrides)
    except ValidationError as exc:
        lines = []
        for error in exc.errors():
            name = str(error["loc"][0]) if error["loc"] else ""
            message = error["msg"].removeprefix("Value error, ")
            if not name:
                name, _, message = message.partition(": ")
            variable = f"NUDGE_{name.upper()}"
            field = Settings.model_fields.get(name)
            value = "" if field is None or field.annotation is SecretStr else f"={error.get('input')!r}"
            if isinstance(error.get("input"), dict):
                value = ""
            hint = f" ({field.description})" if field is not None and field.description else ""
            lines.append(f"{variable}{value}: {message}{hint}")
        raise ConfigurationError("\n".join(lines)) from None
