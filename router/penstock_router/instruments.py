"""The instruments that `/metrics` shows: TGI's under TGI's names, and those it lacked."""

from __future__ import annotations

from typing import Literal, get_args

from penstock_router.exposition import Counter, Gauge, Histogram, Registry, Summary

Failure = Literal[
    "overloaded", "validation", "template", "incomplete", "generation", "dropped", "timeout"
]
Method = Literal["prefill", "decode"]
End = Literal["length", "eos_token", "stop_sequence", "abort", "error"]
RefusalKind = Literal["bad_admission", "not_a_number", "grammar_failed", "out_of_memory"]

# Seconds, 0.15 ms to 146 s: TGI's buckets of every duration.
DURATIONS = [0.0001 * 1.5**k for k in range(1, 36)]


def linear(limit: int, count: int = 100) -> list[float]:
    """`count` equal buckets up to `limit`."""
    return [limit * k / count for k in range(1, count + 1)]


class Instruments:
    """All of them, by what they measure. `metrics` says what sets them."""

    def __init__(self, max_input_tokens: int, max_total_tokens: int) -> None:
        self._registry = Registry()
        self._requests(max_input_tokens, max_total_tokens)
        self._batches()
        self._steps()
        self._kv_cache()
        self._ends()
        self._clients()

    def _requests(self, max_input_tokens: int, max_total_tokens: int) -> None:
        add = self._registry.add
        self.request_count = add("tgi_request_count", "Requests, one an HTTP request", Counter())
        self.request_success = add("tgi_request_success", "Requests that were served", Counter())
        self.request_failure = self._registry.family(
            "tgi_request_failure",
            "Requests that were not served, by reason",
            "err",
            {reason: Counter() for reason in get_args(Failure)},
        )
        self.request_duration = add(
            "tgi_request_duration", "Seconds from request to answer", Histogram(DURATIONS)
        )
        self.validation_duration = add(
            "tgi_request_validation_duration",
            "Seconds of validation, tokenisation included",
            Histogram(DURATIONS),
        )
        self.queue_duration = add(
            "tgi_request_queue_duration", "Seconds in the queue", Histogram(DURATIONS)
        )
        self.inference_duration = add(
            "tgi_request_inference_duration",
            "Seconds from leaving the queue to the last token",
            Histogram(DURATIONS),
        )
        self.mean_time_per_token = add(
            "tgi_request_mean_time_per_token_duration",
            "Seconds of inference, prefill included, divided by tokens",
            Histogram(DURATIONS),
        )
        self.input_length = add(
            "tgi_request_input_length", "Prompt tokens", Histogram(linear(max_input_tokens))
        )
        self.max_new_tokens = add(
            "tgi_request_max_new_tokens", "Tokens asked for", Histogram(linear(max_total_tokens))
        )
        self.generated_tokens = add(
            "tgi_request_generated_tokens", "Tokens generated", Histogram(linear(max_total_tokens))
        )
        self.skipped_tokens = add(
            "tgi_request_skipped_tokens", "Speculated tokens accepted in a step", Summary()
        )
        self.queue_size = add("tgi_queue_size", "Sequences that wait", Gauge())

    def _batches(self) -> None:
        add, family = self._registry.add, self._registry.family
        self.batch_size = add("tgi_batch_current_size", "Sequences that run", Gauge())
        self.batch_tokens = add(
            "tgi_batch_current_max_tokens", "Tokens of the sequences that run", Gauge()
        )
        self.batch_max_total_tokens = add(
            "tgi_batch_max_total_tokens", "Tokens that the KV cache holds", Gauge()
        )
        self.batch_next_size = add(
            "tgi_batch_next_size",
            "Prompts in a step",
            Histogram([float(size) for size in range(1, 1025)]),
        )

        def by_method(name: str, text: str) -> dict[str, Counter]:
            members = {method: Counter() for method in get_args(Method)}
            return family(name, text, "method", members)

        self.concatenations = family(
            "tgi_batch_concat",
            "Steps in which prompts joined running sequences",
            "reason",
            {"chunking": Counter()},
        )

        def durations(name: str, text: str) -> dict[str, Histogram]:
            members = {method: Histogram(DURATIONS) for method in get_args(Method)}
            return family(name, text, "method", members)

        self.step_count = by_method("tgi_batch_inference_count", "Steps; prefill if any prompt")
        self.step_success = by_method("tgi_batch_inference_success", "Steps that succeeded")
        self.step_failure = by_method("tgi_batch_inference_failure", "Steps that failed")
        self.step_duration = durations("tgi_batch_inference_duration", "Seconds of a step")
        self.forward_duration = durations(
            "tgi_batch_forward_duration", "Seconds of a step on the device"
        )
        self.decode_duration = durations(
            "tgi_batch_decode_duration", "Seconds in which a step's tokens are made text and sent"
        )
        self.filter_duration = durations(
            "tgi_batch_filter_duration",
            "Seconds in which a step's tokens enter their sequences, and those that end leave",
        )
        # TGI's only label here, whatever the prompts join
        self.concat_duration = family(
            "tgi_batch_concat_duration",
            "Seconds in which a step is planned that new prompts join",
            "method",
            {"decode": Histogram(DURATIONS)},
        )["decode"]

    def _steps(self) -> None:
        add = self._registry.add
        self.first_token = add(
            "penstock_time_to_first_token_seconds",
            "Seconds from submission to the first token",
            Histogram(DURATIONS),
        )
        self.inter_token = add(
            "penstock_inter_token_latency_seconds",
            "Seconds of the step that brought a further token, once a token",
            Histogram(DURATIONS),
        )
        self.step_rows = add(
            "penstock_step_rows",
            "Sequences in a step",
            Histogram([float(2**k) for k in range(13)]),
        )
        self.step_tokens = add(
            "penstock_step_tokens",
            "Tokens that a step computes",
            Histogram([float(2**k) for k in range(18)]),
        )
        self.steps_seconds = add(
            "penstock_step_duration_seconds", "Seconds of a step", Histogram(DURATIONS)
        )
        self.running = add("penstock_running_sequences", "Sequences that run", Gauge())
        self.batch_use = add(
            "penstock_batch_use_ratio", "Share of a batch's seats that sequences hold", Gauge()
        )

    def _kv_cache(self) -> None:
        add = self._registry.add
        self.blocks_used = add("penstock_kv_blocks_used", "KV blocks of live sequences", Gauge())
        self.blocks_cached = add(
            "penstock_kv_blocks_cached", "KV blocks that only the prefix cache holds", Gauge()
        )
        self.blocks_total = add("penstock_kv_blocks", "KV blocks there are", Gauge())
        self.kv_use = add(
            "penstock_kv_use_ratio", "Share of the KV blocks that live sequences hold", Gauge()
        )
        self.prefix_queried = add(
            "penstock_prefix_cache_queried_tokens_total",
            "Prompt tokens looked up in the prefix cache",
            Counter(),
        )
        self.prefix_hits = add(
            "penstock_prefix_cache_hit_tokens_total",
            "Prompt tokens found in the prefix cache",
            Counter(),
        )
        self.preemptions = add(
            "penstock_preemptions_total", "Sequences put back for lack of KV blocks", Counter()
        )

    def _ends(self) -> None:
        add = self._registry.add
        self.refusals = self._registry.family(
            "penstock_refused_sequences_total",
            "Sequences that the shards could not compute, by reason",
            "kind",
            {kind: Counter() for kind in get_args(RefusalKind)},
        )
        self.finished = self._registry.family(
            "penstock_finished_sequences_total",
            "Sequences that ended, by reason",
            "reason",
            {reason: Counter() for reason in get_args(End)},
        )
        self.prefill_seconds = add(
            "penstock_prefill_seconds",
            "Seconds from leaving the queue to the first token",
            Histogram(DURATIONS),
        )
        self.decode_seconds = add(
            "penstock_decode_seconds",
            "Seconds from the first token to the last",
            Histogram(DURATIONS),
        )
        self.time_per_token = add(
            "penstock_time_per_output_token_seconds",
            "Mean seconds between the tokens of a sequence, the first one left out",
            Histogram(DURATIONS),
        )

    def _clients(self) -> None:
        add = self._registry.add
        self.slow_readers = add(
            "penstock_slow_readers_total", "Streams cut because nobody read them", Counter()
        )
        self.loop_lag = add(
            "penstock_event_loop_lag_seconds",
            "Seconds by which a timer of the scheduling process rang late",
            Histogram(DURATIONS),
        )
        self.http_loop_lag = add(
            "penstock_http_event_loop_lag_seconds",
            "The same of the processes that serve HTTP, where there are some",
            Histogram(DURATIONS),
        )
        self.unsent = add(
            "penstock_unsent_bytes", "Bytes of answers that clients have not read yet", Gauge()
        )
        self.disconnects = add(
            "penstock_client_disconnects_total", "Requests whose client went away", Counter()
        )
