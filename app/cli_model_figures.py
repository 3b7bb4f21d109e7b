"""`nudge models show`: how good a model is, campaign by campaign, what its detectors saw, and how its challenger does.

All of it stands in the learner's newest snapshot. What the learner is made of is not loaded: only its books are read.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

import msgspec
import typer
from rich.markup import escape
from rich.table import Table

from app.cli_common import Broker, fail, out, read_settings
from app.cli_models import Json, Model, read_book

if TYPE_CHECKING:
    from app.learning.progressive import Progressive
    from schemas.models import ModelSnapshot

FIGURES: Final = ("auc", "log_loss", "brier", "calibration_ratio", "precision", "recall", "f1")
SHORT: Final = {"log_loss": "loss", "calibration_ratio": "calibr.", "precision": "prec."}
DETECTORS: Final = {"drift": "page_hinkley", "adwin": "adwin", "campaign_drift": "campaign"}


def register(app: typer.Typer) -> None:
    """Add the command to `nudge models`."""
    app.command("show", epilog="Example: nudge models show open")(models_show)


def models_show(model: Model = "open", as_json: Json = False, broker: Broker = None) -> None:
    """Show how good a model is: of its life and lately, by campaign; drift alarms; how its challenger does."""
    snapshot = read_book(read_settings(broker=broker)).newest(model)
    if snapshot is None:
        raise fail(f"model {model!r} has no snapshot; `nudge models list` shows those that have", 1)
    try:
        figures = figures_of(snapshot)
    except msgspec.MsgspecError as exc:
        raise fail(f"the snapshot of {model!r} is not that of a learner: {exc}", 1) from None
    if as_json:
        typer.echo(json.dumps(figures))
        return
    _print(figures)


def figures_of(snapshot: ModelSnapshot) -> dict[str, Any]:
    """What the snapshot says of its model. Raises `msgspec.MsgspecError` when it is not a learner's."""
    from app.learning.duel import Duel  # noqa: PLC0415
    from app.learning.progressive import Progressive  # noqa: PLC0415

    books = msgspec.json.decode(snapshot.state, type=dict[str, msgspec.Raw])
    if "progressive" not in books:
        raise msgspec.ValidationError("it has no progressive figures")
    progressive = msgspec.json.decode(books["progressive"], type=Progressive)
    found: dict[str, Any] = {
        "model": snapshot.model,
        "kind": msgspec.json.decode(books["kind"]),
        "version": snapshot.version,
        "positives": progressive.learner.positives,
        "threshold": progressive.threshold,
        "figures": _scores(progressive),
        "campaigns": {
            name: one.to_dict()
            for name, one in sorted(progressive.campaigns.items(), key=lambda item: -item[1].examples)
        },
        "drift": {
            name: msgspec.json.decode(books[book])["detections"] for book, name in DETECTORS.items() if book in books
        },
        "drifted": msgspec.json.decode(books["campaign_drift"]).get("alarms", {}),
        "promotions": msgspec.json.decode(books.get("promotions", msgspec.Raw(b"0"))),
    }
    kind = msgspec.json.decode(books.get("challenger_kind", msgspec.Raw(b'""')))
    if kind:
        duel = msgspec.json.decode(books["duel"], type=Duel)
        lower = duel.lower_bound
        found["challenger"] = {
            "kind": kind,
            "examples": duel.examples,
            "gain": duel.mean,
            "gain_lower": lower if math.isfinite(lower) else None,
        }
    return found


def _scores(progressive: Progressive) -> dict[str, dict[str, float]]:
    """As served and as the learner itself would have said, of its life and of the newest examples."""
    served, own = progressive.recent()
    tracks = {"served": progressive.served, "learner": progressive.learner}
    tracks |= {"recent_served": served, "recent_learner": own}
    return {
        name: {"examples": float(track.examples), **track.to_dict(), **track.at_threshold(progressive.threshold)}
        for name, track in tracks.items()
    }


def _print(found: dict[str, Any]) -> None:
    out.print(
        f"[bold]{escape(found['model'])}[/] {found['kind']}, version {found['version']}",
        highlight=False,
        soft_wrap=True,
    )
    columns = found["figures"]
    table = Table("", *(name.replace("_", " ") for name in columns), box=None, padding=(0, 2, 0, 0))
    table.add_row("examples", *(f"{part['examples']:,.0f}" for part in columns.values()))
    for name in FIGURES:
        table.add_row(name.replace("_", " "), *(_text(part.get(name)) for part in columns.values()))
    out.print(table)
    out.print(f"precision, recall and f1 at the working threshold {found['threshold']:.3f}, the base rate", style="dim")
    if found["campaigns"]:
        _print_campaigns(found["campaigns"])
    alarms = ", ".join(f"{name} {count}" for name, count in found["drift"].items())
    named = ", ".join(f"{name} {count}" for name, count in found["drifted"].items())
    out.print(f"drift alarms: {alarms}{f' ({escape(named)})' if named else ''}", highlight=False, soft_wrap=True)
    rival = found.get("challenger")
    if rival is None:
        out.print("no challenger", highlight=False, soft_wrap=True)
        return
    bound = "too few examples yet" if rival["gain_lower"] is None else f"surely at least {rival['gain_lower']:+.4f}"
    text = f"challenger {rival['kind']}: log loss smaller by {rival['gain']:+.4f} on {rival['examples']:,} examples"
    out.print(
        f"{text}, {bound}; promoted when that is above 0 ({found['promotions']} so far)",
        highlight=False,
        soft_wrap=True,
    )


def _print_campaigns(campaigns: dict[str, dict[str, float]]) -> None:
    names = ("log_loss", "brier", "calibration_ratio", "precision", "recall", "f1")
    table = Table("campaign", "examples", "AUC", *(SHORT.get(name, name) for name in names), box=None)
    for campaign, one in campaigns.items():
        recent = (_text(one.get(f"recent_{name}")) for name in names)
        table.add_row(escape(campaign), f"{one['examples']:,.0f}", _text(one.get("auc")), *recent)
    out.print(table)
    out.print("by campaign: AUC of all examples, the rest of the newest 500 to 1,000", style="dim")


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
