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
    """The numbers in generation_config.json; those that no request might have are left out, with a
    warning. None at all with `--generation-config none`."""
    if config.generation_config == "none":
        return {}
    values = read_json(Path(config.model_path) / FILE)
    given = {name: values[name] for name in NAMES if values.get(name) is not None}
    return {name: value for name, value in given.items() if _is_taken(name, value)}


def _is_taken(name: str, value: object) -> bool:
    try:
        parse(OpenAIRequest, {name: value})
    except ApiError as error:
        log("WARNING", f"ignored in {FILE}: {error}", target="penstock_router.api")
        return False
    return True
