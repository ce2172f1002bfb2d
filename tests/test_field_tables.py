"""docs/api.md: its tables of fields are those of the schemas, its detector of watermarks works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from penstock_kernels.rules import green_below, green_bits
from penstock_router.api.anthropic_schema import CountRequest, MessagesRequest
from penstock_router.api.batch_schema import BatchRequest
from penstock_router.api.openai_chat import ChatRequest
from penstock_router.api.openai_completion import CompletionRequest
from penstock_router.api.responses_schema import ResponsesRequest
from penstock_router.api.schema import ClientObject
from penstock_router.api.tgi_schema import GenerateParameters, GenerateRequest

PAGE = (Path(__file__).parent.parent / "docs" / "api.md").read_text()
TABLES: list[tuple[str, tuple[type[ClientObject], ...]]] = [
    ("/v1/chat/completions and /v1/completions", (ChatRequest, CompletionRequest)),
    ("/v1/responses", (ResponsesRequest,)),
    ("/v1/messages and /v1/messages/count_tokens", (MessagesRequest, CountRequest)),
    ("/v1/files and /v1/batches", (BatchRequest,)),
    ("/generate, /generate_stream and /", (GenerateRequest, GenerateParameters)),
]


def rows(section: str) -> list[tuple[set[str], str]]:
    """Fields and what is said of them."""
    text = re.split(r"\n#{2,3} ", PAGE.split(f"\n### {section}\n", 1)[1])[0]
    cells = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `")]
    return [(set(re.findall(r"`(\w+)`", names)), said) for names, said in cells]


@pytest.mark.parametrize(("section", "schemas"), TABLES)
def test_a_table_has_every_field(section: str, schemas: tuple[type[ClientObject], ...]) -> None:
    said = rows(section)
    told = [name for names, _ in said for name in names]
    assert len(told) == len(set(told)), "a field stands there twice"
    taken = {field.alias or name for one in schemas for name, field in one.model_fields.items()}
    ignored = {name for one in schemas for name in one.IGNORED}
    refused = {name for one in schemas for name in one.UNSUPPORTED}
    assert set(told) == taken | ignored | refused
    by_words = {"no effect": ignored - taken, "refused, unless": refused - taken}
    for words, expected in by_words.items():
        found = {name for names, text in said if text.strip().startswith(words) for name in names}
        assert found == expected, words


def test_the_detector() -> None:
    scope: dict[str, Any] = {}
    exec(PAGE.split("## Watermarks", 1)[1].split("```python\n", 1)[1].split("```", 1)[0], scope)
    for gamma in (0.25, 0.5):
        bits = green_bits(torch.tensor([5, 123_456]), 400) < green_below(gamma)
        for row, before in zip(bits.tolist(), (5, 123_456), strict=True):
            assert row == [scope["is_green"](before, token, gamma) for token in range(400)]
    assert scope["score"](list(range(200))) < 4
