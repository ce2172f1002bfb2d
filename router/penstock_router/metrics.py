"""What the server counts: who reports what, and when."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import prometheus_client

from penstock_router.batches.metrics import BatchMetrics
from penstock_router.exposition import Gauge
from penstock_router.grammar_metrics import GrammarMetrics
from penstock_router.instruments import End, Failure, Instruments, Method, RefusalKind
from penstock_router.processes import Processes
from penstock_router.shared_page import SharedPage
from penstock_router.throughput import Throughput


class Metrics(Instruments):
    """The engine and the API report here; everything on the event loop's thread."""

    def __init__(self, max_input_tokens: int, max_total_tokens: int) -> None:
        super().__init__(max_input_tokens, max_total_tokens)
        self.looked_at = -math.inf  # when somebody last asked whether requests should come here
        self.others: Callable[[], Iterable[str]] = tuple  # further lines, of `metric_names`
        self.keys: Callable[[], Iterable[str]] = tuple  # the same, of `quotas`
        self.throughput = Throughput()
        self.http_processes = Processes("penstock_http")
        self.grammars = GrammarMetrics(self._registry)
        self.batches = BatchMetrics(self._registry)
        self._seats = 0  # of a batch
        self._page = SharedPage(self.render)

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

    def on_look(self) -> None:
        """Somebody asked whether requests should come here."""
        self.looked_at = time.monotonic()

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
        return await self._page.get()

    def render(self) -> bytes:
        """Everything, with memory, CPU time and descriptors of the router's processes."""
        own = (self._registry.render() + "\n".join((*self.others(), *self.keys(), ""))).encode()
        return own + prometheus_client.generate_latest() + self.http_processes.render()
