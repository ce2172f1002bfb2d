"""The other side of the API's interface: an engine that continues prompts by a fixed rule.

It checks what the API promises (every value in range), gives tokens turn by turn of the event
loop, and remembers what it was asked, so that tests can look at both sides.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

from penstock_router.grammar import Grammar
from penstock_router.limits import ServerLimits
from penstock_router.request import (
    Aborted,
    BadGrammar,
    Draining,
    EngineError,
    Finish,
    FinishReason,
    GenerationRequest,
    Listener,
)
from penstock_router.top_table import TopTable

EOS = 2
RANK = 7  # of every token whose log-probability is told


def limits(**changes: object) -> ServerLimits:
    """Limits of a small model on a CPU."""
    values: dict[str, object] = {
        "max_input_tokens": 64,
        "max_total_tokens": 96,
        "max_batch_prefill_tokens": 64,
        "max_batch_total_tokens": 1024,
        "max_batch_size": 8,
        "block_size": 16,
        "num_blocks": 65,
        "vocab_size": 700,
        "max_position_embeddings": 96,
        "device": "cpu",
        "device_name": "cpu",
        "dtype": "float32",
        "kv_cache_dtype": "float32",
        "world_size": 1,
        "prefill_seconds": 0.01,
    }
    return ServerLimits(**{**values, **changes})  # type: ignore[arg-type]


@dataclass
class Job:
    """A request that was submitted."""

    id: int
    request: GenerationRequest
    listener: Listener
    tokens: Sequence[int]
    sent: int = 0
    ended: bool = False
    cancelled: bool = False


@dataclass
class FakeEngine:
    """`script` is what every sequence generates, over and over; EOS in it ends the sequence."""

    limits: ServerLimits = field(default_factory=limits)
    script: Sequence[int] = (10, 11, 12)
    tokens_per_turn: int = 1
    hold: bool = False  # nothing is generated until `release`
    fail_after: int | None = None  # tokens until every sequence fails
    failure: EngineError | None = None
    refuse: EngineError | None = None
    trouble: str = ""
    health: SimpleNamespace = field(default_factory=SimpleNamespace)
    leaving: bool = False
    draining: bool = False
    cached_tokens: int = 0
    jobs: list[Job] = field(default_factory=list)
    emptied: int = 0  # times
    grammars: list[Grammar] = field(default_factory=list)  # that were prepared

    @property
    def requests(self) -> list[GenerationRequest]:
        return [job.request for job in self.jobs]

    @property
    def live(self) -> int:
        """Sequences that have neither ended nor been cancelled."""
        return sum(not job.ended and not job.cancelled for job in self.jobs)

    @property
    def withdrawn(self) -> bool:
        return self.leaving or self.draining

    async def prepare(self, grammar: Grammar) -> None:
        """Remember what was asked for; a text that holds `bad` cannot be compiled."""
        await asyncio.sleep(0)
        if "bad" in grammar.text:
            raise BadGrammar("it is bad")
        self.grammars.append(grammar)

    def submit(self, request: GenerationRequest, listener: Listener) -> int:
        if self.draining:
            raise Draining("draining")
        if self.refuse is not None:
            raise self.refuse
        check(request, self.limits)
        job = Job(len(self.jobs) + 1, request, listener, self.script)
        self.jobs.append(job)
        asyncio.get_running_loop().call_soon(self._turn, job)
        return job.id

    def cancel(self, request_id: int) -> int:
        job = self.jobs[request_id - 1]
        if job.ended or job.cancelled:
            return 0
        job.cancelled = True
        return job.sent

    def abort(self, name: str | None) -> None:
        for job in self.jobs:
            own = name is None or job.request.name.split("_")[0] == name
            if own and not job.ended and not job.cancelled:
                job.ended = True
                job.listener.fail(Aborted("The request was aborted"))

    async def empty_cache(self) -> bool:
        return self.flush_cache()

    def flush_cache(self) -> bool:
        self.emptied += not self.live
        return not self.live

    def stop(self, request_id: int, generated: int) -> None:
        job = self.jobs[request_id - 1]
        if not job.ended and not job.cancelled:
            self._finish(job, FinishReason.STOP, generated)

    def release(self) -> None:
        """Go on after `hold`."""
        self.hold = False
        for job in self.jobs:
            if not job.ended and not job.cancelled:
                self._turn(job)

    def _turn(self, job: Job) -> None:
        if self.hold:
            return
        if job.sent == 0:
            tell_prompt(job.request, job.listener)
        if not job.request.max_new_tokens and not job.cancelled:
            self._finish(job, FinishReason.LENGTH, 0)
        for _ in range(self.tokens_per_turn):
            if job.cancelled or job.ended:
                return
            self._step(job)
        if not job.ended:
            asyncio.get_running_loop().call_soon(self._turn, job)

    def _step(self, job: Job) -> None:
        if self.fail_after is not None and job.sent >= self.fail_after:
            job.ended = True
            job.listener.fail(self.failure or EngineError("a shard is gone"))
            return
        token = job.tokens[job.sent % len(job.tokens)]
        job.sent += 1
        sampling = job.request.sampling
        logprob = -0.25 - 0.5 * (sampling.seed % 2) if sampling.logprobs else math.nan
        top = [(token, -0.25), (11, -1.5), (12, -math.inf)][: sampling.top_n]
        top += [(given, -3.0) for given in sampling.given]
        rank = RANK if sampling.logprobs else 0
        stop = job.listener.token(token, logprob, top, rank)
        if token == EOS and not job.request.ignore_eos:
            self._finish(job, FinishReason.EOS, job.sent)
        elif stop:
            self._finish(job, FinishReason.STOP, job.sent)
        elif job.sent == job.request.max_new_tokens:
            self._finish(job, FinishReason.LENGTH, job.sent)

    def _finish(self, job: Job, reason: FinishReason, generated: int) -> None:
        job.ended = True
        job.listener.finish(
            Finish(
                reason=reason,
                generated_tokens=generated,
                cached_tokens=self.cached_tokens,
                queue_seconds=0.001,
                first_token_seconds=0.002,
                total_seconds=0.001 + 0.001 * generated,
            )
        )


def tell_prompt(request: GenerationRequest, listener: Listener) -> None:
    """Log-probabilities of the prompt, if it asked for them."""
    if request.prompt_logprobs:
        given = [(token, -3.0) for token in request.sampling.given]
        without = request.prompt_logprobs_start + 1
        rest = request.prompt[without:]
        tops = [
            [(token, -0.5), (11, -1.5), (12, -2.5)][: request.prompt_top_n] + given
            for token in rest
        ]
        asked = request.prompt_top_n or given
        table = TopTable(without)
        for top in tops:
            table.append(top)
        listener.prompt(
            [*[None] * without, *(-0.5 for _ in rest)],
            table if asked else (),
            [*[0] * without, *(RANK for _ in rest)],
        )


def check(request: GenerationRequest, limits: ServerLimits) -> None:
    """The promises of GenerationRequest."""
    assert 0 < len(request.prompt) <= limits.max_input_tokens
    assert all(0 <= token < limits.vocab_size for token in request.prompt)
    assert request.max_new_tokens >= 0
    assert 0 <= request.prompt_top_n <= 20
    assert len(request.prompt) + request.max_new_tokens <= limits.max_total_tokens
    assert -100 <= request.priority <= 100
    sampling = request.sampling
    assert sampling.temperature == 0 or 1e-5 <= sampling.temperature <= 100
    assert 0 <= sampling.top_k < 2**31 and 0 <= sampling.seed < 2**64
    assert 0 < sampling.top_p <= 1 and 0 < sampling.typical_p <= 1 and 0 <= sampling.min_p <= 1
    assert 0.01 <= sampling.repetition_penalty <= 100
    assert -2 <= sampling.frequency_penalty <= 2 and -2 <= sampling.presence_penalty <= 2
    assert all(0 <= t < limits.vocab_size and abs(b) <= 100 for t, b in sampling.logit_bias)
    assert 0 <= sampling.top_n <= 20
    assert len(sampling.given) <= 256 and all(0 <= t < limits.vocab_size for t in sampling.given)
    assert 0 <= request.prompt_logprobs_start < len(request.prompt)
    if (rules := sampling.rules) is not None:
        named = [*rules.allowed, *rules.late, *(token for run in rules.banned for token in run)]
        assert all(0 <= token < limits.vocab_size for token in named)
        assert all(0 < len(run) <= 16 for run in rules.banned)
        assert 0 <= rules.green_share <= 1 and rules.min_tokens < 2**31
