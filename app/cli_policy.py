"""`nudge policy diff | apply | list | rollback`: which policy the workers serve, and what a change means."""

from __future__ import annotations

import getpass
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from app.cli_common import Broker, err, fail, kafka_call, no_broker, out, read_settings
from app.trial import cli as trial

if TYPE_CHECKING:  # a command imports what it runs, so that `nudge --help` is quick
    from app.core.plan import Plan
    from app.policy.diff import PolicyDiff
    from app.policy.versions import PolicyLog
    from app.settings import Settings
    from schemas.policies import PolicyVersion

PolicyFile = Annotated[Path, typer.Argument(help="Policy file.", exists=True, dir_okay=False)]
Author = Annotated[str | None, typer.Option(help="Who; your login name when not given.")]
Name = Annotated[str, typer.Option("--policy", help="Which policy, when there are several.")]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]

_DAY_MS = 86_400_000


def register(policy_app: typer.Typer) -> None:
    """Add the commands."""
    policy_app.command("validate", epilog="Example: nudge policy validate policies/shop.yaml")(policy_validate)
    policy_app.command("diff", epilog="Example: nudge policy diff old.yaml policies/shop.yaml")(policy_diff)
    policy_app.command("apply", epilog="Example: nudge policy apply policies/shop.yaml --author ann")(policy_apply)
    policy_app.command("list", epilog="Example: nudge policy list")(policy_list)
    trial.register(policy_app)
    policy_app.command("rollback", epilog="Example: nudge policy rollback 3")(policy_rollback)


def policy_validate(
    files: Annotated[list[Path], typer.Argument(help="Policy files.", exists=True, dir_okay=False)],
    broker: Annotated[
        str | None,
        typer.Option("--broker", help="Also look whether the newest events there have the names in the files."),
    ] = None,
) -> None:
    """Check policy files; every error, and every event name that is perhaps misspelt, with file, line and field."""
    from app.policy.errors import PolicyErrors  # noqa: PLC0415
    from app.policy.load import load_policy  # noqa: PLC0415

    failed = False
    for file in files:
        try:
            plan = load_policy(file)
        except PolicyErrors as exc:
            failed = True
            err.print(str(exc), markup=False, highlight=False)
        else:
            counts = f"{len(plan.segments)} segments, {len(plan.campaigns)} campaigns, {len(plan.caps)} caps"
            out.print(f"{file}: valid, version {plan.version} ({counts})", highlight=False, soft_wrap=True)
            _warn(plan.warnings)
            if broker is not None:
                _warn_of_unseen(read_settings(broker=broker), plan)
    if failed:
        raise typer.Exit(1)


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        err.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)


def _warn_of_unseen(settings: Settings, plan: Plan) -> None:
    """Say which events of the policy nobody sends, as far as the newest of them tell."""
    from aiokafka.errors import KafkaError  # noqa: PLC0415

    from app.policy.event_names import unseen  # noqa: PLC0415
    from app.policy_topic import newest_names  # noqa: PLC0415

    try:
        seen = newest_names(settings.client_settings())
    except (KafkaError, OSError) as exc:
        raise no_broker(settings, exc) from None
    warnings, rest = unseen(plan.event_places, seen)
    _warn(warnings)
    if rest:
        names = ", ".join(map(repr, rest))
        out.print(
            f"not among the newest {seen.total():,} events: {names}", highlight=False, markup=False, soft_wrap=True
        )


def policy_diff(before: PolicyFile, after: PolicyFile, as_json: Json = False) -> None:
    """Show how two policy files differ, and what that means for the users there are; exit 1 when they do."""
    from app.policy.diff import diff_policies  # noqa: PLC0415

    found = diff_policies(_load(before), _load(after))
    if as_json:
        _print_json(found)
    else:
        _show(found)
    if found.differences:
        raise typer.Exit(1)


