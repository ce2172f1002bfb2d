"""vLLM's and SGLang's names: every row, its type, its labels, and that it moves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from penstock_router.metric_names import FAMILIES, render
from penstock_router.metrics import Metrics
from penstock_router.throughput import Throughput

API = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def busy() -> Metrics:
    """Everything has happened at least once."""
    metrics = Metrics(100, 200)
    metrics.on_capacity(160, 4)
    metrics.on_blocks(4, 2, 10)
    metrics.on_request()
    metrics.on_success(1.0, 0.1, [0.1])
    metrics.on_submit(30, 20)
    metrics.on_queue(3)
    metrics.on_running(2, 50)
    metrics.on_admit(0.2, 16, 30)
    metrics.on_first_token(0.4)
    metrics.on_step(1, 14, 3, 0.01)
    metrics.on_preemption(1)
    metrics.on_refusal("not_a_number")
    metrics.on_finish(5, 0.7)
    for reason in ("eos_token", "stop_sequence", "length"):
        metrics.on_end(reason, 0.2, 0.5, 5)  # type: ignore[arg-type]
    metrics.on_given_up("abort")
    metrics.on_given_up("error", 2)
    metrics.throughput = Throughput(window=0)
    metrics.throughput.note(0)
    metrics.on_lag(0.0)
    metrics.others = lambda: render(metrics, ("vllm", "tgi", "sglang"), 'a "model"\\')
    return metrics


def test_every_name_is_there_and_not_nothing() -> None:
    """With the model's name as a label, whatever is in it."""
    page = busy().render().decode()
    found = {family.name: family for family in text_string_to_metric_families(page)}
    for prefix, _, rows in FAMILIES.values():
        for row in rows:
            name = prefix + row.name
            assert page.count(f"# TYPE {name} ") == page.count(f"# HELP {name} ") == 1
            family = found.get(name) or found[name.removesuffix("_total")]
            assert all(sample.labels["model_name"] == 'a "model"\\' for sample in family.samples)
            assert any(sample.value for sample in family.samples), name


@pytest.mark.parametrize(
    "line",
    [
        'vllm:num_requests_running{LABELS,engine="0"} 2',
        'vllm:num_requests_waiting{LABELS,engine="0"} 3',
        'vllm:kv_cache_usage_perc{LABELS,engine="0"} 0.4',
        'vllm:prompt_tokens_total{LABELS,engine="0"} 30',
        'vllm:generation_tokens_total{LABELS,engine="0"} 4',
        'vllm:prefix_cache_hits_total{LABELS,engine="0"} 16',
        'vllm:request_success_total{LABELS,engine="0",finished_reason="stop"} 2',
        'vllm:request_success_total{LABELS,engine="0",finished_reason="error"} 2',
        'vllm:cache_config_info{LABELS,engine="0",block_size="16",num_gpu_blocks="10"} 1',
        'vllm:request_decode_time_seconds_count{LABELS,engine="0"} 3',
        'vllm:request_time_per_output_token_seconds_sum{LABELS,engine="0"} 0.375',
        'sglang:num_queue_reqs{LABELS,engine_type="unified",tp_rank="0",pp_rank="0"} 3',
        'sglang:token_usage{LABELS,engine_type="unified",tp_rank="0",pp_rank="0"} 0.4',
    ],
)
def test_values(line: str) -> None:
    labels = r'model_name="a \"model\"\\"'
    assert line.replace("LABELS", labels) in busy().render().decode().splitlines()


def test_only_those_that_were_asked_for() -> None:
    metrics = busy()
    metrics.others = lambda: render(metrics, ("tgi",), "m")
    page = metrics.render().decode()
    assert "vllm:" not in page and "sglang:" not in page and "tgi_queue_size 3" in page


def test_types_are_theirs() -> None:
    """Counters end in _total, as prometheus_client writes them; the rest does not, but for a
    histogram of vLLM's."""
    page = busy().render().decode()
    for name, kind in re.findall(r"# TYPE ((?:vllm|sglang):\S+) (\S+)", page):
        ends = name.endswith("_total") and name != "vllm:iteration_tokens_total"
        assert ends == (kind == "counter"), name


def test_the_page_names_them_all() -> None:
    section = API.split("## Metrics\n")[1].split("\n## ")[0]
    for prefix, _, rows in FAMILIES.values():
        for row in rows:
            assert f"`{prefix}{row.name}`" in section, row.name


def test_throughput_is_of_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("penstock_router.throughput.time.monotonic", lambda: now[0])
    rate = Throughput(window=10.0)
    for second in range(1, 61):
        now[0] += 1
        rate.note(second * 50 if second <= 40 else 2000)
        if second == 40:
            assert rate.value == pytest.approx(50)
    assert rate.value == 0
