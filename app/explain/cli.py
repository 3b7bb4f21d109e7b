"""`nudge explain`: asks the worker that has the user's row, and reads the topics."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import msgspec
import typer

from app.cli_common import Broker, err, fail, kafka_call, out, read_settings
from app.core.durations import parse_duration_ms
from app.logs import configure_logs
from app.settings import Settings


def explain(
    user: Annotated[str, typer.Option("--user", "-u", help="The user's id, as in the events.")] = "",
    decision: Annotated[str, typer.Option("--decision", "-d", help="A decision's id (`ce_id`).")] = "",
    worker: Annotated[
        list[str] | None, typer.Option("--worker", help="HTTP endpoint of a worker; repeat it (NUDGE_WORKER_URLS).")
    ] = None,
    since: Annotated[str, typer.Option(help="How far back the topics are read.")] = "7d",
    topics: Annotated[bool, typer.Option("--topics/--no-topics", help="Read the user's newest records, too.")] = True,
    row: Annotated[bool, typer.Option("--row", help="With --json: the raw row as well.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    broker: Broker = None,
) -> None:
    """Explain a user (segments with the clause that decided, campaigns with their gates) or one decision."""
    if not user and not decision:
        raise fail("give --user or --decision")
    try:
        since_ms = time.time_ns() // 1_000_000 - parse_duration_ms(since)
    except ValueError as exc:
        raise fail(f"--since: {exc}") from None
    settings = read_settings(broker=broker, worker_urls=",".join(worker) if worker else None)
    configure_logs(settings.log_format, "error")
    if decision:
        found = kafka_call(settings, lambda _security: _decision(settings, decision, user, since_ms))
    else:
        found = kafka_call(settings, lambda _security: _user(settings, user, since_ms, topics=topics, row=row))
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found.plain())).decode() + "\n")
    else:
        out.print(found)


class _UserFound:
    def __init__(self, asked: Any, life: Any) -> None:
        self.asked, self.life = asked, life

    def plain(self) -> dict[str, Any]:
        answer = self.asked.answer or {}
        return {**answer, "life": msgspec.to_builtins(self.life) if self.life else None}

    def __rich__(self) -> Any:
        from rich.console import Group  # noqa: PLC0415

        from app.core.explain import UserView  # noqa: PLC0415
        from app.explain.report import life_report, user_report  # noqa: PLC0415

        parts = []
        if self.asked.answer is not None:
            view = msgspec.convert(self.asked.answer["view"], UserView)
            parts.append(user_report(view, self.asked.answer["partition"]))
        if self.life is not None:
            parts.append(life_report(self.life))
        return Group(*parts)


async def _user(settings: Settings, user: str, since_ms: int, *, topics: bool, row: bool) -> _UserFound:
    from app.explain.ask import ask_workers  # noqa: PLC0415
    from app.explain.life import read_life  # noqa: PLC0415

    token = settings.admin_token.get_secret_value()
    asked = await ask_workers(settings.worker_endpoints(), token, user, row=row)
    for url, problem in asked.problems.items():
        err.print(f"{url}: {problem}", highlight=False, markup=False)
    partition = None if asked.answer is None else asked.answer["partition"]
    life = None
    if topics:
        life = await read_life(settings.client_settings(), user, partition=partition, since_ms=since_ms)
    if asked.answer is None and not (life and life.moments):
        where = "on the workers that were asked, and no record in the topics" if topics else "on the workers asked"
        raise fail(f"no row of this user {where}", 1)
    return _UserFound(asked, life)


class _DecisionFound:
    def __init__(
        self, made: Any, shares: Any, problem: str, version: int, arms: Any = (), arms_version: int = 0
    ) -> None:
        self.made, self.shares, self.problem, self.version = made, shares, problem, version
        self.arms, self.arms_version = arms, arms_version

    def plain(self) -> dict[str, Any]:
        from app.explain.life import without_tokens  # noqa: PLC0415

        return {
            "decision": msgspec.to_builtins(without_tokens(self.made)),
            "shares": msgspec.to_builtins(self.shares),
            "sharesModelVersion": self.version,
            "variants": msgspec.to_builtins(self.arms),
            "variantsVersion": self.arms_version,
        }

    def __rich__(self) -> Any:
        from app.explain.report import decision_report  # noqa: PLC0415

        return decision_report(self.made, self.shares, self.problem, self.version, self.arms, self.arms_version)


async def _decision(settings: Settings, name: str, user: str, since_ms: int) -> _DecisionFound:
    from app.core.choices import NOTHING_KNOWN  # noqa: PLC0415
    from app.core.explain import explain_score  # noqa: PLC0415
    from app.core.explain_choice import learned_arms  # noqa: PLC0415
    from app.explain.history import scan  # noqa: PLC0415
    from app.explain.models import newest_choices, newest_scorer  # noqa: PLC0415
    from schemas.decisions import decode_decision  # noqa: PLC0415
    from schemas.topics import DECISIONS  # noqa: PLC0415

    wanted = ("ce_id", name.encode())
    found = await scan(
        settings.client_settings(), DECISIONS, lambda record: wanted in record.headers, since_ms=since_ms,
        key=user.encode() if user else None,
    )  # fmt: skip
    if not found.records:
        older = "" if found.whole else ", and older ones were not looked at (give --user or a shorter --since)"
        raise fail(f"no decision {name} among the {found.scanned:,} newest records of `decisions`{older}", 1)
    made = decode_decision(found.records[-1].value)
    if not made.features:
        return _DecisionFound(made, (), "features are recorded with decisions to send", 0)
    scorer, problem = await newest_scorer(settings)
    shares = explain_score(made.features, scorer.explain_one if scorer else None)
    version = scorer.version if scorer else 0
    choices = await newest_choices(settings) if made.chooser else NOTHING_KNOWN
    arms = learned_arms(choices, made.campaign, made.chooser, made.features)
    return _DecisionFound(made, shares, problem, version, arms, choices.version)
