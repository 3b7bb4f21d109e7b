"""The generated contracts: fresh, valid by their own standards, and of one mind with what the worker accepts."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator
from typer.testing import CliRunner

from app.cli import app
from app.cli_schemas import contract_files, stale_files
from schemas.asyncapi import document
from schemas.contracts import MESSAGES, dead_letter_headers_schema, examples, header_schema, value_schema
from schemas.events import Event, Rejected, decode_event
from schemas.topics import BY_NAME, DEAD_LETTERS, EVENTS, TOPICS

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "tests" / "support" / "asyncapi" / "3.0.0.json.gz"


def test_the_contracts_in_the_repository_are_those_of_the_code() -> None:
    stale = [str(path.relative_to(ROOT)) for path in stale_files(ROOT / "schemas")]
    assert not stale, f"run `nudge schemas export`: {', '.join(stale)}"


def test_no_contract_is_left_over() -> None:
    found = {f"json/{path.name}" for path in (ROOT / "schemas" / "json").iterdir()}
    assert found == {name for name in contract_files() if name.startswith("json/")}


@pytest.mark.parametrize("name", [name for name in contract_files() if name.endswith(".json")])
def test_a_contract_is_a_json_schema(name: str) -> None:
    Draft202012Validator.check_schema(json.loads(contract_files()[name]))


@pytest.mark.parametrize(("name", "record"), examples(), ids=[name for name, _ in examples()])
def test_an_example_is_valid(name: str, record: dict[str, Any]) -> None:
    if record["topic"] in MESSAGES:
        Draft202012Validator(value_schema(record["topic"])).validate(record["value"])
    headers = dead_letter_headers_schema() if record["topic"] == DEAD_LETTERS else header_schema(record["topic"])
    if headers is not None:
        Draft202012Validator(headers).validate(record["headers"])


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"type": "page", "userId": "u"},
        {"type": "track", "userId": "u"},
        {"type": "track", "userId": "u", "event": ""},
        {"type": "track", "event": "Order Completed"},
        {"type": "track", "event": "Order Completed", "userId": ""},
        {"type": "track", "event": "Order Completed", "userId": 7},
        {"type": "track", "event": "Order Completed", "userId": "u" * 257},
        {"type": "track", "event": "e" * 201, "userId": "u"},
        {"type": "identify", "userId": "u", "traits": []},
    ],
)
def test_what_the_worker_refuses_is_not_valid(message: dict[str, Any]) -> None:
    refused = decode_event(json.dumps(message).encode(), str(message.get("userId", "u")).encode())
    assert isinstance(refused, Rejected)
    assert not Draft202012Validator(value_schema(EVENTS)).is_valid(message)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "track", "event": "Order Completed", "userId": "u"},
        {"type": "identify", "anonymousId": "u", "traits": {"a": 1}, "addedLater": [1]},
        {"type": "alias", "userId": "u", "anonymousId": None, "previousId": "v"},
        {"type": "track", "event": "é", "userId": "u", "timestamp": 1_488_648_069_250},
    ],
)
def test_what_the_worker_takes_is_valid(message: dict[str, Any]) -> None:
    assert isinstance(decode_event(json.dumps(message).encode(), b"u"), Event)
    Draft202012Validator(value_schema(EVENTS)).validate(message)


def test_a_decision_not_to_send_needs_a_reason_that_is_known() -> None:
    record = dict(examples())["decision-suppressed"]
    check = Draft202012Validator(value_schema("decisions"))
    assert not check.is_valid({**record["value"], "reason": "no idea"})
    assert not check.is_valid({name: value for name, value in record["value"].items() if name != "reason"})


@pytest.fixture(scope="module")
def asyncapi() -> Draft7Validator:
    return Draft7Validator(json.loads(gzip.decompress(SPEC.read_bytes())))


def test_the_document_is_valid_asyncapi_3(asyncapi: Draft7Validator) -> None:
    asyncapi.validate(document())


@pytest.mark.parametrize("path", ["channels/events/adress", "operations/receiveEvent/chanel", "info/lisence"])
def test_the_standard_would_find_a_misspelt_field(asyncapi: Draft7Validator, path: str) -> None:
    broken = copy.deepcopy(document())
    *parents, name = path.split("/")
    node = broken
    for parent in parents:
        node = node[parent]
    node[name] = "x"
    assert not asyncapi.is_valid(broken)


def test_the_document_has_a_channel_and_an_operation_for_every_topic() -> None:
    found = document()
    assert set(found["channels"]) == set(BY_NAME)
    assert {op["channel"]["$ref"] for op in found["operations"].values()} == {f"#/channels/{t.name}" for t in TOPICS}
    assert len(found["operations"]) == len(TOPICS)


def test_every_reference_in_the_document_leads_somewhere() -> None:
    found = document()
    for ref in references(found):
        node = found
        for part in ref.removeprefix("#/").split("/"):
            assert part in node, ref
            node = node[part]


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [ref for child in node.values() for ref in references(child)]
    return [ref for child in node for ref in references(child)] if isinstance(node, list) else []


def test_export_writes_what_check_then_accepts(tmp_path: Path) -> None:
    run = CliRunner().invoke
    assert run(app, ["schemas", "export", "--check", "-d", str(tmp_path)]).exit_code == 1
    assert run(app, ["schemas", "export", "-d", str(tmp_path)]).exit_code == 0
    assert run(app, ["schemas", "export", "--check", "-d", str(tmp_path)]).exit_code == 0
    (tmp_path / "asyncapi.yaml").write_text("asyncapi: 3.0.0\n")
    result = run(app, ["schemas", "export", "--check", "-d", str(tmp_path)])
    assert result.exit_code == 1
    assert "asyncapi.yaml: stale" in result.output.replace("\n", "")
