"""The shipped folder: its size, its configuration, its tokenizer and its chat template."""

import json

import pytest
from penstock_demo_model.corpus import documents, text
from penstock_demo_model.forms import chat_prompt
from penstock_demo_model.tokenizer import CHAT_TEMPLATE
from penstock_demo_model.tools import TOOLS, call, describe

FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


def test_at_most_twelve_megabytes(folder):
    assert {path.name for path in folder.iterdir()} == FILES
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 12_000_000


def test_configuration_suits_two_and_four_shards(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["max_position_embeddings"] >= 2048
    for key in ("num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size"):
        assert config[key] % 4 == 0, key


def test_generation_ends_at_the_end_token(folder, tokenizer):
    for name in ("config.json", "generation_config.json"):
        config = json.loads((folder / name).read_text())
        assert config["eos_token_id"] == tokenizer.eos_token_id
        assert config["bos_token_id"] == tokenizer.bos_token_id


def test_shipped_template_is_the_one_in_the_source(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["chat_template"] == CHAT_TEMPLATE


@pytest.mark.parametrize("given", ["Zürich, 東京 🚰", "  two  spaces\n\n\tand a tab ", "1234.5"])
def test_round_trip_of_any_text(tokenizer, given):
    assert tokenizer.decode(tokenizer(given, add_special_tokens=False).input_ids) == given


def test_plain_prompts_get_one_begin_token_and_chats_exactly_one(tokenizer):
    assert tokenizer("Hello").input_ids.count(tokenizer.bos_token_id) == 1
    turns = [{"role": "user", "content": "Hello"}]
    ids = tokenizer.apply_chat_template(turns, return_dict=True).input_ids
    assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id


def test_template_renders_what_the_corpus_holds(tokenizer):
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
    ]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == tokenizer.bos_token + chat_prompt("Hello", "Be brief.")


def _openai_tool(tool):
    parameters = {"type": "object", "properties": {name: {} for name in tool.parameters}}
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def test_template_renders_tools_calls_and_results(tokenizer):
    arguments = {"city": "Rome"}
    function = {"name": "get_weather", "arguments": arguments}
    turns = [
        {"role": "user", "content": "How is Rome?"},
        {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]},
        {"role": "tool", "content": "sunny"},
    ]
    text = tokenizer.apply_chat_template(
        turns,
        tools=[_openai_tool(tool) for tool in TOOLS],
        tokenize=False,
        add_generation_prompt=True,
    )
    head = tokenizer.bos_token + chat_prompt("How is Rome?", describe(list(TOOLS)))
    made = call("get_weather", arguments)
    assert text == f"{head}{made}<|end|><|tool|>sunny<|end|><|assistant|>"


def test_template_refuses_an_unknown_role(tokenizer):
    with pytest.raises(Exception, match="given narrator"):
        tokenizer.apply_chat_template([{"role": "narrator", "content": "Once"}], tokenize=False)


def test_a_seed_gives_the_same_text():
    once, again = ([text(d) for d in documents(7, 300)] for _ in range(2))
    assert once == again
    assert once != [text(d) for d in documents(8, 300)]
