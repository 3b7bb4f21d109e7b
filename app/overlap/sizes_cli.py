"""`nudge segments sizes`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from app.cli_common import Broker, err, fail, no_broker, out, read_settings
from app.overlap.cli import policy_of, read_memberships

if TYPE_CHECKING:
    from app.overlap.sizes import Changes, SizeHistory
    from app.settings import Settings

STEPS_MAX = 200


def sizes(
    policy: Annotated[Path | None, typer.Option(help="Policy file; else NUDGE_POLICY, or what is in force.")] = None,
    since: Annotated[str, typer.Option(help="How far back; `segments` keeps seven days.")] = "7d",
    step: Annotated[str, typer.Option(help="Time between two sizes.")] = "12h",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    broker: Broker = None,
) -> None:
    """Show how large segments are and were, and which are smaller than their minimum size.

    Sizes of now are counted in the rows' changelog; earlier ones follow from who entered and left since.
    """
    from app.core.durations import parse_duration_ms  # noqa: PLC0415

    try:
        since_ms, step_ms = parse_duration_ms(since), parse_duration_ms(step)
    except ValueError as exc:
        raise fail(str(exc)) from None
    steps = -(-since_ms // step_ms)
    if steps > STEPS_MAX:
        raise fail(f"{steps} steps are more than {STEPS_MAX}: give a longer --step")
    settings = read_settings(broker=broker)
    plan = policy_of(settings, policy or settings.policy)
    memberships = read_memberships(settings)
    names = {segment.id: segment.name for segment in plan.segments}
    now: dict[str, int] = {}
    for held, users in memberships.combinations().items():
        for segment in held:
            name = names.get(segment, "")
            now[name] = now.get(name, 0) + round(users / memberships.share)
    found = _changes(settings, step_ms, steps).history(plan, now)
    if as_json:
        import msgspec  # noqa: PLC0415

        typer.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        _show(found, since, step)
    if any(one.too_small for one in found):
        err.print("smaller than its minimum: widen its condition, or give it up (docs/runbooks/segment-small.md)")


def _changes(settings: Settings, step_ms: int, steps: int) -> Changes:
    import msgspec  # noqa: PLC0415
    from aiokafka.errors import KafkaError  # noqa: PLC0415

    from app.overlap.sizes import Changes  # noqa: PLC0415
    from app.whole_topic import read_whole  # noqa: PLC0415
    from schemas.segments import decode_membership  # noqa: PLC0415
    from schemas.topics import SEGMENTS  # noqa: PLC0415

    changes = Changes(settings.make_clock().now_ms(), step_ms, steps)
    try:
        for records in read_whole(settings.client_settings(), SEGMENTS):
            for record in records:
                try:
                    changes.take(decode_membership(record.value or b""))
                except msgspec.MsgspecError:
                    continue  # of another build
    except (KafkaError, OSError) as exc:
        raise no_broker(settings, exc) from None
    return changes


def _show(found: list[SizeHistory], since: str, step: str) -> None:
    from app.overlap.sizes import bars  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for column in ("segment", "minimum", f"{since} ago", "now", f"every {step}", ""):
        table.add_column(column, justify="left" if column in ("segment", f"every {step}", "") else "right")
    for one in found:
        note = "[yellow]too small[/]" if one.too_small else ""
        minimum = f"{one.users_min:,}" if one.users_min else ""
        table.add_row(one.segment, minimum, f"{one.users[0]:,}", f"{one.users[-1]:,}", bars(one.users), note)
    out.print(table)
