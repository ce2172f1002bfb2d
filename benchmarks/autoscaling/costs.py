"""What a step takes: a plane through steps that were measured."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MEASURED = Path(__file__).parent.parent / "results" / "h100_llama-3.1-8b_steps.json"
STEP = re.compile(r"(?:decode (\d+) rows|mixed (\d+) \+ (\d+))")
# The measured rows had so many tokens each, where the file does not say. What a token of theirs
# costs is its bytes over the card's bandwidth: 131,072 at 3.06 TB/s (docs/performance.md).
MEASURED_CONTEXT = 576
KV_TOKEN_SECONDS = 131_072 / 3.06e12


@dataclass(frozen=True, slots=True)
class StepCosts:
    """Seconds: of a step, of each decode row, of each KV token that these read, and of each prompt
    token."""

    step: float
    row: float
    kv_token: float
    prompt_token: float

    def seconds(self, rows: int, kv_tokens: int, prompt_tokens: int) -> float:
        """Of a step."""
        return (
            self.step
            + self.row * rows
            + self.kv_token * kv_tokens
            + self.prompt_token * prompt_tokens
        )


def measured(path: Path = MEASURED) -> StepCosts:
    """Fitted by least squares of the relative error. Raises ValueError for a file without steps.

    path: JSON with `steps`, each `{"step": "decode 8 rows", "wall_us": 5000}` or with a name such
    as "mixed 64 + 320", which is 64 rows that decode and 320 tokens of prompts; and `context`, the
    tokens that each row had before it.
    """
    found, points = json.loads(path.read_text()), []
    try:
        context = float(found.get("context", MEASURED_CONTEXT))
        for step in found["steps"]:
            if (match := STEP.fullmatch(step["step"])) is not None:
                alone, rows, prompt = match.groups()
                points.append((int(alone or rows), int(prompt or 0), step["wall_us"] * 1e-6))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no file of measured steps: {error!r}") from None
    if len(points) < 3:
        raise ValueError(f"{path} holds {len(points)} steps of a kind that is known, not 3")
    rows, prompts, seconds = (np.array(column, float) for column in zip(*points, strict=True))
    kv = rows * context * KV_TOKEN_SECONDS
    matrix = np.stack([np.ones_like(rows), rows, prompts], axis=1) / seconds[:, None]
    fit, *_ = np.linalg.lstsq(matrix, 1 - kv / seconds, rcond=None)
    step, row, prompt = (max(float(value), 0.0) for value in fit)
    return StepCosts(step, row, KV_TOKEN_SECONDS, prompt)
