"""Programs that SGLang's users write and by which it tests its frontend, on the demo model."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel
from tests.clients.programs import lang_programs

import penstock.lang as sgl

RIGHT = {
    "few_shot_qa": lambda found: found == (" Paris", [" Paris", " Tokyo", " Rome", " Madrid"]),
    "hellaswag_select": lambda found: (
        found == [f" It is {city}." for city in lang_programs.COUNTRIES.values()] * 4
    ),
    "parallel_encoding": lambda found: "Tokyo" in found[0],
    "stream": lambda found: "Paris" in found[0] and found[1].endswith(found[0]),
    "stream_logprobs": lambda found: "Tokyo" in found[0],
    "simple_gen": lambda found: found == " Paris",
    "every_choices_method": lambda found: [city for city, _ in found] == ["Paris"] * 3,
}


@pytest.mark.parametrize("name", lang_programs.PROGRAMS)
def test_a_program(endpoint: sgl.RuntimeEndpoint, name: str) -> None:
    found = lang_programs.PROGRAMS[name](sgl)
    assert RIGHT.get(name, bool)(found), found


OF_USERS = (
    "simple_gen", "extract_person", "structured_extraction", "extract_email", "multi_turn_chat",
    "suffixes", "extract_entity", "best_of_n", "generate_json_record", "classify_sentiment",
)  # fmt: skip


@pytest.mark.parametrize("name", OF_USERS)
def test_embedded(runtime: sgl.Runtime, name: str) -> None:
    sgl.set_default_backend(runtime)
    assert RIGHT.get(name, bool)(lang_programs.PROGRAMS[name](sgl))


def test_log_probabilities_of_suffixes(either: sgl.RuntimeEndpoint) -> None:
    """The sum over a choice's tokens, as its users ask for it."""

    @sgl.function
    def tool_use(s: Any, question: str) -> None:
        s += "To answer this question: " + question + ", "
        s += "I need to use a " + sgl.gen("tool", choices=["calculator", "search engine"])

    for state in tool_use.run_batch([{"question": "What is 5 + 6?"}, {"question": "Who is Ada?"}]):
        meta = state.get_meta_info("tool")
        for index, entries in enumerate(meta["input_token_logprobs"]):
            assert isinstance(meta["prompt_logprob"][index], float)
            assert meta["prompt_logprob"][index] == pytest.approx(sum(e[0] for e in entries))


def test_a_batch_of_bound_programs(either: sgl.RuntimeEndpoint) -> None:
    @sgl.function
    def simple_gen(s: Any, question: str) -> None:
        s += "Q: " + question + "\n"
        s += "A:" + sgl.gen("answer", max_tokens=20, stop="\n")

    states = sgl.run_batch(
        [
            simple_gen.bind(question="What is the capital of Japan?"),
            simple_gen.bind(question="What is the capital of Italy?"),
        ],
        temperature=0,
    )
    assert ["Tokyo" in states[0]["answer"], "Rome" in states[1]["answer"]] == [True, True]


class Article(BaseModel):
    title: str
    sentiment: bool


SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 12},
        "sentiment": {"enum": ["positive", "negative"]},
    },
    "required": ["title", "sentiment"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("schema", [SCHEMA, json.dumps(SCHEMA), Article])
def test_schemas_in_three_forms(endpoint: sgl.RuntimeEndpoint, schema: Any) -> None:
    @sgl.function
    def extract(s: Any, article: str) -> None:
        s += f"Article: {article}\n\nAs JSON:\n" + sgl.gen(
            "info", max_tokens=150, json_schema=schema
        )

    found = json.loads(extract.run(article="A chair.", temperature=0.7, seed=1)["info"])
    assert set(found) == {"title", "sentiment"}


LISTS = """
    ?start: "[" [NUMBER ("," NUMBER)~0..2] "]"
"""
PYTHON = """
    ?start: function_def
    function_def: "def" NAME "(" [parameters] "):" suite
    parameters: parameter ("," parameter)*
    parameter: NAME
    suite: simple_stmt | NEWLINE INDENT stmt+ DEDENT
"""


def test_a_grammar(either: sgl.RuntimeEndpoint) -> None:
    @sgl.function
    def numbers(s: Any, grammar: str) -> None:
        s += "Numbers: " + sgl.gen("list", max_tokens=40, grammar=grammar, seed=2)

    assert isinstance(json.loads(numbers.run(grammar=LISTS, max_new_tokens=60)["list"]), list)
    with pytest.raises(sgl.BackendError, match="INDENT"):  # as no grammar counts indentation
        numbers.run(grammar=PYTHON)


def test_n_samples_are_a_list(endpoint: sgl.RuntimeEndpoint) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "What is the capital of France?" + sgl.gen("answer", n=3, max_tokens=12, seed=5)
        s += "\nThanks."

    state = program.run()
    assert len(state["answer"]) == len(state.get_meta_info("answer")) == 3
    assert state.text() == "What is the capital of France?" + state["answer"][0] + "\nThanks."


def test_log_probabilities_of_a_text(endpoint: sgl.RuntimeEndpoint) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "What is the capital of France?"
        s += sgl.gen(
            "answer",
            max_tokens=12,
            return_logprob=True,
            logprob_start_len=0,
            top_logprobs_num=2,
            return_text_in_logprobs=True,
        )

    meta = program.run(temperature=0).get_meta_info("answer")
    assert len(meta["input_token_logprobs"]) == meta["prompt_tokens"]
    assert all(len(top) == 2 for top in meta["output_top_logprobs"])


def test_images_are_refused(either: sgl.RuntimeEndpoint) -> None:
    @sgl.function
    def describe_image(s: Any, image_path: str) -> None:
        s += sgl.image(image_path)
        s += "Describe this image in detail: " + sgl.gen("description", max_tokens=20)

    with pytest.raises(sgl.Unsupported, match="sends text only"):
        describe_image.run(image_path="photo.jpg")


def test_the_caches_of_a_server(endpoint: sgl.RuntimeEndpoint) -> None:
    @sgl.function
    def program(s: Any, name: str) -> None:
        s += sgl.system("You know all capitals of the world, and you answer in one short sentence.")
        s += sgl.user(f"What is the capital of {name}?")
        s += sgl.assistant(sgl.gen("answer", max_tokens=8))

    sgl.flush_cache()
    assert program.run(name="Spain").get_meta_info("answer")["cached_tokens"] == 0
    sgl.flush_cache()
    trace = program.cache()
    assert [message.role for message in trace.prefix.messages] == ["system"]
    assert program.run(name="Spain").get_meta_info("answer")["cached_tokens"] > 0
    assert sgl.get_server_info()["context_length"] > 0
