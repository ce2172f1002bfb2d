"""lm-eval: tasks of one's own through `local-completions`.

MODEL is the folder with the tokenizer of the model that is served.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import lm_eval
from verdict import URL, verdict

CAPITALS = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid"}
QUESTION = "What is the capital of {{country}}?"


def evaluate(task: dict[str, object], metric: str, tokenized: bool = True) -> float:
    """What a task comes to."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "capitals.jsonl")
        choices = list(CAPITALS.values())
        data.write_text(
            "".join(
                json.dumps({"country": country, "capital": capital, "choices": choices}) + "\n"
                for country, capital in CAPITALS.items()
            )
        )
        source = {"data_files": {"test": str(data)}, "cache_dir": folder}
        config = {
            "task": "capitals",
            "dataset_path": "json",
            "dataset_kwargs": source,
            "test_split": "test",
            "doc_to_text": QUESTION,
            "metric_list": [{"metric": metric}],
            **task,
        }
        results = lm_eval.simple_evaluate(
            model="local-completions",
            model_args={
                "model": "penstock-demo",
                "base_url": f"{URL}/v1/completions",
                "tokenizer": os.environ["MODEL"],
                "tokenized_requests": tokenized,
                "num_concurrent": 2,
                "max_length": 512,
                "max_retries": 1,
            },
            tasks=[config],
            bootstrap_iters=0,
        )
    return results["results"]["capitals"][f"{metric},none"]


CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": f"{QUESTION} The capital of {{{{country}}}} is",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{choices.index(capital)}}",
}


def scores_choices() -> None:
    """Log-probabilities of a prompt's end, with `echo`."""
    assert evaluate(CHOICE, "acc") == 1.0


def scores_text() -> None:
    """The same with prompts as text."""
    assert evaluate(CHOICE, "acc", tokenized=False) == 1.0


def generates() -> None:
    """Text up to a stop sequence."""
    generation = {
        "output_type": "generate_until",
        "doc_to_target": " The capital of {{country}} is {{capital}}",
        "generation_kwargs": {"until": [".", "\n"], "max_gen_toks": 20, "do_sample": False},
    }
    assert evaluate(generation, "exact_match") == 1.0


verdict("lm-eval", scores_choices, scores_text, generates)
