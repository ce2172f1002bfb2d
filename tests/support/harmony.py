"""A small tokenizer and a chat template of gpt-oss's kind: messages in channels (harmony)."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken

from support.small_text import byte_level, write_folder

TOKENS = (
    *("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>"),
    *("<|call|>", "<|return|>"),
)
# As strict as the one that gpt-oss has: one call a message, whose name results take, and one text
# beside it.
TEMPLATE = """\
<|start|>system<|message|>You are a model of the tests.
Reasoning: {{ reasoning_effort or 'medium' }}
Channels: analysis, commentary, final.<|end|>
{%- set turns = messages %}
{%- if messages[0].role in ('system', 'developer') %}
{%- set turns = messages[1:] %}<|start|>developer<|message|>{{ messages[0].content }}<|end|>
{%- endif %}
{%- if tools %}<|start|>developer<|message|>
{%- for tool in tools %}{{ tool.function.name }}{% endfor %}<|end|>{% endif %}
{%- set last = namespace(name=none) %}
{%- for turn in turns %}
{%- if turn.role == 'assistant' and turn.tool_calls %}
{%- if turn.content and turn.thinking %}{{ raise_exception('two texts') }}{% endif %}
{%- set thought = turn.content or turn.thinking %}
{%- if thought %}<|start|>assistant<|channel|>analysis<|message|>{{ thought }}<|end|>{% endif %}
{%- set call = turn.tool_calls[0].function %}
{%- set last.name = call.name %}
{{- '<|start|>assistant to=functions.' + call.name }}<|channel|>commentary json<|message|>
{{- call.arguments | tojson }}<|call|>
{%- elif turn.role == 'assistant' %}
{{- '<|start|>assistant<|channel|>final<|message|>' + turn.content }}<|end|>
{%- elif turn.role == 'tool' %}
{%- if not last.name %}{{ raise_exception('no call before this result') }}{% endif %}
{{- '<|start|>functions.' + last.name }} to=assistant<|channel|>commentary<|message|>
{{- turn.content | tojson }}<|end|>
{%- elif turn.role == 'user' %}<|start|>user<|message|>{{ turn.content }}<|end|>
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|start|>assistant{% endif %}"""


def write_harmony(folder: Path, template: str = TEMPLATE) -> Path:
    """The tokenizer's part of a model folder; a config.json that is there stays."""
    config = (folder / "config.json").read_text() if (folder / "config.json").exists() else None
    tokenizer = byte_level()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in TOKENS])
    write_folder(folder, tokenizer, template)
    (folder / "generation_config.json").unlink()
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": "<|return|>"}))
    if config is not None:
        (folder / "config.json").write_text(config)
    return folder
