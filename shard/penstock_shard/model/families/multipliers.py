"""Numbers that some families multiply with what others take as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock_shard.model.config_numbers import real


@dataclass(frozen=True, slots=True)
class Multipliers:
    """Of the embedding, of what blocks add to the residual, of scores, and of logits."""

    embedding: float = 1.0
    residual: float = 1.0
    scores: float | None = None  # instead of the root of the heads' width
    logits: float = 1.0


def neutral(config: Mapping[str, Any]) -> Multipliers:
    return Multipliers()


def granite(config: Mapping[str, Any]) -> Multipliers:
    return Multipliers(
        embedding=real(config, "embedding_multiplier", 1.0),
        residual=real(config, "residual_multiplier", 1.0),
        scores=real(config, "attention_multiplier", 1.0),
        logits=1 / real(config, "logits_scaling", 1.0),
    )


def unscaled(config: Mapping[str, Any]) -> Multipliers:
    """GPT-Neo: scores are what queries and keys give."""
    return Multipliers(scores=1.0)


def cohere(config: Mapping[str, Any]) -> Multipliers:
    return Multipliers(logits=real(config, "logit_scale", 0.0625))
