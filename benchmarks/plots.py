"""Pictures of results: engine.png, latency.png, restore.png and scale.png.

    python -m benchmarks.latency --json | tee benchmarks/results/latency.json
    python -m benchmarks.plots

The folder holds what the benchmarks printed with --json, one file a benchmark, named after it.
Where there are several objects (`tee -a`) the last one counts; of scale and latency the runs of all of them are shown,
of two with one number of users, or one rate, the later. A benchmark without a file has no picture.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

PLOTS: Final = Path(__file__).parent / "plots"
RESULTS: Final = Path(__file__).parent / "results"
PNG_BYTES_MAX: Final = 60_000
_INK: Final = "#1f4e79"
_PALE: Final = "#9dc3e6"


def engine(axes: Axes, found: dict[str, Any]) -> None:
    """Events a second by contender."""
    contenders = found["contenders"]
    names = sorted(contenders, key=lambda name: contenders[name]["events_per_second"])
    rates = [contenders[name]["events_per_second"] for name in names]
    colours = [_INK if name == "nudge" else _PALE for name in names]
    labels = [name.replace("_", " ").replace(" with ", "\nwith ") for name in names]
    bars = axes.barh(labels, rates, color=colours, log=True)
    axes.bar_label(bars, [f"{rate:,}" for rate in rates], padding=3)
    axes.margins(x=0.25)
    axes.set_xlabel("events/s")
    axes.set_title(f"{found['users']:,} users, {found['segments']} segments, {found['broker']}")


def latency(axes: Axes, found: dict[str, Any]) -> None:
    """Quantiles by rate."""
    lines = {
        "p50_ms": "p50",
        "p99_ms": "p99",
        "p999_ms": "p99.9",
        "floor_p50_ms": "p50, floor",
        "floor_p99_ms": "p99, floor",
    }
    for name, label in lines.items():
        points = sorted((one["rate"], one[name]) for one in found["rates"] if one.get(name) is not None)
        style = {"linestyle": "dotted", "marker": "."} if label.endswith("floor") else {"marker": "o"}
        if points:
            axes.plot(*zip(*points, strict=True), label=label, **style)
    axes.set(xscale="log", yscale="log", xlabel="events/s", ylabel="event → decision, ms")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter("{x:,.0f}")
    axes.set_title(f"{found['users']:,} users, open loop, {found['broker']}")
    axes.legend()


def restore(axes: Axes, found: dict[str, Any]) -> None:
    """Rows a second."""
    rates = {
        "stock Faust": found["faust_rows_per_second"],
        "cold": found["rows_per_second"],
        "warm": found["warm_rows_per_second"],
    }
    bars = axes.barh(list(rates), list(rates.values()), color=[_PALE, _INK, _INK])
    axes.bar_label(bars, [f"{rate:,}" for rate in rates.values()], padding=3)
    axes.margins(x=0.2)
    axes.set_xlabel("rows/s")
    axes.set_title(f"restore of {found['rows']:,} rows, {found['broker']}")


def scale(axes: Axes, found: dict[str, Any]) -> None:
    """Processor time an event by users, and with two workers."""
    alone = sorted((one["users"], one["cpu_us_per_event"]) for one in found["runs"] if one["workers"] == 1)
    axes.plot(*zip(*alone, strict=True), marker="o", color=_INK, label="1 worker")
    several = [(one["users"], one["cpu_us_per_event"]) for one in found["runs"] if one["workers"] == 2]
    if several:
        axes.plot(*zip(*several, strict=True), marker="s", linestyle="", color="#c55a11", label="2 workers")
    axes.set(xscale="log", ylim=(0, None), xlabel="users", ylabel="CPU µs an event")
    axes.set_title(f"cost of an event, {found['broker']}")
    axes.legend()


DRAWN: Final[dict[str, Callable[[Axes, dict[str, Any]], None]]] = {
    "engine": engine,
    "latency": latency,
    "restore": restore,
    "scale": scale,
}


_RUNS: Final = {"latency": ("rates", ("rate",)), "scale": ("runs", ("users", "workers"))}
"""Where the runs of a benchmark are, and what tells them apart."""


def read(name: str, text: str) -> dict[str, Any]:
    """What a benchmark printed, in one object. Raises `ValueError` when there is none."""
    found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    if not found:
        raise ValueError(f"{name}.json has no line that is a JSON object; give the benchmark --json")
    whole: dict[str, Any] = found[-1]
    if name in _RUNS:
        runs, keys = _RUNS[name]
        whole[runs] = list({tuple(run[key] for key in keys): run for one in found for run in one[runs]}.values())
    return whole


def draw(results: Path, target: Path) -> list[Path]:
    """Write a picture of each result that there is; their paths.

    Raises
    ------
    ValueError
        When a file has no JSON object, or a picture would be larger than `PNG_BYTES_MAX`.
    """
    target.mkdir(parents=True, exist_ok=True)
    made = []
    for name, plot in DRAWN.items():
        source = results / f"{name}.json"
        if not source.exists():
            continue
        figure = Figure(figsize=(6, 3.4), dpi=90, layout="constrained")
        plot(figure.subplots(), read(name, source.read_text()))
        path = target / f"{name}.png"
        figure.savefig(path)
        if path.stat().st_size > PNG_BYTES_MAX:
            raise ValueError(f"{path} has {path.stat().st_size:,} bytes; at most {PNG_BYTES_MAX:,}")
        made.append(path)
    return made


def main() -> None:
    """Draw, and name what was drawn."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("results", type=Path, nargs="?", default=RESULTS, help="folder (default: %(default)s)")
    arguments.add_argument("--out", type=Path, default=PLOTS, help="folder of the pictures (default: %(default)s)")
    options = arguments.parse_args()
    made = draw(options.results, options.out)
    if not made:
        arguments.error(f"{options.results} has none of {', '.join(f'{name}.json' for name in DRAWN)}")
    print("\n".join(str(path) for path in made))


if __name__ == "__main__":
    main()
