"""`nudge segments personas`: the groups of users that the learner has found, and what they are like."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.markup import escape
from rich.table import Table

from app.cli_common import Broker, fail, out, read_settings

if TYPE_CHECKING:  # a command imports what it runs, so that `nudge --help` is quick
    from app.learning.served_personas import Known, Served
    from app.settings import Settings
    from schemas.models import ModelSnapshot

TRAITS_SHOWN: Final = 5
DRIFT_MIN: Final = 0.5
"""In widths of the persona: from here on it is said to have moved since it was named."""


def register(app: typer.Typer) -> None:
    """Add the command to `nudge segments`."""
    app.command("personas", epilog="Example: nudge segments personas")(personas)


def personas(
    model: Annotated[str, typer.Option(help="The model that the policy names in `defaults.model`.")] = "open",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON: everything.")] = False,
    broker: Broker = None,
) -> None:
    """Show the personas that are served: size, what tells them from everybody, and how they have moved."""
    settings = read_settings(broker=broker)
    snapshot = _read(settings, model)
    found = report(snapshot)
    if as_json:
        import msgspec  # noqa: PLC0415

        typer.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        _show(found)


def report(snapshot: ModelSnapshot) -> dict[str, Any]:
    """All that there is to say of a snapshot of personas. Raises `BadModel`."""
    from app.learning.served_personas import read_served  # noqa: PLC0415

    served = read_served(snapshot)
    return {
        "model": snapshot.model,
        "version": snapshot.version,
        "created_ms": snapshot.created_ms,
        "users": round(served.users),
        "silhouette": served.silhouette,
        "silhouettes": {str(count): value for count, value in served.silhouettes.items()},
        "moved": served.moved,
        "teaching_share": served.share,
        "personas": [_persona(one, served) for one in sorted(served.personas, key=lambda one: -one.share)],
        "changes": [
            {"at_ms": one.at_ms, "kind": one.kind, "persona": f"p{one.id}", "name": one.name}
            | ({"into": f"p{one.into}"} if one.into else {})
            for one in served.changes
        ],
    }


def _persona(known: Known, served: Served) -> dict[str, Any]:
    from app.learning.persona_names import name_of, traits_of  # noqa: PLC0415

    apart = [(now - then) * scale for now, then, scale in zip(known.centroid, known.named, served.scales, strict=True)]
    drift = math.hypot(*apart) / max(known.within, 1e-9)
    others = {one.name for one in served.personas if one is not known}
    return {
        "id": f"p{known.id}",
        "name": known.name,
        "settled": known.settled,
        "share": known.share,
        "share_when_found": known.share_born,
        "users": round(known.share * served.users),
        "since_ms": known.born_ms,
        "drift": round(drift, 3),
        "now_like": name_of(known.centroid, served, others) if drift >= DRIFT_MIN else known.name,
        "traits": [
            {"what": one.what, "value": round(one.value, 4), "everybody": round(one.everybody, 4)}
            for one in traits_of(known, served)
        ],
    }


def _read(settings: Settings, model: str) -> ModelSnapshot:
    from app.cli_models import read_book  # noqa: PLC0415
    from app.learning.served_personas import personas_name  # noqa: PLC0415

    snapshot = read_book(settings).served(personas_name(model))
    if snapshot is None:
        raise fail(f"model {model!r} has no personas yet: does the policy have `personas`?", 1)
    return snapshot


def _show(found: dict[str, Any]) -> None:
    made = datetime.fromtimestamp(found["created_ms"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    if not found["personas"]:
        out.print(f"no personas yet: {found['version']:,} vectors of users were learned ({made})", highlight=False)
        return
    out.print(
        f"{len(found['personas'])} personas of {found['users']:,} active users a day, silhouette "
        f"{found['silhouette']:.2f}; {found['version']:,} vectors learned ({made})",
        highlight=False,
    )
    table = Table(box=None, pad_edge=False)
    for column in ("", "persona", "users", "of all", "when found", "drift"):
        table.add_column(column, justify="left" if column in ("", "persona") else "right", overflow="fold")
    for one in found["personas"]:
        name = escape(one["name"]) + ("" if one["settled"] else " [dim](new)[/]")
        if one["now_like"] != one["name"]:
            name += f"\n[yellow]by now: {escape(one['now_like'])}[/]"
        shares = (f"{one['share']:.0%}", f"{one['share_when_found']:.0%}", f"{one['drift']:.2f}")
        table.add_row(one["id"], name, f"{one['users']:,}", *shares)
        table.add_row("", f"[dim]{escape(_differences(one))}[/]")
    out.print(table)
    for change in found["changes"][-5:]:
        into = f" into {change['into']}" if "into" in change else ""
        at = datetime.fromtimestamp(change["at_ms"] / 1000, UTC).strftime("%Y-%m-%d")
        out.print(f"{at} {change['kind']}{into}: {change['persona']} {change['name']}", style="dim", markup=False)


def _differences(one: dict[str, Any]) -> str:
    """What tells a persona from everybody, each with its own value and everybody's."""
    return "; ".join(
        f"{trait['what']} {_figure(trait['what'], trait['value'])} ({_figure(trait['what'], trait['everybody'])})"
        for trait in one["traits"][:TRAITS_SHOWN]
    )


def _figure(what: str, value: float) -> str:
    if what.startswith(("active ", "interest ", "on ")) or "rate" in what or "share" in what:
        return f"{value:.0%}"
    return f"{value:.1f}"
