"""Rules about tokens through the whole server, with two ranks: what is asked for holds exactly."""

from __future__ import annotations

import json
import math
import urllib.request
from typing import Any

import torch

from penstock_kernels.rules import green_below, green_bits
from support.server import Server

PROMPT = "The capital of France is"


def post(server: Server, path: str, body: dict[str, Any]) -> Any:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(server.url + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def complete(server: Server, **fields: Any) -> dict[str, Any]:
    body = {"prompt": PROMPT, "max_tokens": 24, "return_token_ids": True, "seed": 5, **fields}
    choice: dict[str, Any] = post(server, "/v1/completions", body)["choices"][0]
    return choice


def test_only_allowed_tokens(demo_server: Server) -> None:
    for temperature in (0, 1.5):
        choice = complete(demo_server, allowed_token_ids=[301, 17, 42], temperature=temperature)
        assert set(choice["token_ids"]) <= {17, 42, 301} and len(choice["token_ids"]) == 24
    assert complete(demo_server, temperature=0, allowed_token_ids=[*range(500)])["text"]


def test_no_end_before_min_tokens(demo_server: Server) -> None:
    plain = complete(demo_server, temperature=0, prompt="1 + 1 =", max_tokens=40)
    assert plain["finish_reason"] == "stop" and len(plain["token_ids"]) < 30
    longer = complete(demo_server, temperature=0, prompt="1 + 1 =", max_tokens=40, min_tokens=30)
    assert len(longer["token_ids"]) >= 30
    before = len(plain["token_ids"]) - 1  # the end itself is another token now
    assert longer["token_ids"][:before] == plain["token_ids"][:before]


def test_bad_words(demo_server: Server) -> None:
    plain = complete(demo_server, temperature=0)
    words = plain["text"].split()[:3]
    for temperature in (0, 1.0):
        text = complete(demo_server, temperature=temperature, bad_words=words)["text"]
        assert not set(words) & set(text.split()), (words, text)


def test_a_watermark_is_found(demo_server: Server) -> None:
    """As docs/api.md counts: green tokens, against those that chance would give."""
    scores = {}
    for marked in (True, False):
        green = total = 0
        for seed in range(3):
            parameters = {
                "watermark": marked, "seed": seed, "do_sample": True, "max_new_tokens": 60,
                "details": True, "ignore_eos": True, "temperature": 1.5,
            }  # fmt: skip
            body = {"inputs": PROMPT, "parameters": parameters}
            ids = [t["id"] for t in post(demo_server, "/generate", body)["details"]["tokens"]]
            bits = green_bits(torch.tensor(ids[:-1]), max(ids) + 1)
            green += int((bits.gather(1, torch.tensor(ids[1:])[:, None]) < green_below(0.5)).sum())
            total += len(ids) - 1
        scores[marked] = (green - 0.5 * total) / math.sqrt(0.25 * total)
    assert scores[True] > 4 > scores[False], scores
