"""Programs in SGLang's language, each a function of the module that has its words.

They run on the demo model with `penstock.lang`, and with SGLang's own frontend where that has the
words for them; each returns what both must agree on. Kinds of programs are those by which SGLang
tests its frontend, and those that its users show.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

COUNTRIES = {"France": "Paris", "Japan": "Tokyo", "Italy": "Rome", "Spain": "Madrid"}
REVIEWS = ["It was a joy from the first day.", "Broken when it came.", "It is a chair."]


def few_shot_qa(sgl: Any) -> Any:
    @sgl.function
    def program(s: Any, question: str) -> None:
        s += "Questions about capitals, each with its answer.\n\n"
        s += "Q: What is the capital of Norway?\nA: Oslo\n"
        s += "Q: What is the capital of Greece?\nA: Athens\n"
        s += "Q: " + question + "\n"
        s += "A:" + sgl.gen("answer", stop="\n", temperature=0, max_tokens=16)

    one = program.run(question="What is the capital of France?")
    rows = [{"question": f"What is the capital of {country}?"} for country in COUNTRIES]
    many = program.run_batch(rows, temperature=0.0)
    return one["answer"], [state["answer"] for state in many]


def mt_bench(sgl: Any) -> Any:
    @sgl.function
    def program(s: Any, first: str, second: str) -> None:
        s += sgl.system("You are a helpful assistant.")
        s += sgl.user(first)
        s += sgl.assistant(sgl.gen("answer_1"))
        with s.user():
            s += second
        with s.assistant():
            s += sgl.gen("answer_2")

    state = program.run(
        first="What is the capital of France?",
        second="And of Japan?",
        temperature=0,
        max_new_tokens=24,
    )
    assert isinstance(state["answer_1"], str) and isinstance(state["answer_2"], str)
    messages = state.messages()
    assert messages[2]["content"].strip() == state["answer_1"].strip()
    # What is said hangs on the template, which SGLang's frontend guesses.
    return [message["role"] for message in messages], messages[1]["content"]


def select(sgl: Any) -> Any:
    @sgl.function
    def program(s: Any, statement: str) -> None:
        s += "Say whether a statement is True, False, or Unknown.\n"
        s += "Statement: The capital of France is Paris.\nAnswer: True\n"
        s += "Statement: " + statement + "\n"
        s += "Answer:" + sgl.select("answer", [" True", " False", " Unknown"])

    statements = [f"The capital of {country} is Oslo." for country in COUNTRIES]
    states = program.run_batch([{"statement": statement} for statement in statements])
    assert all(state.text().endswith(state["answer"]) for state in states)
    return [state["answer"] for state in states]


def decode_int(sgl: Any) -> Any:
    @sgl.function
    def program(s: Any) -> None:
        s += "The number of hours in a day is " + sgl.gen_int("hours", max_tokens=6) + "\n"
        s += "The number of days in a year is " + sgl.gen_int("days", max_tokens=6) + "\n"

    state = program.run(temperature=0)
    return int(state["hours"]), int(state["days"])


def decode_json(sgl: Any) -> Any:
    @sgl.function
    def program(s: Any) -> None:
        s += "A JSON object that describes Paris.\n"
        with s.var_scope("json_output"):
            s += '{\n  "name": ' + sgl.gen_string(max_tokens=24) + ",\n"
            s += '  "population": ' + sgl.gen_int(max_tokens=8) + ",\n"
            s += '  "area": ' + sgl.gen(dtype=int, max_tokens=8) + ",\n"
            s += '  "country": ' + sgl.gen_string(max_tokens=24) + "\n}"

    return program.run(temperature=0)["json_output"]


def decode_json_regex(sgl: Any) -> Any:
    @sgl.function
    def program(s: Any) -> None:
        s += "A JSON object that describes Paris.\n"
        with s.var_scope("json_output"):
            s += '{\n  "name": ' + sgl.gen(regex=r'"[\w ]{1,16}"', max_tokens=24) + ",\n"
            s += '  "population": ' + sgl.gen(regex="[1-9][0-9]{1,6}", max_tokens=8) + ",\n"
            s += '  "latitude": ' + sgl.gen(regex=r"[0-9]{1,2}\.[0-9]{1,3}", max_tokens=8) + "\n}"

    found = json.loads(program.run(temperature=0)["json_output"])
    assert isinstance(found["population"], int) and isinstance(found["latitude"], float)
    return found


def expert_answer(sgl: Any) -> Any:
    @sgl.function
    def program(s: Any, question: str) -> None:
        s += "User: " + question + "\n"
        s += "Assistant: A good person to ask is "
        s += sgl.gen("expert", stop=[".", "\n"], max_tokens=12) + ".\n"
        s += "The name of this expert is " + sgl.gen("name", stop=[".", "\n"], max_tokens=12)
        s += ". The answer of this expert is: " + sgl.gen("answer", max_tokens=16)

    state = program.run(question="What is the capital of Spain?", temperature=0)
    return state["expert"], state["name"], state["answer"]


def tool_use(sgl: Any) -> Any:
    @sgl.function
    def program(s: Any, lhs: str, rhs: str) -> None:
        s += "Take the tools that you need.\nThe tools are:\n"
        s += "Calculator: gives the results of expressions.\n"
        s += "The task: what is " + lhs + " + " + rhs + "?\n"
        s += "The tool: " + sgl.gen("tool", choices=["Calculator", "Browser", "Nothing"]) + "\n"
        s += "The expression: " + sgl.gen("expression", stop="\n", max_tokens=12) + "\n"
        s += "The answer: " + sgl.gen("answer", stop="\n", max_tokens=12)

    state = program.run(lhs="5", rhs="6", temperature=0)
    return state["tool"], state["expression"], state["answer"]


def react(sgl: Any) -> Any:
    @sgl.function
    def program(s: Any, question: str) -> None:
        s += "Question: " + question + "\n"
        for step in range(1, 4):
            s += f"Thought {step}:" + sgl.gen(f"thought_{step}", stop="\n", max_tokens=12) + "\n"
            s += f"Action {step}: "
            s += sgl.select(f"action_{step}", ["Search", "Lookup", "Finish"])
            if s[f"action_{step}"] == "Finish":
                break
            s += f"\nObservation {step}: nothing was found.\n"
        s += "\nThe answer is" + sgl.gen("answer", stop="\n", max_tokens=12)

    state = program.run(question="What is the capital of Italy?", temperature=0)
    steps = [state[f"action_{step}"] for step in range(1, 4) if f"action_{step}" in state]
    return steps, state["answer"]


def parallel_decoding(sgl: Any) -> Any:
    @sgl.function
    def program(s: Any, countries: list[str]) -> None:
        s += "Short facts about capitals.\n"
        forks = s.fork(len(countries))
        forks += lambda i: f"What is the capital of {countries[i]}?"
        forks += sgl.gen("fact", max_tokens=20, stop="\n")
        forks.join()
        for country, fact in zip(countries, s["fact"], strict=True):
            s += f"{country}: {fact.strip()}\n"
        s += "In short:" + sgl.gen("summary", max_tokens=16)

    state = program.run(countries=list(COUNTRIES), temperature=0)
    for city, fact in zip(COUNTRIES.values(), state["fact"], strict=True):
        assert city in fact, state["fact"]
    return state["fact"], state["summary"], state.text()


def parallel_encoding(sgl: Any) -> Any:
    @sgl.function
    def program(s: Any, question: str, contexts: list[str]) -> None:
        s += "Some statements.\n"
        forks = s.fork(len(contexts))
        forks += lambda i: f"Statement {i}: " + contexts[i] + "\n"
        forks.join(mode="concate_and_append")
        s += question + sgl.gen("answer", max_tokens=16)

    contexts = [f"The capital of {country} is {city}." for country, city in COUNTRIES.items()]
    state = program.run(question="What is the capital of Japan?", contexts=contexts, temperature=0)
    return state["answer"], state.text()


def stream(sgl: Any) -> Any:
    @sgl.function
    def program(s: Any, question: str) -> None:
        s += question + sgl.gen("answer", max_tokens=20, stop="\n")

    state = program.run(question="What is the capital of France?", temperature=0, stream=True)
    pieces = list(state.text_iter("answer"))
    assert "".join(pieces) == state["answer"]
    state = program.run(question="What is the capital of France?", temperature=0, stream=True)
    return state["answer"], "".join(state.text_iter())


def stream_logprobs(sgl: Any) -> Any:
    @sgl.function
    def program(s: Any, question: str) -> None:
        s += question + sgl.gen("answer", max_tokens=20, return_logprob=True)

    async def read() -> Any:
        state = program.run(question="What is the capital of Japan?", temperature=0, stream=True)
        text, last = "", {}
        async for piece, meta in state.text_async_iter("answer", return_meta_data=True):
            text, last = text + piece, meta
            assert meta["output_token_logprobs_length"] == len(meta["output_token_logprobs"])
        # The event with the end of the text may come with the one before it, or alone.
        return text, [entry[1] for entry in last["output_token_logprobs"]][:5]

    return asyncio.run(read())


def regex(sgl: Any) -> Any:
    number = r"((25[0-5]|2[0-4]\d|[01]?\d?\d)\.){3}(25[0-5]|2[0-4]\d|[01]?\d?\d)"

    @sgl.function
    def program(s: Any) -> None:
        s += "The address of the server is " + sgl.gen("address", regex=number, max_tokens=40)

    address = program.run(temperature=0)["address"]
    assert re.fullmatch(number, address), address
    return address


def dtype_gen(sgl: Any) -> Any:
    @sgl.function
    def program(s: Any) -> None:
        s += "How many months has a year? " + sgl.gen("int_res", dtype=int, max_tokens=8) + "\n"
        s += "A word: " + sgl.gen("str_res", dtype=str, max_tokens=16) + "\n"
        s += "Pi is " + sgl.gen("float_res", dtype=float, max_tokens=8) + "\n"
        s += "Is the sky blue? " + sgl.gen("bool_res", dtype=bool, max_tokens=8) + "\n"

    state = program.run(temperature=0)
    assert state["bool_res"] in ("True", "False") and float(state["float_res"]) is not None
    return [state[name] for name in ("int_res", "str_res", "float_res", "bool_res")]


def hellaswag_select(sgl: Any) -> Any:
    shots = "".join(f"The capital of {c}: It is {city}.\n\n" for c, city in COUNTRIES.items())

    @sgl.function
    def program(s: Any, question: str, choices: list[str]) -> None:
        s += shots + question
        s += sgl.select("answer", choices=choices)

    rows = [
        {"question": f"The capital of {country}:", "choices": [" It is Oslo.", " It is a fish.",
                                                              f" It is {city}."]}
        for country, city in COUNTRIES.items()
    ] * 4  # fmt: skip
    listed = [s["answer"] for s in program.run_batch(rows, temperature=0, num_threads=8)]
    lazily = program.run_batch(rows, temperature=0, num_threads=8, generator_style=True)
    assert listed == [state["answer"] for state in lazily]
    return listed


def min_tokens(sgl: Any) -> Any:
    @sgl.function
    def program(s: Any) -> None:
        s += "What is the capital of France?"
        s += sgl.gen("answer", min_tokens=24, max_tokens=32)

    state = program.run(temperature=0)
    count = state.get_meta_info("answer")["completion_tokens"]
    assert count >= 24, count
    return count, state["answer"]


def every_choices_method(sgl: Any) -> Any:
    names = (
        "token_length_normalized",
        "greedy_token_selection",
        "unconditional_likelihood_normalized",
    )

    @sgl.function
    def program(s: Any, country: str, method: Any) -> None:
        s += f"The capital of {country} is "
        s += sgl.select("city", choices=["Berlin", "Paris", "London town"], choices_method=method)

    found = []
    for name in names:
        state = program.run(country="France", method=getattr(sgl, name))
        meta = state.get_meta_info("city")
        means = [round(mean, 2) for mean in meta["normalized_prompt_logprobs"]]
        found.append((state["city"], means))
    return found


# What users of SGLang show.


def extract_person(sgl: Any) -> Any:
    pattern = r'\{"name": "[^"]{1,20}", "age": \d{1,3}, "occupation": "[^"]{1,20}"\}'

    @sgl.function
    def program(s: Any, text: str) -> None:
        s += f"The person in this text: {text}\n"
        s += "As JSON:\n"
        s += sgl.gen("json_output", max_tokens=100, regex=pattern)

    text = "Ada is a 36-year-old mathematician."
    found = json.loads(program.run(text=text, temperature=0)["json_output"])
    assert set(found) == {"name", "age", "occupation"}
    return found


def simple_gen(sgl: Any) -> Any:
    @sgl.function
    def program(s: Any, question: str) -> None:
        s += "Q: " + question + "\n"
        s += "A:" + sgl.gen("answer", max_tokens=20, stop="\n")

    return program.run(question="What is the capital of France?", temperature=0)["answer"]


def generate_json_record(sgl: Any) -> Any:
    pattern = r'\{"name": "[^"]{1,20}", "age": \d{1,3}, "city": "[^"]{1,20}"\}'

    @sgl.function
    def program(s: Any, description: str) -> None:
        s += sgl.system("You write records as JSON.")
        s += sgl.user(f"The person in this text: {description}")
        s += sgl.assistant(sgl.gen("json_output", max_tokens=100, regex=pattern))

    description = "Ada is a 36-year-old engineer who lives in Paris."
    record = json.loads(program.run(description=description, temperature=0)["json_output"])
    assert isinstance(record["age"], int), record
    return sorted(record)  # what it says hangs on the template, which SGLang's frontend guesses


def structured_extraction(sgl: Any) -> Any:
    words = {"type": "string", "maxLength": 12}
    kinds = ["positive", "negative", "neutral"]
    properties = {"title": words, "author": words, "sentiment": {**words, "enum": kinds}}
    schema = {"type": "object", "properties": properties, "required": list(properties)}

    @sgl.function
    def program(s: Any, article: str) -> None:
        s += f"The article: {article}\n\nAs JSON:\n"
        s += sgl.gen("info", max_tokens=150, json_schema=json.dumps(schema))

    found = json.loads(program.run(article="A chair.", temperature=0)["info"])
    assert found["sentiment"] in kinds, found
    return found


def extract_email(sgl: Any) -> Any:
    pattern = r"[a-zA-Z0-9._%+-]{1,12}@[a-zA-Z0-9.-]{1,12}\.[a-zA-Z]{2,4}"

    @sgl.function
    def program(s: Any, text: str) -> None:
        s += f"The address in this text: {text}\nAddress: "
        s += sgl.gen("email", max_tokens=50, regex=pattern)

    email = program.run(text="Write to ada@example.com", temperature=0)["email"]
    assert re.fullmatch(pattern, email), email
    return email


def multi_turn_chat(sgl: Any) -> Any:
    @sgl.function
    def program(s: Any, history: list[dict[str, str]], new_message: str) -> None:
        s += "You are a helpful assistant.\n\n"
        for message in history:
            s += f"{message['role']}: {message['content']}\n"
        s += f"User: {new_message}\n"
        s += "Assistant: "
        s += sgl.gen("response", max_tokens=24, stop="\n")

    history: list[dict[str, str]] = []
    for message in ("Hello!", "What is the capital of France?", "And of Japan?"):
        state = program.run(history=history, new_message=message, temperature=0)
        history.append({"role": "User", "content": message})
        history.append({"role": "Assistant", "content": state["response"]})
    return history


def suffixes(sgl: Any) -> Any:
    @sgl.function
    def program(s: Any, question: str) -> None:
        s += "To answer this question: " + question + ", "
        s += "I need to use a " + sgl.gen("tool", choices=["calculator", "search engine"])

    questions = ["What is 5 + 6?", "Who is Ada Lovelace?"]
    states = program.run_batch([{"question": question} for question in questions])
    return [state["tool"] for state in states]


def extract_entity(sgl: Any) -> Any:
    kinds = ["Person", "Organization", "Location"]

    @sgl.function
    def program(s: Any, text: str) -> None:
        s += sgl.system("You find the entity in a text.")
        s += sgl.user(f"The text: {text}")
        s += sgl.assistant(
            "Entity name: " + sgl.gen("name", max_tokens=12, stop="\n")
            + "\nEntity type: " + sgl.select("type", kinds)
            + "\nConfidence: " + sgl.select("confidence", ["High", "Low"])
        )  # fmt: skip

    state = program.run(text="Paris is the capital of France.", temperature=0)
    assert state["type"] in kinds and state["confidence"] in ("High", "Low")
    said = state.messages()[-1]["content"]
    assert said.startswith("Entity name: " + state["name"]), said
    return [message["role"] for message in state.messages()]


def best_of_n(sgl: Any) -> Any:
    @sgl.function
    def program(s: Any, question: str, count: int = 3) -> Any:
        s += sgl.system("Think step by step.")
        s += sgl.user(question)
        forks = s.fork(count)
        for i, fork in enumerate(forks):
            fork += sgl.assistant(sgl.gen(f"answer_{i}", max_tokens=12, temperature=0.8))
        return [forks[i][f"answer_{i}"] for i in range(count)]

    state = program.run(question="What is the capital of France?")
    answers = state.ret_value
    assert all(isinstance(answer, str) for answer in answers)
    return len(answers)


def classify_sentiment(sgl: Any) -> Any:
    kinds = ["Positive", "Negative", "Neutral"]

    @sgl.function
    def program(s: Any, review: str) -> None:
        s += sgl.system("What does the review say?")
        s += sgl.user(review)
        s += sgl.assistant("Sentiment: " + sgl.select("sentiment", kinds))

    states = program.run_batch([{"review": review} for review in REVIEWS], progress_bar=True)
    assert all(state["sentiment"] in kinds for state in states)
    return len(states)


PROGRAMS = {
    program.__name__: program
    for program in (
        few_shot_qa,
        mt_bench,
        select,
        decode_int,
        decode_json,
        decode_json_regex,
        expert_answer,
        tool_use,
        react,
        parallel_decoding,
        parallel_encoding,
        stream,
        stream_logprobs,
        regex,
        dtype_gen,
        hellaswag_select,
        min_tokens,
        every_choices_method,
        extract_person,
        simple_gen,
        generate_json_record,
        structured_extraction,
        extract_email,
        multi_turn_chat,
        suffixes,
        extract_entity,
        best_of_n,
        classify_sentiment,
    )
}
