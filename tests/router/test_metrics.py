"""The text of /metrics, as Prometheus' own parser reads it."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from penstock_router.exposition import Counter, Histogram, Registry
from penstock_router.instruments import DURATIONS
from penstock_router.logs import JsonFormatter, log
from penstock_router.metrics import Metrics
from support.tgi_metrics import DOCUMENTED, EMPTY_PANELS, PANELS, values

API = (Path(__file__).parents[2] / "docs" / "api.md").read_text()

TGI = {
    "tgi_request_count": "counter",
    "tgi_request_success": "counter",
    "tgi_request_failure": "counter",
    "tgi_request_duration": "histogram",
    "tgi_request_validation_duration": "histogram",
    "tgi_request_queue_duration": "histogram",
    "tgi_request_inference_duration": "histogram",
    "tgi_request_mean_time_per_token_duration": "histogram",
    "tgi_request_input_length": "histogram",
    "tgi_request_max_new_tokens": "histogram",
    "tgi_request_generated_tokens": "histogram",
    "tgi_request_skipped_tokens": "summary",
    "tgi_queue_size": "gauge",
    "tgi_batch_current_size": "gauge",
    "tgi_batch_current_max_tokens": "gauge",
    "tgi_batch_max_total_tokens": "gauge",
    "tgi_batch_next_size": "histogram",
    "tgi_batch_inference_count": "counter",
    "tgi_batch_inference_success": "counter",
    "tgi_batch_inference_failure": "counter",
    "tgi_batch_inference_duration": "histogram",
    "tgi_batch_forward_duration": "histogram",
    "tgi_batch_decode_duration": "histogram",
    "tgi_batch_filter_duration": "histogram",
    "tgi_batch_concat_duration": "histogram",
    "tgi_batch_concat": "counter",
}


def families(metrics: Metrics) -> dict[str, str]:
    lines = metrics.render().decode().splitlines()
    return dict(line.split()[2:4] for line in lines if line.startswith("# TYPE "))


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(metrics.render().decode()):
        for found in family.samples:
            # The parser, not the text, gives every counter the ending `_total`.
            if found.name in (name, f"{name}_total") and found.labels == labels:
                return found.value
    raise AssertionError(f"no sample {name}{labels}")


def test_names_and_types() -> None:
    """Without `_total`: dashboards that were made for TGI find their counters."""
    shown = families(Metrics(100, 200))
    assert {name: shown.get(name) for name in TGI} == TGI


@pytest.mark.parametrize("panel", [panel for panel in PANELS if panel not in EMPTY_PANELS])
def test_n8_every_panel_of_tgis_dashboard_has_its_series(panel: str) -> None:
    text = Metrics(100, 200).render().decode()
    for series in PANELS[panel]:
        assert values(text, series), series


@pytest.mark.parametrize("panel", EMPTY_PANELS)
def test_n8_a_panel_without_data_is_documented(panel: str) -> None:
    assert panel in API and not values(Metrics(100, 200).render().decode(), PANELS[panel][0])


def test_n8_what_tgi_documents_is_there() -> None:
    assert not set(DOCUMENTED) - families(Metrics(100, 200)).keys()


def lint(text: str) -> list[str]:
    """What `promtool check metrics` would say of names and types; one line a complaint."""
    found = []
    helps = {line.split()[2] for line in text.splitlines() if line.startswith("# HELP ")}
    kinds = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE "))
    for name, kind in kinds.items():
        rules = {
            "no help": name not in helps,
            "a counter without _total": kind == "counter" and not name.endswith("_total"),
            "_total, but no counter": kind != "counter" and name.endswith("_total"),
            "_count or _sum": name.endswith(("_count", "_sum", "_bucket")),
            "its type in its name": re.search(r"_(gauge|counter|histogram|summary)(_|$)", name),
            "no base unit": re.search(r"_(ms|milliseconds?|minutes?|kilobytes?|mb)(_|$)", name),
            "capital letters": name != name.lower(),
        }
        found += [f"{name}: {rule}" for rule, broken in rules.items() if broken]
    return found


def test_b11_names_are_as_promtool_wants_them() -> None:
    """But for those of TGI's, which its dashboards look for."""
    metrics = Metrics(100, 200)
    metrics.http_processes.watch("0", os.getpid())
    complaints = lint(metrics.render().decode())
    assert complaints and all(complaint.startswith("tgi_") for complaint in complaints)
    assert lint("# TYPE a_total gauge\n# HELP b_ms x\n# TYPE b_ms gauge\n") == [
        "a_total: no help",
        "a_total: _total, but no counter",
        "b_ms: no base unit",
    ]


