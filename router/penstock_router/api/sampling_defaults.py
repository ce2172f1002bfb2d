"""How a model asks to be sampled where a request of /v1 says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from penstock_router.api.errors import ApiError
from penstock_router.api.openai_request import OpenAIRequest
from penstock_router.api.schema import parse
from penstock_router.config import RouterConfig
from penstock_router.logs import log
from penstock_router.text.files import read_json

FILE = "generation_config.json"
# transformers' names, which are those of requests. Not `do_sample`: it is false in transformers
# unless a file says otherwise, and whoever calls /v1 expects an answer that is sampled.
NAMES = ("temperature", "top_k", "top_p", "typical_p", "min_p", "repetition_penalty")


def sampling_defaults(config: RouterConfig) -> Mapping[str, float]:
    """The numbers in generation_config.json, unless `--generation-config none`; those that no
    request might have are left out, with a warning. What the operator gave wins over them.

    Raises ValueError for what the operator gave and no request might have.
    """
    own = _of_the_operator(config.override_generation_config or {})
    return {**_of_the_model(config), **own}


def _of_the_model(config: RouterConfig) -> dict[str, float]:
    if config.generation_config == "none":
        return {}
    values = read_json(Path(config.model_path) / FILE)
    taken: dict[str, float] = {}
    for name in NAMES:
        if values.get(name) is None:
            continue
        if problem := _problem(name, values[name]):
            log("WARNING", f"ignored in {FILE}: {problem}", target="penstock_router.api")
        else:
            taken[name] = values[name]
    return taken


def _of_the_operator(values: Mapping[str, float]) -> Mapping[str, float]:
    for name, value in values.items():
        known = f"has `{name}`, and may have {', '.join(NAMES)}"
        if problem := _problem(name, value) if name in NAMES else known:
            raise ValueError(f"--override-generation-config {problem}")
    return values


def _problem(name: str, value: object) -> str | None:
    """Why no request might have it, as a sentence."""
    try:
        parse(OpenAIRequest, {name: value})
    except ApiError as error:
        return str(error)
    return None
