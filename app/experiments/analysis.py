"""An experiment's report: every variant beside the control, on every metric, over all units and by segment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from app.experiments.fixed import homogeneity, two_proportions
from app.experiments.ledger import CLICK, CONVERSION, HOLDOUT, METRICS, OPEN, OPT_OUT, Unit
from app.experiments.multiple import benjamini_hochberg, holm
from app.experiments.ratio import check_ratio
from app.experiments.samples import Sample
from app.experiments.sequential import difference_sequence
from app.learning.guard import guard_log_e, must_stop

EXPECTED_DIFFERENCE: Final[Mapping[str, float]] = {OPEN: 0.03, CLICK: 0.015, CONVERSION: 0.01, OPT_OUT: 0.005}
"""The mixture's scale for each metric, in absolute rates: chosen before any data, as it has to be."""
SEGMENT_UNITS_MIN: Final = 100
"""Units that a variant must have in a segment to be compared there."""


class Comparison(msgspec.Struct, kw_only=True):
    """A variant against the control on one metric.

    `low`, `high` and `p_value` hold at one planned look; `always_…` at every look. `p_adjusted` is `p_value_always`
    by Holm's method over the comparisons of the report, or by Benjamini and Hochberg's over those by segment.
    """

    metric: str
    variant: str
    control: str
    segment: str = ""
    rate: float
    control_rate: float
    difference: float
    low: float
    high: float
    p_value: float
    always_low: float
    always_high: float
    p_value_always: float
    p_adjusted: float = 1.0


class VariantGuard(msgspec.Struct, kw_only=True):
    """A variant's opt-outs against the tolerated rate; `log_e` is the evidence (see `app.learning.guard`)."""

    variant: str
    units: int
    opt_outs: int
    log_e: float
    stop: bool


class Report(msgspec.Struct, kw_only=True):
    """What is known about one campaign's variants."""

    campaign: str
    units: dict[str, int]
    rates: dict[str, dict[str, float]]
    ratio_p_value: float
    ratio_p_value_always: float
    ratio_mismatch: bool
    any_difference: dict[str, float]
    comparisons: list[Comparison]
    by_segment: list[Comparison]
    guards: list[VariantGuard]
    warnings: list[str]


def analyse(
    campaign: str, units: Sequence[Unit], *, control: str = "", alpha: float = 0.05, opt_out_limit: float = 0.0
) -> Report:
    """Compare the variants of a campaign.

    Parameters
    ----------
    units
        Of this campaign, as `Ledger.units` gives them.
    control
        The variant to compare with; when empty, those held out for conversions and opt-outs, and the first variant by
        name for opens and clicks, which those held out cannot have.
    opt_out_limit
        The tolerated rate of opt-outs; 0 for none.
    """
    by_variant = _group(units)
    warnings = _warnings(units, by_variant)
    ratio = check_ratio(*_assignment(units, by_variant))
    if ratio.mismatch:
        warnings.append("sample ratio mismatch: units were lost or moved after assignment; do not read the rest")
    comparisons = [
        comparison for metric in METRICS for comparison in _compare(metric, by_variant, control, alpha=alpha)
    ]
    by_segment = list(_by_segment(units, control, alpha=alpha))
    _adjust(comparisons, holm([one.p_value_always for one in comparisons]))
    _adjust(by_segment, benjamini_hochberg([one.p_value_always for one in by_segment]))
    return Report(
        campaign=campaign,
        units={variant: len(part) for variant, part in by_variant.items()},
        rates={
            variant: {metric: _sample(part, metric).rate for metric in _metrics_of(variant)}
            for variant, part in by_variant.items()
        },
        ratio_p_value=ratio.p_value,
        ratio_p_value_always=ratio.p_value_always,
        ratio_mismatch=ratio.mismatch,
        any_difference={metric: _any_difference(metric, by_variant) for metric in METRICS},
        comparisons=comparisons,
        by_segment=by_segment,
        guards=[_guard(variant, part, opt_out_limit) for variant, part in by_variant.items() if variant != HOLDOUT],
        warnings=warnings,
    )


def _group(units: Iterable[Unit]) -> dict[str, list[Unit]]:
    groups: dict[str, list[Unit]] = {}
    for unit in units:
        groups.setdefault(unit.variant, []).append(unit)
    return {variant: groups[variant] for variant in sorted(groups)}


