"""Whether two servers with one model should say the same to a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from penstock.replay.requests import Request


def _openai(body: Mapping[str, Any]) -> bool:
    return body.get("temperature") == 0


def _tgi(body: Mapping[str, Any]) -> bool:
    """TGI's routes draw nothing unless they are asked to; SGLang's do unless they are not."""
    if "inputs" not in body:
        return (body.get("sampling_params") or {}).get("temperature") == 0
    parameters = body.get("parameters") or {}
    return not any(parameters.get(name) for name in ("do_sample", "temperature", "best_of"))


GENERATES: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "/": _tgi,
    "/generate": _tgi,
    "/generate_stream": _tgi,
    "/v1/chat/completions": _openai,
    "/chat/completions": _openai,
    "/v1/completions": _openai,
    "/v1/responses": _openai,
    "/v1/messages": _openai,
}


def is_greedy(request: Request) -> bool:
    """True as well for what generates nothing."""
    rule = GENERATES.get(request.path)
    return rule is None or request.body is None or rule(request.body)
