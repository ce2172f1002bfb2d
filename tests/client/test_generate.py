"""LLM.generate and chat: the same answers as over HTTP, in vLLM's shapes."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.conftest import DEMO
from penstock import (
    LLM,
    GuidedDecodingParams,
    RequestError,
    SamplingParams,
    StructuredOutputsParams,
)

GREEDY = SamplingParams(temperature=0, max_tokens=12)
TEXTS = [
    "The sky is",
    "What is the capital of France?",
    "def add(a, b):",
    "One two three four",
    "Write a poem about the sea.",
]


def run(llm: LLM, prompts: Any, params: Any = GREEDY, **arguments: Any) -> Any:
    return llm.generate(prompts, params, use_tqdm=False, **arguments)


def over_http(llm: LLM, **fields: Any) -> Any:
    return llm.call("/v1/completions", {"temperature": 0, "max_tokens": 12, **fields})


def test_greedy_text_is_that_of_http(llm: LLM) -> None:
    outputs = run(llm, TEXTS * 8)
    answers = [over_http(llm, prompt=text)["choices"][0] for text in TEXTS]
    for place, output in enumerate(outputs):
        answer = answers[place % len(TEXTS)]
        assert output.prompt == TEXTS[place % len(TEXTS)]
        assert output.outputs[0].text == answer["text"]
        assert output.outputs[0].finish_reason == answer["finish_reason"]
    assert {output.request_id for output in outputs} != {outputs[0].request_id}


def test_prompts_in_every_shape(llm: LLM) -> None:
    ids = llm.get_tokenizer().encode(TEXTS[0])
    expected = run(llm, TEXTS[0])[0].outputs[0].text
    for prompt in (
        ids,
        np.array(ids),
        [ids],
        {"prompt": TEXTS[0]},
        {"prompt_token_ids": ids},
        [{"prompt": TEXTS[0], "cache_salt": "mine"}],
    ):
        [output] = run(llm, prompt)
        assert output.outputs[0].text == expected
        assert output.prompt_token_ids == ids
    assert run(llm, ids)[0].prompt is None
    assert [o.outputs[0].text for o in run(llm, [TEXTS[0], ids])] == [expected] * 2
    assert run(llm, []) == []


@pytest.mark.parametrize(
    ("prompt", "error", "sentence"),
    [
        (3, TypeError, "prompt 0 must be text, token ids or a dict"),
        (None, ValueError, "one of prompts and prompt_token_ids must be given"),
        (b"abc", TypeError, "prompt 0 must be text, .* not bytes"),
        (["a", "\ud800b"], ValueError, "prompt 1: the text is not Unicode: character 0"),
        ({"prompt": "x", "cache_salt": 5}, TypeError, "cache_salt must be text, not int"),
        ([3.5], TypeError, "prompt 0 must be text, token ids or a dict"),
        ([[1, "x"]], TypeError, "prompt 0: token ids must be integers"),
        ([[1, -1]], ValueError, "prompt 0: token ids must be >= 0"),
        ({"text": "x"}, ValueError, "neither `prompt` nor `prompt_token_ids`"),
        ({"prompt_embeds": [1.0]}, ValueError, "prompt_embeds is not supported"),
        ({"prompt": "x", "multi_modal_data": {"image": 1}}, ValueError, "reads text alone"),
    ],
)
def test_what_is_no_prompt(llm: LLM, prompt: Any, error: type, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        run(llm, prompt)


def test_a_bad_prompt_costs_the_others_nothing(llm: LLM) -> None:
    good = [output.outputs[0].text for output in run(llm, TEXTS[:3])]
    prompts = [TEXTS[0], "word " * 4000, TEXTS[1], [5, 999_999], TEXTS[2]]
    with pytest.raises(RequestError, match="^prompt 1: `prompt` must have less than") as raised:
        run(llm, prompts)
    assert "1 more failed" in str(raised.value)
    assert sorted(raised.value.errors) == [1, 3]
    assert "999999" in str(raised.value.errors[3])
    texts = [output and output.outputs[0].text for output in raised.value.outputs]
    assert texts == [good[0], None, good[1], None, good[2]]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"top_p": 0.0}, "`top_p` must be > 0.0"),
        ({"temperature": -1.0}, "`temperature`"),
        ({"logprobs": 31}, "`logprobs` must be at most 30"),
        ({"prompt_logprobs": 31}, "`prompt_logprobs` must be at most 30"),
        ({"stop_token_ids": [4096]}, "`stop_token_ids` must hold token ids"),
        ({"min_tokens": 20}, "`min_tokens` must be at most"),
        ({"presence_penalty": 3.0}, "`presence_penalty`: input should be less"),
        ({"logit_bias": {5000: 1.0}}, "`logit_bias` must hold token ids"),
        ({"n": 20_000}, "`n`"),
        ({"structured_outputs": StructuredOutputsParams(json={"not": {}})}, "not"),
    ],
)
def test_bad_parameters_raise_at_once(llm: LLM, fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        run(llm, TEXTS * 100, SamplingParams(**fields))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"n": 2, "temperature": 0}, "n must be 1 at temperature 0"),
        ({"best_of": 1, "n": 2}, "best_of must be at least n"),
        ({"stop": "x", "detokenize": False}, "stop needs detokenize"),
        ({"logprobs": -1}, "whole vocabulary"),
        ({"temperature": float("nan")}, "temperature must be a finite number. Given: nan"),
        ({"top_p": float("inf")}, "top_p must be a finite number. Given: inf"),
        ({"allowed_token_ids": []}, "allowed_token_ids must hold at least one token"),
        ({"thinking_token_budget": 5}, "thinking_token_budget is not supported"),
        ({"extra_args": {"a": 1}}, "extra_args is not supported"),
        ({"repetition_detection": {}, "n": 1, "routed_experts_prompt_start": 1}, "routed_experts"),
    ],
)
def test_contradictions_raise_where_they_are_written(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SamplingParams(**fields)


def test_what_is_no_parameters_and_no_conversation(llm: LLM) -> None:
    for params, sentence in [
        ({"max_tokens": 2}, "sampling_params must be SamplingParams or a list of them, not dict"),
        ([{"max_tokens": 2}], r"sampling_params\[0\] must be SamplingParams, not dict"),
    ]:
        with pytest.raises(TypeError, match=sentence):
            run(llm, "a", params)
    for messages in ("hello", {"role": "user", "content": "hi"}, 5):
        with pytest.raises(TypeError, match="messages must be a conversation"):
            llm.chat(messages, GREEDY)


def test_a_list_of_parameters(llm: LLM) -> None:
    params = [SamplingParams(temperature=0, max_tokens=count) for count in (1, 3, 5)]
    outputs = run(llm, TEXTS[2:5], params)
    assert [len(output.outputs[0].token_ids) for output in outputs] == [1, 3, 5]
    with pytest.raises(ValueError, match="sampling_params must be one for all prompts, or 2"):
        run(llm, TEXTS[:2], params)


def test_more_parameters_than_are_kept(llm: LLM) -> None:
    params = [SamplingParams(temperature=0, max_tokens=1, min_p=i / 1000) for i in range(600)]
    outputs = run(llm, ["a"] * 600, params)
    assert len(outputs) == 600 and all(output.finished for output in outputs)


def test_seeds(llm: LLM) -> None:
    seeded = SamplingParams(seed=7, max_tokens=12, n=3)
    first, second = run(llm, TEXTS[:1] * 2, seeded)
    texts = [output.text for output in first.outputs]
    assert texts == [output.text for output in second.outputs] and len(set(texts)) > 1
    choices = over_http(llm, prompt=TEXTS[0], seed=7, n=3, temperature=1.0)["choices"]
    assert texts == [choice["text"] for choice in choices]
    free = run(llm, TEXTS[:1] * 4, SamplingParams(max_tokens=12))
    assert len({output.outputs[0].text for output in free}) > 1


def test_the_engine_has_a_seed(llm: LLM) -> None:
    """Calls that give no seed are repeated by an engine with the same one."""
    import random

    llm._seeds = random.Random(3)
    first = [o.outputs[0].text for o in run(llm, TEXTS, SamplingParams(max_tokens=8))]
    llm._seeds = random.Random(3)
    assert first == [o.outputs[0].text for o in run(llm, TEXTS, SamplingParams(max_tokens=8))]


def test_logprobs(llm: LLM) -> None:
    [output] = run(
        llm, TEXTS[0], SamplingParams(temperature=0, max_tokens=4, logprobs=3, ignore_eos=True)
    )
    one = output.outputs[0]
    answer = over_http(llm, prompt=TEXTS[0], max_tokens=4, logprobs=3, ignore_eos=True)
    expected = answer["choices"][0]["logprobs"]
    assert one.logprobs is not None and len(one.logprobs) == 4
    for token, place, value in zip(
        one.token_ids, one.logprobs, expected["token_logprobs"], strict=True
    ):
        assert place is not None and len(place) == 3
        assert place[token].rank == 1
        assert place[token].logprob == pytest.approx(value, rel=1e-6)
        assert [entry.rank for entry in place.values()] == [1, 2, 3]
        values = [entry.logprob for entry in place.values()]
        assert values == sorted(values, reverse=True)
    rows = zip(one.token_ids, one.logprobs, strict=True)
    assert "".join(place[token].decoded_token for token, place in rows) == one.text
    assert one.cumulative_logprob == pytest.approx(sum(expected["token_logprobs"]), rel=1e-5)
    [plain] = run(llm, TEXTS[0])
    assert plain.outputs[0].logprobs is None and plain.outputs[0].cumulative_logprob is None


def test_a_drawn_token_has_its_own_logprob(llm: LLM) -> None:
    [output] = run(llm, TEXTS[0], SamplingParams(logprobs=0, max_tokens=8, temperature=2.0, seed=1))
    one = output.outputs[0]
    assert [list(place) for place in one.logprobs] == [[token] for token in one.token_ids]
    rows = zip(one.token_ids, one.logprobs, strict=True)
    assert max(place[token].rank for token, place in rows) > 1


def test_logprobs_of_named_tokens(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=2, logprobs=1, logprob_token_ids=[7, 9])
    [output] = run(llm, TEXTS[0], params)
    for token, place in zip(output.outputs[0].token_ids, output.outputs[0].logprobs, strict=True):
        assert set(place) == {token, 7, 9}
        assert place[7].rank is None or token == 7


@pytest.mark.parametrize("count", [0, 2])
def test_prompt_logprobs(llm: LLM, count: int) -> None:
    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=count)
    [output] = run(llm, TEXTS[1], params)
    answer = over_http(llm, prompt=TEXTS[1], max_tokens=1, prompt_logprobs=count)
    expected = answer["choices"][0]["prompt_logprobs"]
    assert output.prompt_logprobs[0] is None is expected[0]
    assert len(output.prompt_logprobs) == len(output.prompt_token_ids) == len(expected)
    for place, other in zip(output.prompt_logprobs[1:], expected[1:], strict=True):
        shown = {
            str(token): {
                "logprob": pytest.approx(entry.logprob, rel=1e-6),
                "rank": entry.rank,
                "decoded_token": entry.decoded_token,
            }
            for token, entry in place.items()
        }
        assert shown == other


def test_flat_logprobs_are_the_same(llm: LLM) -> None:
    fields = {"temperature": 0, "max_tokens": 3, "logprobs": 2, "prompt_logprobs": 1}
    [plain] = run(llm, TEXTS[0], SamplingParams(**fields))
    [flat] = run(llm, TEXTS[0], SamplingParams(**fields, flat_logprobs=True))
    assert list(flat.outputs[0].logprobs) == plain.outputs[0].logprobs
    assert flat.outputs[0].logprobs[-1] == plain.outputs[0].logprobs[-1]
    assert flat.outputs[0].logprobs[1:] == plain.outputs[0].logprobs[1:]
    assert list(flat.prompt_logprobs) == plain.prompt_logprobs
    assert len(flat.outputs[0].logprobs.token_ids) == 6


def test_the_best_of_several(llm: LLM) -> None:
    fields = {"seed": 5, "max_tokens": 8, "temperature": 1.5}
    [all_of_them] = run(llm, TEXTS[4], SamplingParams(**fields, n=6, logprobs=0))
    ranked = sorted(all_of_them.outputs, key=lambda one: one.cumulative_logprob, reverse=True)
    [best] = run(llm, TEXTS[4], SamplingParams(**fields, n=2, best_of=6))
    assert [one.text for one in best.outputs] == [one.text for one in ranked[:2]]
    assert [one.index for one in best.outputs] == [0, 1]
    assert best.outputs[0].logprobs is None


def test_more_sequences_than_seats(llm: LLM) -> None:
    [output] = run(llm, TEXTS[0], SamplingParams(n=150, max_tokens=2))
    assert [one.index for one in output.outputs] == list(range(150))
    assert all(one.finished() for one in output.outputs)


def test_ends_of_texts(llm: LLM) -> None:
    [whole] = run(llm, TEXTS[1], SamplingParams(temperature=0, max_tokens=20))
    text, ids = whole.outputs[0].text, whole.outputs[0].token_ids
    word = text.split()[1]
    [stopped] = run(llm, TEXTS[1], SamplingParams(temperature=0, max_tokens=20, stop=[word]))
    one = stopped.outputs[0]
    assert (one.text, one.finish_reason, one.stop_reason) == (
        text[: text.index(word)],
        "stop",
        word,
    )
    [kept] = run(
        llm,
        TEXTS[1],
        SamplingParams(temperature=0, max_tokens=20, stop=word, include_stop_str_in_output=True),
    )
    assert kept.outputs[0].text == text[: text.index(word)] + word
    [by_id] = run(llm, TEXTS[1], SamplingParams(temperature=0, stop_token_ids=[ids[2]]))
    one = by_id.outputs[0]
    assert (one.token_ids, one.stop_reason, one.finish_reason) == (ids[:3], ids[2], "stop")
    [long] = run(llm, TEXTS[1], SamplingParams(temperature=0, max_tokens=40, ignore_eos=True))
    assert long.outputs[0].finish_reason == "length" and len(long.outputs[0].token_ids) == 40
    eos = llm.get_tokenizer().eos_token_id
    assert eos in long.outputs[0].token_ids
    [ended] = run(llm, TEXTS[1], SamplingParams(temperature=0, max_tokens=None))
    one = ended.outputs[0]
    assert (one.finish_reason, one.stop_reason, one.token_ids[-1]) == ("stop", None, eos)


def test_rules_about_tokens(llm: LLM) -> None:
    [plain] = run(llm, TEXTS[1])
    first = plain.outputs[0].token_ids[0]
    [biased] = run(llm, TEXTS[1], SamplingParams(temperature=0, logit_bias={first: -1000.0}))
    assert biased.outputs[0].token_ids[0] != first
    [allowed] = run(llm, TEXTS[1], SamplingParams(temperature=0, allowed_token_ids=[40, 41]))
    assert set(allowed.outputs[0].token_ids) <= {40, 41}
    word = plain.outputs[0].text.split()[0]
    [without] = run(llm, TEXTS[1], SamplingParams(temperature=0, bad_words=[word]))
    assert word not in without.outputs[0].text.split()
    [later] = run(llm, TEXTS[1], SamplingParams(temperature=0, min_tokens=16, max_tokens=16))
    assert len(later.outputs[0].token_ids) == 16


def test_texts_may_be_left_out(llm: LLM) -> None:
    [plain] = run(llm, TEXTS[1])
    [bare] = run(llm, TEXTS[1], SamplingParams(temperature=0, max_tokens=12, detokenize=False))
    assert (bare.outputs[0].text, bare.outputs[0].token_ids) == ("", plain.outputs[0].token_ids)
    eos = SamplingParams(temperature=0, max_tokens=30, skip_special_tokens=False, ignore_eos=True)
    assert "<|end|>" in run(llm, TEXTS[1], eos)[0].outputs[0].text


@pytest.mark.parametrize(
    ("wanted", "holds"),
    [
        (StructuredOutputsParams(choice=["yes", "no"]), lambda text: text in ("yes", "no")),
        (StructuredOutputsParams(regex=r"\d{3}-\d{2}"), lambda text: text[3] == "-"),
        (
            StructuredOutputsParams(
                json={
                    "type": "object",
                    "properties": {"a": {"type": "boolean"}},
                    "required": ["a"],
                },
                disable_additional_properties=True,
                disable_any_whitespace=True,
            ),
            lambda text: isinstance(json.loads(text)["a"], bool),
        ),
        (StructuredOutputsParams(grammar='root ::= "left" | "right"'), lambda t: t in "left right"),
    ],
)
def test_structured_outputs(llm: LLM, wanted: StructuredOutputsParams, holds: Any) -> None:
    params = SamplingParams(max_tokens=40, structured_outputs=wanted)
    for output in run(llm, TEXTS[:3], params):
        assert holds(output.outputs[0].text)


def test_a_pydantic_model_is_a_schema(llm: LLM) -> None:
    from pydantic import BaseModel

    class Point(BaseModel):
        x: bool
        y: bool

    params = SamplingParams(
        max_tokens=60,
        structured_outputs=StructuredOutputsParams(json=Point, disable_any_whitespace=True),
    )
    Point.model_validate_json(run(llm, TEXTS[0], params)[0].outputs[0].text)


def test_one_structure_at_a_time() -> None:
    with pytest.raises(ValueError, match="exactly one of"):
        StructuredOutputsParams(regex="a", choice=["b"])
    with pytest.raises(ValueError, match="exactly one of"):
        StructuredOutputsParams()


def test_what_older_programs_for_vllm_write(llm: LLM) -> None:
    wanted = GuidedDecodingParams(choice=["yes", "no"], backend="outlines", disable_fallback=True)
    params = SamplingParams(max_tokens=9, guided_decoding=wanted)
    assert params.clone() == params
    assert run(llm, TEXTS[0], params)[0].outputs[0].text in ("yes", "no")
    assert GuidedDecodingParams.from_optional(json=None, backend=None) is None
    with pytest.raises(ValueError, match="guided_decoding and structured_outputs are the same"):
        SamplingParams(guided_decoding=wanted, structured_outputs=wanted)
    ids = llm.get_tokenizer().encode(TEXTS[0])
    (output,) = llm.generate(prompt_token_ids=[ids], sampling_params=GREEDY, use_tqdm=False)
    assert output.outputs[0].text == run(llm, TEXTS[0])[0].outputs[0].text
    for both in ({}, {"prompts": TEXTS[0], "prompt_token_ids": ids}):
        with pytest.raises(ValueError, match="one of prompts and prompt_token_ids"):
            llm.generate(**both)  # type: ignore[arg-type]


def test_a_batch_is_larger_than_any_limit(llm: LLM) -> None:
    """Of the server's seats, its permits, and the window of the client."""
    count = 2500
    outputs = run(llm, [[1, 40 + i % 100] for i in range(count)], SamplingParams(max_tokens=1))
    assert len(outputs) == count
    assert [output.prompt_token_ids[1] for output in outputs] == [
        40 + i % 100 for i in range(count)
    ]


