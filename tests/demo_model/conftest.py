"""The shipped model as `transformers` loads it, and the generator of its training text."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "demo_model"))
FOLDER = ROOT / "launcher" / "penstock_launcher" / "demo_model"

Ask = Callable[..., list[str]]


@pytest.fixture(scope="session")
def folder() -> Path:
    return FOLDER


@pytest.fixture(scope="session")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER, padding_side="left")


@pytest.fixture(scope="session")
def model():
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype="auto").eval()


@pytest.fixture(scope="session")
def ask(model, tokenizer) -> Ask:
    """Greedy answers, with END where the model ended them, without padding.

    `chat` says whether a prompt is wrapped in the chat template, which writes its own BOS.
    """

    def answers(prompts: list[str], *, chat: bool, max_new_tokens: int = 32) -> list[str]:
        if chat:
            turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
            prompts = tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True
            )
        batch = tokenizer(prompts, padding=True, add_special_tokens=not chat, return_tensors="pt")
        out = model.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )
        texts = tokenizer.batch_decode(out[:, batch.input_ids.shape[1] :])
        return [text.replace(tokenizer.pad_token, "") for text in texts]

    return answers
