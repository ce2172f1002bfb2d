"""What is served, and where its files are."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_launcher.kinds import many, one_of, path, text
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
        "A tokenizer_config.json (chat template) to use instead of the model's own",
    )
    load_format: str = option(
        "auto",
        one_of("auto", "dummy", names={"safetensors": "auto"}),
        "auto: the weights of the model; dummy: random weights, from config.json alone",
    )
    dtype: str | None = option(
        None,
        one_of(
            "float16",
            "bfloat16",
            "float32",
            names={"auto": None, "half": "float16", "float": "float32"},
        ),
        "Type of weights, and of the KV cache unless kv-cache-dtype says otherwise",
        default_text="the checkpoint's",
    )
    quantize: str | None = option(
        None,
        one_of(
            "fp8",
            "bitsandbytes",
            "bitsandbytes-nf4",
            "bitsandbytes-fp4",
            "eetq",
            "awq",
            "compressed-tensors",
            "exl2",
            "gptq",
            "marlin",
            "modelopt",
            "mxfp4",
            "squeezellm",
            "torchao",
        ),  # fmt: skip
        "Quantise half-precision weights while they are loaded. fp8: e4m3, a scale for each output "
        "of a matrix; bitsandbytes, eetq: whole numbers of 8 bits, a scale for each output; "
        "bitsandbytes-nf4, -fp4: 4 bits, a scale for each 64 numbers. The other names "
        "say what a checkpoint is, and are an error beside one that is something else",
        default_text="the checkpoint's own format",
        also=("HF_MODEL_QUANTIZE",),
    )
    huggingface_hub_cache: str | None = option(
        None,
        path(),
        "Folder of the hub cache, for instance on a mounted disk",
        default_text="huggingface_hub's own",
    )
    weights_cache_override: str | None = option(
        None,
        path(),
        "Folder whose safetensors are served instead of those in the hub cache or model folder",
    )
