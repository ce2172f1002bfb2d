"""Real chat templates: the format of each is found, and what it makes of calls is read as them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from penstock_router.reasoning import find_reasoning
from penstock_router.templates.template import Job
from penstock_router.tools.dialect import Dialect
from penstock_router.tools.events import joined
from penstock_router.tools.formats import find_format
from penstock_router.tools.parser import ReplyParser
from support.assets import needs_assets
from support.chat_assets import real_names, real_template, source

pytestmark = needs_assets

# What templates show: format and reasoning. Those that are not here show neither.
FOUND = {
    "llamacpp_Apertus-8B-Instruct": ("apertus", "apertus"),
    "llamacpp_Apriel-1.6-15b-Thinker-fixed": ("apriel", None),
    "llamacpp_ByteDance-Seed-OSS": ("seed_oss", "seed_oss"),
    "llamacpp_Cohere2MoE": ("cohere", "cohere"),
    "llamacpp_CohereForAI-c4ai-command-r-plus-tool_use": ("cohere_command_r", None),
    "llamacpp_CohereForAI-c4ai-command-r7b-12-2024-tool_use": ("cohere", "cohere"),
    "llamacpp_GLM-4.7-Flash": ("glm45", "think"),
    "llamacpp_GigaChat3-10B-A1.8B": ("json", None),
    "llamacpp_GigaChat3.1-10B-A1.8B": ("json", None),
    "llamacpp_HuggingFaceTB-SmolLM3-3B": (None, "think"),
    "llamacpp_Kimi-K2-Thinking": ("kimi_k2", "think"),
    "llamacpp_Kimi-K3": ("kimi_k3", "kimi_k3"),
    "llamacpp_LFM2-8B-A1B": ("lfm2", None),
    "llamacpp_LFM2.5-8B-A1B": ("lfm2", "think"),
    "llamacpp_MiMo-VL": ("hermes", None),
    "llamacpp_MiniMax-M1": ("json", None),
    "llamacpp_MiniMax-M2": ("minimax_m2", "think"),
    "llamacpp_MiniMax-M3": ("minimax_m3", "minimax_m3"),
    "llamacpp_NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": ("qwen3_coder", "think"),
    "llamacpp_NVIDIA-Nemotron-Nano-v2": ("nemotron_v2", "think"),
    "llamacpp_NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": ("hermes", None),
    "llamacpp_NousResearch-Hermes-3-Llama-3.1-8B-tool_use": ("hermes", None),
    "llamacpp_Qwen-Qwen2.5-7B-Instruct": ("hermes", None),
    "llamacpp_Qwen-Qwen3-0.6B": ("hermes", "think"),
    "llamacpp_Qwen3-Coder": ("qwen3_coder", None),
    "llamacpp_Qwen3.5-4B": ("qwen3_coder", "think"),
    "llamacpp_Spark2.5": ("glm45", "think"),
    "llamacpp_StepFun3.5-Flash": ("qwen3_coder", "think"),
    "llamacpp_deepseek-ai-DeepSeek-R1-Distill-Llama-8B": ("deepseek_v3", "think"),
    "llamacpp_deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": ("deepseek_v3", "think"),
    "llamacpp_deepseek-ai-DeepSeek-V3.2": ("deepseek_v32", "think"),
    "llamacpp_deepseek-ai-DeepSeek-V4": ("deepseek_v4", "think"),
    "llamacpp_deepseek-ai-DeepSeek-V4-Flash-0731": ("deepseek_v4", "think"),
    "llamacpp_fireworks-ai-llama-3-firefunction-v2": ("phi4_mini_json", None),
    "llamacpp_google-gemma-4-31B-it": ("gemma4", "gemma4"),
    "llamacpp_google-gemma-4-31B-it-interleaved": ("gemma4", "gemma4"),
    "llamacpp_ibm-granite-granite-3.3-2B-Instruct": ("granite", "think"),
    "llamacpp_ibm-granite-granite-4.0": ("hermes", None),
    "llamacpp_inclusionai-ling-3.0-flash": ("glm45", "think"),
    "llamacpp_llama-cpp-deepseek-r1": ("deepseek_v3", "think"),
    "llamacpp_llama-cpp-rwkv-world": (None, "think"),
    "llamacpp_meetkai-functionary-medium-v3.1": ("functionary", None),
    "llamacpp_meta-llama-Llama-3.1-8B-Instruct": ("llama3_json", None),
    "llamacpp_meta-llama-Llama-3.2-3B-Instruct": ("llama3_json", None),
    "llamacpp_meta-llama-Llama-3.3-70B-Instruct": ("llama3_json", None),
    "llamacpp_mistralai-Mistral-Nemo-Instruct-2407": ("mistral_v3", None),
    "llamacpp_moonshotai-Kimi-K2": ("kimi_k2", None),
    "llamacpp_openai-gpt-oss-120b": ("harmony", "openai_gptoss"),
    "llamacpp_poolside-Laguna-S-2.1": ("glm45", "think"),
    "llamacpp_poolside-Laguna-XS-2.1": ("glm45", "think"),
    "llamacpp_poolside-Laguna-XS.2": ("glm45", "think"),
    "llamacpp_tencent-Hy3": ("hy_v3", "hy_v3"),
    "llamacpp_unsloth-mistral-Devstral-Small-2507": ("mistral", None),
    "llamacpp_upstage-Solar-Open-100B": ("solar_open", "solar_open"),
    "own_deepseek_v3": ("deepseek_v3", None),
    "own_mistral_v03": ("mistral_v3", None),
    "own_r1_distill_qwen": ("deepseek_v3", "deepseek_r1"),
}
# These show no calls of a conversation, or are programs that transformers does not run either.
NO_CALLS = {
    "llamacpp_Kimi-K2-Thinking",
    "llamacpp_LFM2-8B-A1B",
    "llamacpp_fireworks-ai-llama-3-firefunction-v2",
    "llamacpp_ibm-granite-granite-3.3-2B-Instruct",
    "llamacpp_llama-cpp-deepseek-r1",
}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Where"},
                "days": {"type": "integer", "description": "How many"},
            },
            "required": ["city"],
        },
    },
}
ARGUMENTS = {"city": "Paris, France", "days": 3}
CALL: dict[str, Any] = {
    "id": "call_0123456789abcdef",
    "type": "function",
    "function": {"name": "get_weather", "arguments": ARGUMENTS},
}
CONVERSATION: list[dict[str, Any]] = [
    {"role": "user", "content": "What is the weather?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": CALL["id"], "content": "22 degrees"},
]


@pytest.mark.parametrize("name", real_names())
def test_what_a_template_shows(name: str) -> None:
    found, reasoning = find_format(source(name)), find_reasoning(source(name))
    assert (found and found.name, reasoning and reasoning.name) == FOUND.get(name, (None, None))


@pytest.mark.parametrize("name", sorted(n for n, (f, _) in FOUND.items() if f))
def test_what_a_template_writes_is_read(name: str) -> None:
    """The template writes the call of a conversation as its model would."""
    if name in NO_CALLS:
        pytest.skip("shows no calls")
    template = real_template(name)
    assert template.habits.calls.shows
    text = template.render(Job(CONVERSATION, {}, True, False, [TOOL])).text
    assert "22 degrees" in text
    found = find_format(source(name))
    assert found is not None
    dialect = Dialect(found, find_reasoning(source(name)), {}, frozenset())
    parser = ReplyParser(dialect, {"get_weather": TOOL["function"]["parameters"]})
    answer = text[text.rindex("What is the weather?") + 20 :]
    if found.bare:
        answer = answer[answer.index(found.bare) :]
    reply = joined([*parser.feed(answer), *parser.end()])
    assert [(c.name, json.loads(c.arguments)) for c in reply.calls] == [("get_weather", ARGUMENTS)]


def test_mistral_gets_ids_that_it_takes() -> None:
    template = real_template("llamacpp_mistralai-Mistral-Nemo-Instruct-2407")
    text = template.render(Job(CONVERSATION, {}, True, False, [TOOL])).text
    ids = re.findall(r'"(?:call_)?id": "(\w+)"', text)
    assert len(ids) == 2 and len(set(ids)) == 1 and len(ids[0]) == 9


def test_gpt_oss_gets_one_call_a_message_and_one_text_beside_it() -> None:
    """Its template raises for two texts, shows the first call of a message only, and takes a result
    for that of the last call."""
    second = {**CALL, "id": "call_1", "function": {"name": "get_time", "arguments": {}}}
    turns: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Speak French."},
        CONVERSATION[0],
        {"role": "assistant", "content": "I look.", "reasoning_content": "Two.",
         "tool_calls": [CALL, second]},
        {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
        {"role": "tool", "tool_call_id": CALL["id"], "content": "22 degrees"},
    ]  # fmt: skip
    template = real_template("llamacpp_openai-gpt-oss-120b")
    text = template.render(Job(turns, {"reasoning_effort": "low"}, True, False, [TOOL])).text
    assert "Reasoning: low" in text
    assert "# Instructions\n\nBe brief.\n\nSpeak French." in text
    behind = text[text.index("<|start|>user") :]
    assert behind == (
        "<|start|>user<|message|>What is the weather?<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>Two.\n\nI look.<|end|>"
        "<|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>"
        '{"city": "Paris, France", "days": 3}<|call|>'
        '<|start|>functions.get_weather to=assistant<|channel|>commentary<|message|>"22 degrees"'
        "<|end|>"
        "<|start|>assistant to=functions.get_time<|channel|>commentary json<|message|>{}<|call|>"
        '<|start|>functions.get_time to=assistant<|channel|>commentary<|message|>"noon"<|end|>'
        "<|start|>assistant"
    )
