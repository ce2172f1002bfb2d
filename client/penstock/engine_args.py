"""vLLM's arguments of an engine, and what the launcher is told for them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

SEQUENCES = 512  # at once on a GPU, where nobody says otherwise
DTYPES = {"half": "float16", "float": "float32", "auto": None}
UNITS = {"k": 1_000, "K": 1_024, "m": 1_000_000, "M": 1 << 20}


def _dtype(value: Any) -> Any:
    name = str(value).removeprefix("torch.")
    return DTYPES.get(name, name)


def _length(value: Any) -> Any:
    """Tokens: a number, "8k", "auto" or -1."""
    if value in ("auto", -1):
        return None
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM])?", value)):
        return int(float(match[1]) * UNITS.get(match[2], 1))
    return value


def _unless(*neutral: Any) -> Callable[[Any], Any]:
    return lambda value: None if value in neutral else value


@dataclass(frozen=True, slots=True)
class Honoured:
    """An argument that is an option of the launcher."""

    option: str
    value: Callable[[Any], Any] = lambda value: value
    default: Any = None


HONOURED: Mapping[str, Honoured] = {
    "revision": Honoured("revision"),
    "served_model_name": Honoured("served_model_name"),
    "tensor_parallel_size": Honoured("num_shard", default=1),
    "dtype": Honoured("dtype", _dtype),
    "quantization": Honoured("quantize"),
    "load_format": Honoured("load_format", lambda v: "auto" if v == "safetensors" else v),
    "download_dir": Honoured("huggingface_hub_cache"),
    "gpu_memory_utilization": Honoured("cuda_memory_fraction", default=0.92),
    "kv_cache_memory_bytes": Honoured("kv_cache_memory"),
    "kv_cache_dtype": Honoured("kv_cache_dtype", _unless("auto")),
    "block_size": Honoured("kv_block_size"),
    "max_model_len": Honoured("max_total_tokens", _length),
    "max_num_seqs": Honoured("max_batch_size"),
    "max_num_batched_tokens": Honoured("max_batch_prefill_tokens", _length),
    "max_logprobs": Honoured("max_top_n_tokens", default=20),
    "enforce_eager": Honoured("cuda_graphs", lambda v: "0" if v else None),
    "enable_prefix_caching": Honoured("disable_prefix_cache", lambda v: v is False),
    "generation_config": Honoured("generation_config", lambda v: "none" if v == "vllm" else v),
    "tool_call_parser": Honoured("tool_call_parser"),
    "reasoning_parser": Honoured("reasoning_parser", lambda v: v or None),
    "device": Honoured("device", _unless("auto")),
    "api_key": Honoured("api_key"),
    "port": Honoured("port", default=0),
}

# They change how vLLM computes, or what it logs, and never what it answers.
TUNING = frozenset(
    {
        "all2all_backend", "async_scheduling", "attention_backend", "attention_config",
        "compilation_config", "cudagraph_capture_sizes", "cudagraph_metrics",
        "disable_cascade_attn", "disable_custom_all_reduce", "disable_log_requests",
        "disable_log_stats", "disable_nccl_for_dp_synchronization", "distributed_executor_backend",
        "enable_chunked_prefill", "enable_log_requests", "enable_mfu_metrics",
        "fail_on_environ_validation", "guided_decoding_backend", "kernel_config",
        "kv_cache_metrics", "linear_backend", "long_prefill_token_threshold",
        "max_cudagraph_capture_size", "max_long_partial_prefills", "max_num_partial_prefills",
        "max_parallel_loading_workers", "max_seq_len_to_capture", "mm_processor_cache_gb",
        "model_loader_extra_config", "moe_backend", "numa_bind", "num_scheduler_steps",
        "optimization_level", "performance_mode", "prefix_caching_hash_algo", "profiler_config",
        "ray_workers_use_nsight", "safetensors_load_strategy", "scheduler_reserve_full_isl",
        "scheduling_policy", "skip_mm_profiling", "stream_interval", "structured_outputs_config",
        "use_fp64_gumbel", "use_v2_block_manager", "watermark", "worker_cls",
        "allowed_local_media_path", "allowed_media_domains", "limit_mm_per_prompt",
    }
)  # fmt: skip

NOTICES = {  # accepted when they ask for something, with a sentence
    "swap_space": "has no effect: the KV cache is not moved to host memory. A sequence that finds "
    "no room waits, and resumes from the prefix cache",
    "code_revision": "has no effect: no code is loaded",
    "tokenizer_revision": "has no effect: the tokenizer is that of the model's revision",
}

NOTHING: tuple[Any, ...] = (None, False, 0, {}, [], "")
LATER = "is not built yet"
REFUSED: Mapping[str, tuple[tuple[Any, ...], str]] = {  # values that ask for nothing; else why not
    "tokenizer_mode": (("auto", "hf", "fast"), "is not supported: the model's tokenizer is read"),
    "skip_tokenizer_init": (NOTHING, "is not supported: texts are made by the router"),
    "runner": (("auto", "generate", *NOTHING), "is not supported: this server generates text"),
    "task": (("auto", "generate", *NOTHING), "is not supported: this server generates text"),
    "convert": (("auto", "none", *NOTHING), "is not supported: this server generates text"),
    "model_impl": (("auto", "vllm", *NOTHING), "is not supported: models run by their families"),
    "config_format": (("auto", "hf", *NOTHING), "is not supported: config.json is read"),
    "pipeline_parallel_size": ((1, *NOTHING), f"{LATER}: tensor_parallel_size is"),
    "data_parallel_size": ((1, *NOTHING), f"{LATER}: one engine for each LLM"),
    "decode_context_parallel_size": ((1, *NOTHING), LATER),
    "prefill_context_parallel_size": ((1, *NOTHING), LATER),
    "enable_expert_parallel": (NOTHING, LATER),
    "nnodes": ((1, *NOTHING), LATER),
    "cpu_offload_gb": (NOTHING, f"{LATER}: weights lie in the GPUs' memory"),
    "kv_offloading_size": (NOTHING, f"{LATER}: the KV cache lies in the GPUs' memory"),
    "num_gpu_blocks_override": (NOTHING, "is not supported: gpu_memory_utilization bounds it"),
    "kv_transfer_config": (NOTHING, LATER),
    "kv_events_config": (NOTHING, LATER),
    "enable_lora": (NOTHING, f"{LATER}: adapters cannot be loaded"),
    "enable_prompt_embeds": (NOTHING, "is not supported: prompts are text or token ids"),
    "enable_sleep_mode": (NOTHING, LATER),
    "speculative_config": (NOTHING, f"{LATER}: one token a step"),
    "spec_model": (NOTHING, f"{LATER}: one token a step"),
    "spec_method": (NOTHING, f"{LATER}: one token a step"),
    "spec_tokens": (NOTHING, f"{LATER}: one token a step"),
    "logits_processors": (NOTHING, "is not supported: no foreign code runs in the shards"),
    "hf_overrides": (NOTHING, "is not supported: config.json says what the model is"),
    "hf_config_path": (NOTHING, "is not supported: config.json says what the model is"),
    "quantization_config": (NOTHING, "is not supported: the checkpoint says how it is quantised"),
    "pooler_config": (NOTHING, "is not supported: this server generates text"),
    "logprobs_mode": (
        ("raw_logprobs", *NOTHING),
        "is not supported: log-probabilities are the model's own (raw_logprobs)",
    ),
}
# What LLM itself reads.
OWN = frozenset(
    {"model", "tokenizer", "seed", "chat_template", "override_generation_config", "hf_token",
     "quiet", "use_tqdm_on_load", "launcher_options"}
)  # fmt: skip


def launcher_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What the launcher is told. Raises TypeError for unknown names, ValueError for what cannot be
    had; warns of what has no effect."""
    options: dict[str, Any] = {}
    for name, one in HONOURED.items():
        value = arguments.get(name, one.default)
        options[one.option] = None if value is None else one.value(value)
    for name, value in arguments.items():
        if name in HONOURED or name in TUNING:
            continue
        if name in NOTICES:
            if value not in NOTHING:
                warnings.warn(f"{name} {NOTICES[name]}", stacklevel=4)
        elif name in REFUSED:
            neutral, reason = REFUSED[name]
            if value not in neutral:
                raise ValueError(f"{name}={value!r} {reason}")
        else:
            raise TypeError(f"LLM has no argument {name!r}")
    return options
