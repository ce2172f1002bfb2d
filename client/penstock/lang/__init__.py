"""Programs that prompt, generate, choose and branch, in SGLang's words.

    import penstock.lang as sgl

    @sgl.function
    def capital(s, country):
        s += "The capital of " + country + " is " + sgl.gen("city", stop=".")

    sgl.set_default_backend(sgl.RuntimeEndpoint("http://127.0.0.1:3000"))
    print(capital.run(country="France")["city"])

It needs no torch. Backends that need a package of their own are looked up when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from penstock.lang.api import (
    assistant,
    assistant_begin,
    assistant_end,
    flush_cache,
    function,
    gen,
    gen_int,
    gen_string,
    get_server_info,
    image,
    select,
    separate_reasoning,
    system,
    system_begin,
    system_end,
    user,
    user_begin,
    user_end,
)
from penstock.lang.backend import Backend, BackendError, Unsupported, set_default_backend
from penstock.lang.choices import (
    greedy_token_selection,
    token_length_normalized,
    total_logprob,
    unconditional_likelihood_normalized,
)
from penstock.lang.program import Program, run_batch
from penstock.lang.state import ProgramState

if TYPE_CHECKING:
    from penstock.lang.backends.anthropic import Anthropic
    from penstock.lang.backends.litellm import LiteLLM
    from penstock.lang.backends.openai import OpenAI
    from penstock.lang.backends.runtime_endpoint import RuntimeEndpoint
    from penstock.lang.runtime import Engine, Runtime

_PLACES = {  # name -> the module that has it
    "Anthropic": "penstock.lang.backends.anthropic",
    "Engine": "penstock.lang.runtime",
    "LiteLLM": "penstock.lang.backends.litellm",
    "OpenAI": "penstock.lang.backends.openai",
    "Runtime": "penstock.lang.runtime",
    "RuntimeEndpoint": "penstock.lang.backends.runtime_endpoint",
}
__all__ = [
    "Anthropic",
    "Backend",
    "BackendError",
    "Engine",
    "LiteLLM",
    "OpenAI",
    "Program",
    "ProgramState",
    "Runtime",
    "RuntimeEndpoint",
    "Unsupported",
    "assistant",
    "assistant_begin",
    "assistant_end",
    "flush_cache",
    "function",
    "gen",
    "gen_int",
    "gen_string",
    "get_server_info",
    "greedy_token_selection",
    "image",
    "run_batch",
    "select",
    "separate_reasoning",
    "set_default_backend",
    "system",
    "system_begin",
    "system_end",
    "token_length_normalized",
    "total_logprob",
    "unconditional_likelihood_normalized",
    "user",
    "user_begin",
    "user_end",
]


def __getattr__(name: str) -> Any:
    if (place := _PLACES.get(name)) is None:
        raise AttributeError(f"module 'penstock.lang' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(place), name)
    return value
