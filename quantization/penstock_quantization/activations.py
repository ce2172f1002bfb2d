"""In what products read the rows they multiply: what `--quantize-activations` says."""

from __future__ import annotations

from penstock_quantization.scheme import Scheme

ACTIVATIONS = ("fp8",)
SMALLEST_GROUP = 64  # inputs of a weight that share a scale
FEW_BITS = 4


def check_activations(kind: str | None, quantize: str | None, scheme: Scheme | None) -> None:
    """Raises ValueError where `--quantize-activations` is for other weights than these.

    quantize: what `--quantize` says; scheme: the checkpoint's, None where nothing is quantised.
    """
    if kind is None:
        return
    asked = f"--quantize-activations {kind} goes with 4-bit weights of GPTQ, AWQ and W4A16"
    if scheme is None:
        found = "half precision" if quantize is None else f"what --quantize {quantize} makes"
        raise ValueError(f"{asked}; these weights are {found}")
    whole = scheme.whole
    if whole is None or whole.bits > FEW_BITS:
        bits = "" if whole is None else f" of {whole.bits} bits"
        raise ValueError(f"{asked}; this checkpoint is {scheme.format}{bits}")
    if whole.group is not None and whole.group < SMALLEST_GROUP:
        raise ValueError(
            f"{asked} in groups of {SMALLEST_GROUP} inputs and more; this checkpoint has groups of "
            f"{whole.group}"
        )
