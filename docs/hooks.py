"""What the site has beside docs/: pages made from the code, which thus cannot be stale, and the papers at the root.

Used by mkdocs (`hooks` in mkdocs.yml). Links that lead out of docs/ are mended: to the page that is made from their
target, or to plain text.
"""

from __future__ import annotations

import posixpath
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click
from pydantic import SecretStr
from typer.main import get_command

from app.cli import app
from app.settings import Settings

ROOT = Path(__file__).parents[1]
PAPERS = {
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
}
"""Papers outside of docs/ and the pages that they become."""

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_IMAGES = (".png", ".svg")


# -- pages made from the code


def settings_page() -> str:
    """Every setting with its kind, default and meaning."""
    lines = [
        "# Settings",
        "",
        "Read once at start from the environment and checked before anything connects. An error names the variable,",
        "the value and the mend. `nudge config show` prints what a process would see, secrets redacted.",
        "",
        "| variable | kind | default | meaning |",
        "|---|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        secret = field.annotation is SecretStr
        default = "" if secret or field.default in ("", None) else f"`{field.default}`"
        if isinstance(field.default, bool):
            default = default.lower()
        kind = ", ".join(filter(None, [kind_of(field.annotation), bounds_of(field.metadata)]))
        meaning = (field.description or "").replace("|", "\\|")
        lines.append(f"| `NUDGE_{name.upper()}` | {kind} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def bounds_of(metadata: list[Any]) -> str:
    """The bounds of a number in words."""
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return ", ".join(
        f"{word} {getattr(one, name)}" for one in metadata for name, word in words.items() if hasattr(one, name)
    )


def kind_of(annotation: Any) -> str:
    """A type in words."""
    origin = get_origin(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " or ".join(kind_of(part) for part in get_args(annotation) if part is not type(None))
    words = {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "true or false",
        Path: "path",
        SecretStr: "secret",
    }
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def cli_page() -> str:
    """Every command with its arguments and options."""
    root = get_command(app)
    lines = ["# Commands", "", "`nudge COMMAND --help` says the same in a terminal.", "", root.epilog or "", ""]
    for words, command in commands(root, ("nudge",)):
        lines += [f"## {' '.join(words)}", "", (command.help or "").strip(), ""]
        lines += ["```text", usage(words, command), "```", ""]
        rows = [row for parameter in command.params if (row := parameter_row(parameter))]
        if rows:
            lines += ["| option | meaning | default |", "|---|---|---|", *rows, ""]
        if command.epilog:
            lines += [f"    {command.epilog.removeprefix('Example: ')}", ""]
    return "\n".join(lines) + "\n"


def commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with its words."""
    children = getattr(command, "commands", None)
    if not children:
        yield words, command
    for name, child in (children or {}).items():
        yield from commands(child, (*words, name))


def usage(words: tuple[str, ...], command: Any) -> str:
    """The first line of a command's help."""
    context = click.Context(command, info_name=" ".join(words))
    return " ".join([" ".join(words), *command.collect_usage_pieces(context)])


def parameter_row(parameter: Any) -> str:
    """One line of a table; empty for --help."""
    if parameter.name == "help":
        return ""
    is_option = parameter.param_type_name == "option"
    name = ", ".join([*parameter.opts, *parameter.secondary_opts]) if is_option else str(parameter.name).upper()
    default = parameter.default
    shown = "" if default in (None, "", False) or callable(default) else f"`{default}`"
    meaning = (parameter.help or "").replace("|", "\\|")
    return f"| `{name}` | {meaning} | {'required' if parameter.required else shown} |"


# -- papers at the root


def paper(source: str) -> str:
    """A paper of the repository as a page of the site."""
    return mended((ROOT / source).read_text(encoding="utf-8"), posixpath.dirname(source), PAPERS[source])


def mended(markdown: str, folder: str, page: str) -> str:
    """Markdown whose relative links, seen from `folder` of the repository, work from `page` of the site."""

    def mend(match: re.Match[str]) -> str:
        mark, text, target, anchor = match[1], match[2], match[3], match[4] or ""
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        found = place_of(posixpath.normpath(posixpath.join(folder, target)))
        if found is None:
            return text
        return f"{mark}[{text}]({posixpath.relpath(found, posixpath.dirname(page) or '.')}{anchor})"

    return _LINK.sub(mend, markdown)


def place_of(path: str) -> str | None:
    """Where a file of the repository is on the site; None when it is not there."""
    if path in PAPERS:
        return PAPERS[path]
    if path.startswith("docs/") and path.endswith((".md", *_IMAGES)):
        return path.removeprefix("docs/")
    return f"images/{path}" if path.endswith(_IMAGES) and (ROOT / path).exists() else None


# -- mkdocs


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made."""
    from mkdocs.structure.files import File  # noqa: PLC0415 - the rest of this file needs no mkdocs

    made = {"reference/settings.md": settings_page(), "reference/cli.md": cli_page()}
    made |= {page: paper(source) for source, page in PAPERS.items()}
    for page, content in made.items():
        files.append(File.generated(config, page, content=content))
    for source in PAPERS:
        for image in sorted((ROOT / source).parent.glob("*.png")):
            path = image.relative_to(ROOT).as_posix()
            files.append(File.generated(config, f"images/{path}", abs_src_path=str(image)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Mend links of the pages in docs/ that lead out of it."""
    if page.file.src_uri in PAPERS.values():
        return markdown
    return mended(markdown, posixpath.dirname(f"docs/{page.file.src_uri}"), page.file.src_uri)