def test_work_of_the_host_in_a_step() -> None:
    metrics = Metrics(100, 200)
    metrics.on_join(0.5)
    metrics.on_tokens(True, 0.25, 2.0)
    metrics.on_tokens(False, 0.125, 1.0)
    for name, method, value in (
        ("concat", "decode", 0.5),
        ("filter", "prefill", 0.25),
        ("filter", "decode", 0.125),
        ("decode", "prefill", 2.0),
        ("decode", "decode", 1.0),
    ):
        assert sample(metrics, f"tgi_batch_{name}_duration_sum", method=method) == value


def test_buckets() -> None:
    metrics = Metrics(1000, 2000)
    assert len(DURATIONS) == 35 and DURATIONS[0] == pytest.approx(0.00015)
    metrics.on_submit(15, 20)
    assert sample(metrics, "tgi_request_input_length_bucket", le="10") == 0
    assert sample(metrics, "tgi_request_input_length_bucket", le="20") == 1
    assert sample(metrics, "tgi_request_max_new_tokens_bucket", le="20") == 1  # <=, not <
    assert sample(metrics, "tgi_request_input_length_sum") == 15


def test_steps() -> None:
    metrics = Metrics(100, 200)
    metrics.on_step(2, 50, 3, 0.01)
    metrics.on_step(0, 0, 4, 0.002)
    assert sample(metrics, "tgi_batch_inference_count", method="prefill") == 1
    assert sample(metrics, "tgi_batch_inference_count", method="decode") == 1
    assert sample(metrics, "tgi_batch_concat", reason="chunking") == 1
    assert sample(metrics, "penstock_step_tokens_sum") == 57
    assert sample(metrics, "penstock_step_rows_sum") == 9
    assert sample(metrics, "penstock_inter_token_latency_seconds_count") == 7
    assert sample(metrics, "tgi_batch_next_size_bucket", le="2") == 1


def test_engine_reports() -> None:
    metrics = Metrics(100, 200)
    metrics.on_admit(0.5, 16, 40)
    metrics.on_first_token(0.2)
    metrics.on_finish(7, 0.3)
    metrics.on_running(3, 120)
    metrics.on_blocks(5, 6, 20)
    metrics.on_capacity(320)
    metrics.on_preemption(2)
    metrics.on_queue(4)
    metrics.on_step_failure()
    for name, value in {
        "tgi_request_queue_duration_sum": 0.5,
        "penstock_prefix_cache_hit_tokens_total": 16,
        "penstock_prefix_cache_queried_tokens_total": 40,
        "penstock_time_to_first_token_seconds_sum": 0.2,
        "tgi_request_generated_tokens_sum": 7,
        "tgi_request_inference_duration_count": 1,
        "tgi_batch_current_size": 3,
        "penstock_running_sequences": 3,
        "tgi_batch_current_max_tokens": 120,
        "penstock_kv_blocks_used": 5,
        "penstock_kv_blocks_cached": 6,
        "penstock_kv_blocks": 20,
        "tgi_batch_max_total_tokens": 320,
        "penstock_preemptions_total": 2,
        "tgi_queue_size": 4,
    }.items():
        assert sample(metrics, name) == value
    assert sample(metrics, "tgi_batch_inference_failure", method="decode") == 1


def test_histogram_counts_by_upper_bound() -> None:
    histogram = Histogram([1.0, 2.0])
    for value in (0.5, 1.0, 1.5, 2.0, 3.0):
        histogram.observe(value)
    histogram.observe(1.5, times=2)
    registry = Registry()
    registry.add("h", "text", histogram)
    registry.add("c", "text", Counter())
    assert registry.render() == (
        "# HELP h text\n# TYPE h histogram\n"
        'h_bucket{le="1"} 2\nh_bucket{le="2"} 6\nh_bucket{le="+Inf"} 7\nh_sum 11\nh_count 7\n'
        "# HELP c text\n# TYPE c counter\nc 0\n"
    )


def test_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log("INFO", "line\n\x1b[31m", target="t", route="/x", count=3)
    try:
        raise ValueError("wrong")
    except ValueError:
        logging.getLogger("t").exception("fault")
    first, second = (JsonFormatter().format(record) for record in caplog.records)
    assert "\n" not in first and "\x1b" not in first
    line = json.loads(first)
    assert line.pop("timestamp").endswith("Z")
    expected = {"level": "INFO", "target": "t", "message": "line\n\x1b[31m"}
    assert line == {**expected, "route": "/x", "count": 3}
    assert "ValueError: wrong" in json.loads(second)["exception"] and "\n" not in second