def _metrics_of(variant: str) -> tuple[str, ...]:
    return (CONVERSION, OPT_OUT) if variant == HOLDOUT else METRICS


def _sample(units: Sequence[Unit], metric: str) -> Sample:
    return Sample(len(units), sum(metric in unit.done for unit in units))


def _assignment(units: Sequence[Unit], by_variant: Mapping[str, Sequence[Unit]]) -> tuple[list[int], list[float]]:
    """Counts and intended shares; what the logged propensities leave over is a variant that nobody got.

    The propensity of a variant is given that the user is not held out, that of the holdout is its share.
    """
    held_out = by_variant.get(HOLDOUT, ())
    share = held_out[0].propensity if held_out else 0.0
    counts, shares = [], []
    for variant, part in by_variant.items():
        mean = sum(unit.propensity for unit in part) / len(part)
        counts.append(len(part))
        shares.append(mean if variant == HOLDOUT else (1 - share) * mean)
    if (rest := 1.0 - sum(shares)) > 1e-6:
        counts.append(0)
        shares.append(rest)
    return (counts, shares) if units else ([0], [1.0])


def _warnings(units: Sequence[Unit], by_variant: Mapping[str, Sequence[Unit]]) -> list[str]:
    found = []
    if len(by_variant) < 2:
        found.append("only one variant: there is nothing to compare")
    if any(unit.chooser for unit in units):
        found.append(
            "variants were chosen by what had been learned, so rates and the ratio check are biased: "
            "`nudge evaluate` weighs by propensity"
        )
    changed = [variant for variant, part in by_variant.items() if len({round(unit.propensity, 9) for unit in part}) > 1]
    if changed and not any(unit.chooser for unit in units):
        found.append(f"the weights of {', '.join(changed)} changed during the experiment: analyse its parts")
    return found


def _control_of(metric: str, by_variant: Mapping[str, Sequence[Unit]], control: str) -> str:
    usable = [variant for variant in by_variant if metric in _metrics_of(variant)]
    if control in usable:
        return control
    if HOLDOUT in usable:
        return HOLDOUT
    return usable[0] if usable else ""


def _compare(
    metric: str, by_variant: Mapping[str, Sequence[Unit]], control: str, *, alpha: float, segment: str = ""
) -> Iterable[Comparison]:
    base = _control_of(metric, by_variant, control)
    for variant, part in by_variant.items():
        if variant != base and metric in _metrics_of(variant):
            treated, baseline = _sample(part, metric), _sample(by_variant[base], metric)
            fixed = two_proportions(treated, baseline, alpha=alpha)
            always = difference_sequence(treated, baseline, tau=EXPECTED_DIFFERENCE[metric], alpha=alpha)
            yield Comparison(
                metric=metric,
                variant=variant,
                control=base,
                segment=segment,
                rate=treated.rate,
                control_rate=baseline.rate,
                difference=fixed.difference,
                low=fixed.low,
                high=fixed.high,
                p_value=fixed.p_value,
                always_low=always.low,
                always_high=always.high,
                p_value_always=always.p_value,
            )


def _by_segment(units: Sequence[Unit], control: str, *, alpha: float) -> Iterable[Comparison]:
    sizes = Counter(segment for unit in units for segment in unit.segments)
    for segment in sorted(sizes):
        inside = _group(unit for unit in units if segment in unit.segments)
        large = {variant: part for variant, part in inside.items() if len(part) >= SEGMENT_UNITS_MIN}
        for metric in METRICS:
            yield from _compare(metric, large, control, alpha=alpha, segment=segment)


def _adjust(comparisons: Sequence[Comparison], p_values: Sequence[float]) -> None:
    for comparison, p_value in zip(comparisons, p_values, strict=True):
        comparison.p_adjusted = p_value


def _any_difference(metric: str, by_variant: Mapping[str, Sequence[Unit]]) -> float:
    usable = [part for variant, part in by_variant.items() if metric in _metrics_of(variant)]
    return homogeneity([_sample(part, metric) for part in usable])


def _guard(variant: str, units: Sequence[Unit], limit: float) -> VariantGuard:
    sample = _sample(units, OPT_OUT)
    return VariantGuard(
        variant=variant,
        units=sample.units,
        opt_outs=sample.successes,
        log_e=guard_log_e(sample.units, sample.successes, limit),
        stop=must_stop(sample.units, sample.successes, limit),
    )
