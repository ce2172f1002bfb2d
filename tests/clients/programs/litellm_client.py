"""litellm: as Hugging Face's TGI, as an OpenAI-like server, and as vLLM."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

# nothing is fetched: not its table of prices, nor the tokenizer that its package brings along
(PACKAGE,) = importlib.util.find_spec("litellm").submodule_search_locations
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(PACKAGE, "litellm_core_utils", "tokenizers"))

import litellm  # noqa: E402
from verdict import MESSAGES, QUESTION, URL, raised, says, verdict  # noqa: E402

litellm.suppress_debug_info = True
OPENAI = {"api_base": f"{URL}/v1", "api_key": "none"}
PROVIDERS = {
    "openai/penstock-demo": OPENAI,
    "hosted_vllm/penstock-demo": OPENAI,
    "litellm_proxy/penstock-demo": OPENAI,
    "huggingface/tgi": {"api_base": f"{URL}/v1/chat/completions", "api_key": "none"},
}


def chats() -> None:
    for model, where in PROVIDERS.items():
        answer = litellm.completion(
            model=model, messages=MESSAGES, max_tokens=20, temperature=0, **where
        )
        assert "Paris" in answer.choices[0].message.content, (model, answer)
        assert answer.usage.prompt_tokens > 0


def chats_in_a_stream() -> None:
    for model, where in PROVIDERS.items():
        chunks = litellm.completion(
            model=model,
            messages=MESSAGES,
            max_tokens=20,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            **where,
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert "Paris" in text, (model, text)


def completes() -> None:
    answer = litellm.text_completion(
        model="text-completion-openai/penstock-demo",
        prompt=QUESTION,
        max_tokens=20,
        temperature=0,
        **OPENAI,
    )
    assert "Paris" in answer.choices[0].text, answer


def sends_what_gateways_send() -> None:
    """Fields of litellm and of its users that reach the server."""
    answer = litellm.completion(
        model="openai/penstock-demo",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
            {"role": "assistant", "content": "Paris", "reasoning_content": "It is easy."},
            *MESSAGES,
        ],
        max_tokens=20,
        temperature=0,
        user="someone",
        metadata={"trace": "1"},
        tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
        tool_choice="none",
        parallel_tool_calls=False,
        reasoning_effort="low",
        extra_body={
            "max_retries": 0,
            "top_k": 5,
            "repetition_penalty": 1.0,
            "add_generation_prompt": True,
        },
        allowed_openai_params=["tools", "tool_choice", "reasoning_effort", "parallel_tool_calls"],
        **OPENAI,
    )
    assert answer.choices[0].message.content, answer


def falls_back_when_a_prompt_is_too_long() -> None:
    """Gateways try another model on this error. Of Hugging Face's servers litellm never says it."""
    long = [{"role": "user", "content": "word " * 5000}]
    for model, where in PROVIDERS.items():
        error = raised(
            lambda model=model, where=where: litellm.completion(model=model, messages=long, **where)
        )
        if not model.startswith("huggingface/"):
            assert isinstance(error, litellm.ContextWindowExceededError), (model, repr(error))
        says(error, "maximum context length")


def reads_a_refusal() -> None:
    error = raised(
        lambda: litellm.completion(
            model="openai/penstock-demo", messages=MESSAGES, temperature=-1, **OPENAI
        )
    )
    assert isinstance(error, litellm.BadRequestError) or "422" in repr(error), repr(error)
    assert "temperature" in str(error), error


async def works_asynchronously() -> None:
    answer = await litellm.acompletion(
        model="openai/penstock-demo", messages=MESSAGES, max_tokens=20, temperature=0, **OPENAI
    )
    assert "Paris" in answer.choices[0].message.content


verdict(
    "litellm",
    chats,
    chats_in_a_stream,
    completes,
    sends_what_gateways_send,
    falls_back_when_a_prompt_is_too_long,
    reads_a_refusal,
    works_asynchronously,
)
