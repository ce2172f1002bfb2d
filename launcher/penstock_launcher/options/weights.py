"""What the weights are computed in, and which are read."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_launcher.kinds import one_of, path
from penstock_launcher.options.option import option


@dataclass(frozen=True, kw_only=True)
class Weights:
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
    quantize_activations: str | None = option(
        None,
        one_of("fp8"),
        "fp8: large steps multiply 4-bit weights of GPTQ, AWQ and compressed-tensors with "
        "activations in e4m3, a scale a token (W4A8). Some quality for speed; for GPUs with FP8",
        default_text="activations keep their precision",
    )
    load_format: str = option(
        "auto",
        one_of("auto", "dummy", names={"safetensors": "auto"}),
        "auto: the weights of the model; dummy: random weights, from config.json alone",
    )
    weights_cache_override: str | None = option(
        None,
        path(),
        "Folder whose safetensors are served instead of those in the hub cache or model folder",
    )
