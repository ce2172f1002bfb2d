"""What the server counts: TGI's metrics under TGI's names, and those it lacked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, get_args

import prometheus_client

from penstock_router.exposition import Counter, Gauge, Histogram, Registry, Summary
from penstock_router.grammar_metrics import GrammarMetrics
from penstock_router.processes import Processes
from penstock_router.throughput import Throughput

Failure = Literal[
    "overloaded", "validation", "template", "incomplete", "generation", "dropped", "timeout"
]
Method = Literal["prefill", "decode"]
End = Literal["length", "eos_token", "stop_sequence", "abort", "error"]
RefusalKind = Literal["bad_admission", "not_a_number", "grammar_failed"]

# Seconds, 0.15 ms to 146 s: TGI's buckets of every duration.
DURATIONS = [0.0001 * 1.5**k for k in range(1, 36)]


def linear(limit: int, count: int = 100) -> list[float]:
    """`count` equal buckets up to `limit`."""
    return [limit * k / count for k in range(1, count + 1)]


class Metrics:
    """The engine and the API report here; everything on the event loop's thread."""

    def __init__(self, max_input_tokens: int, max_total_tokens: int) -> None:
        self._registry = Registry()
        self.others: Callable[[], Iterable[str]] = tuple  # further lines, of `metric_names`
        self.throughput = Throughput()
        self.http_processes = Processes("penstock_http")
        self._requests(max_input_tokens, max_total_tokens)
        self._batches()
        self._engine()
        self.grammars = GrammarMetrics(self._registry)

    # -- instruments -----------------------------------------------------------------------------

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

    def _engine(self) -> None:
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
        self._seats = 0
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

    # -- the engine reports ----------------------------------------------------------------------

    def on_submit(self, prompt_tokens: int, max_new_tokens: int) -> None:
        """A sequence was queued."""
        self.input_length.observe(prompt_tokens)
        self.max_new_tokens.observe(max_new_tokens)

    def on_queue(self, size: int) -> None:
        """So many sequences wait."""
        self.queue_size.set(size)

    def on_admit(self, queue_seconds: float, cached_tokens: int, prompt_tokens: int) -> None:
        """A sequence left the queue."""
        self.queue_duration.observe(queue_seconds)
        self.prefix_queried.inc(prompt_tokens)
        self.prefix_hits.inc(cached_tokens)

    def on_first_token(self, seconds: float) -> None:
        """A sequence has its first token, so long after it was submitted."""
        self.first_token.observe(seconds)

    def on_step(
        self, prefill_rows: int, prefill_tokens: int, decode_rows: int, seconds: float
    ) -> None:
        """A step has run."""
        method = "prefill" if prefill_rows else "decode"
        self.step_count[method].inc()
        self.step_success[method].inc()
        self.step_duration[method].observe(seconds)
        self.forward_duration[method].observe(seconds)
        self.steps_seconds.observe(seconds)
        self.step_rows.observe(prefill_rows + decode_rows)
        self.step_tokens.observe(prefill_tokens + decode_rows)
        if prefill_rows:
            self.batch_next_size.observe(prefill_rows)
        if prefill_rows and decode_rows:
            self.concatenations["chunking"].inc()
        if decode_rows:
            self.inter_token.observe(seconds, decode_rows)

    def on_join(self, seconds: float) -> None:
        """A step was planned that sequences join, in so long."""
        self.concat_duration.observe(seconds)

    def on_tokens(self, prefill: bool, taking: float, handing: float) -> None:
        """A step's tokens are with those who wait for them.

        Args:
            prefill: the step had prompts.
            taking: seconds in which the tokens entered their sequences.
            handing: seconds in which the listeners took them.
        """
        method: Method = "prefill" if prefill else "decode"
        self.filter_duration[method].observe(taking)
        self.decode_duration[method].observe(handing)

    def on_running(self, sequences: int, tokens: int) -> None:
        """So many sequences run, and hold so many tokens."""
        self.running.set(sequences)
        self.batch_use.set(sequences / self._seats if self._seats else 0.0)
        self.batch_size.set(sequences)
        self.batch_tokens.set(tokens)

    def on_blocks(self, used: int, cached: int, total: int) -> None:
        """Who holds the KV blocks."""
        self.blocks_used.set(used)
        self.blocks_cached.set(cached)
        self.blocks_total.set(total)
        self.kv_use.set(used / total if total else 0.0)

    def on_capacity(self, tokens: int, seats: int = 0) -> None:
        """How many tokens the KV cache holds, and sequences a batch; said once at start."""
        self.batch_max_total_tokens.set(tokens)
        self._seats = seats

    def on_preemption(self, count: int) -> None:
        """Sequences were put back for lack of blocks."""
        self.preemptions.inc(count)

    def on_refusal(self, kind: RefusalKind) -> None:
        """The shards refused a sequence."""
        self.refusals[kind].inc()

    def on_finish(self, generated_tokens: int, inference_seconds: float) -> None:
        """A sequence ended as its request asked."""
        self.generated_tokens.observe(generated_tokens)
        self.inference_duration.observe(inference_seconds)

    def on_end(self, reason: End, prefill: float, decode: float, generated_tokens: int) -> None:
        """The same, with its reason and the seconds before and behind its first token."""
        self.finished[reason].inc()
        self.prefill_seconds.observe(prefill)
        self.decode_seconds.observe(decode)
        if generated_tokens > 1:
            self.time_per_token.observe(decode / (generated_tokens - 1))

    def on_given_up(self, reason: End, count: int = 1) -> None:
        """Sequences ended that their requests did not want to end."""
        self.finished[reason].inc(count)

    def on_start(self, phases: Mapping[str, float], memory: Mapping[str, int]) -> None:
        """Where the time of the start and the memory of the shards went; said once."""
        text = "Seconds of the server's start, by phase; shards and router start side by side"
        self._say("penstock_start_seconds", text, "phase", phases)
        text = "Bytes of all shards, by what they are for"
        self._say("penstock_memory_bytes", text, "part", memory)

    def _say(self, name: str, text: str, label: str, values: Mapping[str, float]) -> None:
        """A family that does not change."""
        members = {member: Gauge() for member in values}
        for member, gauge in members.items():
            gauge.set(values[member])
        if members:
            self._registry.family(name, text, label, members)

    @property
    def tokens_generated(self) -> int:
        """So far, of sequences that run too."""
        return self.first_token.count + self.inter_token.count

    def on_step_failure(self) -> None:
        """A step failed. What was in it is not known any more; it counts as decode."""
        self.step_count["decode"].inc()
        self.step_failure["decode"].inc()

    def on_lag(self, seconds: float) -> None:
        """The event loop was late by so much, looked at twice a second."""
        self.loop_lag.observe(seconds)
        self.throughput.note(self.tokens_generated)

    # -- the API reports -------------------------------------------------------------------------

    def on_request(self) -> None:
        """An HTTP request that wants something generated has come."""
        self.request_count.inc()

    def on_success(self, total: float, validation: float, per_token: Sequence[float]) -> None:
        """An HTTP request was served.

        Args:
            total: seconds from request to answer.
            validation: seconds until it was submitted.
            per_token: seconds of inference a token, for each sequence.
        """
        self.request_success.inc()
        self.request_duration.observe(total)
        self.validation_duration.observe(validation)
        for seconds in per_token:
            self.mean_time_per_token.observe(seconds)

    def on_failure(self, reason: Failure) -> None:
        """An HTTP request was not served."""
        self.request_failure[reason].inc()

    def on_disconnect(self) -> None:
        """A client went away before its answer was complete."""
        self.disconnects.inc()

    def on_slow_reader(self) -> None:
        """A client did not read, and its connection was cut."""
        self.slow_readers.inc()

    def on_unsent(self, change: int) -> None:
        """So many bytes of answers more than before wait to be read."""
        self.unsent.value += change

    async def scrape(self) -> bytes:
        """What `/metrics` shows."""
        return self.render()

    def render(self) -> bytes:
        """Everything, with memory, CPU time and descriptors of the router's processes."""
        own = (self._registry.render() + "\n".join((*self.others(), ""))).encode()
        return own + prometheus_client.generate_latest() + self.http_processes.render()
