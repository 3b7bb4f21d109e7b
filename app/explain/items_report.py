"""What a user wants, what slots would show them and where percentiles begin, on a terminal."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from app.core.explain import UserView
from app.core.explain_items import WishView
from app.core.expression_explain import format_age

WISHES_SHOWN = 10


def items_report(view: UserView) -> list[RenderableType]:
    """The parts that there is something to say of."""
    parts: list[RenderableType] = []
    if view.thresholds:
        parts += [Text(), Text("percentiles", style="bold"), _thresholds(view)]
    if view.wishes:
        parts += [Text(), Text("wants, of the catalog", style="bold"), _wishes(view)]
    slots = [campaign for campaign in view.campaigns if campaign.products]
    if slots:
        table = _table()
        for campaign in slots:
            shown = ", ".join(f"{one.name or one.id} ({one.source})" for one in campaign.products)
            table.add_row(campaign.name, Text(shown))
        parts += [Text(), Text("products that it would show", style="bold"), table]
    return parts


def _table() -> Table:
    return Table(box=None, pad_edge=False, show_header=False)


def _thresholds(view: UserView) -> Table:
    table = _table()
    for one in view.thresholds:
        detail = f"since {format_age(max(0, view.now_ms - one.since_ms))}, then {one.share:.1%} of {one.users:,} users"
        table.add_row(Text(one.name), f"begins at {one.value:.6g}", Text(detail, style="dim"))
    return table


def _wishes(view: UserView) -> Table:
    table = _table()
    for wish in view.wishes[:WISHES_SHOWN]:
        age = format_age(max(0, view.now_ms - wish.at_ms))
        label = wish.name or wish.item or "an item that the catalog does not have"
        table.add_row(Text(label), f"{', '.join(wish.kinds)} {age} ago", Text(_price(wish), style="dim"))
    if len(view.wishes) > WISHES_SHOWN:
        table.add_row(f"{len(view.wishes) - WISHES_SHOWN} others", "", "")
    return table


def _price(wish: WishView) -> str:
    parts = []
    if wish.price is not None:
        parts.append(f"saw it at {wish.price:g}")
    if wish.price_now is not None and wish.price_now != wish.price:
        parts.append(f"now {wish.price_now:g}")
    if wish.in_stock is False:
        parts.append("out of stock")
    parts.append(f"told of version {wish.told}" if wish.told >= 0 else "not told yet")
    return ", ".join(parts)