def test_what_the_cache_had(llm: LLM) -> None:
    text = "A long prompt that two requests have in common, and more words of it. " * 4
    run(llm, text)
    [again] = run(llm, text)
    assert again.num_cached_tokens > 16
    [fresh] = run(llm, text, SamplingParams(temperature=0, skip_reading_prefix_cache=True))
    assert fresh.num_cached_tokens == 0
    assert llm.reset_prefix_cache()
    [forgotten] = run(llm, text)
    assert forgotten.num_cached_tokens == 0
    assert 0 < forgotten.metrics.first_token <= forgotten.metrics.total


def test_conversations(llm: LLM) -> None:
    talks = [
        [{"role": "user", "content": text}] for text in ("Hello", "What is the capital of Spain?")
    ]
    outputs = llm.chat(talks, GREEDY, use_tqdm=False)
    for talk, output in zip(talks, outputs, strict=True):
        body = {"messages": talk, "temperature": 0, "max_tokens": 12}
        answer = llm.call("/v1/chat/completions", body)
        assert output.outputs[0].text == answer["choices"][0]["message"]["content"]
        assert talk[0]["content"] in output.prompt and output.prompt_token_ids
    [one] = llm.chat(talks[0], GREEDY, use_tqdm=False)
    assert one.outputs[0].text == outputs[0].outputs[0].text
    begun = [*talks[0], {"role": "assistant", "content": "Hello! How"}]
    [goes_on] = llm.chat(
        begun, GREEDY, use_tqdm=False, add_generation_prompt=False, continue_final_message=True
    )
    assert goes_on.prompt.endswith("Hello! How")
    with pytest.raises(ValueError, match="must not both be true"):
        llm.chat(begun, GREEDY, continue_final_message=True)
    with pytest.raises(ValueError, match="chat_template must be given to LLM"):
        llm.chat(begun, GREEDY, chat_template="{{ messages }}")
    with pytest.raises(ValueError, match="role"):
        llm.chat([{"role": "a b", "content": "x"}], GREEDY, use_tqdm=False)


