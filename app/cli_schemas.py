"""`nudge schemas`: the message contracts as JSON Schemas and as an AsyncAPI document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

schemas_app = typer.Typer(help="The message contracts, for other languages and tools.", no_args_is_help=True)

Directory = Annotated[Path, typer.Option("--directory", "-d", help="Folder to write to.", file_okay=False)]
Check = Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 when a file is missing or stale.")]

_out = Console()


@schemas_app.callback()
def _group() -> None:
    """Keep `export` a command of its own, however few there are."""


@schemas_app.command("export", epilog="Example: nudge schemas export --directory contracts")
def export(directory: Directory = Path("schemas"), check: Check = False) -> None:
    """Write asyncapi.yaml, and json/*.schema.json for each message and for policy files."""
    stale = stale_files(directory)
    if check:
        for path in stale:
            _out.print(f"{path}: stale; run `nudge schemas export`", highlight=False, markup=False)
        raise typer.Exit(1 if stale else 0)
    for path, text in stale.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        _out.print(f"wrote {path}", highlight=False, markup=False)
    if not stale:
        _out.print("every file is as it must be")


def stale_files(directory: Path) -> dict[Path, str]:
    """The files in `directory` that do not say what the code says, with what they should hold."""
    wanted = {directory / name: text for name, text in contract_files().items()}
    return {
        path: text for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    }


def contract_files() -> dict[str, str]:
    """The content of each file by its path below the folder."""
    from app.policy.schema import policy_schema  # noqa: PLC0415 - `nudge --help` must stay quick
    from schemas.asyncapi import render  # noqa: PLC0415
    from schemas.contracts import MESSAGES, dead_letter_headers_schema, value_schema  # noqa: PLC0415

    schemas = {struct.__name__: value_schema(topic) for topic, struct in MESSAGES.items()}
    schemas["DeadLetterHeaders"] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:nudge:DeadLetterHeaders",
        **dead_letter_headers_schema(),
    }
    schemas["Policy"] = policy_schema()
    texts = {f"json/{name}.schema.json": json.dumps(schema, indent=2) + "\n" for name, schema in schemas.items()}
    return {"asyncapi.yaml": render(), **texts}
