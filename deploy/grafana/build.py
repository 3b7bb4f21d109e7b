"""Makes the Grafana dashboard: python deploy/grafana/build.py. A list of panels is easier to read than its JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent / "dashboards" / "nudge.json"
WIDTH = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
ME = 'instance=~"$instance"'

Panel = dict[str, Any]
Query = tuple[str, str]  # expression, legend


def graph(
    title: str,
    *queries: Query,
    unit: str = "short",
    width: int = 8,
    stack: bool = False,
    text: str = "",
    **scale: float,
) -> Panel:
    """Lines over time; `scale` may have `min` and `max`."""
    custom: dict[str, Any] = {"fillOpacity": 25 if stack else 8, "lineWidth": 1, "showPoints": "never"}
    if stack:
        custom["stacking"] = {"mode": "normal", "group": "A"}
    return {
        **_base(title, "timeseries", queries, width, 8, text),
        "fieldConfig": {"defaults": {"unit": unit, "custom": custom, **scale}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def stat(
    title: str, *queries: Query, unit: str = "short", red_below: float | None = None, red_from: float | None = None
) -> Panel:
    """One number, coloured by a threshold."""
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if red_below is not None:
        steps = [{"color": "red", "value": None}, {"color": "green", "value": red_below}]
    if red_from is not None:
        steps.append({"color": "red", "value": red_from})
    return {
        **_base(title, "stat", queries, 4, 4, ""),
        "fieldConfig": {
            "defaults": {"unit": unit, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"},
    }


def _base(title: str, kind: str, queries: Sequence[Query], width: int, height: int, text: str) -> Panel:
    targets = [
        {"refId": chr(ord("A") + index), "expr": expression, "legendFormat": legend, "datasource": DATASOURCE}
        for index, (expression, legend) in enumerate(queries)
    ]
    return {
        "title": title,
        "description": text,
        "type": kind,
        "datasource": DATASOURCE,
        "gridPos": {"w": width, "h": height},
        "targets": targets,
    }


def quantiles(metric: str, by: str = "") -> list[Query]:
    """p50 and p99 of a histogram."""
    group, suffix = (f"le, {by}", f" {{{{{by}}}}}") if by else ("le", "")
    rate = f"sum by ({group}) (rate({metric}_bucket{{{ME}}}[$__rate_interval]))"
    return [(f"histogram_quantile({q}, {rate})", f"p{q * 100:.0f}{suffix}") for q in (0.5, 0.99)]


def rate(metric: str, by: str, where: str = "") -> str:
    """Per second, by a label."""
    inside = ", ".join(filter(None, [ME, where]))
    return f"sum by ({by}) (rate({metric}{{{inside}}}[$__rate_interval]))"


def rows() -> list[tuple[str, list[Panel]]]:
    """The dashboard from top to bottom."""
    return [
        ("Now", _now()),
        ("Throughput and lag", _throughput()),
        ("Latency", _latency()),
        ("Decisions", _decisions()),
        ("Segments", _segments()),
        ("Catalog", _catalog()),
        ("Sends", _sends()),
        ("Models", _models()),
        ("Models: campaigns, challengers, propensities", _models_more()),
        ("State and processes", _state()),
    ]


def _now() -> list[Panel]:
    return [
        stat("Processes ready", (f"sum(nudge_ready{{{ME}}})", "")),
        stat("Processes not ready", (f"count(nudge_ready{{{ME}}} == 0) or vector(0)", ""), red_from=1),
        stat("Events a second", (f"sum(rate(nudge_events_total{{{ME}}}[$__rate_interval]))", ""), unit="short"),
        stat("Event → decision, p99", quantiles("nudge_event_to_decision_seconds")[1], unit="s", red_from=1),
        stat("Records that wait", (f"sum(nudge_consumer_lag_records{{{ME}}})", ""), red_from=10_000),
        stat("Sent a second", (f'sum(rate(nudge_sends_total{{{ME}, outcome="sent"}}[$__rate_interval]))', "")),
    ]


def _throughput() -> list[Panel]:
    return [
        graph(
            "Events by fate",
            (rate("nudge_events_total", "topic, outcome"), "{{topic}} {{outcome}}"),
            unit="cps",
            stack=True,
        ),
        graph("Lag by topic", (f"sum by (topic) (nudge_consumer_lag_records{{{ME}}})", "{{topic}}"), min=0),
        graph(
            "Dead letters by reason",
            (rate("nudge_dead_letter_records_total", "topic, reason"), "{{topic}} {{reason}}"),
            unit="cps",
        ),
        graph(
            "Lag by partition",
            (f"max by (topic, partition) (nudge_consumer_lag_records{{{ME}}})", "{{topic}} {{partition}}"),
            width=12,
            text="One partition above the others: a hot key or a slow machine.",
            min=0,
        ),
        graph("Records processed at a time", *quantiles("nudge_batch_records"), width=12),
    ]


def _latency() -> list[Panel]:
    return [
        graph(
            "Event → decision",
            *quantiles("nudge_event_to_decision_seconds"),
            unit="s",
            text="From the event's record timestamp to the acknowledged decision.",
        ),
        graph("Processing of a batch", *quantiles("nudge_batch_processing_seconds"), unit="s"),
        graph("Offset commit", *quantiles("nudge_commit_seconds"), unit="s"),
    ]


def _decisions() -> list[Panel]:
    return [
        graph("To send", (rate("nudge_decisions_total", "decision", 'decision="send"'), "send"), unit="cps"),
        graph(
            "Not to send, by reason",
            (rate("nudge_decisions_total", "reason", 'decision="suppress"'), "{{reason}}"),
            unit="cps",
            stack=True,
        ),
        graph(
            "Policy in force",
            (f"nudge_policy_serial{{{ME}}}", "{{policy}} {{version}} {{instance}}"),
            text="The serial; all workers should show the same.",
        ),
        graph("Partitions to backfill", (f"nudge_backfill_partitions{{{ME}}}", "{{instance}}"), min=0),
        graph("Timers", (rate("nudge_timers_total", "outcome"), "{{outcome}}"), unit="cps"),
        graph(
            "Of the policy on trial",
            (rate("nudge_shadow_decisions_total", "decision, reason"), "{{decision}} {{reason}}"),
            unit="cps",
            stack=True,
            text="Decisions that nobody gets, about its share of the users.",
        ),
        graph(
            "Backfill",
            (rate("nudge_backfill_rows_total", "outcome"), "rows {{outcome}}"),
            (f"sum(rate(nudge_backfill_history_records_total{{{ME}}}[$__rate_interval]))", "records read again"),
            unit="cps",
        ),
        graph(
            "Missing of new windows",
            (f"max(nudge_backfill_missing_seconds{{{ME}}})", ""),
            unit="s",
            text="How much of the longest new window `events` no longer held.",
            min=0,
        ),
    ]


def _segments() -> list[Panel]:
    minimum = f"max by (segment) (nudge_segment_minimum_members{{{ME}}})"
    return [
        graph("Members", (f"sum by (segment) (nudge_segment_members{{{ME}}})", "{{segment}}"), width=16, min=0),
        graph("Entering and leaving", (rate("nudge_membership_changes_total", "change"), "{{change}}"), unit="cps"),
        graph(
            "Members, of the minimum size",
            (
                f"sum by (segment) (nudge_segment_members{{{ME}}}) / {minimum}",
                "{{segment}}",
            ),
            min=0,
            text="Below 1 a segment is smaller than the policy wants (docs/runbooks/segment-small.md).",
        ),
        graph(
            "Where percentiles begin",
            (f"max by (percentile) (nudge_percentile_threshold{{{ME}}})", "{{percentile}}"),
        ),
        graph(
            "Beyond a percentile's threshold",
            (f"max by (percentile) (nudge_percentile_share{{{ME}}})", "{{percentile}}"),
            unit="percentunit",
            text="Share of the users when the threshold was set: it should be what the policy says.",
            min=0,
            max=1,
        ),
        graph("Rows that followed a threshold", (rate("nudge_percentile_rows_total", "outcome"), "{{outcome}}")),
        graph(
            "Personas",
            (f"max by (persona) (nudge_persona_share{{{ME}}})", "{{persona}}"),
            unit="percentunit",
            stack=True,
            min=0,
        ),
        graph(
            "Personas: how well told apart, and who changes",
            (f"max(nudge_persona_silhouette{{{ME}}})", "silhouette"),
            (rate("nudge_persona_changes_total", "change"), "{{change}} a second"),
        ),
        graph("Merges of two rows", (rate("nudge_merges_total", "step"), "{{step}}"), unit="cps"),
    ]


def _catalog() -> list[Panel]:
    return [
        graph(
            "Items",
            (f"max(nudge_catalog_items{{{ME}}})", "known"),
            (f"max(nudge_catalog_unknown_records{{{ME}}})", "without room"),
            min=0,
        ),
        graph("Changes", (rate("nudge_catalog_changes_total", "kind"), "{{kind}}"), unit="cps"),
        graph("Offered to rows", (rate("nudge_catalog_offers_total", "outcome"), "{{outcome}}"), unit="cps"),
        graph(
            "Changes that wait for their users",
            (f"nudge_catalog_waiting_changes{{{ME}}}", "{{instance}}"),
            width=12,
            min=0,
        ),
        graph(
            "Entries of the indexes from item to users",
            (f"nudge_catalog_index_entries{{{ME}}}", "{{instance}}"),
            width=12,
            min=0,
        ),
    ]


def _sends() -> list[Panel]:
    return [
        graph(
            "By outcome",
            (rate("nudge_sends_total", "provider, outcome"), "{{provider}} {{outcome}}"),
            unit="cps",
            stack=True,
        ),
        graph("Time of an attempt", *quantiles("nudge_send_seconds", "provider"), unit="s"),
        graph("Attempts after the first", (rate("nudge_send_retries_total", "provider"), "{{provider}}"), unit="cps"),
        graph(
            "Open circuit breakers",
            (f"max by (provider) (nudge_send_circuit_open{{{ME}}})", "{{provider}}"),
            text="1 while a provider is only probed.",
            min=0,
            max=1,
        ),
        graph(
            "Age of the opt-out feed",
            (f"nudge_suppression_feed_age_seconds{{{ME}}} < Inf", "{{instance}}"),
            unit="s",
            text="Above 60 s promotional messages are held back.",
            min=0,
        ),
        graph(
            "Not sent, of what a provider was given",
            ("provider:nudge_sends_not_sent:ratio10m", "{{provider}}"),
            unit="percentunit",
            min=0,
            max=1,
        ),
        graph("Tokens that are gone", (rate("nudge_tokens_removed_total", "provider"), "{{provider}}"), unit="cps"),
        graph(
            "Answers",
            (rate("nudge_outcomes_total", "label"), "{{label}}"),
            unit="cps",
            text="Matured examples by label.",
        ),
    ]


def _models() -> list[Panel]:
    live = f"and on (model, instance) changes(nudge_model_examples{{{ME}}}[1h]) > 0"
    return [
        graph(
            "AUC",
            (f"nudge_model_auc{{{ME}}} {live}", "{{model}}"),
            (f"nudge_model_recent_auc{{{ME}}} {live}", "{{model}}: newest examples"),
            min=0.4,
            max=1,
            text="Progressive, of the owner.",
        ),
        graph(
            "Log loss",
            (f"nudge_model_log_loss{{{ME}}} {live}", "{{model}}"),
            (f"nudge_model_log_loss_constant{{{ME}}} {live}", "{{model}}: base rate"),
        ),
        graph(
            "Calibration",
            (f"nudge_model_calibration_ratio{{{ME}}} {live}", "{{model}}"),
            (f"nudge_model_recent_calibration_ratio{{{ME}}} {live}", "{{model}}: newest examples"),
            text="Predicted opens over opens.",
        ),
        graph("Examples learned a second", (f"deriv(nudge_model_examples{{{ME}}}[5m]) > 0", "{{model}}")),
        graph(
            "Age of the served snapshot",
            (f"time() - max by (model) (nudge_model_snapshot_timestamp_seconds{{{ME}}})", "{{model}}"),
            unit="s",
        ),
        graph(
            "Served version",
            (f"nudge_model_version{{{ME}}}", "{{model}} {{instance}}"),
            text="All workers should show the same.",
        ),
        graph(
            "Drift alarms",
            (f"sum by (model, detector) (increase(nudge_drift_detected_total{{{ME}}}[1h]))", "{{model}} {{detector}}"),
        ),
        graph(
            "Snapshots rejected",
            (f"sum by (instance) (increase(nudge_model_snapshots_rejected_total{{{ME}}}[1h]))", "{{instance}}"),
        ),
    ]


def _models_more() -> list[Panel]:
    live = f"and on (model, instance) changes(nudge_model_examples{{{ME}}}[1h]) > 0"
    return [
        graph("Calibration by campaign", (f"nudge_model_campaign_calibration_ratio{{{ME}}}", "{{model}} {{campaign}}")),
        graph("Log loss by campaign", (f"nudge_model_campaign_log_loss{{{ME}}}", "{{model}} {{campaign}}")),
        graph(
            "Log loss of the newest, Brier score",
            (f"nudge_model_recent_log_loss{{{ME}}} {live}", "{{model}}: log loss"),
            (f"nudge_model_brier{{{ME}}} {live}", "{{model}}: Brier"),
        ),
        graph(
            "Precision, recall, F1",
            (f"nudge_model_precision{{{ME}}} {live}", "{{model}}: precision"),
            (f"nudge_model_recall{{{ME}}} {live}", "{{model}}: recall"),
            (f"nudge_model_f1{{{ME}}} {live}", "{{model}}: F1"),
            text="Of scores above the base rate.",
            min=0,
            max=1,
        ),
        graph(
            "Challengers",
            (f"nudge_model_challenger_gain{{{ME}}} {live}", "{{model}}: log loss saved"),
            (
                f"sum by (model) (increase(nudge_model_promotions_total{{{ME}}}[1h]))",
                "{{model}}: promotions in an hour",
            ),
        ),
        graph(
            "Pinned versions, stopped variants",
            (f"nudge_model_pinned_version{{{ME}}} > 0", "{{model}} pinned to"),
            (f"max(nudge_variants_stopped{{{ME}}})", "variants stopped"),
            min=0,
        ),
        graph(
            "Examples of propensities",
            (rate("nudge_propensity_examples_total", "model, label"), "{{model}} {{label}}"),
            unit="cps",
            width=12,
        ),
    ]


def _state() -> list[Panel]:
    return [
        graph("Rows", (f"sum by (table) (nudge_state_rows{{{ME}}})", "{{table}}"), min=0),
        graph("Rows on disk", (f"nudge_state_bytes{{{ME}}}", "{{table}} {{instance}}"), unit="bytes", min=0),
        graph(
            "Disk that is free",
            (f"nudge_disk_free_bytes{{{ME}}} / nudge_disk_size_bytes{{{ME}}}", "{{instance}}"),
            unit="percentunit",
            min=0,
            max=1,
        ),
        graph(
            "Rows read",
            (rate("nudge_row_reads_total", "table, source"), "{{table}}: {{source}}"),
            unit="cps",
            min=0,
            text="From memory, or from RocksDB. Many of the latter: more NUDGE_ROW_MEMORY_MB makes events cheaper.",
        ),
        graph("Still to restore", (f"nudge_restore_remaining_records{{{ME}}}", "{{table}} {{instance}}"), min=0),
        graph("Rebalances in 15 minutes", (f"increase(nudge_rebalances_total{{{ME}}}[15m])", "{{instance}}"), min=0),
        graph(
            "Clock, ahead of the broker's",
            (f"nudge_clock_skew_seconds{{{ME}}}", "{{instance}}"),
            unit="s",
            text="Beyond a second either way event times, expiry and quiet hours are visibly off.",
        ),
        graph("Entries of the timer index", (f"nudge_timer_index_entries{{{ME}}}", "{{instance}}"), min=0),
        graph(
            "Memory",
            (f'process_resident_memory_bytes{{{ME}, job=~"nudge-.*"}}', "{{instance}}"),
            (f"nudge_state_memory_bytes{{{ME}}}", "{{instance}}: RocksDB, {{table}}"),
            (f"nudge_row_memory_bytes{{{ME}}}", "{{instance}}: rows, {{table}}"),
            (f"nudge_native_memory_bytes{{{ME}}}", "{{instance}}: in use of the C heaps"),
            unit="bytes",
            min=0,
        ),
        graph(
            "Python's blocks in use",
            (f"nudge_python_blocks{{{ME}}}", "{{instance}}"),
            text="About 100 bytes each. Where memory grows and these do not, a peak has left it free.",
            min=0,
        ),
        graph(
            "Processor",
            (f'rate(process_cpu_seconds_total{{{ME}, job=~"nudge-.*"}}[$__rate_interval])', "{{instance}}"),
            text="Of one core, which is what a worker can use.",
            min=0,
        ),
        graph(
            "What was dropped",
            (f"sum(increase(nudge_timers_dropped_total{{{ME}}}[1h]))", "timers of a full row"),
            (f"sum(increase(nudge_outputs_unowed_total{{{ME}}}[1h]))", "outputs not remembered"),
            (f"sum(increase(nudge_values_ignored_total{{{ME}}}[1h]))", "values that are no numbers"),
            text="In an hour.",
        ),
    ]


def placed() -> list[Panel]:
    """All panels with their row headings, from left to right and top to bottom."""
    panels: list[Panel] = []
    y = 0
    for title, members in rows():
        panels.append(
            {
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
            }
        )
        y, x, height = y + 1, 0, 0
        for panel in members:
            size = panel["gridPos"]
            if x + size["w"] > WIDTH:
                x, y, height = 0, y + height, 0
            panels.append({**panel, "gridPos": {"x": x, "y": y, **size}})
            x, height = x + size["w"], max(height, size["h"])
        y += height
    return [{"id": number, **panel} for number, panel in enumerate(panels, 1)]


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    annotations = [
        (
            "Policy or version",
            "changes(nudge_build_info[1m]) > 0 or (nudge_build_info unless nudge_build_info offset 1m)",
            "blue",
        ),
        ("Drift", "sum by (model) (increase(nudge_drift_detected_total[1m])) > 0", "orange"),
    ]
    return {
        "uid": "nudge",
        "title": "nudge",
        "tags": ["nudge"],
        "editable": True,
        "schemaVersion": 39,
        "version": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "graphTooltip": 1,
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"},
                {
                    "name": "instance",
                    "label": "Process",
                    "type": "query",
                    "datasource": DATASOURCE,
                    "query": {"query": "label_values(nudge_ready, instance)", "refId": "instance"},
                    "refresh": 2,
                    "includeAll": True,
                    "allValue": ".*",
                    "multi": True,
                    "current": {"text": "All", "value": "$__all"},
                },
            ]
        },
        "annotations": {
            "list": [
                {"name": name, "expr": expression, "datasource": DATASOURCE, "enable": True, "iconColor": colour}
                for name, expression, colour in annotations
            ]
        },
        "panels": placed(),
    }


def render() -> str:
    """The file's text."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
    sys.stdout.write(f"wrote {TARGET}\n")