def test_the_models_defaults(llm: LLM) -> None:
    params = llm.get_default_sampling_params()
    assert isinstance(params, SamplingParams) and params.max_tokens == 16
    [output] = llm.generate("The sky", use_tqdm=False)
    assert len(output.outputs[0].token_ids) <= 16


def test_the_tokenizer(llm: LLM) -> None:
    tokenizer = llm.get_tokenizer()
    ids = tokenizer.encode("The sky is blue")
    assert tokenizer.decode(ids).endswith("The sky is blue")
    assert tokenizer("The sky is blue")["input_ids"] == ids
    both = tokenizer(["The sky is blue", "a"])["input_ids"]
    assert both == [ids, tokenizer.encode("a")]
    texts = tokenizer.batch_decode(both, skip_special_tokens=True)
    assert texts == ["The sky is blue", "a"]
    assert len(tokenizer.tokenize("The sky")) == len(tokenizer.encode("The sky", False))
    talk = [{"role": "user", "content": "Hello"}]
    text = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    [output] = llm.chat(talk, GREEDY, use_tqdm=False)
    assert text == output.prompt
    assert (
        tokenizer.apply_chat_template(talk, add_generation_prompt=True) == output.prompt_token_ids
    )


def test_what_only_other_models_do(llm: LLM) -> None:
    for name in ("score", "embed", "classify", "encode"):
        with pytest.raises(NotImplementedError, match=f"{name} is not supported"):
            getattr(llm, name)("a", "b")
    for name in ("lora_request", "mm_processor_kwargs"):
        with pytest.raises(ValueError, match=f"{name} is not supported"):
            run(llm, "a", **{name: object()})
    with pytest.raises(ValueError, match="tokenization_kwargs may hold"):
        run(llm, "a", tokenization_kwargs={"padding": True})
    [output] = run(llm, "a b", tokenization_kwargs={"add_special_tokens": False})
    assert output.prompt_token_ids == llm.get_tokenizer().encode("a b", False)


