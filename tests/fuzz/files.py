"""Files of a model folder, which anybody may have written."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz.mutate import mutated_json
from tests.fuzz.target import Target

from support.small_text import CHATML, SENTENCES, byte_level, sentencepiece, write_folder

TEMPLATE_SECONDS = 1.0  # of the processor


def _folder(fill: Callable[[Path], object]) -> tuple[Path, Callable[[], None]]:
    path = Path(tempfile.mkdtemp(prefix="penstock-fuzz-"))
    fill(path)
    return path, lambda: shutil.rmtree(path)


def safetensors() -> Target:
    """The header of the weights, and what is read by it."""
    import torch
    from safetensors.torch import save

    from penstock_shard.weights.checkpoint import Checkpoint

    folder, close = _folder(lambda path: None)
    path = folder / "model.safetensors"
    tensors = {
        "model.embed_tokens.weight": torch.ones(8, 4),
        "model.layers.0.input_layernorm.weight": torch.ones(4, dtype=torch.bfloat16),
        "model.layers.0.mlp.up_proj.weight": torch.ones(6, 4, dtype=torch.float16),
        "scale": torch.tensor(1.0),
    }
    whole = save(tensors, {"format": "pt"})
    head = json.dumps({"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}).encode()

    def run(data: bytes) -> None:
        path.unlink(missing_ok=True)  # what is mapped must not be written again
        path.write_bytes(data)
        checkpoint = Checkpoint(folder)
        assert checkpoint.dtype in (None, "float32", "float16", "bfloat16")
        for name in sorted(checkpoint._slices)[:20]:
            first, *rest = checkpoint.shape(name) or (1,)
            if math.prod(rest) * min(first, 4) < 10**6:
                into = torch.empty(min(first, 4), *rest)
                checkpoint.read(into, name, checkpoint.shape(name) or ())

    seeds = [whole, len(head).to_bytes(8, "little") + head + bytes(24), b"", bytes(8), b"\xff" * 9]
    return Target(seeds, run, (ValueError, OSError), close=close)


_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 600,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "eos_token_id": [2, 3],
    "sliding_window": None,
}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
_LONG = {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": True, "sym": True}
_PACKED = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int"}}},
    "ignore": ["lm_head"],
}
CONFIGS: tuple[dict[str, Any], ...] = (
    _LLAMA,
    {**_LLAMA, "rope_scaling": _YARN, "quantization_config": _GPTQ},
    {**_LLAMA, "rope_scaling": {**_LLAMA3, "original_max_position_embeddings": 128}},
    {**_LLAMA, "quantization_config": _PACKED},
    {**_LLAMA, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"},
    {**_LLAMA, "architectures": ["MistralForCausalLM"], "model_type": "mistral"},
    {**_LLAMA, "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "rope_scaling": _LONG},
    {
        **_LLAMA,
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        "query_pre_attn_scalar": 16,
        "final_logit_softcapping": 30.0,
        "attn_logit_softcapping": 50.0,
        "sliding_window": 64,
        "hidden_activation": "gelu_pytorch_tanh",
    },
)


def config() -> Target:
    """config.json, as the check before the start and the router read it."""
    from penstock_router.text.eos import eos_token_ids
    from penstock_shard.check import check

    folder, close = _folder(lambda path: write_folder(path, byte_level()))

    def run(data: bytes) -> None:
        (folder / "config.json").write_bytes(data)
        for shards in (1, 2):
            check(folder, "dummy", shards)

    def run_all(data: bytes) -> None:
        try:
            run(data)
        finally:
            (folder / "generation_config.json").unlink(missing_ok=True)
            eos_token_ids(folder)

    seeds = [json.dumps(one).encode() for one in CONFIGS]
    for seed in seeds:
        run_all(seed)  # each of them can be served
    return Target(seeds, run_all, (ValueError, OSError), mutated_json, close)


def tokenizer() -> Target:
    """tokenizer.json, and a few texts by it."""
    from penstock_router.text.library import TokenizerError
    from penstock_router.text.token_table import token_table
    from penstock_router.text.tokenizer import Tokenizer

    folder, close = _folder(lambda path: write_folder(path, byte_level()))
    seeds = [made().to_str().encode() for made in (byte_level, sentencepiece)]

    def run(data: bytes) -> None:
        (folder / "tokenizer.json").write_bytes(data)
        made = Tokenizer.load(folder, None, None)
        table = token_table(made)
        for text in (SENTENCES[2], "", "<s>x</s>", "\0\ud7ff\U0001f600"):
            ids = list(made.encode(text, True))
            detokenizer = table.detokenizer(ids[:1])
            assert all(isinstance(detokenizer.step(one), str) for one in ids)
            assert isinstance(detokenizer.flush(), str)

    return Target(seeds, run, (ValueError, TokenizerError), mutated_json, close)


def template() -> Target:
    """A chat template, as the processes that render run it."""
    from penstock_router.templates.confinement import OutOfTime, time_limit
    from penstock_router.templates.errors import TemplateError
    from penstock_router.templates.template import ChatTemplate, Job, Script

    messages = [{"role": "system", "content": "be"}, {"role": "user", "content": "hi </s>"}]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    extra = (
        "{% macro m(x) %}{{ x }}{% endmacro %}{% for i in range(9) %}{{ m(i) }}{% endfor %}",
        "{% set ns = namespace(a='') %}{% for m in messages %}{% set ns.a = ns.a + m.role %}"
        "{% endfor %}{{ ns.a | upper | tojson }}{{ raise_exception('no') if ns.a == 'x' }}",
        "{% if tools %}{% for t in tools %}{{ t | tojson(indent=2) }}{% endfor %}{% endif %}",
        "{%- for k, v in messages[0].items() -%}{{ k ~ '=' ~ v }}{%- endfor %}{{ 'a' * 9 }}",
        "{{ messages[0].content.split('b')[0].strip() }}{{ '%s' % 1 }}{{ '{}'.format(2) }}",
        "{{ strftime_now('%Y') }}{% generation %}x{% endgeneration %}{{ [1,2][::-1] | join }}",
    )

    def run(data: bytes) -> None:
        with time_limit(TEMPLATE_SECONDS):
            made = ChatTemplate(Script(data.decode("utf-8", "replace"), {"bos_token": "<s>"}))
            for continues in (False, True):
                page = made.render(Job(messages, {"x": 1}, True, continues, tools))
                for start, stop in page.client:
                    assert 0 <= start < stop <= len(page.text)

    def restore() -> None:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGVTALRM, signal.SIG_DFL)

    seeds = [CHATML.encode(), *(text.encode() for text in extra)]
    return Target(seeds, run, (TemplateError, OutOfTime, MemoryError), close=restore)
