"""Penstock for Python programs: models in this process's reach, and servers to talk to.

from penstock import LLM, SamplingParams

Names are looked up when they are first used, so `penstock.lang` and `penstock.bench` load nothing
that they do not need, and no part of this package needs torch.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.async_llm import AsyncLLM
    from penstock.embedded import EmbeddedServer, ServerError
    from penstock.llm import LLM
    from penstock.outputs import (
        BeamSearchOutput,
        CompletionOutput,
        LogLikelihood,
        Logprob,
        RequestError,
        RequestOutput,
    )
    from penstock.sampling_params import (
        BeamSearchParams,
        GuidedDecodingParams,
        RequestOutputKind,
        SamplingParams,
        StructuredOutputsParams,
    )

__version__ = importlib.metadata.version("penstock")

_PLACES = {  # name -> the module that has it
    "AsyncLLM": "penstock.async_llm",
    "BeamSearchOutput": "penstock.outputs",
    "BeamSearchParams": "penstock.sampling_params",
    "CompletionOutput": "penstock.outputs",
    "EmbeddedServer": "penstock.embedded",
    "GuidedDecodingParams": "penstock.sampling_params",
    "LLM": "penstock.llm",
    "LogLikelihood": "penstock.outputs",
    "Logprob": "penstock.outputs",
    "RequestError": "penstock.outputs",
    "RequestOutput": "penstock.outputs",
    "RequestOutputKind": "penstock.sampling_params",
    "SamplingParams": "penstock.sampling_params",
    "ServerError": "penstock.embedded",
    "StructuredOutputsParams": "penstock.sampling_params",
}
__all__ = [
    "LLM",
    "AsyncLLM",
    "BeamSearchOutput",
    "BeamSearchParams",
    "CompletionOutput",
    "EmbeddedServer",
    "GuidedDecodingParams",
    "LogLikelihood",
    "Logprob",
    "RequestError",
    "RequestOutput",
    "RequestOutputKind",
    "SamplingParams",
    "ServerError",
    "StructuredOutputsParams",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if (place := _PLACES.get(name)) is None:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(place), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
