"""Writes the Grafana dashboard of the chart: `python scripts/dashboard.py`."""

from __future__ import annotations

import json
from pathlib import Path

PATH = Path(__file__).parent.parent / "charts/penstock/files/dashboard.json"
PODS = '{namespace=~"$namespace",pod=~"$pod"}'
WIDTH, HEIGHT, COLUMNS = 12, 8, 2


def quantile(share: float, metric: str) -> str:
    """Over the pods that are chosen."""
    return (
        f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{PODS}[$__rate_interval])))"
    )


def rate(metric: str, by: str) -> str:
    """A second, over the pods that are chosen."""
    return f"sum by ({by}) (rate({metric}{PODS}[$__rate_interval]))"


def gauge(metric: str) -> str:
    """Of each pod."""
    return f"{metric}{PODS}"


# title, unit, {legend: expression}
PANELS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("Requests", "reqps", {"{{pod}}": rate("tgi_request_count", "pod")}),
    ("Requests not served", "reqps", {"{{err}}": rate("tgi_request_failure", "err")}),
    (
        "Time to first token",
        "s",
        {
            f"p{int(p * 100)}": quantile(p, "penstock_time_to_first_token_seconds")
            for p in (0.5, 0.95)
        },
    ),
    (
        "Time between tokens",
        "s",
        {
            f"p{int(p * 100)}": quantile(p, "penstock_inter_token_latency_seconds")
            for p in (0.5, 0.95)
        },
    ),
    (
        "Time in the queue",
        "s",
        {f"p{int(p * 100)}": quantile(p, "tgi_request_queue_duration") for p in (0.5, 0.9)},
    ),
    ("Sequences that wait", "short", {"{{pod}}": gauge("tgi_queue_size")}),
    ("Sequences that run", "short", {"{{pod}}": gauge("penstock_running_sequences")}),
    ("KV cache in use", "percentunit", {"{{pod}}": gauge("penstock_kv_use_ratio")}),
    (
        "Prompt tokens found in the prefix cache",
        "percentunit",
        {
            "share": rate("penstock_prefix_cache_hit_tokens_total", "")
            + " / "
            + rate("penstock_prefix_cache_queried_tokens_total", "")
        },
    ),
    ("Tokens", "short", {"a second": rate("tgi_request_generated_tokens_sum", "")}),
    ("Steps", "ops", {"{{method}}": rate("tgi_batch_inference_count", "method")}),
    (
        "Time of a step",
        "s",
        {f"p{int(p * 100)}": quantile(p, "penstock_step_duration_seconds") for p in (0.5, 0.99)},
    ),
    ("Sequences put back", "ops", {"{{pod}}": rate("penstock_preemptions_total", "pod")}),
    (
        "Lateness of the event loop",
        "s",
        {"p99": quantile(0.99, "penstock_event_loop_lag_seconds")},
    ),
)


def panel(number: int, title: str, unit: str, lines: dict[str, str]) -> dict[str, object]:
    """One as Grafana has it."""
    place = {"x": number % COLUMNS * WIDTH, "y": number // COLUMNS * HEIGHT}
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": {"type": "prometheus", "uid": "$datasource"},
        "gridPos": {**place, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + n), "expr": expression, "legendFormat": legend}
            for n, (legend, expression) in enumerate(lines.items())
        ],
    }


def variable(name: str, metric: str, label: str) -> dict[str, object]:
    """A list of a label's values to choose from."""
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "$datasource"},
        "query": f"label_values({metric}, {label})",
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "current": {"text": "All", "value": "$__all"},
    }


def dashboard() -> dict[str, object]:
    """The whole of it."""
    source = {"name": "datasource", "type": "datasource", "query": "prometheus"}
    lists = [
        variable("namespace", "penstock_kv_blocks", "namespace"),
        variable("pod", 'penstock_kv_blocks{namespace=~"$namespace"}', "pod"),
    ]
    return {
        "uid": "penstock",
        "title": "Penstock",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source, *lists]},
        "panels": [panel(number, *row) for number, row in enumerate(PANELS)],
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(dashboard(), indent=1) + "\n")
