"""The first check of a policy: does each part have the right shape?

Parts are validated one by one, so that a misspelt field in one segment does not hide a wrong expression in another:
what is sound goes on to be compiled, and all mistakes are reported together.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from app.core.durations import format_duration
from app.core.expression_errors import nearest
from app.policy.errors import Path, PolicyError
from app.policy.model import CampaignModel, PolicyModel, SegmentModel
from app.policy.source import Document

_PARTS: Final = ("segments", "campaigns")
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
    "string_pattern_mismatch": "a name is up to 64 lower-case letters, digits and _, and starts with a letter",
}

_SYNONYMS: Final[Mapping[str, tuple[str, ...]]] = {
    "from": ("start",), "to": ("end",), "if": ("when", "where"), "condition": ("when", "where"), "when": ("where",),
    "where": ("when", "audience"), "segment": ("audience",), "source": ("kind",), "type": ("kind",), "text": ("body",),
    "message": ("body",), "link": ("deep_link",), "url": ("deep_link",), "after": ("for",), "delay": ("for",),
    "wait": ("for",), "max": ("limit",), "per": ("window",), "every": ("window",), "min_size": ("minimum_size",),
}  # fmt: skip
"""What people call a field that has another name, where the field is allowed."""
_QUOTED: Final = re.compile(r"'([^']*)'")
_BOUND: Final = re.compile(r"((?:less|greater) than(?: or equal to)?) (\d{3,})\b")

Part = TypeVar("Part", bound=BaseModel)


@dataclass(slots=True)
class Shaped:
    """A policy's sound parts, each with its index in the file; names and categories of the others are kept.

    `head` is everything but segments and campaigns; where it is not sound itself, its sound fields.
    """

    head: PolicyModel
    segments: list[tuple[int, SegmentModel]]
    campaigns: list[tuple[int, CampaignModel]]
    broken_segments: frozenset[str]
    broken_categories: frozenset[str]
    errors: list[PolicyError] = field(default_factory=list)
    broken_campaigns: frozenset[str] = frozenset()


def check_shape(document: Document) -> Shaped:
    """Validate a document part by part; mistakes are in the result's `errors`."""
    data = document.data if isinstance(document.data, dict) else {}
    errors: list[PolicyError] = []
    head = _head(document, data, errors)
    segments = list(_parts(document, data.get("segments"), "segments", SegmentModel, errors))
    campaigns = list(_parts(document, data.get("campaigns"), "campaigns", CampaignModel, errors))
    sound = {at for at, _ in segments}
    return Shaped(
        head=head,
        segments=segments,
        campaigns=campaigns,
        broken_segments=_texts(data.get("segments"), "name", sound),
        broken_categories=_texts(data.get("campaigns"), "category", {at for at, _ in campaigns}),
        errors=errors,
        broken_campaigns=_texts(data.get("campaigns"), "name", {at for at, _ in campaigns}),
    )


def _head(document: Document, data: dict[str, Any], errors: list[PolicyError]) -> PolicyModel:
    stated = {name: value for name, value in data.items() if name not in _PARTS or not isinstance(value, list)}
    try:
        return PolicyModel.model_validate(stated if data else document.data)
    except ValidationError as exc:
        details = exc.errors(include_url=False, include_context=False)
        errors += [_error(document, error) for error in details]
    wrong = {error["loc"][:depth] for error in details for depth in (1, 2)}
    kept = {name: value for name, value in stated.items() if (name,) not in wrong}
    for name in ("defaults", "traits"):
        if (name,) in wrong and isinstance(data.get(name), dict):
            kept[name] = {key: value for key, value in data[name].items() if (name, key) not in wrong}
    try:
        return PolicyModel.model_validate({"version": "0", "name": "broken"} | kept)
    except ValidationError:
        return PolicyModel(version="0", name="broken")


def _parts(
    document: Document, items: Any, name: str, model: type[Part], errors: list[PolicyError]
) -> Iterable[tuple[int, Part]]:
    limit = next(bound.max_length for bound in PolicyModel.model_fields[name].metadata if hasattr(bound, "max_length"))
    if not isinstance(items, list):
        return  # reported with the head
    if len(items) > limit:
        errors.append(document.error((name,), f"{len(items)} {name}; a policy has at most {limit}"))
    for at, item in enumerate(items[:limit]):
        try:
            yield at, model.model_validate(item)
        except ValidationError as exc:
            for error in exc.errors(include_url=False, include_context=False):
                error["loc"] = (name, at, *error["loc"])
                errors.append(_error(document, error))


def _texts(items: Any, key: str, sound: set[int]) -> frozenset[str]:
    """The texts under `key` of those items that are not sound."""
    if not isinstance(items, list):
        return frozenset()
    broken = (item for at, item in enumerate(items) if at not in sound and isinstance(item, dict))
    return frozenset(item[key] for item in broken if isinstance(item.get(key), str))


def _error(document: Document, error: ErrorDetails) -> PolicyError:
    path = _in_file(document.data, error["loc"])
    if error["type"] == "extra_forbidden":
        name, fields = str(path[-1]), list(_fields_at(path[:-1]))
        meant = [field for field in _SYNONYMS.get(name, ()) if field in fields]
        return document.error(path, f"unknown field {name!r}", *(meant[:1] or [nearest(name, fields)]), key=True)
    message = _MESSAGES.get(error["type"], error["msg"].replace("Input should be", "this must be"))
    given = _given(document.data, path)
    if error["type"] == "literal_error" and isinstance(given, str):
        return document.error(path, message, nearest(given, _QUOTED.findall(message)))
    if isinstance(given, str) and not given.endswith("%") and (bound := _BOUND.search(message)) is not None:
        message = message.replace(bound[0], f"{bound[1]} {format_duration(int(bound[2]))}")  # a time, in milliseconds
    return document.error(path, message)


def _given(data: Any, path: Path) -> Any:
    """What stands at a path; None where nothing does."""
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


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


def _fields_at(path: Path) -> Iterable[str]:
    """The fields that the model allows at a path."""
    model: type[BaseModel] | None = PolicyModel
    for part in path:
        if isinstance(part, str) and model is not None:
            info = {found.alias or name: found for name, found in model.model_fields.items()}.get(part)
            model = _model_in(info.annotation) if info is not None else model
    return [found.alias or name for name, found in model.model_fields.items()] if model is not None else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if isinstance(annotation, types.UnionType) or get_origin(annotation) is not None:
        return next((found for inner in get_args(annotation) if (found := _model_in(inner))), None)
    return None
