"""Rows as builds before this one stored them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Final

import msgspec

from app.core.id_map import IdMap
from app.core.name_map import NameMap
from app.core.panes import NEVER_MS
from app.core.profile import COMMON_FIELDS, Profile, encode_profile
from app.core.row_heads import COUNT_AT, HEAD_BYTES
from app.core.window_map import WindowMap

FIELDS_OF_VERSION_3: Final = [
    "offset",
    "first_ms",
    "seen_ms",
    "events",
    "recent",
    "traits",
    "traits_ms",
    "timezone",
    "device",
    "consent",
    "consent_ms",
    "opted_out",
    "aliases",
    "last",
    "features",
    "segments",
    "orders",
    "revenue_milli",
    "order_ms",
    "hours",
    "affinity",
    "sent",
    "opened",
    "clicked",
    "dismissed",
    "ignored_run",
    "sends",
    "pending",
    "timers",
    "outbox",
    "devices",
    "segments_due_ms",
    "category_consent",
    "policy",
    "labels",
    "erased_ms",
    "missing",
    "shown",
    "hour_sends",
    "hour_opens",
    "weariness",
    "weariness_ms",
    "propensity",
    "examples",
    "merged_into",
    "absorbed",
    "locale",
    "browsing",
    "owed",
    "rewards",
    "open_rates",
    "older_traits",
]


def stored_rows(version: int) -> dict[str, bytes]:
    """Bytes that the last build of that version wrote, by what is peculiar about the row."""
    text = Path(__file__).with_name(f"rows_version_{version}.json").read_text(encoding="utf-8")
    return {name: base64.b64decode(raw) for name, raw in json.loads(text).items()}


def split(raw: bytes) -> tuple[bytes, bytes]:
    """The header of a stored row, and its body."""
    length = HEAD_BYTES + 4 * raw[COUNT_AT]
    return raw[:length], raw[length:]


def plain(value: object) -> object:
    """A field as older builds had it: maps that are packed now were dicts."""
    return dict(value.items()) if isinstance(value, IdMap | NameMap | WindowMap) else value


def version_4(row: Profile) -> bytes:
    """The row as the last build of version 4 stored it."""
    head, _ = split(encode_profile(row))
    due_ms = row.segments_due_ms if row.segments_due_ms < NEVER_MS else 0
    values = [due_ms if name == "segments_due_ms" else plain(getattr(row, name)) for name in COMMON_FIELDS]
    return b"\x04" + head[1:] + msgspec.msgpack.encode([*values, bool(row.owes_records()), row.rare_bytes()])


def version_3(row: Profile) -> tuple[bytes, list[Any]]:
    """The header and the fields of a row as builds of version 3 stored it; versions 1 and 2 had them in that order."""
    head, _ = split(encode_profile(row))
    values = [plain(getattr(row, name)) for name in FIELDS_OF_VERSION_3]
    return b"\x03" + head[1:], msgspec.msgpack.decode(msgspec.msgpack.encode(values))
