"""The command `nudge`: options override the settings that vary by hand. What a command runs is imported only then."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from app import cli_model_figures, cli_personas, cli_policy, cli_version
from app.cli_common import Broker, err, fail, kafka_call, out, read_settings
from app.cli_models import models_app
from app.cli_schemas import schemas_app
from app.console.cli import console
from app.experiments.cli import experiments_app
from app.experiments.evaluate_cli import evaluate
from app.explain.cli import explain
from app.operate.cli import doctor
from app.operate.dead_letters_cli import dead_letters_app
from app.operate.lift_cli import lift
from app.overlap.cli import segments_app
from app.overlap.sizes_cli import sizes
from app.privacy.cli import register as privacy_commands
from app.settings import Settings

app = typer.Typer(
    name="nudge",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    callback=cli_version.options,
    epilog=cli_version.EXIT_CODES,
)
topics_app = typer.Typer(help="Create, check or mend the topics that nudge needs.", no_args_is_help=True)
policy_app = typer.Typer(help="Work with policies: check, compare, apply, roll back, try out.", no_args_is_help=True)
config_app = typer.Typer(help="Look at the settings.", no_args_is_help=True)
RUN, SET_UP, LOOK, ACT = "Run", "Set up", "Look", "Act"  # how `nudge --help` groups the commands
cli_policy.register(policy_app)
cli_personas.register(segments_app)
segments_app.command(epilog="Example: nudge segments sizes --since 7d --step 1d")(sizes)


def _run(build: Callable[[], Any]) -> None:
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # NumPy's threads would spin beside the event loop, for tiny matrices
    gc.disable()  # an eighth of the start: what is imported now stays
    from app.light import aiohttp_without_certificates  # noqa: PLC0415

    with aiohttp_without_certificates():
        from app.faust_settings import install_uvloop  # noqa: PLC0415 - `nudge --help` must not load Kafka clients
        from app.run import run_app  # noqa: PLC0415
    from app.policy.errors import PolicyErrors  # noqa: PLC0415
    from app.sender.providers.base import BadProvider  # noqa: PLC0415

    install_uvloop()
    try:
        process = build()
    except PolicyErrors as exc:
        err.print("[bold red]nudge: the policy cannot be used[/]")
        err.print(str(exc), markup=False, highlight=False)
        raise typer.Exit(2) from None
    except BadProvider as exc:
        raise fail(f"the provider cannot be used (NUDGE_SENDER_PROVIDER): {exc}") from None
    gc.freeze()  # or the first collections would look through all that was imported
    gc.enable()
    run_app(process.app)


Policy = Annotated[Path | None, typer.Option("--policy", help="Policy file (NUDGE_POLICY).")]
Port = Annotated[int | None, typer.Option("--http-port", help="Port of /metrics, /livez, /readyz (NUDGE_HTTP_PORT).")]


@app.command(
    rich_help_panel=RUN,
    epilog="Example: NUDGE_BROKER=kafka:9092 NUDGE_SECRET=… nudge worker --policy policies/shop.yaml",
)
def worker(policy: Policy = None, http_port: Port = None, broker: Broker = None) -> None:
    """Run a worker: fold events, keep segments, decide, learn. Start several to share the partitions."""
    settings = read_settings(policy=policy, http_port=http_port, broker=broker)

    def build() -> Any:
        from app.factory import Worker  # noqa: PLC0415

        return Worker(settings)

    _run(build)


@app.command(
    rich_help_panel=RUN, epilog="Example: NUDGE_SENDER_PROVIDER=fcm NUDGE_FCM_CREDENTIALS=account.json nudge sender"
)
def sender(http_port: Port = None, broker: Broker = None) -> None:
    """Run a sender: deliver decisions through a provider, each at most once, and report back."""
    settings = read_settings(http_port=http_port, broker=broker)

    def build() -> Any:
        from app.sender.worker import Sender  # noqa: PLC0415

        return Sender(settings)

    _run(build)


@app.command(rich_help_panel=RUN, epilog="Example: nudge demo --duration 30 --summary summary.json")
def demo(
    duration: Annotated[float, typer.Option(help="Seconds of replay; starting and counting come on top.")] = 60.0,
    users: Annotated[int | None, typer.Option(help="Keep this many households; all when not given.")] = None,
    workers: Annotated[int, typer.Option(help="Worker processes.", min=1, max=4)] = 1,
    seed: Annotated[int, typer.Option(help="Of the simulated audience.")] = 7,
    summary: Annotated[Path | None, typer.Option(help="Write the summary as JSON to this file.")] = None,
    policy: Annotated[Path, typer.Option(help="Policy file.")] = Path("policies/shop.yaml"),
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of a live screen.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the working directory: state, logs, deliveries.")] = False,
    console: Annotated[bool, typer.Option(help="Serve the console, a web page, beside it.")] = True,
) -> None:
    """Show everything at work for a minute: broker, worker, sender and audience, on real purchases; then count."""
    from app.demo.orchestrate import Options, run  # noqa: PLC0415

    options = Options(
        duration_s=duration,
        users=users,
        workers=workers,
        seed=seed,
        summary=summary,
        policy=policy,
        plain=plain,
        keep=keep,
        console=console,
    )
    raise typer.Exit(run(options, out))


@app.command(
    rich_help_panel=RUN,
    epilog="Example: nudge simulate --broker kafka:9092 --rate 2000 --users 50000 --seconds 300 --answer",
)
def simulate(
    rate: Annotated[float, typer.Option(help="Events a second; 0 is as fast as possible.", min=0)] = 1000.0,
    users: Annotated[int, typer.Option(help="How many users.", min=1)] = 10_000,
    seconds: Annotated[float | None, typer.Option(help="Stop after this long (60 when --events is not given).")] = None,
    events: Annotated[int | None, typer.Option(help="Stop after this many events.")] = None,
    seed: Annotated[int, typer.Option(help="Of users and events.")] = 7,
    answer: Annotated[bool, typer.Option("--answer", help="Also answer the notifications that are sent.")] = False,
    mix: Annotated[str, typer.Option(help="Weights, as view=0.68,cart=0.17,purchase=0.07,open=…,opt_out=….")] = "",
    late: Annotated[float, typer.Option(help="Share of late events.")] = 0.01,
    duplicate: Annotated[float, typer.Option(help="Share of duplicated events.")] = 0.01,
    malformed: Annotated[float, typer.Option(help="Share of malformed records.")] = 0.002,
    broker: Broker = None,
) -> None:
    """Feed any broker with invented users: views, carts, purchases, answers, and what goes wrong in real life."""
    from app.demo.faults import Shares  # noqa: PLC0415
    from app.demo.simulate import Load, Mix  # noqa: PLC0415
    from app.demo.simulate import simulate as run_simulation  # noqa: PLC0415

    settings = read_settings(broker=broker)
    if seconds is None and events is None:
        seconds = 60.0
    try:
        load = Load(
            rate=rate,
            users=users,
            seconds=seconds,
            events=events,
            seed=seed,
            answer=answer,
            mix=Mix(**_weights(mix)),
            shares=Shares(late=late, duplicate=duplicate, malformed=malformed),
        )
    except (ValueError, TypeError) as exc:
        raise fail(exc) from None
    produced = kafka_call(
        settings,
        lambda security: run_simulation(
            settings.broker, load, clock=settings.make_clock(), idempotent=settings.idempotent, **security
        ),
    )
    rate_text = f"{produced.records_per_second:,.0f}/s"
    out.print(f"{produced.records:,} records in {produced.seconds:.1f} s ({rate_text}), {produced.answers:,} answers")
    for kind, number in sorted(produced.kinds.items(), key=lambda item: -item[1]):
        out.print(f"  {number:>10,}  {kind}", highlight=False)


def _weights(text: str) -> dict[str, float]:
    weights = {}
    for part in filter(None, text.split(",")):
        name, _, weight = part.partition("=")
        weights[name.strip()] = float(weight)
    return weights


@topics_app.command("create", epilog="Example: nudge topics create --partitions 16 --replication 3")
def topics_create(
    partitions: Annotated[int | None, typer.Option(help="Partitions of `events` (NUDGE_PARTITIONS).")] = None,
    replication: Annotated[int | None, typer.Option(help="Replication factor (NUDGE_REPLICATION).")] = None,
    broker: Broker = None,
) -> None:
    """Create the topics that are missing; existing ones are left as they are."""
    from app.topics import create_topics  # noqa: PLC0415

    settings = read_settings(partitions=partitions, replication=replication, broker=broker)
    created = kafka_call(
        settings, lambda security: create_topics(settings.broker, settings.partitions, settings.replication, **security)
    )
    out.print("\n".join(f"created {name}" for name in created) or "every topic exists already", highlight=False)


@topics_app.command("check", epilog="Example: nudge topics check --partitions 16")
def topics_check(
    partitions: Annotated[int | None, typer.Option(help="Partitions of `events` (NUDGE_PARTITIONS).")] = None,
    broker: Broker = None,
) -> None:
    """Compare the broker's topics with the registry; exit 1 when something is wrong."""
    from app.topics import check_topics  # noqa: PLC0415

    settings = read_settings(partitions=partitions, broker=broker)
    problems = kafka_call(settings, lambda security: check_topics(settings.broker, settings.partitions, **security))
    for problem in problems:
        said = f"{problem.topic}: {problem.problem}\n  → {problem.mend}"
        out.print(said, highlight=False, markup=False, soft_wrap=True)
    if problems:
        raise typer.Exit(1)
    out.print("all topics are as they must be")


