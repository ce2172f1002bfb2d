"""SGLang's own frontend, told apart where it does not read what SGLang's server answers.

It was written for an older server, and both moved on. It is known by its User-Agent (that of any
program on urllib) and by the fields that it always sends together, most of them null.
"""

from __future__ import annotations

from collections.abc import Mapping

_SELECTS = {
    "text",
    "sampling_params",
    "return_logprob",
    "return_text_in_logprobs",
    "logprob_start_len",
}
_GENERATES = {
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "max_new_tokens",
    "min_new_tokens",
    "n",
    "stop",
    "stop_token_ids",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "ignore_eos",
    "regex",
    "json_schema",
}


def selects(user_agent: str, body: Mapping[str, object]) -> bool:
    """It scores the choices of a `select`: each entry must have a value. SGLang's first one has
    none, on which two of its three methods break, and the third counts the prompt's end."""
    return (
        user_agent.startswith("Python-urllib/")
        and set(body) == _SELECTS
        and body["sampling_params"] == {"max_new_tokens": 0, "temperature": 0}
    )


def generates(user_agent: str, body: Mapping[str, object]) -> bool:
    """It generates, and reads one object however many samples it asked for."""
    parameters = body.get("sampling_params")
    return (
        user_agent.startswith("Python-urllib/")
        and isinstance(parameters, dict)
        and parameters.keys() >= _GENERATES
    )
