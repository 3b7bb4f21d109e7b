"""Reading a policy file: YAML → model → plan, with every mistake at its place.

`load_policy` is for files, `load_policy_text` for policies that arrive otherwise.
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Iterable, Mapping
from pathlib import Path as FilePath
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from app.core.expression_errors import nearest
from app.core.plan import Plan
from app.policy.compile import Compiler
from app.policy.errors import Path, PolicyError, PolicyErrors
from app.policy.model import PolicyModel
from app.policy.source import Document

_HASH_CHARS: Final = 8
_MESSAGES: Final[Mapping[str, str]] = {
    "missing": "this field is missing",
    "string_type": "this must be a text",
    "float_type": "this must be a number",
    "int_type": "this must be a whole number",
    "bool_type": "this must be true or false",
    "list_type": "this must be a list",
    "dict_type": "this must be a mapping of fields",
    "model_type": "this must be a mapping of fields",
    "string_too_short": "this is empty",
}


def load_policy(path: FilePath | str) -> Plan:
    """Read, check and compile a policy file.

    Returns
    -------
    Plan
        Its version is the declared one and the beginning of the content's SHA-256: ``2025-03+1a2b3c4d``.

    Raises
    ------
    PolicyErrors
        With every mistake found: file, line, column, field, and the name that was perhaps meant.
    """
    try:
        text = FilePath(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else "it is not UTF-8 text"
        raise PolicyErrors([PolicyError(str(path), 1, 1, "", f"the file cannot be read: {reason}")]) from None
    return load_policy_text(text, str(path))


def load_policy_text(text: str, file: str = "policy") -> Plan:
    """As `load_policy`, from a text; `file` is what errors name."""
    document = Document(text, file)
    try:
        policy = PolicyModel.model_validate(document.data)
    except ValidationError as exc:
        raise PolicyErrors(_shape_errors(document, exc)) from None
    digest = hashlib.sha256(text.encode()).hexdigest()[:_HASH_CHARS]
    return Compiler(document, policy).compile(f"{policy.version}+{digest}")


def _shape_errors(document: Document, exc: ValidationError) -> Iterable[PolicyError]:
    for error in exc.errors(include_url=False, include_context=False):
        yield _shape_error(document, error)


def _shape_error(document: Document, error: ErrorDetails) -> PolicyError:
    path = _in_file(document.data, error["loc"])
    if error["type"] == "extra_forbidden":
        name = str(path[-1])
        suggestion = nearest(name, _fields_at(path[:-1]))
        return document.error(path, f"unknown field {name!r}", suggestion, key=True)
    message = _MESSAGES.get(error["type"], error["msg"])
    if error["type"] == "string_pattern_mismatch":
        message = "a name has lower-case letters, digits and _, and starts with a letter"
    return document.error(path, message)


def _in_file(data: Any, location: tuple[int | str, ...]) -> Path:
    """A location without the parts that name a branch of a union and not a field; a missing field stays."""
    path: list[str | int] = []
    for at, part in enumerate(location):
        inside = isinstance(part, int) and isinstance(data, list) and part < len(data)
        if inside or (isinstance(data, dict) and part in data):
            data = data[part]
            path.append(part)
        elif at == len(location) - 1 and isinstance(data, dict):
            path.append(part)
    return tuple(path)


def _fields_at(path: Path) -> list[str]:
    """The fields that the model allows at a path."""
    model: Any = PolicyModel
    for part in path:
        if isinstance(part, int):
            continue
        fields = _fields(model)
        model = _model_in(fields[part].annotation) if part in fields else model
    return [field.alias or name for name, field in _fields(model).items()]


def _fields(model: Any) -> dict[str, Any]:
    return {field.alias or name: field for name, field in model.model_fields.items()} if model else {}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if isinstance(annotation, types.UnionType) or get_origin(annotation) is not None:
        return next((found for inner in get_args(annotation) if (found := _model_in(inner))), None)
    return None
