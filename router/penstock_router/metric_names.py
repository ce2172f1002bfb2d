"""What the server counts, under the names of vLLM and SGLang too (`--metric-names`).

One row a name: what it is there, and where it comes from here. Types and units are theirs; buckets
of histograms are ours, which no quantile and no average minds. docs/api.md says where a meaning
differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from penstock_router.exposition import Counter, Gauge, Instrument
from penstock_router.metrics import Metrics

Labelled = Mapping[str, Instrument]  # by further labels, as they stand in the text
Source = Callable[[Metrics], Instrument | Labelled]


@dataclass(frozen=True, slots=True)
class Row:
    """A name of somebody else's."""

    name: str
    help: str
    source: Source


def _counter(value: float) -> Counter:
    counter = Counter()
    counter.inc(value)
    return counter


def _gauge(value: float) -> Gauge:
    gauge = Gauge()
    gauge.set(value)
    return gauge


def _ratio(part: float, whole: float) -> Gauge:
    return _gauge(part / whole if whole else 0.0)


def _finished(metrics: Metrics) -> Labelled:
    """Under vLLM's reasons."""
    ends = metrics.finished
    counts = {
        "stop": ends["eos_token"].value + ends["stop_sequence"].value,
        "length": ends["length"].value,
        "abort": ends["abort"].value,
        "error": ends["error"].value,
    }
    return {f'finished_reason="{reason}"': _counter(count) for reason, count in counts.items()}


def _cache_config(metrics: Metrics) -> Labelled:
    blocks = int(metrics.blocks_total.value)
    size = round(metrics.batch_max_total_tokens.value / blocks) if blocks else 0
    labels = f'block_size="{size}",num_gpu_blocks="{blocks}"'
    return {labels: _gauge(1)}


def _successes(metrics: Metrics) -> Counter:
    return _counter(metrics.request_count.value)


VLLM = (
    Row("num_requests_running", "Sequences that run", lambda m: m.running),
    Row("num_requests_waiting", "Sequences that wait", lambda m: m.queue_size),
    Row(
        "num_requests_waiting_by_reason",
        "Sequences that wait, by reason",
        lambda m: {'reason="capacity"': m.queue_size, 'reason="deferred"': _gauge(0)},
    ),
    Row("kv_cache_usage_perc", "Share of the KV cache in use; 1 is all", lambda m: m.kv_use),
    Row("gpu_cache_usage_perc", "The same under its older name", lambda m: m.kv_use),
    Row("cache_config_info", "The KV cache", _cache_config),
    Row("num_preemptions_total", "Sequences put back", lambda m: m.preemptions),
    Row("prompt_tokens_total", "Prompt tokens", lambda m: m.prefix_queried),
    Row("prompt_tokens_cached_total", "Those of them that were cached", lambda m: m.prefix_hits),
    Row("generation_tokens_total", "Generated tokens", lambda m: _counter(m.tokens_generated)),
    Row("request_success_total", "Sequences that ended, by reason", _finished),
    Row("prefix_cache_queries_total", "Tokens looked up", lambda m: m.prefix_queried),
    Row("prefix_cache_hits_total", "Tokens found", lambda m: m.prefix_hits),
    Row("gpu_prefix_cache_queries_total", "Tokens looked up", lambda m: m.prefix_queried),
    Row("gpu_prefix_cache_hits_total", "Tokens found", lambda m: m.prefix_hits),
    Row("corrupted_requests_total", "Sequences of NaN", lambda m: m.refusals["not_a_number"]),
    Row("time_to_first_token_seconds", "Until the first token", lambda m: m.first_token),
    Row("inter_token_latency_seconds", "Between two tokens", lambda m: m.inter_token),
    Row("time_per_output_token_seconds", "The same, its older name", lambda m: m.inter_token),
    Row(
        "request_time_per_output_token_seconds",
        "Mean of a sequence behind its first token",
        lambda m: m.time_per_token,
    ),
    Row("e2e_request_latency_seconds", "From request to answer", lambda m: m.request_duration),
    Row("request_queue_time_seconds", "In the queue", lambda m: m.queue_duration),
    Row("request_inference_time_seconds", "Behind the queue", lambda m: m.inference_duration),
    Row("request_prefill_time_seconds", "Queue to first token", lambda m: m.prefill_seconds),
    Row("request_decode_time_seconds", "First token to last", lambda m: m.decode_seconds),
    Row("request_prompt_tokens", "Prompt tokens of a sequence", lambda m: m.input_length),
    Row("request_generation_tokens", "Its generated tokens", lambda m: m.generated_tokens),
    Row("request_max_num_generation_tokens", "Tokens asked for", lambda m: m.max_new_tokens),
    Row("request_params_max_tokens", "Tokens asked for", lambda m: m.max_new_tokens),
    Row("iteration_tokens_total", "Tokens of a step", lambda m: m.step_tokens),
)
SGLANG = (
    Row("num_running_reqs", "Sequences that run", lambda m: m.running),
    Row("num_queue_reqs", "Sequences that wait", lambda m: m.queue_size),
    Row("num_used_tokens", "Tokens of the sequences that run", lambda m: m.batch_tokens),
    Row("max_total_num_tokens", "Tokens of the KV cache", lambda m: m.batch_max_total_tokens),
    Row("token_usage", "Share of the KV cache in use", lambda m: m.kv_use),
    Row("gen_throughput", "Tokens a second", lambda m: _gauge(m.throughput.value)),
    Row(
        "cache_hit_rate",
        "Share of prompt tokens that were cached",
        lambda m: _ratio(m.prefix_hits.value, m.prefix_queried.value),
    ),
    Row("num_retracted_requests_total", "Sequences put back", lambda m: m.preemptions),
    Row("prompt_tokens_total", "Prompt tokens", lambda m: m.prefix_queried),
    Row("cached_tokens_total", "Those of them that were cached", lambda m: m.prefix_hits),
    Row("generation_tokens_total", "Generated tokens", lambda m: _counter(m.tokens_generated)),
    Row("num_requests_total", "Requests", _successes),
    Row("num_aborted_requests_total", "Sequences given up", lambda m: m.finished["abort"]),
    Row("time_to_first_token_seconds", "Until the first token", lambda m: m.first_token),
    Row("inter_token_latency_seconds", "Between two tokens", lambda m: m.inter_token),
    Row("time_per_output_token_seconds", "The same, its older name", lambda m: m.inter_token),
    Row("e2e_request_latency_seconds", "From request to answer", lambda m: m.request_duration),
    Row("queue_time_seconds", "In the queue", lambda m: m.queue_duration),
)
# prefix of the names, labels beside the model's, rows
FAMILIES: Mapping[str, tuple[str, str, Sequence[Row]]] = {
    "vllm": ("vllm:", 'engine="0"', VLLM),
    "sglang": ("sglang:", 'engine_type="unified",tp_rank="0",pp_rank="0"', SGLANG),
}


def render(metrics: Metrics, names: Sequence[str], model: str) -> Iterator[str]:
    """Lines of Prometheus' text format. names: of FAMILIES; others add nothing."""
    for family in names:
        if family not in FAMILIES:
            continue
        prefix, labels, rows = FAMILIES[family]
        labels = f'model_name="{_escaped(model)}",{labels}'
        for row in rows:
            source = row.source(metrics)
            members = source if isinstance(source, Mapping) else {"": source}
            name = prefix + row.name
            kind = next(iter(members.values())).kind
            yield f"# HELP {name} {row.help}"
            yield f"# TYPE {name} {kind}"
            for further, instrument in members.items():
                yield from instrument.samples(name, ",".join(filter(None, (labels, further))))


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
