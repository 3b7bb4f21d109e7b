"""Why a variant, on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from app.core.explain import CampaignView
from app.core.explain_choice import VariantView
from schemas.decisions import Decision

_HOW: Final = {
    "fixed": "by a stable hash of the user, as the weights say",
    "thompson": "the better, the likelier (Thompson sampling)",
    "contextual": "by the highest bound for this user now (LinUCB)",
}


def user_variants(campaigns: Sequence[CampaignView]) -> Iterator[RenderableType]:
    """The variants of each campaign that has more than one."""
    for one in campaigns:
        if len(one.variants) < 2:
            continue
        learned = one.choose != "fixed"
        version = f", what was learned up to version {one.choice_version}" if learned else ""
        yield Text()
        yield Text.assemble((f"variants of {one.name}", "bold"), f"  {_HOW.get(one.choose, one.choose)}{version}")
        yield _table(one.variants, chances=True)


def decision_choice(made: Decision, arms: Sequence[VariantView], version: int) -> Iterator[RenderableType]:
    """What chose the variant of a decision to send, and what is known of the variants."""
    if made.action != "send":
        return
    yield Text()
    how = _HOW.get(made.chooser or "fixed", made.chooser)
    yield Text.assemble(("why this variant", "bold"), f"  {how}")
    if not made.chooser:
        return
    chance = f"{made.variant} had a probability of {made.propensity:.3g}"
    yield Text(f"{chance} by version {made.choice_version} of what was learned", style="dim")
    if arms:
        yield _table(arms, chances=False, chosen=made.variant)
        if version != made.choice_version:
            yield Text(f"figures of version {version}: those of {made.choice_version} are gone", style="dim")


def _table(found: Sequence[VariantView], *, chances: bool, chosen: str = "") -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("variant")
    if chances:
        table.add_column("weight", justify="right")
        table.add_column("chosen with", justify="right")
    table.add_column("because")
    for one in found:
        name = Text(one.name, style="bold" if one.name == chosen or (chances and one.propensity == 1) else "")
        numbers = (f"{one.weight:.0%}", f"{one.propensity:.1%}") if chances else ()
        table.add_row(name, *numbers, escape(because(one)))
    return table


def because(one: VariantView) -> str:
    """What a variant's chance comes of, in words."""
    if one.status != "awake":
        return "stopped: too many opt out" if one.status == "stopped" else "its `when` does not hold"
    parts = []
    if one.best is not None:
        parts.append(f"the best with probability {one.best:.1%}")
    if one.estimate is not None and one.bound is not None:
        parts.append(f"expected {one.estimate:.3g}, at most {one.bound:.3g}")
    if one.tired:
        parts.append(f"less {one.tired:.2g}: seen lately")
    return ", ".join(parts)
