"""What the server counts of grammars."""

from __future__ import annotations

from typing import Literal, get_args

from penstock_proto.shard_pb2 import StepResult
from penstock_router.exposition import Counter, Gauge, Histogram, Registry

Preparation = Literal["cached", "compiled", "refused", "too_slow", "busy"]

SECONDS = [1e-5 * 2**k for k in range(20)]  # 10 us to 5 s


class GrammarMetrics:
    """A part of `Metrics`."""

    def __init__(self, registry: Registry) -> None:
        self.preparations = registry.family(
            "penstock_grammars_total",
            "Grammars that requests asked for, by what became of them",
            "outcome",
            {outcome: Counter() for outcome in get_args(Preparation)},
        )
        self.compile_seconds = registry.add(
            "penstock_grammar_compile_seconds",
            "Seconds in which a shard compiled a grammar",
            Histogram(SECONDS),
        )
        self.cached = registry.add(
            "penstock_grammars_cached", "Grammars that are compiled", Gauge()
        )
        self.forced_tokens = registry.add(
            "penstock_forced_tokens_total",
            "Tokens that grammars forced and that took no step of their own",
            Counter(),
        )
        self.mask_seconds = registry.add(
            "penstock_mask_seconds",
            "Seconds of the shard's host for a step's masks",
            Histogram(SECONDS),
        )
        self.mask_wait_seconds = registry.add(
            "penstock_mask_wait_seconds",
            "Seconds by which masks held the draw of a step up, on the shard's host",
            Histogram(SECONDS),
        )

    def on_prepared(self, outcome: Preparation) -> None:
        """A request's grammar is ready, or will not be."""
        self.preparations[outcome].inc()

    def on_compile(self, seconds: float) -> None:
        """A shard has answered."""
        self.compile_seconds.observe(seconds)

    def on_forced(self, tokens: int) -> None:
        """So many take no step of their own."""
        if tokens:
            self.forced_tokens.inc(tokens)

    def on_step(self, result: StepResult) -> None:
        """A step had masks, if it says so."""
        if result.mask_ns:
            self.mask_seconds.observe(result.mask_ns * 1e-9)
            self.mask_wait_seconds.observe(result.mask_wait_ns * 1e-9)
