"""What is served, and where its files are."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_launcher.kinds import many, path, text
from penstock_launcher.options.option import option


@dataclass(frozen=True, kw_only=True)
class Model:
    model_id: str | None = option(
        None,
        text(),
        "Hub id such as `mistralai/Mistral-7B-v0.1`, `s3://BUCKET/PREFIX`, or a folder with "
        "config.json, safetensors and tokenizer files",
        default_text="the built-in demo model",
        also=("HF_MODEL_ID",),
    )
    revision: str | None = option(
        None,
        text(),
        "Commit, branch or tag of the model on the hub",
        default_text="main",
        also=("HF_MODEL_REVISION",),
    )
    served_model_name: tuple[str, ...] = option(
        (),
        many(text()),
        "Name of the model in the HTTP API; repeatable, answers show the first. Requests for other "
        "names are then answered with 404, but for model-id, `tgi`, `dummy`, `default` and URLs, "
        "which clients send that were given no name",
        default_text="model-id, and any name is accepted",
    )
    tokenizer_config_path: str | None = option(
        None,
        path(),
        "A tokenizer_config.json to use instead of the model's own, or a file that holds a chat "
        "template alone",
    )
    huggingface_hub_cache: str | None = option(
        None,
        path(),
        "Folder of the hub cache, for instance on a mounted disk",
        default_text="huggingface_hub's own",
    )
