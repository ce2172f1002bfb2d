"""SGLang's frontend on SGLang's protocol."""

from __future__ import annotations

import json
import math
import re
import urllib.request
from typing import Any

from sglang_frontend import METHODS, sgl
from verdict import MESSAGES, QUESTION, URL, raised, says, verdict

CITIES = ["Berlin", "Paris", "London, the city"]
COUNTRIES = {"France": "Paris", "Japan": "Tokyo", "Italy": "Rome", "Spain": "Madrid"}


def connects() -> None:
    """First of all: the backend of everything below."""
    sgl.set_default_backend(sgl.RuntimeEndpoint(URL))
    assert sgl.get_server_info()["context_length"] > 0
    assert sgl.flush_cache() is None


@sgl.function
def answered(s: Any, question: str, **how: Any) -> None:
    s += question
    s += sgl.gen("answer", **how)


def generates() -> None:
    state = answered.run(question=QUESTION, temperature=0, max_tokens=20)
    assert "Paris" in state["answer"] and state.text() == QUESTION + state["answer"], state.text()
    meta = state.get_meta_info("answer")
    assert meta["finish_reason"] == {"type": "stop", "matched": 2}, meta
    assert meta["completion_tokens"] > 0 and meta["prompt_tokens"] > 0


def generates_with_every_parameter() -> None:
    state = answered.run(
        question=QUESTION,
        max_tokens=12,
        min_tokens=3,
        stop=["\n\n"],
        stop_token_ids=[5],
        temperature=0.8,
        top_p=0.9,
        top_k=20,
        min_p=0.01,
        frequency_penalty=0.1,
        presence_penalty=0.1,
        ignore_eos=True,
        return_logprob=True,
        logprob_start_len=0,
        top_logprobs_num=2,
        return_text_in_logprobs=True,
    )
    meta = state.get_meta_info("answer")
    assert meta["completion_tokens"] == meta["output_token_logprobs_length"] == 12, meta
    assert len(meta["input_token_logprobs"]) == meta["prompt_tokens"]
    assert meta["input_token_logprobs"][0][0] is None
    assert all(len(top) == 2 for top in meta["output_top_logprobs"])
    texts = [entry[2] for entry in meta["output_token_logprobs"]]
    text = "".join(text for text in texts if not text.startswith("<|"))
    assert text.strip() == state["answer"].strip(), (text, state["answer"])


def generates_several() -> None:
    state = answered.run(question=QUESTION, n=3, temperature=0, max_tokens=20)
    assert len(state["answer"]) == 3 and all("Paris" in text for text in state["answer"])
    assert len(state.get_meta_info("answer")) == 3


def stops() -> None:
    state = answered.run(question=QUESTION, temperature=0, max_tokens=20, stop="Paris")
    assert state["answer"].strip() == "The capital of France is", state["answer"]
    assert state.get_meta_info("answer")["finish_reason"]["matched"] == "Paris"


@sgl.function
def chosen(s: Any, country: str, choices: list[str], method: Any) -> None:
    s += f"The capital of {country} is "
    s += sgl.select("city", choices=choices, choices_method=method)


def selects(method: Any) -> None:
    """Each choice is scored by its own tokens, whose sum is that of a plain request."""
    state = chosen.run(country="France", choices=CITIES, method=method)
    assert state["city"] == "Paris", state.get_meta_info("city")
    meta = state.get_meta_info("city")
    for choice, entries in zip(CITIES, meta["input_token_logprobs"], strict=True):
        assert "".join(entry[2] for entry in entries).strip() == choice, entries
        assert all(value < 0 for value, _, _ in entries)
    means = [math.fsum(e[0] for e in row) / len(row) for row in meta["input_token_logprobs"]]
    for mean, own in zip(means, meta["normalized_prompt_logprobs"], strict=True):
        assert abs(mean - own) < 1e-3, (means, meta["normalized_prompt_logprobs"])


def selects_by_token_length() -> None:
    selects(METHODS[0])


def selects_greedily() -> None:
    selects(METHODS[1])


def selects_by_unconditional_likelihood() -> None:
    selects(METHODS[2])


def selects_behind_one_token() -> None:
    @sgl.function
    def program(s: Any, method: Any) -> None:
        s += sgl.select("word", choices=["The", "Zebra"], choices_method=method)

    for method in METHODS:
        state = program.run(method=method)
        meta = state.get_meta_info("word")
        assert state["word"] in ("The", "Zebra"), state.error()
        assert all(entry[0] < 0 for row in meta["input_token_logprobs"] for entry in row), meta


def chooses_in_gen() -> None:
    @sgl.function
    def program(s: Any, question: str) -> None:
        s += "To answer this question: " + question + ", "
        s += "I need to use a " + sgl.gen("tool", choices=["calculator", "search engine"])

    questions = [{"question": "What is 5 + 6?"}, {"question": "Who is Michael Jordan?"}]
    for state in program.run_batch(questions):
        assert state["tool"] in ("calculator", "search engine")
        assert len(state.get_meta_info("tool")["normalized_prompt_logprobs"]) == 2


