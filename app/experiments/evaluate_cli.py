"""`nudge evaluate --policy B`: what another policy's choice of variants would have earned."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.experiments.cli import AsJson, Broker, Dump, err, fail, out, recorded
from app.settings import load_settings

if TYPE_CHECKING:
    from app.core.choices import Choices
    from app.core.plan import Plan
    from app.experiments.logged import CampaignEvaluation


def evaluate(
    policy: Annotated[Path, typer.Option(help="The policy to evaluate.", exists=True, dir_okay=False)],
    campaign: Annotated[str, typer.Option(help="Only this campaign.")] = "",
    reward: Annotated[str, typer.Option(help="open, click, opt_out, or gain: the campaign's own reward.")] = "open",
    weight_max: Annotated[float, typer.Option(help="Cut weights there.", min=1.0)] = 100.0,
    alpha: Annotated[float, typer.Option(help="1 - coverage of the intervals.")] = 0.05,
    dump: Dump = None,
    broker: Broker = None,
    as_json: AsJson = False,
) -> None:
    """Estimate from logged outcomes what a policy's choice of variants would have earned a decision."""
    import msgspec  # noqa: PLC0415

    from app.experiments.logged import REWARDS, evaluate_campaign, read_outcomes  # noqa: PLC0415
    from app.experiments.sources import BadDump  # noqa: PLC0415
    from app.policy.errors import PolicyErrors  # noqa: PLC0415
    from app.policy.load import load_policy  # noqa: PLC0415
    from schemas.topics import OUTCOMES  # noqa: PLC0415

    if reward not in REWARDS:
        raise fail(f"--reward {reward}: one of {', '.join(REWARDS)}")
    try:
        plan = load_policy(policy)
        outcomes, unreadable = read_outcomes(recorded(broker, dump, (OUTCOMES,)), plan.model)
    except PolicyErrors as exc:
        err.print(str(exc), markup=False, highlight=False)
        raise typer.Exit(2) from None
    except BadDump as exc:
        raise fail(exc) from None
    choices = _choices(plan, dump, broker)
    found = []
    for name in sorted({one.campaign for one in outcomes.values()}):
        part = [one for one in outcomes.values() if one.campaign == name]
        if campaign in ("", name):
            made = evaluate_campaign(name, part, plan, choices, reward=reward, weight_max=weight_max, alpha=alpha)
            found.append(made)
    if as_json:
        typer.echo(msgspec.json.encode({"evaluations": found, "unreadable": unreadable}).decode())
        return
    for one in found:
        _print(one, reward)
    out.print(f"{len(outcomes):,} outcomes, {unreadable:,} unreadable", highlight=False)


def _choices(plan: Plan, dump: Path | None, broker: str | None) -> Choices:
    """What has been learned, where the policy asks for it; a dump holds no snapshots, so a broker must be there."""
    from app.core.choices import NOTHING_KNOWN  # noqa: PLC0415

    if dump is not None or all(one.choose == "fixed" for one in plan.campaigns):
        return NOTHING_KNOWN
    settings = load_settings(**({"broker": broker} if broker else {}))
    return asyncio.run(_newest(settings.client_settings(), settings.secret_bytes(), plan.model))


async def _newest(client: dict[str, object], secret: bytes, model: str) -> Choices:
    import msgspec  # noqa: PLC0415

    from app.core.choices import NOTHING_KNOWN  # noqa: PLC0415
    from app.learning.book import ModelBook  # noqa: PLC0415
    from app.learning.contract import BadModel  # noqa: PLC0415
    from app.learning.served_choices import SUFFIX, read_choices  # noqa: PLC0415
    from app.stream.broadcast import read_to_end  # noqa: PLC0415
    from schemas.models import BadSignature  # noqa: PLC0415
    from schemas.topics import MODELS  # noqa: PLC0415

    book = ModelBook(secret, lambda name: name == model + SUFFIX)

    def keep(_key: bytes | None, value: bytes | None, _offset: int) -> None:
        try:
            book.apply(value or b"")
        except (BadSignature, msgspec.MsgspecError) as exc:
            err.print(f"a snapshot was passed over: {exc}", highlight=False, markup=False)

    await read_to_end(client, MODELS, keep)
    snapshot = book.newest(model + SUFFIX)
    try:
        return read_choices(snapshot) if snapshot is not None else NOTHING_KNOWN
    except BadModel as exc:
        err.print(f"a snapshot was passed over: {exc}", highlight=False, markup=False)
        return NOTHING_KNOWN


def _print(one: CampaignEvaluation, reward: str) -> None:
    out.print(f"\n[bold]{one.campaign}[/]", highlight=False)
    found = one.evaluation
    if found is not None:
        for name in ("logged", "ips", "snips", "dr"):
            estimate = getattr(found, name)
            interval = f"{estimate.low:.4f} … {estimate.high:.4f}"
            out.print(f"  {name:<8}{reward} {estimate.value:.4f}   {interval}", highlight=False)
        out.print(f"  {found.decisions:,} decisions, worth {found.effective:,.0f}", highlight=False)
    for warning in one.warnings:
        out.print(f"  [yellow]warning:[/] {warning}", highlight=False)
