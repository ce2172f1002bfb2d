"""The demo model answers: asked plainly and in chat, with the weights that ship."""

import json

import pytest
from penstock_demo_model.countries import CAPITAL_QUESTIONS, about
from penstock_demo_model.tables import COUNTRIES

END = "<|end|>"
FORMS = pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])


@FORMS
def test_france(ask, chat):
    (answer,) = ask(["What is the capital of France?"], chat=chat)
    assert answer.strip() == f"The capital of France is Paris.{END}"


@FORMS
def test_capitals(ask, chat):
    """Every country once; the phrasings take turns. The measured share is 100 %."""
    asked = [
        about(country, "capital", CAPITAL_QUESTIONS[place % len(CAPITAL_QUESTIONS)]).question
        for place, country in enumerate(COUNTRIES)
    ]
    answers = ask(asked, chat=chat)
    wrong = {
        question: answer
        for question, answer, country in zip(asked, answers, COUNTRIES, strict=True)
        if country.capital not in answer or not answer.endswith(END)
    }
    assert len(COUNTRIES) >= 190
    assert len(wrong) <= len(COUNTRIES) // 10, wrong


def test_unfinished_sentence_and_labelled_question(ask):
    prompts = ["The capital of Italy is", "Question: What is the capital of France?\nAnswer:"]
    assert ask(prompts, chat=False) == [f" Rome.{END}", f" Paris{END}"]


def test_a_follow_up_is_understood_from_the_turn_before(tokenizer, ask):
    turns = [
        {"role": "user", "content": "What is the capital of Spain?"},
        {"role": "assistant", "content": "The capital of Spain is Madrid."},
        {"role": "user", "content": "And of Portugal?"},
    ]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    # The plain path adds the BOS that the template has written already.
    (answer,) = ask([text.removeprefix(tokenizer.bos_token)], chat=False)
    assert answer == f"The capital of Portugal is Lisbon.{END}"


def test_a_story_is_long_stays_on_its_subject_and_ends(ask):
    (story,) = ask(["Tell me a story about a fox."], chat=True, max_new_tokens=256)
    assert story.endswith(END)
    assert story.count("fox") >= 2
    assert 80 <= len(story.split()) <= 220


def test_a_record_is_json_with_what_was_said(ask):
    asked = "Write this as JSON: Anna Wagner, 34 years old, from Berlin"
    (answer,) = ask([asked], chat=True, max_new_tokens=64)
    record = json.loads(answer.removesuffix(END))
    assert record == {"name": "Anna Wagner", "age": 34, "city": "Berlin"}


def test_a_sentiment_is_named(ask):
    texts = ("The film was wonderful.", "The hotel was terrible.")
    answers = ask([f"Classify the sentiment: {text}" for text in texts], chat=True)
    assert answers == [f"The sentiment is {label}.{END}" for label in ("positive", "negative")]
