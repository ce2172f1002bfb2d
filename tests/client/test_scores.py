"""Beam search and log-likelihoods against `transformers`."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from transformers import AutoModelForCausalLM

from client.conftest import DEMO
from penstock import LLM, BeamSearchParams, RequestError, SamplingParams

PAIRS = [
    ("The capital of France", " is Paris."),
    ("The capital of France ", "is Paris."),
    ("2 + 2 =", " 4"),
    ("What is", " the capital of Spain?"),
    ("def f(x):", "\n    return x"),
]


@pytest.fixture(scope="module")
def reference() -> torch.nn.Module:
    torch.set_num_threads(1)  # the server has the other core
    return AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32).eval()


@torch.inference_mode()
def log_probabilities(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    """[tokens, vocabulary]: of the token behind each."""
    return model(torch.tensor([ids])).logits[0].float().log_softmax(-1)


def split(llm: LLM, prompt: str, continuation: str) -> tuple[list[int], int]:
    """As evaluations do: spaces go with what is behind them."""
    tokenizer = llm.get_tokenizer()
    return tokenizer.encode(prompt + continuation), len(tokenizer.encode(prompt.rstrip()))


def test_loglikelihood(llm: LLM, reference: torch.nn.Module) -> None:
    prompts, continuations = zip(*PAIRS, strict=True)
    scores = llm.loglikelihood(prompts, continuations, use_tqdm=False)
    for (prompt, continuation), score in zip(PAIRS, scores, strict=True):
        ids, start = split(llm, prompt, continuation)
        table = log_probabilities(reference, ids)
        own = [float(table[place - 1, ids[place]]) for place in range(start, len(ids))]
        greedy = all(int(table[p - 1].argmax()) == ids[p] for p in range(start, len(ids)))
        assert score.logprob == pytest.approx(sum(own), abs=2e-3)
        assert score.is_greedy is greedy
        assert len(own) > 0
    logprob, is_greedy = scores[0]
    assert (logprob, is_greedy) == scores[0]


def test_loglikelihood_of_token_ids(llm: LLM, reference: torch.nn.Module) -> None:
    ids, start = split(llm, *PAIRS[0])
    of_text = llm.loglikelihood([PAIRS[0][0]], [PAIRS[0][1]], use_tqdm=False)
    of_ids = llm.loglikelihood([ids[:start]], [ids[start:]], use_tqdm=False)
    mixed = llm.loglikelihood([PAIRS[0][0]], [ids[start:]], use_tqdm=False)
    assert of_ids[0].logprob == pytest.approx(of_text[0].logprob, abs=1e-4)
    assert mixed[0].logprob == pytest.approx(of_text[0].logprob, abs=1e-4)


def test_greedy_continuations_are_known(llm: LLM) -> None:
    [output] = llm.generate(
        "The sky is", SamplingParams(temperature=0, max_tokens=6), use_tqdm=False
    )
    ids = output.outputs[0].token_ids
    [score] = llm.loglikelihood([output.prompt_token_ids], [ids], use_tqdm=False)
    assert score.is_greedy
    [other] = llm.loglikelihood([output.prompt_token_ids], [[*ids[:-1], 9]], use_tqdm=False)
    assert not other.is_greedy and other.logprob < score.logprob


def test_what_cannot_be_scored(llm: LLM) -> None:
    with pytest.raises(ValueError, match="a continuation for each prompt"):
        llm.loglikelihood(["a"], [])
    with pytest.raises(RequestError, match="at least one token each") as raised:
        llm.loglikelihood(["a", "b"], [" b", ""], use_tqdm=False)
    assert raised.value.outputs[0] is not None and raised.value.outputs[1] is None


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("flat", [False, True])
def test_ranks(llm: LLM, reference: torch.nn.Module, count: int, flat: bool) -> None:
    """Of prompt and drawn tokens, wherever in the vocabulary they are."""
    params = SamplingParams(
        temperature=3.0, seed=1, max_tokens=12, ignore_eos=True, flat_logprobs=flat,
        logprobs=count, prompt_logprobs=count,
    )  # fmt: skip
    [output] = llm.generate("Paris def 4 the is Spain", params, use_tqdm=False)
    [one] = output.outputs
    ids = [*output.prompt_token_ids, *one.token_ids]
    places = [*output.prompt_logprobs, *one.logprobs]
    assert places[0] is None and len(places) == len(ids)
    ranks = []
    table = log_probabilities(reference, ids)
    for row, token, place in zip(table[:-1], ids[1:], places[1:], strict=True):
        rank = place[token].rank
        # Neighbours may be as near as rounding.
        assert 1 + (row > row[token] + 2e-3).sum() <= rank <= (row > row[token] - 2e-3).sum()
        others = [entry.rank for entry in place.values() if entry is not place[token]]
        assert sorted({*others, rank}) == sorted({*range(1, count + 1), rank})
        ranks.append(rank)
    drawn = len(one.token_ids)
    assert max(ranks[:-drawn]) > 10 and max(ranks[-drawn:]) > 10


@dataclass
class Beam:
    ids: list[int]
    total: float


def beams_by_hand(
    model: torch.nn.Module, prompt: list[int], params: BeamSearchParams, eos: set[int]
) -> list[tuple[list[int], float]]:
    """All beams, every step, without a cache. Tokens, EOS left out, and their log-probability."""

    def score(beam: Beam) -> float:
        return beam.total / len(beam.ids) ** params.length_penalty

    beams, ended = [Beam(prompt, 0.0)], []
    for _ in range(params.max_tokens):
        candidates = []
        for beam in beams:
            values, tokens = log_probabilities(model, beam.ids)[-1].topk(2 * params.beam_width)
            for value, token in zip(values.tolist(), tokens.tolist(), strict=True):
                if token in eos and not params.ignore_eos:
                    ended.append(Beam(beam.ids, beam.total + value))
                else:
                    candidates.append(Beam([*beam.ids, token], beam.total + value))
        beams = sorted(candidates, key=score, reverse=True)[: params.beam_width]
    best = sorted(ended + beams, key=score, reverse=True)[: params.beam_width]
    return [(beam.ids, beam.total) for beam in best]


@pytest.mark.parametrize(
    "params",
    [
        BeamSearchParams(beam_width=3, max_tokens=5),
        BeamSearchParams(beam_width=2, max_tokens=8, length_penalty=2.0, skip_special_tokens=False),
        BeamSearchParams(beam_width=3, max_tokens=4, ignore_eos=True, length_penalty=0.5),
    ],
)
def test_beam_search(llm: LLM, reference: torch.nn.Module, params: BeamSearchParams) -> None:
    prompts = ["The capital of France is", "What is 3 + 4?"]
    outputs = llm.beam_search(prompts, params, concurrency_limit=2)
    tokenizer = llm.get_tokenizer()
    assert tokenizer.decode(tokenizer.eos_token_ids, skip_special_tokens=True) == ""
    for prompt, output in zip(prompts, outputs, strict=True):
        ids = tokenizer.encode(prompt)
        expected = beams_by_hand(reference, ids, params, set(tokenizer.eos_token_ids))
        assert [beam.tokens for beam in output.sequences] == [tokens for tokens, _ in expected]
        for beam, (tokens, total) in zip(output.sequences, expected, strict=True):
            assert beam.cum_logprob == pytest.approx(total, abs=2e-3)
            assert beam.text == tokenizer.decode(tokens, params.skip_special_tokens)


def test_beam_search_refuses_what_it_cannot_do(llm: LLM) -> None:
    with pytest.raises(ValueError, match="beam_width must be at least 1"):
        BeamSearchParams(beam_width=0, max_tokens=3)
    with pytest.raises(ValueError, match="`logprobs` must be at most 30"):
        llm.beam_search("a", BeamSearchParams(beam_width=16, max_tokens=1))
