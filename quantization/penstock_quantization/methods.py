"""What `quantization_config` of a config.json says, by its method.

A method is a row of METHODS. The names are those that checkpoints use.
"""

from __future__ import annotations

from collections.abc import Callable

from penstock_quantization import integer_schemes as integers
from penstock_quantization.compressed_tensors import compressed_tensors
from penstock_quantization.scheme import Config, Scheme, block, expect, names

KEYS = ("quantization_config", "compression_config")  # the second in old files
# Made by `--quantize`: `online.ONLINE`.
LOADED = ("fp8", "bitsandbytes", "bitsandbytes-nf4", "bitsandbytes-fp4", "eetq")
# What `--quantize` may say of a checkpoint besides.
STORED = (
    "awq", "compressed-tensors", "exl2", "gptq", "marlin", "modelopt", "mxfp4", "squeezellm",
    "torchao",
)  # fmt: skip
# Of random numbers, which have no configuration.
DUMMY: dict[str, Config] = {
    "gptq": {"bits": 4, "group_size": 128, "sym": True},
    "awq": {"bits": 4, "group_size": 128, "version": "gemm"},
    "torchao": {"quant_type": "Int8WeightOnlyConfig"},
}
REPACKED = {"marlin": ("gptq", "awq")}  # what `--quantize` means by a kernel's name


def parse_scheme(config: Config) -> Scheme | None:
    """Of a parsed config.json; None where nothing is quantised.

    Raises ValueError that names the method, for what cannot be read.
    """
    key = next((key for key in KEYS if config.get(key)), None)
    if key is None:
        return None
    given = config[key]
    method = given.get("quant_method") if isinstance(given, dict) else None
    parse = METHODS.get(method) if isinstance(method, str) else None
    if parse is None:
        raise ValueError(
            f"{key} with quant_method {method!r} is not supported; supported: {', '.join(METHODS)}"
        )
    try:
        return parse(given)
    except ValueError as error:
        raise ValueError(f"{key} with quant_method {method!r}: {error}") from None


def dummy_scheme(quantize: str | None) -> Scheme | None:
    """Of random numbers in a format that a checkpoint would have."""
    given = DUMMY.get(quantize or "")
    return None if given is None or quantize is None else METHODS[quantize](given)


def check_quantize(quantize: str | None, scheme: Scheme | None) -> None:
    """Raises ValueError where `--quantize` contradicts what the checkpoint is."""
    if scheme is None:
        if quantize is not None and quantize not in LOADED:
            raise ValueError(
                f"--quantize {quantize} says what a checkpoint is, but config.json has no "
                f"quantization_config; made while loading: {', '.join(LOADED)}"
            )
        return
    if quantize in (None, scheme.format, scheme.method):
        return
    if scheme.method in REPACKED.get(quantize, ()):
        return
    raise ValueError(
        f"--quantize {quantize} contradicts quantization_config with quant_method "
        f"{scheme.method!r}: the checkpoint is {scheme.format} already; leave --quantize out"
    )


def _fp8(given: Config) -> Scheme:
    """As vLLM's AutoFP8 writes it, or with blocks as DeepSeek does."""
    expect(given, "fmt", ("e4m3", "float8_e4m3fn"))
    expect(given, "activation_scheme", ("dynamic", "static"))
    skipped = names(given, "modules_to_not_convert") + names(given, "ignored_layers")
    sizes = block(given, "weight_block_size")
    scale = "weight_scale" if sizes is None else "weight_scale_inv"
    return Scheme(method="fp8", format="fp8", scale=scale, block=sizes, skipped=skipped)


def _fbgemm(given: Config) -> Scheme:
    skipped = names(given, "modules_to_not_convert")
    return Scheme(method="fbgemm_fp8", format="fp8", skipped=skipped)


def _bitsandbytes(given: Config) -> Scheme:
    if given.get("load_in_8bit") is True:
        return integers.bitsandbytes(given)
    if given.get("load_in_4bit") is not True:
        raise ValueError("neither load_in_4bit nor load_in_8bit is true")
    code = expect(given, "bnb_4bit_quant_type", ("fp4", "nf4"))  # fp4 is its own default
    expect(given, "bnb_4bit_quant_storage", ("uint8",))
    return Scheme(
        method="bitsandbytes",
        format=f"bitsandbytes-{code}",
        stored="bitsandbytes",
        code=code,
        nested=given.get("bnb_4bit_use_double_quant") is True,
        skipped=names(given, "llm_int8_skip_modules") or ("lm_head",),
    )


def _modelopt(given: Config) -> Scheme:
    """NVIDIA's; a scale of a tensor multiplies."""
    given = given.get("quantization") or given  # as hf_quant_config.json has it
    stored = {"NVFP4": "modelopt-nvfp4", "FP8": "fp8"}
    formats = {"NVFP4": "modelopt", "FP8": "fp8"}
    kind = expect(given, "quant_algo", tuple(stored))
    if kind == "NVFP4":
        expect(given, "group_size", (16,))
    skipped = names(given, "ignore") + names(given, "exclude_modules")
    return Scheme(
        method="modelopt", format=formats[kind], stored=stored[kind], code="e2m1", skipped=skipped
    )


def _mxfp4(given: Config) -> Scheme:
    skipped = names(given, "modules_to_not_convert")
    return Scheme(method="mxfp4", format="mxfp4", stored="mxfp4", code="e2m1", skipped=skipped)


def _squeezellm(given: Config) -> Scheme:
    bits = expect(given, "bits" if "bits" in given else "wbits", (4, 3))
    skipped = names(given, "modules_to_not_convert")
    return Scheme(
        method="squeezellm", format="squeezellm", stored="squeezellm", bits=bits, skipped=skipped
    )


def _exl2(given: Config) -> Scheme:
    raise ValueError("files of ExLlamaV2 are not read: serve the model as GPTQ or AWQ instead")


def _marlin(given: Config) -> Scheme:
    return integers.gptq({**given, "is_marlin_format": True})


def _eetq(given: Config) -> Scheme:
    raise ValueError(
        "checkpoints of EETQ hold numbers in the order of its kernels and are not read: serve the "
        "model that they were made from with --quantize eetq, which quantises while it loads"
    )


METHODS: dict[str, Callable[[Config], Scheme]] = {
    "fp8": _fp8,
    "compressed-tensors": compressed_tensors,
    "fbgemm_fp8": _fbgemm,
    "bitsandbytes": _bitsandbytes,
    "modelopt": _modelopt,
    "mxfp4": _mxfp4,
    "squeezellm": _squeezellm,
    "gptq": integers.gptq,
    "awq": integers.awq,
    "torchao": integers.torchao,
    "marlin": _marlin,
    "exl2": _exl2,
    "eetq": _eetq,
}