def policy_apply(
    file: PolicyFile,
    author: Author = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    broker: Broker = None,
) -> None:
    """Put a policy into force on all workers, between two batches. A file with a mistake changes nothing."""
    from app.policy.diff import diff_policies  # noqa: PLC0415

    text, plan = _load(file)
    _warn(plan.warnings)
    settings = read_settings(broker=broker)
    known = _read(settings)
    head = known.head(plan.name)
    if head is not None and head.version == plan.version:
        out.print(f"{plan.name} {plan.version} is in force already, as version {head.serial}", highlight=False)
        return
    before = None if head is None else _loaded(head)
    if head is not None and before is not None:
        difference = diff_policies((head.text, before), (text, plan))
        _show(difference)
        _warn_of_short_history(settings, difference.windows_added)
    else:
        _warn_of_short_history(settings, {feature.text: feature.window_ms for feature in plan.features})
    _warn_of_unseen(settings, plan)
    if not dry_run:
        _publish(settings, known.successor(plan, plan.name, text, author=author or getpass.getuser(), at_ms=_now_ms()))


def policy_list(policy: Name = "", broker: Broker = None, as_json: Json = False) -> None:
    """Show the versions that were applied, newest first."""
    settings = read_settings(broker=broker)
    known = _read(settings)
    names = [policy] if policy else known.names()
    versions = [version for name in names for version in reversed(known.history(name))]
    heads = {name: head.serial for name in names if (head := known.head(name)) is not None}
    if as_json:
        _print_json([_summary(version, heads) for version in versions])
        return
    if not versions:
        out.print("no policy was ever applied: `nudge policy apply FILE`")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("policy", "serial", "version", "applied", "by", ""):
        table.add_column(column)
    for version in versions:
        shown = _summary(version, heads)
        notes = ["in force"] if shown["in_force"] else []
        notes += [f"rollback to {version.restores}"] if version.restores else []
        row = (version.policy, str(version.serial), version.version, shown["applied"], version.author)
        table.add_row(*row, ", ".join(notes))
    out.print(table)


def policy_rollback(
    serial: Annotated[int | None, typer.Argument(help="To which version; the one before when not given.")] = None,
    policy: Name = "",
    author: Author = None,
    broker: Broker = None,
) -> None:
    """Put an earlier version into force again, as a new version with the old text."""
    from app.policy.errors import PolicyErrors  # noqa: PLC0415
    from app.policy.load import load_policy_text  # noqa: PLC0415
    from app.policy.versions import NoVersion  # noqa: PLC0415

    settings = read_settings(broker=broker)
    known = _read(settings)
    try:
        name = policy or _only(known)
        version = known.rollback(name, serial, author=author or getpass.getuser(), at_ms=_now_ms())
        load_policy_text(version.text, f"{name}@{version.restores}")
    except NoVersion as exc:
        raise fail(exc, 1) from None
    except PolicyErrors as exc:
        err.print(str(exc), markup=False, highlight=False)
        raise fail("that version does not load with this build of nudge; nothing was changed", 1) from None
    _publish(settings, version)


def _load(file: Path) -> tuple[str, Plan]:
    """A file's text and plan; ends the command when it has mistakes."""
    from app.policy.errors import PolicyErrors  # noqa: PLC0415
    from app.policy.load import load_policy  # noqa: PLC0415

    try:
        return file.read_text(encoding="utf-8"), load_policy(file)
    except PolicyErrors as exc:
        err.print(str(exc), markup=False, highlight=False)
        raise typer.Exit(2) from None


def _loaded(version: PolicyVersion) -> Plan | None:
    """The version in force, unless workers cannot serve it either."""
    from app.policy.errors import PolicyErrors  # noqa: PLC0415
    from app.policy.load import load_policy_text  # noqa: PLC0415

    try:
        return load_policy_text(version.text, f"{version.policy}@{version.serial}")
    except PolicyErrors as exc:
        err.print(str(exc), markup=False, highlight=False)
        err.print(
            f"[yellow]warning:[/] version {version.serial} does not load; workers serve an earlier one", highlight=False
        )
        return None


