"""Options as vLLM and SGLang spell them: the launcher takes these beside its own names.

A value that is spelled otherwise too is translated to Penstock's before its rule is checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

UNITS = {"k": 1_000, "K": 1_024, "m": 1_000_000, "M": 1 << 20}
VLLM, SGLANG = "vLLM", "SGLang"


def as_it_is(text: str) -> str | None:
    return text


def host(text: str) -> str | None:
    """Penstock listens on addresses; this name is the only one that means one everywhere."""
    return "127.0.0.1" if text == "localhost" else text


def length(text: str) -> str | None:
    """vLLM's lengths: `8k` is 8000, `8K` 8192; `auto` and -1: what the server finds (None)."""
    if text in ("auto", "-1"):
        return None
    if match := re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([kKmM])", text):
        return str(int(float(match[1]) * UNITS[match[2]]))
    return text


def renamed(names: Mapping[str, str | None]) -> Callable[[str], str | None]:
    return lambda text: names.get(text, text)


QUANTIZATION = renamed(
    {
        "auto_awq": "awq",
        "awq_marlin": "awq",
        "auto_gptq": "gptq",
        "gptq_marlin": "gptq",
        "modelopt_fp4": "modelopt",
        "modelopt_fp8": "modelopt",
    }
)


@dataclass(frozen=True, slots=True)
class Spelling:
    """One thing that another server calls otherwise.

    value: its text in Penstock's spelling; None: Penstock's default.
    says: of a switch, the text that it stands for.
    note: what differs, as a sentence about the flag; empty where nothing does.
    """

    flags: tuple[str, ...]
    option: str  # the field of Options
    servers: tuple[str, ...]
    value: Callable[[str], str | None] = as_it_is
    says: str | None = None
    note: str = ""


def _row(
    flags: str,
    option: str,
    *servers: str,
    value: Callable[[str], str | None] = as_it_is,
    says: str | None = None,
    note: str = "",
) -> Spelling:
    return Spelling(tuple(flags.split()), option, servers, value, says, note)


SPELLINGS = (
    _row("--model", "model_id", VLLM),
    _row("--model-path", "model_id", SGLANG),
    _row("--host", "hostname", VLLM, SGLANG, value=host),
    _row("--tensor-parallel-size -tp", "num_shard", VLLM, SGLANG),
    _row("--tp --tp-size", "num_shard", SGLANG),
    _row("--quantization", "quantize", VLLM, SGLANG, value=QUANTIZATION),
    _row("-q", "quantize", VLLM, value=QUANTIZATION),
    _row("--max-model-len", "max_total_tokens", VLLM, value=length),
    _row("--context-length", "max_total_tokens", SGLANG),
    _row("--gpu-memory-utilization", "cuda_memory_fraction", VLLM),
    _row(
        "--mem-fraction-static",
        "cuda_memory_fraction",
        SGLANG,
        note="also holds what steps need, so a larger share fits",
    ),
    _row("--max-num-seqs", "max_batch_size", VLLM),
    _row("--max-running-requests", "max_batch_size", SGLANG),
    _row("--max-num-batched-tokens", "max_batch_prefill_tokens", VLLM, value=length),
    _row("--chunked-prefill-size", "max_batch_prefill_tokens", SGLANG),
    _row("--enforce-eager", "cuda_graphs", VLLM, says="0"),
    _row("--disable-cuda-graph", "cuda_graphs", SGLANG, says="0"),
    _row("--enable-deterministic-inference", "deterministic", SGLANG, says="true"),
    _row("--enable-prefix-caching", "disable_prefix_cache", VLLM, says="false"),
    _row("--no-enable-prefix-caching", "disable_prefix_cache", VLLM, says="true"),
    _row("--enable-radix-cache", "disable_prefix_cache", SGLANG, says="false"),
    _row("--disable-radix-cache", "disable_prefix_cache", SGLANG, says="true"),
    _row("--chat-template", "tokenizer_config_path", VLLM, SGLANG),
    _row("--json-model-override-args", "hf_overrides", SGLANG),
    _row("--kv-cache-memory-bytes", "kv_cache_memory", VLLM),
    _row("--download-dir", "huggingface_hub_cache", VLLM, SGLANG),
    _row("--block-size", "kv_block_size", VLLM),
    _row("--page-size", "kv_block_size", SGLANG),
    _row("--max-logprobs", "max_top_n_tokens", VLLM),
    _row("--shutdown-timeout", "graceful_termination_timeout", VLLM),
    _row("--otlp-traces-endpoint", "otlp_endpoint", VLLM, SGLANG),
    _row("--fastapi-root-path", "root_path", SGLANG),
)  # fmt: skip
