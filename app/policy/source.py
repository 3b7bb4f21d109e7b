"""YAML with places: plain data, and for each field where in the file it stands.

The reader is stricter than YAML 1.1: no tags, no repeated keys, and the scalars of YAML 1.2's core schema, so that
``on`` is a word and ``22:00`` is not the number 1320.
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from app.policy.errors import Path, PolicyError, PolicyErrors, field_path

SOURCE_BYTES_MAX: Final = 1_000_000
NODES_MAX: Final = 20_000
DEPTH_MAX: Final = 16

_NULL, _BOOL, _INT, _FLOAT, _STR = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str"))


class _Loader(yaml.SafeLoader):
    """SafeLoader with the core schema's scalars."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - the library's protocol


def _resolve(tag: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(tag, re.compile(f"^(?:{pattern})$"), list(first))


_resolve(_BOOL, "true|True|TRUE|false|False|FALSE", "tTfF")
_resolve(_INT, "[-+]?[0-9]{1,18}", "-+0123456789")
_resolve(_FLOAT, r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]{1,3})?", "-+.0123456789")
_resolve(_NULL, "~|null|Null|NULL", "~nN")
_Loader.yaml_implicit_resolvers.setdefault("", []).append((_NULL, re.compile("^$")))


class Document:
    """A parsed file: `data`, and the places of its fields.

    Raises
    ------
    PolicyErrors
        When the text is not YAML, or uses what a policy may not.
    """

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.text = text
        self.errors: list[PolicyError] = []
        self._nodes: dict[Path, yaml.Node] = {}
        self._keys: dict[Path, yaml.Node] = {}
        self._count = 0
        root = self._compose()
        self.data: Any = self._read(root, ()) if root is not None else None
        if self.errors:
            raise PolicyErrors(self.errors)

    def _compose(self) -> yaml.Node | None:
        if len(self.text.encode(errors="replace")) > SOURCE_BYTES_MAX:
            raise PolicyErrors([self._error(1, 1, (), f"the file is larger than {SOURCE_BYTES_MAX} bytes")])
        try:
            root: yaml.Node | None = yaml.compose(self.text, Loader=_Loader)
        except yaml.MarkedYAMLError as exc:
            mark = exc.problem_mark or exc.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            message = f"not YAML: {exc.problem or exc.context}"
            if exc.context is not None and "flow mapping" in exc.context:
                message += "; between { and }, a text with any of [ ] { } , : # stands in quotes"
            raise PolicyErrors([self._error(line, column, (), message)]) from None
        except (yaml.YAMLError, RecursionError, ValueError) as exc:
            raise PolicyErrors([self._error(1, 1, (), f"not YAML: {type(exc).__name__}")]) from None
        return root

    def _error(self, line: int, column: int, path: Path, message: str, suggestion: str = "") -> PolicyError:
        return PolicyError(self.file, line, column, field_path(path), message, suggestion)

    def _read(self, node: yaml.Node, path: Path) -> Any:
        self._count += 1
        self._nodes[path] = node
        if self._count > NODES_MAX or len(path) > DEPTH_MAX:
            # An alias that holds itself, or a handful that multiply, end here too.
            raise PolicyErrors([self.error(path, "the file is too large or too deeply nested")])
        if isinstance(node, yaml.MappingNode):
            return self._read_mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._read(item, (*path, at)) for at, item in enumerate(node.value)]
        return self._read_scalar(node, path)

    def _read_mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._refuse(key_node, path, "a key must be a word")
                continue
            key = str(key_node.value)
            if key in result:
                first = self._keys[(*path, key)].start_mark.line + 1
                self._refuse(key_node, (*path, key), f"repeated key {key!r}; the first is on line {first}")
                continue
            self._keys[(*path, key)] = key_node
            result[key] = self._read(value_node, (*path, key))
        return result

    def _read_scalar(self, node: yaml.Node, path: Path) -> Any:
        text = str(node.value)
        if node.tag == _STR:
            return text
        if node.tag == _INT:
            return int(text)
        if node.tag == _FLOAT:
            return float(text)
        if node.tag == _BOOL:
            return text.lower() == "true"
        if node.tag == _NULL:
            return None
        self._refuse(node, path, f"tag {node.tag!r} is not allowed")
        return None

    def _refuse(self, node: yaml.Node, path: Path, message: str) -> None:
        mark = node.start_mark
        self.errors.append(self._error(mark.line + 1, mark.column + 1, path, message))

    def error(self, path: Path, message: str, suggestion: str = "", *, key: bool = False) -> PolicyError:
        """An error at a field, or (`key`) at its name; at the nearest field around it when the file has none."""
        known = path
        nodes = self._keys if key and path in self._keys else self._nodes
        while known not in nodes and known:
            known = known[:-1]
        mark = nodes[known].start_mark if known in nodes else None
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        return self._error(line, column, path, message, suggestion)

    def error_in_text(self, path: Path, offset: int, message: str, suggestion: str = "") -> PolicyError:
        """An error at character `offset` of a field's text, however the file quotes or folds that text."""
        node = self._nodes.get(path)
        if not isinstance(node, yaml.ScalarNode):
            return self.error(path, message, suggestion)
        index = self._index_in_file(node, offset)
        line = self.text.count("\n", 0, index)
        column = index - (self.text.rfind("\n", 0, index) + 1)
        return self._error(line + 1, column + 1, path, message, suggestion)

    def _index_in_file(self, node: yaml.ScalarNode, offset: int) -> int:
        """Walk value and source side by side by their non-blank characters, which folding does not change."""
        index, end = node.start_mark.index, node.end_mark.index
        if node.style in ("|", ">"):
            index = self.text.find("\n", index, end) + 1
        elif node.style in ("'", '"'):
            index += 1
        value = node.value[: offset + 1].rstrip() or node.value[:1]
        at = index
        for char in value:
            if char.isspace():
                continue
            found = self.text.find(char, index, end)
            if found < 0:
                break
            at, index = found, found + 1
        return at