topics_app.command(epilog="Example: nudge topics lift --yes")(lift)


@config_app.command("show", epilog="Example: NUDGE_BROKER=kafka:9092 nudge config show")
def config_show() -> None:
    """Print every setting; secrets are redacted."""
    table = Table(box=None, pad_edge=False)
    for column in ("variable", "value", "meaning"):
        table.add_column(column, overflow="fold")
    for variable, value in read_settings().shown().items():
        field = Settings.model_fields[variable.removeprefix("NUDGE_").lower()]
        table.add_row(variable, value, field.description or "")
    out.print(table)


app.command(rich_help_panel=RUN, epilog="Example: NUDGE_WORKER_URLS=http://127.0.0.1:6066 nudge console --port 6080")(
    console
)
app.add_typer(topics_app, name="topics", rich_help_panel=SET_UP)
app.add_typer(policy_app, name="policy", rich_help_panel=SET_UP)
app.add_typer(config_app, name="config", rich_help_panel=SET_UP)
app.add_typer(schemas_app, name="schemas", rich_help_panel=SET_UP)
app.command(rich_help_panel=LOOK, epilog="Example: nudge explain --user ann   or   nudge explain --decision 6f1f…")(
    explain
)
app.add_typer(segments_app, name="segments", rich_help_panel=LOOK)
app.add_typer(experiments_app, name="experiments", rich_help_panel=LOOK)
app.command(rich_help_panel=LOOK, epilog="Example: nudge evaluate --policy policies/shop-b.yaml --reward open")(
    evaluate
)
app.command(rich_help_panel=LOOK, epilog="Example: nudge doctor --json")(doctor)
cli_model_figures.register(models_app)
app.add_typer(models_app, name="models", rich_help_panel=ACT)
app.add_typer(dead_letters_app, name="dead-letters", rich_help_panel=ACT)
privacy_commands(app, ACT)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
