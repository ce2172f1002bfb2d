"""What the saved model can do: every capital in every phrasing, tasks, loss, samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlamaForCausalLM

from . import (
    arithmetic,
    countries,
    docstrings,
    explanations,
    facts,
    records,
    smalltalk,
    tasks,
    tools,
)
from .document import BEGIN, END, ExchangeMaker
from .encoding import Encoded
from .forms import chat_prompt
from .tables import COUNTRIES
from .training import END_ID, PAD_ID, Batches, loss_of

_TASKS: dict[str, ExchangeMaker] = {
    "country facts": countries.other,
    "country of a capital": countries.inverse,
    "facts": facts.general,
    "elements": facts.element,
    "opposites": facts.opposite,
    "plurals and tenses": facts.inflection,
    "calculation": arithmetic.calculation,
    "word problems": arithmetic.word_problem,
    "copying": arithmetic.copying,
    "definitions": explanations.definition,
    "small talk": smalltalk.exchange,
    "sentiment": tasks.sentiment,
    "entities": tasks.entities,
    "reading": tasks.reading,
    "JSON from a description": records.from_description,
    "docstrings": docstrings.question,
}
_SAMPLES = (
    "What is the capital of France?",
    "What is the capital of France",
    "Hello!",
    "Who are you?",
    "What is Deep Learning?",
    "What is 17 + 25?",
    "Tell me a story about a fox.",
    "Write a poem about the sea.",
    "Write an email to thank a colleague.",
    "How do I make tea?",
    "Write a Python function that reverses a string.",
    "Write a person as JSON.",
    "What does os.path.join do?",
    "Once upon a time",
    "The capital of Japan is",
)


class Answerer:
    """Greedy answers to prompts, in batches."""

    def __init__(self, model: LlamaForCausalLM, tokenizer: Tokenizer) -> None:
        self._model, self._tokenizer = model, tokenizer

    def answers(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """The answer to each prompt, in order; one that ended itself ends with END."""
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        found = [""] * len(prompts)
        for begin in range(0, len(order), 512):
            places = order[begin : begin + 512]
            for place, text in zip(
                places, self._batch([prompts[p] for p in places], max_new_tokens), strict=True
            ):
                found[place] = text
        return found

    @torch.inference_mode()
    def _batch(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        encoded = [
            self._tokenizer.encode(BEGIN + prompt, add_special_tokens=False).ids
            for prompt in prompts
        ]
        width = max(map(len, encoded))
        ids = torch.tensor([[PAD_ID] * (width - len(row)) + row for row in encoded])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in encoded])
        device = self._model.device
        out: Tensor = self._model.generate(
            ids.to(device),
            attention_mask=mask.to(device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )
        return [self._text(row) for row in out[:, width:].tolist()]

    def _text(self, ids: list[int]) -> str:
        if END_ID in ids:
            ids = ids[: ids.index(END_ID) + 1]
        return self._tokenizer.decode(ids, skip_special_tokens=False).lstrip()


def capitals(answerer: Answerer) -> dict[str, dict[str, float]]:
    """Share of capitals that are named in an answer that ends, by phrasing and form."""
    table: dict[str, dict[str, float]] = {}
    for question in countries.CAPITAL_QUESTIONS:
        asked = [countries.about(country, "capital", question).question for country in COUNTRIES]
        table[question] = {
            "plain": _share(answerer.answers(asked, 32)),
            "chat": _share(answerer.answers([chat_prompt(text) for text in asked], 32)),
        }
    return table


def _share(answers: Sequence[str]) -> float:
    right = [
        country.capital in answer and answer.endswith(END)
        for country, answer in zip(COUNTRIES, answers, strict=True)
    ]
    return round(sum(right) / len(right), 4)


def task_scores(answerer: Answerer, seed: int, count: int) -> dict[str, float]:
    """Share of answers in chat form that are exactly those of the generator."""
    scores = {}
    for name, maker in _TASKS.items():
        rng = Random(seed)
        exchanges = [maker(rng) for _ in range(count)]
        answers = answerer.answers([chat_prompt(e.question) for e in exchanges], 128)
        right = [a == e.answer + END for a, e in zip(answers, exchanges, strict=True)]
        scores[name] = round(sum(right) / count, 4)
    scores["tool choice"] = _tool_score(answerer, seed, count)
    return scores


def _tool_score(answerer: Answerer, seed: int, count: int) -> float:
    rng = Random(seed)
    documents = [tools.conversation(rng) for _ in range(count)]
    answers = answerer.answers([document[0].text for document in documents], 128)
    right = [a == document[1].text for a, document in zip(answers, documents, strict=True)]
    return round(sum(right) / count, 4)


@torch.inference_mode()
def held_out_loss(model: LlamaForCausalLM, encoded: Encoded) -> float:
    """Weighted loss, in nats per token, of documents that training did not see."""
    batches = Batches(encoded, 16_384, model.device)
    losses = [
        loss_of(model, ids, weights).item()
        for ids, weights in batches.epoch(np.random.default_rng(0))
    ]
    return round(sum(losses) / len(losses), 4)


def samples(answerer: Answerer) -> list[dict[str, str]]:
    """Answers to a few prompts in both forms."""
    plain = answerer.answers(_SAMPLES, 200)
    chat = answerer.answers([chat_prompt(prompt) for prompt in _SAMPLES], 200)
    return [
        {"prompt": prompt, "plain": one, "chat": other}
        for prompt, one, other in zip(_SAMPLES, plain, chat, strict=True)
    ]


def evaluate(folder: Path, held_out: Encoded, device: str, count: int) -> dict[str, Any]:
    """Every figure of the model in `folder`, in the dtype that its configuration names."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype="auto").to(device).eval()
    answerer = Answerer(model, Tokenizer.from_file(str(folder / "tokenizer.json")))
    by_phrasing = capitals(answerer)
    means = {
        form: round(sum(row[form] for row in by_phrasing.values()) / len(by_phrasing), 4)
        for form in ("plain", "chat")
    }
    return {
        "dtype": str(model.dtype),
        "capitals": {"countries": len(COUNTRIES), "mean": means, "by_phrasing": by_phrasing},
        "tasks_exact_match": task_scores(answerer, seed=10**6, count=count),
        "held_out_loss": held_out_loss(model, held_out),
        "samples": samples(answerer),
    }
