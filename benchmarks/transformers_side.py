"""The other side of `compare_transformers`: one process that generates with transformers.

    stdin   one line of JSON: model, threads, output (tokens), rounds (lists of prompts of ids)
    stdout  one line of JSON: for each way, the seconds and the token ids of each round

Each way runs a warm-up round of its own first. Greedy, float32, no end-of-text.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers
from benchmarks.machine import wait_until_quiet
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.utils import WorkloadHints

Round = list[list[int]]  # token ids of its prompts
Way = Callable[[Any, list[Round]], list[dict[str, Any]]]


def greedy(output: int) -> GenerationConfig:
    """Exactly `output` tokens; -1 is no token, so nothing ends a text early."""
    return GenerationConfig(max_new_tokens=output, do_sample=False, eos_token_id=-1, pad_token_id=0)


def one_by_one(model: Any, rounds: list[Round], output: int) -> list[dict[str, Any]]:
    """`model.generate` for one prompt after another."""
    results = []
    for prompts in rounds:
        started, answers = time.monotonic(), []
        for prompt in prompts:
            ids = torch.tensor([prompt])
            answer = model.generate(
                ids, attention_mask=torch.ones_like(ids), generation_config=greedy(output)
            )
            answers.append(answer[0, len(prompt) :].tolist())
        results.append({"seconds": time.monotonic() - started, "tokens": answers})
    return results


def as_one_batch(model: Any, rounds: list[Round], output: int) -> list[dict[str, Any]]:
    """`model.generate` for all prompts of a round as one static batch (they have one length)."""
    results = []
    for prompts in rounds:
        started, ids = time.monotonic(), torch.tensor(prompts)
        answers = model.generate(
            ids, attention_mask=torch.ones_like(ids), generation_config=greedy(output)
        )
        tokens = answers[:, ids.shape[1] :].tolist()
        results.append({"seconds": time.monotonic() - started, "tokens": tokens})
    return results


def continuous_batching(
    model: Any, rounds: list[Round], output: int, block_size: int
) -> list[dict[str, Any]]:
    """A round's prompts all at once to one ContinuousBatchingManager that lives for all rounds."""
    longest = max(len(prompt) for prompts in rounds for prompt in prompts)
    streams = max(len(prompts) for prompts in rounds)
    blocks = 2 * streams * -(-(longest + output) // block_size)
    config = ContinuousBatchingConfig(
        block_size=block_size, num_blocks=blocks, max_batch_tokens=max(512, longest)
    )
    results = []
    with model.continuous_batching_context_manager(
        generation_config=greedy(output),
        continuous_batching_config=config,
        workload_hints=WorkloadHints(
            max_prompt_length=longest, max_generated_length=output, num_requests=streams
        ),
    ) as manager:
        for prompts in rounds:
            started = time.monotonic()
            answers: dict[str, list[int]] = {}
            names = manager.add_requests(inputs=prompts, max_new_tokens=output)
            while len(answers) < len(prompts):
                result = manager.get_result(timeout=60)
                if result is None:
                    raise RuntimeError("continuous batching gave no result in 60 s")
                if result.is_finished():
                    answers[result.request_id] = result.generated_tokens
            tokens = [answers[name] for name in names]
            results.append({"seconds": time.monotonic() - started, "tokens": tokens})
    return results


def ways(output: int) -> dict[str, Way]:
    """Every way by its name. Continuous batching with a small, a middle and its default block."""
    found: dict[str, Way] = {
        "generate one by one": partial(one_by_one, output=output),
        "generate as one batch": partial(as_one_batch, output=output),
    }
    for size in (32, 64, 256):
        found[f"continuous batching, block {size}"] = partial(
            continuous_batching, output=output, block_size=size
        )
    return found


def main() -> None:
    """The process."""
    plan = json.loads(sys.stdin.readline())
    torch.set_num_threads(plan["threads"])
    transformers.logging.set_verbosity_error()
    model = AutoModelForCausalLM.from_pretrained(plan["model"], dtype=torch.float32).eval()
    model.generation_config = GenerationConfig()
    results: dict[str, Any] = {}
    for name, way in ways(plan["output"]).items():
        busy = wait_until_quiet()
        try:
            rounds = way(model, plan["rounds"])[1:]  # the first one warms up
            results[name] = {"rounds": rounds, "busy_cores_before": busy}
        except Exception as error:  # a way that does not run here is a finding, not a failure
            results[name] = {"error": f"{type(error).__name__}: {error}"}
        print(f"transformers: {name} done", file=sys.stderr, flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