def forks_and_joins() -> None:
    @sgl.function
    def program(s: Any, countries: list[str]) -> None:
        s += "Capitals.\n"
        forks = s.fork(len(countries))
        for fork, country in zip(forks, countries, strict=True):
            fork += f"What is the capital of {country}?" + sgl.gen("answer", max_tokens=20)
        forks.join()
        s += "Done: " + "; ".join(s["answer"])

    state = program.run(countries=list(COUNTRIES), temperature=0)
    for city, answer in zip(COUNTRIES.values(), state["answer"], strict=True):
        assert city in answer, state["answer"]
    assert state.text().startswith("Capitals.\nDone: ")


def appends_forks() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "One. "
        forks = s.fork(2)
        forks += lambda i: f"Part {i}. "
        forks.join(mode="concate_and_append")
        s += QUESTION + sgl.gen("answer", max_tokens=20)

    state = program.run(temperature=0)
    assert state.text().startswith("One. Part 0. Part 1. "), state.text()
    assert state["answer"]


def runs_batches() -> None:
    """More at once than there are permits, each with a shared beginning that is sent ahead."""

    @sgl.function
    def program(s: Any, country: str) -> None:
        s += "You are an assistant who knows the capitals of all countries of the world. "
        s += "Be brief.\n"
        s += f"What is the capital of {country}?" + sgl.gen("answer", max_tokens=20)
        s += "\n" + sgl.select("kind", choices=["a city", "a town", "a river"])

    rows = [{"country": country} for country in COUNTRIES] * 25
    states = program.run_batch(rows, temperature=0, progress_bar=False)
    right = sum(
        COUNTRIES[row["country"]] in state["answer"]
        for row, state in zip(rows, states, strict=True)
    )
    assert right >= 90, [state["answer"] for state in states[:4]]
    assert all(state["kind"] in ("a city", "a town", "a river") for state in states)
    assert states[-1].get_meta_info("answer")["cached_tokens"] > 0


def chats_with_roles() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.system("Be brief.")
        s += sgl.user(QUESTION)
        s += sgl.assistant(sgl.gen("first", max_tokens=20))
        with s.user():
            s += "And of Japan?"
        with s.assistant():
            s += sgl.gen("second", max_tokens=20)

    state = program.run(temperature=0)
    assert [m["role"] for m in state.messages()] == [
        "system", "user", "assistant", "user", "assistant",
    ]  # fmt: skip
    assert state.messages()[1]["content"] == MESSAGES[0]["content"]


def streams() -> None:
    state = answered.run(question=QUESTION, temperature=0, max_tokens=20, stream=True)
    pieces = list(state.text_iter("answer"))
    assert len(pieces) > 1 and "Paris" in "".join(pieces), pieces


async def streams_with_logprobs() -> None:
    state = answered.run(
        question=QUESTION, temperature=0, max_tokens=20, stream=True, return_logprob=True
    )
    pieces = []
    async for text, meta in state.text_async_iter("answer", return_meta_data=True):
        pieces.append(text)
        assert meta["output_token_logprobs_length"] == len(meta["output_token_logprobs"])
    assert "Paris" in "".join(pieces)
    assert state.get_meta_info("answer")["finish_reason"]["type"] == "stop"


def shows_a_refusal() -> None:
    long = {"question": "word " * 5000, "max_tokens": 5, "use_thread": False}
    says(raised(lambda: answered.run(**long)), "`text` must have less than")
    says(raised(lambda: sgl.RuntimeEndpoint(URL + "/nowhere")), "no such path")


def is_held_to_a_regex() -> None:
    address = r"((25[0-5]|2[0-4]\d|[01]?\d\d?)\.){3}(25[0-5]|2[0-4]\d|[01]?\d\d?)"
    state = answered.run(question="An address: ", regex=address, max_tokens=60, temperature=0.8)
    assert re.fullmatch(address, state["answer"]), state["answer"]


def is_held_to_a_schema() -> None:
    fields = {"city": {"enum": ["Paris", "Rome"]}, "old": {"type": "boolean"}}
    schema = {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }
    state = answered.run(question=QUESTION, json_schema=json.dumps(schema), max_tokens=80)
    answer = json.loads(state["answer"])
    assert answer["city"] in ("Paris", "Rome") and type(answer["old"]) is bool, answer


def is_held_to_types() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "The number of hours in a day is " + sgl.gen_int("hours", max_tokens=4) + ".\n"
        s += "Its name is " + sgl.gen_string("name", max_tokens=30) + ".\n"
        s += "It is " + sgl.gen("old", dtype=bool, max_tokens=8)

    state = program.run(temperature=0)
    assert int(state["hours"]) is not None and state["old"] in ("True", "False"), state.text()
    assert state["name"].startswith('"'), state["name"]


def asks_for_a_token_to_see_health() -> None:
    with urllib.request.urlopen(f"{URL}/health_generate") as answer:
        assert answer.status == 200


verdict(
    "sglang",
    connects,
    generates,
    generates_with_every_parameter,
    generates_several,
    stops,
    selects_by_token_length,
    selects_greedily,
    selects_by_unconditional_likelihood,
    selects_behind_one_token,
    chooses_in_gen,
    forks_and_joins,
    appends_forks,
    runs_batches,
    chats_with_roles,
    streams,
    streams_with_logprobs,
    is_held_to_a_regex,
    is_held_to_a_schema,
    is_held_to_types,
    shows_a_refusal,
    asks_for_a_token_to_see_health,
)