def test_priorities(llm: LLM) -> None:
    outputs = run(llm, TEXTS, priority=[3, -2, 0, 1, 100])
    assert [output.prompt for output in outputs] == TEXTS
    with pytest.raises(ValueError, match="priority must have 5 entries"):
        run(llm, TEXTS, priority=[1])
    for wrong in (101, -101, 10**30):
        with pytest.raises(ValueError, match=f"`priority` must be >= -100 .* Given: {wrong}$"):
            run(llm, TEXTS[:1], priority=[wrong])


def test_progress_may_be_somebody_elses(llm: LLM) -> None:
    made: list[dict[str, Any]] = []

    def bar(**arguments: Any) -> Any:
        from tqdm import tqdm

        made.append(arguments)
        return tqdm(**{**arguments, "disable": True})

    llm.generate(TEXTS, GREEDY, use_tqdm=bar)
    assert made[0]["total"] == len(TEXTS)


def test_calls_of_several_threads(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Together they want more places than the router has."""
    places = threading.Semaphore(40)
    monkeypatch.setattr(llm.connection, "_places", places)
    texts: dict[int, list[str]] = {}

    def call(number: int) -> None:
        outputs = run(llm, [f"{number} plus {i} is" for i in range(60)], GREEDY)
        texts[number] = [output.prompt for output in outputs]

    threads = [threading.Thread(target=call, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(3):
        assert texts[number] == [f"{number} plus {i} is" for i in range(60)]
    assert places._value == 40


def test_a_chat_template_of_ones_own(tmp_path: Path) -> None:
    template = "{% for message in messages %}[{{ message.content }}]{% endfor %}"
    options = {"shard_uds_path": tmp_path / "run", "device": "cpu"}
    with LLM(DEMO, chat_template=template, quiet=True, launcher_options=options) as own:
        [output] = own.chat([{"role": "user", "content": "Hello"}], GREEDY, use_tqdm=False)
        assert output.prompt == "[Hello]"


def test_what_vllm_has_and_this_has_not(llm: LLM) -> None:
    with pytest.raises(AttributeError, match="LLM has no sleep: the weights stay"):
        llm.sleep(1)
    assert not hasattr(llm, "nonsense")