def _read(settings: Settings) -> PolicyLog:
    from app.policy_topic import read_log  # noqa: PLC0415

    known: PolicyLog = kafka_call(
        settings, lambda _security: read_log(settings.client_settings(), settings.secret_bytes())
    )
    for refused in known.refused:
        err.print(f"[yellow]ignored:[/] {escape(refused)} (NUDGE_SECRET)", highlight=False)
    return known


def _only(known: PolicyLog) -> str:
    from app.policy.versions import NoVersion  # noqa: PLC0415

    names = known.names()
    if len(names) != 1:
        raise NoVersion(f"say which with --policy: {', '.join(names)}" if names else "no policy was ever applied")
    return names[0]


def _publish(settings: Settings, version: PolicyVersion) -> None:
    from app.policy_topic import NotPublished, publish  # noqa: PLC0415

    connection = settings.client_settings()
    try:
        kafka_call(
            settings,
            lambda _security: publish(connection, settings.secret_bytes(), version, idempotent=settings.idempotent),
        )
    except NotPublished as exc:
        raise fail(exc, 1) from None
    restored = f" (the text of version {version.restores})" if version.restores else ""
    out.print(
        f"{version.policy} version {version.serial}, {version.version}{restored}: published; workers switch between "
        "two batches",
        highlight=False,
    )


def _warn_of_short_history(settings: Settings, windows: Mapping[str, int]) -> None:
    """Say which new windows cannot be rebuilt whole, because `events` no longer reaches back that far."""
    from app.policy_topic import retained_since_ms  # noqa: PLC0415
    from schemas.topics import EVENTS  # noqa: PLC0415

    if not windows:
        return
    since_ms = kafka_call(
        settings, lambda _security: retained_since_ms(settings.client_settings(), EVENTS, settings.partitions)
    )
    reach_ms = None if since_ms is None else _now_ms() - since_ms
    short = [text for text, ms in windows.items() if reach_ms is not None and ms > reach_ms]
    if reach_ms is None:
        out.print(f"{len(windows)} new windows are rebuilt whole: `events` still holds everything", highlight=False)
    elif short:
        days = f"{reach_ms / _DAY_MS:.1f} days"
        out.print(f"[yellow]`events` reaches back {days}; these windows begin there:[/]", highlight=False)
        for text in short:
            out.print(f"  {text}", highlight=False, markup=False)
    else:
        out.print(f"{len(windows)} new windows are rebuilt whole from `events`", highlight=False)


def _show(difference: PolicyDiff) -> None:
    signs = {"added": "[green]+[/]", "removed": "[red]-[/]", "changed": "[yellow]~[/]"}
    out.print(f"{difference.before} → {difference.after}", highlight=False)
    for part in difference.differences:
        fields = f" ({', '.join(part.fields)})" if part.fields else ""
        means = f": {part.means}" if part.means else ""
        out.print(f"{signs[part.change]} {part.kind} {part.name}{fields}{means}", highlight=False)
    for text in difference.windows_added:
        out.print(f"[green]+[/] window {escape(text)}: rebuilt from `events` as far as it is kept", highlight=False)
    for text in difference.windows_removed:
        out.print(f"[red]-[/] window {escape(text)}: forgotten", highlight=False)
    if not difference.differences:
        out.print("no difference")


def _summary(version: PolicyVersion, heads: Mapping[str, int]) -> dict[str, Any]:
    return {
        "policy": version.policy,
        "serial": version.serial,
        "version": version.version,
        "applied": datetime.fromtimestamp(version.at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ"),
        "author": version.author,
        "restores": version.restores,
        "in_force": heads.get(version.policy) == version.serial,
    }


def _print_json(value: Any) -> None:
    import msgspec  # noqa: PLC0415

    typer.echo(msgspec.json.format(msgspec.json.encode(value)).decode())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
