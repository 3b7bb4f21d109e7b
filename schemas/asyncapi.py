"""The AsyncAPI 3 document of the topic registry: what nudge receives and sends, and how each topic is configured."""

from __future__ import annotations

from typing import Any, Final

import yaml

from schemas.contracts import MESSAGES, components, dead_letter_headers_schema, examples, header_schema
from schemas.topics import (
    CATALOG,
    CLOCK,
    DEAD_LETTERS,
    EVENTS,
    LEDGER_CHANGELOG,
    OUTCOMES,
    PROFILES_CHANGELOG,
    TOPICS,
    Topic,
)

VERSION: Final = "1.0.0"
"""Of the contracts, not of the package: a new field with a default raises the middle number."""

_BINDING: Final = "0.5.0"
_INTERNAL: Final = (PROFILES_CHANGELOG, LEDGER_CHANGELOG, CLOCK)
_RECEIVED: Final = (EVENTS, OUTCOMES, CATALOG)
_HEADER: Final = "# Made by `nudge schemas export`; do not edit.\n"


def document() -> dict[str, Any]:
    """The document as plain data."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "nudge",
            "version": VERSION,
            "description": (
                "Real-time segmentation and push-notification decisions on Kafka. Operations are those of nudge: "
                "`receive` is what others produce for it, `send` is what it produces. Fields are added with defaults "
                "and never taken away; readers must ignore fields that they do not know."
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "kafka:9092",
                "protocol": "kafka",
                "description": "Yours: `NUDGE_BROKER`, with TLS and SASL by `NUDGE_SECURITY_PROTOCOL`.",
            }
        },
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "operations": dict(_operation(topic) for topic in TOPICS),
        "components": {
            "messages": {_message_name(topic): _message(topic) for topic in TOPICS},
            "schemas": components("#/components/schemas/{name}"),
        },
    }


def render() -> str:
    """The document as YAML."""
    return _HEADER + yaml.safe_dump(document(), sort_keys=False, allow_unicode=True, width=120)


def _channel(topic: Topic) -> dict[str, Any]:
    configuration: dict[str, Any] = {"cleanup.policy": [topic.cleanup]}
    if topic.cleanup == "delete":
        configuration["retention.ms"] = topic.retention_ms
    kafka: dict[str, Any] = {"topic": topic.name, "topicConfiguration": configuration, "bindingVersion": _BINDING}
    if isinstance(topic.partitions, int):
        kafka["partitions"] = topic.partitions
    return {
        "address": topic.name,
        "title": topic.name,
        "description": _channel_text(topic),
        "messages": {_message_name(topic): {"$ref": f"#/components/messages/{_message_name(topic)}"}},
        "bindings": {"kafka": kafka},
    }


def _channel_text(topic: Topic) -> str:
    partitions = "as many partitions as `events`" if topic.partitions == "events" else "a fixed number of partitions"
    return f"{topic.purpose[0].upper()}{topic.purpose[1:]}. Key: {topic.key}; {partitions}."


def _operation(topic: Topic) -> tuple[str, dict[str, Any]]:
    action = "receive" if topic.name in _RECEIVED else "send"
    name = f"{action}{_message_name(topic)}"
    return name, {
        "action": action,
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "summary": f"{topic.purpose[0].upper()}{topic.purpose[1:]}.",
        "messages": [{"$ref": f"#/channels/{topic.name}/messages/{_message_name(topic)}"}],
    }


def _message_name(topic: Topic) -> str:
    if topic.name in MESSAGES:
        return MESSAGES[topic.name].__name__
    return "".join(word.capitalize() for word in topic.name.removeprefix("nudge-").removesuffix("s").split("-"))


def _message(topic: Topic) -> dict[str, Any]:
    message: dict[str, Any] = {
        "name": _message_name(topic),
        "title": topic.value,
        "bindings": {"kafka": {"key": {"type": "string", "description": topic.key}, "bindingVersion": _BINDING}},
    }
    if topic.name in MESSAGES:
        message["payload"] = {"$ref": f"#/components/schemas/{_message_name(topic)}"}
        headers = header_schema(topic.name)
    else:
        text = "As received." if topic.name == DEAD_LETTERS else "Internal: read and written by nudge alone."
        message |= {"contentType": "application/octet-stream", "payload": {"description": text}}
        headers = dead_letter_headers_schema() if topic.name == DEAD_LETTERS else None
    if headers is not None:
        message["headers"] = headers
    if topic.name in _INTERNAL:
        message["tags"] = [{"name": "internal"}]
    found = [_example(name, record) for name, record in examples() if record["topic"] == topic.name]
    return {**message, "examples": found} if found else message


def _example(name: str, record: dict[str, Any]) -> dict[str, Any]:
    example = {"name": name, "payload": record["value"]}
    return {**example, "headers": record["headers"]} if "headers" in record else example
