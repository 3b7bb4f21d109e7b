"""`nudge experiments plan | report`: what an experiment needs, and what it has shown."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from app.core.durations import parse_duration_ms
from app.settings import ConfigurationError, load_settings

if TYPE_CHECKING:  # what follows loads SciPy: only when a command runs
    from app.experiments.analysis import Comparison, Report
    from app.experiments.sources import Recorded

experiments_app = typer.Typer(help="Plan experiments and read them.", no_args_is_help=True)
out = Console()
err = Console(stderr=True)

Broker = Annotated[str | None, typer.Option("--broker", help="Bootstrap servers (NUDGE_BROKER).")]
Dump = Annotated[
    Path | None, typer.Option("--from", help="JSON lines of records instead of a broker.", exists=True, dir_okay=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")]


def fail(message: object, code: int = 2) -> typer.Exit:
    """Print why, and give the exception to raise."""
    err.print(f"[bold red]nudge:[/] {message}", highlight=False)
    return typer.Exit(code)


def duration_ms(text: str) -> int:
    """A duration option, or the end of the command."""
    try:
        return parse_duration_ms(text)
    except ValueError as exc:
        raise fail(exc) from None


def recorded(broker: str | None, dump: Path | None, topics: tuple[str, ...]) -> Iterable[Recorded]:
    """The records of a dump, else of a broker."""
    from app.experiments.sources import read_lines, read_topics  # noqa: PLC0415

    if dump is not None:
        return read_lines(dump, topics)
    try:
        settings = load_settings(**({"broker": broker} if broker else {}))
    except ConfigurationError as exc:
        raise fail(exc) from None
    try:
        return read_topics(settings.client_settings(), topics)
    except Exception as exc:
        raise fail(f"no answer from {settings.broker} (NUDGE_BROKER): {type(exc).__name__}", 1) from None


@experiments_app.command("plan", epilog="Example: nudge experiments plan --baseline 15% --effect 3% --variants 2")
def plan(
    baseline: Annotated[str, typer.Option(help="Rate of the control, as 15% or 0.15.")],
    effect: Annotated[str, typer.Option(help="Absolute difference to find, as 3%; or give --units.")] = "",
    units: Annotated[int, typer.Option(help="Users of the control, to learn what they can find.", min=0)] = 0,
    variants: Annotated[int, typer.Option(help="Variants without the control.", min=1)] = 1,
    ratio: Annotated[float, typer.Option(help="Users of each variant for one of the control.")] = 1.0,
    alpha: Annotated[float, typer.Option(help="Chance of any false alarm.")] = 0.05,
    power: Annotated[float, typer.Option(help="Chance of finding the effect.")] = 0.8,
    as_json: AsJson = False,
) -> None:
    """How many users an experiment needs for an effect, or which effect it can find with so many users."""
    from app.experiments.power import Design, detectable_effect, sample_size  # noqa: PLC0415

    if bool(effect) == bool(units):
        raise fail("give either --effect or --units")
    try:
        design = Design(_share(baseline), variants, ratio, alpha, power)
        result: dict[str, Any] = {"baseline": design.baseline, "variants": variants, "alpha": alpha, "power": power}
        for name, always in (("fixed", False), ("always_valid", True)):
            if units:
                result[f"effect_{name}"] = detectable_effect(design, units, always=always)
            else:
                control = sample_size(design, _share(effect), always=always)
                result[f"control_units_{name}"] = control
                result[f"units_{name}"] = control + variants * round(control * ratio)
    except ValueError as exc:
        raise fail(exc) from None
    if as_json:
        out.print_json(data=result)
        return
    if units:
        out.print(f"with {units:,} users of the control, found with power {power:g}:")
        out.print(f"  one look at the end   +{result['effect_fixed']:.2%}")
        out.print(f"  a look at any time    +{result['effect_always_valid']:.2%}")
    else:
        out.print(f"to find {_share(effect):+.2%} on {design.baseline:.2%} with power {power:g}:")
        for name, label in (("fixed", "one look at the end"), ("always_valid", "a look at any time ")):
            whole, control = result[f"units_{name}"], result[f"control_units_{name}"]
            out.print(f"  {label}   {whole:>10,} users, {control:,} of them control")


def _share(text: str) -> float:
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise fail(f"{text!r} is no rate: write 0.15 or 15%") from None


@experiments_app.command("report", epilog="Example: nudge experiments report --campaign come_back --window 24h")
def report(
    campaign: Annotated[str, typer.Option(help="Only this campaign.")] = "",
    control: Annotated[str, typer.Option(help="The variant to compare with.")] = "",
    segment: Annotated[str, typer.Option(help="Show every comparison within this segment (all: of each).")] = "",
    window: Annotated[str, typer.Option(help="How long after the decision an answer counts.")] = "24h",
    conversion: Annotated[str, typer.Option(help="The event that is a conversion.")] = "Order Completed",
    opt_out_limit: Annotated[float, typer.Option(help="Tolerated rate of opt-outs; 0: none stated.")] = 0.0,
    alpha: Annotated[float, typer.Option(help="Chance of any false alarm.")] = 0.05,
    dump: Dump = None,
    broker: Broker = None,
    as_json: AsJson = False,
) -> None:
    """Compare the variants of each campaign: opens, clicks, conversions, opt-outs; may be read at any time."""
    import msgspec  # noqa: PLC0415

    from app.experiments.analysis import analyse  # noqa: PLC0415
    from app.experiments.collect import collect  # noqa: PLC0415
    from app.experiments.ledger import Ledger  # noqa: PLC0415
    from app.experiments.sources import BadDump  # noqa: PLC0415
    from schemas.topics import DECISIONS, EVENTS  # noqa: PLC0415

    ledger = Ledger(duration_ms(window), conversion)
    try:
        unreadable = collect(recorded(broker, dump, (DECISIONS, EVENTS)), ledger)
    except BadDump as exc:
        raise fail(exc) from None
    units = ledger.units()
    names = sorted({unit.campaign for unit in units if campaign in ("", unit.campaign)})
    reports = []
    for name in names:
        part = [unit for unit in units if unit.campaign == name]
        reports.append(analyse(name, part, control=control, alpha=alpha, opt_out_limit=opt_out_limit))
    if as_json:
        found = {"reports": reports, "immature": ledger.immature, "unreadable": unreadable}
        typer.echo(msgspec.json.encode(found).decode())
        return
    for one in reports:
        _print(one, segment)
    out.print(f"{len(units):,} users counted, {ledger.immature:,} still within {window}, {unreadable:,} unreadable")


def _print(report: Report, segment: str = "") -> None:
    sizes = ", ".join(f"{variant} {size:,}" for variant, size in report.units.items())
    ratio = f"ratio check p={report.ratio_p_value_always:.3g}"
    out.print(f"\n[bold]{report.campaign}[/]  {sizes}  {ratio}", highlight=False)
    for warning in report.warnings:
        out.print(f"  [yellow]warning:[/] {warning}", highlight=False)
    if report.comparisons:
        out.print(_table(report.comparisons))
    _print_segments(report, segment)
    for guard in report.guards:
        if guard.stop:
            out.print(f"  [red]stop {guard.variant}[/]: {guard.opt_outs} opt-outs of {guard.units}", highlight=False)


def _print_segments(report: Report, segment: str) -> None:
    """Those that stand out, or all within one segment."""
    if not segment:
        shown = [one for one in report.by_segment if one.p_adjusted < 0.05]
        title = "by segment (exploratory; false discoveries at most 5 % of these)"
    else:
        shown = [one for one in report.by_segment if segment in ("all", one.segment)]
        title = f"by segment: {segment} (exploratory; p adjusted for all segments)"
    if shown:
        out.print(f"  {title}", highlight=False)
        out.print(_table(shown))
    elif segment:
        known = ", ".join(sorted({one.segment for one in report.by_segment})) or "none"
        out.print(f"  segment {segment}: not 100 users of two variants; segments that have: {known}", highlight=False)


def _table(comparisons: Iterable[Comparison]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for column in ("metric", "variant", "rate", "control", "diff", "at every look", "p", "adjusted"):
        table.add_column(column, justify="left" if column in ("metric", "variant") else "right", no_wrap=True)
    for one in comparisons:
        name = f"{one.variant} in {one.segment}" if one.segment else one.variant
        sequence = f"{one.always_low:+.1%}…{one.always_high:+.1%}"
        if one.always_low <= -1.0 and one.always_high >= 1.0:
            sequence = "too few yet"
        table.add_row(
            one.metric,
            f"{name} − {one.control}",
            f"{one.rate:.2%}",
            f"{one.control_rate:.2%}",
            f"{one.difference:+.2%}",
            sequence,
            _p_text(one.p_value_always),
            _p_text(one.p_adjusted),
        )
    return table


def _p_text(p_value: float) -> str:
    return f"{p_value:.3f}" if p_value >= 0.001 else "<0.001"
