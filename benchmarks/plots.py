"""Pictures of results: engine.png, latency.png, restore.png and scale.png.

    python -m benchmarks.latency --json | tee results/latency.json
    python -m benchmarks.plots results

The folder holds what the benchmarks printed with --json (only the last line of a file is read), one file a benchmark,
named after it. A benchmark without a file has no picture.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

PLOTS: Final = Path(__file__).parent / "plots"
PNG_BYTES_MAX: Final = 60_000
_INK: Final = "#1f4e79"
_PALE: Final = "#9dc3e6"


def engine(axes: Axes, found: dict[str, Any]) -> None:
    """Events a second by contender."""
    contenders = found["contenders"]
    names = sorted(contenders, key=lambda name: contenders[name]["events_per_second"])
    rates = [contenders[name]["events_per_second"] for name in names]
    colours = [_INK if name == "nudge" else _PALE for name in names]
    bars = axes.barh([name.replace("_", " ") for name in names], rates, color=colours, log=True)
    axes.bar_label(bars, [f"{rate:,}" for rate in rates], padding=3)
    axes.margins(x=0.25)
    axes.set_xlabel("events/s")
    axes.set_title(f"{found['users']:,} users, {found['segments']} segments, {found['broker']}")


def latency(axes: Axes, found: dict[str, Any]) -> None:
    """Quantiles by rate."""
    for name, label in (("p50_ms", "p50"), ("p99_ms", "p99"), ("p999_ms", "p99.9")):
        points = sorted((one["rate"], one[name]) for one in found["rates"] if one[name] is not None)
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel="events/s", ylabel="event → decision, ms")
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


def draw(results: Path, target: Path) -> list[Path]:
    """Write a picture of each result that there is; their paths.

    Raises
    ------
    ValueError
        When the last line of a file is not JSON, or a picture would be larger than `PNG_BYTES_MAX`.
    """
    target.mkdir(parents=True, exist_ok=True)
    made = []
    for name, plot in DRAWN.items():
        source = results / f"{name}.json"
        if not source.exists():
            continue
        figure = Figure(figsize=(6, 3.4), dpi=90, layout="constrained")
        plot(figure.subplots(), json.loads(source.read_text().splitlines()[-1]))
        path = target / f"{name}.png"
        figure.savefig(path)
        if path.stat().st_size > PNG_BYTES_MAX:
            raise ValueError(f"{path} has {path.stat().st_size:,} bytes; at most {PNG_BYTES_MAX:,}")
        made.append(path)
    return made


def main() -> None:
    """Draw, and name what was drawn."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("results", type=Path, help="folder of the results")
    arguments.add_argument("--out", type=Path, default=PLOTS, help="folder of the pictures (default: %(default)s)")
    options = arguments.parse_args()
    made = draw(options.results, options.out)
    if not made:
        arguments.error(f"{options.results} has none of {', '.join(f'{name}.json' for name in DRAWN)}")
    print("\n".join(str(path) for path in made))


if __name__ == "__main__":
    main()
