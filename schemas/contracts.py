"""The JSON Schemas of the messages, from the structs that read and write them.

What the structs' types cannot say and `schemas.events.check_event` adds to them stands in `_RULES`. The schemas are
drafts 2020-12 and 07 at once: they use nothing that means something else in either.
"""

from __future__ import annotations

import inspect
import json
from importlib import resources
from typing import Any, Final

import msgspec

from schemas.catalog import CatalogItem
from schemas.dead_letters import DeadLetter
from schemas.decisions import (
    DECISION_TYPE,
    ERASED,
    ERASED_TYPE,
    SHADOW_TYPE,
    SOURCE,
    SUPPRESS_REASONS,
    SUPPRESSED_TYPE,
    Decision,
)
from schemas.erasures import ErasureReceipt
from schemas.events import NAME_CHARS_MAX, REASONS, USER_CHARS_MAX, Event
from schemas.models import ModelSnapshot
from schemas.outcomes import LATE_OPEN, LATE_OPT_OUT, Outcome
from schemas.percentiles import Percentiles
from schemas.policies import PolicyVersion
from schemas.segments import MembershipChange
from schemas.topics import CATALOG, DECISIONS, ERASURES, EVENTS, MODELS, OUTCOMES, PERCENTILES, POLICY, SEGMENTS

Schema = dict[str, Any]

MESSAGES: Final[dict[str, type[msgspec.Struct]]] = {
    EVENTS: Event,
    DECISIONS: Decision,
    SEGMENTS: MembershipChange,
    OUTCOMES: Outcome,
    MODELS: ModelSnapshot,
    POLICY: PolicyVersion,
    ERASURES: ErasureReceipt,
    PERCENTILES: Percentiles,
    CATALOG: CatalogItem,
}
"""The struct of each topic whose values are JSON."""

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_TRACEPARENT: Final[Schema] = {
    "type": "string",
    "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
    "description": "W3C trace context of the event that caused this, where it carried one.",
}
_USER: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": USER_CHARS_MAX}


def _non_empty(name: str) -> Schema:
    return {"properties": {name: _USER}, "required": [name]}


_RULES: Final[dict[str, Schema]] = {
    "Event": {
        "allOf": [
            {
                "properties": {
                    "type": {"enum": ["track", "identify", "alias", "erase"]},
                    "event": {"maxLength": NAME_CHARS_MAX},
                }
            },
            {"anyOf": [_non_empty("userId"), _non_empty("anonymousId")]},
            {
                "if": {"properties": {"type": {"const": "track"}}},
                "then": {"properties": {"event": {"minLength": 1}}, "required": ["event"]},
            },
        ]
    },
    "Decision": {
        "allOf": [
            {
                "if": {"properties": {"action": {"const": "send"}}},
                "then": {"required": ["content"]},
                "else": {"properties": {"reason": {"enum": [*SUPPRESS_REASONS, ERASED]}}, "required": ["reason"]},
            },
            {"properties": {"propensity": {"minimum": 0, "maximum": 1}}},
            {"properties": {"openProbability": {"minimum": 0, "maximum": 1}}},
        ]
    },
    "Outcome": {"allOf": [{"properties": {"label": {"enum": [LATE_OPEN, LATE_OPT_OUT, 0, 1]}}}]},
}


def components(ref_template: str) -> dict[str, Schema]:
    """The schema of every message struct and of every struct in it, by name.

    Parameters
    ----------
    ref_template
        How one refers to another, such as ``#/$defs/{name}``.
    """
    _, found = msgspec.json.schema_components(MESSAGES.values(), ref_template=ref_template)
    for name, schema in found.items():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
        schema.update(_RULES.get(name, {}))
    return found


def value_schema(topic: str) -> Schema:
    """The whole schema of a topic's values, to be used alone."""
    name = MESSAGES[topic].__name__
    found = components("#/$defs/{name}")
    used = _referred(found, name)
    others = {other: found[other] for other in sorted(used - {name})}
    return {
        "$schema": _DIALECT,
        "$id": f"urn:nudge:{name}",
        **found[name],
        **({"$defs": others} if others else {}),
    }


def _referred(found: dict[str, Schema], name: str) -> set[str]:
    """`name` and every struct that it holds, at whatever depth."""
    reached, todo = set[str](), [name]
    while todo:
        current = todo.pop()
        if current not in reached:
            reached.add(current)
            text = json.dumps(found[current])
            todo += [other for other in found if f'"#/$defs/{other}"' in text]
    return reached


def header_schema(topic: str) -> Schema | None:
    """The schema of a topic's record headers as texts; None where there is nothing but perhaps a trace context."""
    if topic == DECISIONS:
        return _headers(
            {
                "ce_specversion": {"const": "1.0"},
                "ce_id": {
                    "type": "string",
                    "description": "The decision's id, the same for ever.",
                },
                "ce_type": {"enum": [DECISION_TYPE, SUPPRESSED_TYPE, ERASED_TYPE, SHADOW_TYPE]},
                "ce_source": {"const": SOURCE},
                "content-type": {"const": "application/json"},
            }
        )
    return None


def dead_letter_headers_schema() -> Schema:
    """The schema of a dead letter's headers; its key and value are those of the record that was refused."""
    fields = {f"nudge_{field.name}": dict[str, Any](type="string") for field in msgspec.structs.fields(DeadLetter)}
    for name in ("nudge_partition", "nudge_offset", "nudge_at_ms"):
        fields[name]["pattern"] = "^[0-9]+$"
    fields["nudge_reason"]["description"] = f"Of an event one of: {', '.join(REASONS)}."
    schema = _headers(fields)
    schema["properties"]["nudge_bytes"] = {
        "type": "string",
        "pattern": "^[0-9]+$",
        "description": "The length of a value that was too long to be carried whole.",
    }
    return schema


def _headers(required: dict[str, Schema]) -> Schema:
    return {
        "type": "object",
        "properties": {**required, "traceparent": _TRACEPARENT},
        "required": list(required),
    }


def examples() -> list[tuple[str, dict[str, Any]]]:
    """Name and content of each example record: topic, key, value and perhaps headers."""
    folder = resources.files("schemas") / "examples"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".json")), key=lambda file: file.name)
    return [(file.name.removesuffix(".json"), json.loads(file.read_text(encoding="utf-8"))) for file in files]
