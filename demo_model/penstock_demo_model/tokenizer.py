"""The tokenizer: byte-level BPE, its special tokens and the chat template."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from .document import BEGIN, END, PAD, SPECIAL_TOKENS

CONTEXT = 2048  # tokens
# Renders what `forms` and `tools` write by hand. Every text of a role ends with END, so one
# end-of-sequence token serves plain text and chat.
CHAT_TEMPLATE = """\
{%- macro text(content) -%}
  {%- if content is string -%}{{ content }}
  {%- elif content -%}{%- for part in content -%}{{ part.text }}{%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- macro list_tools() -%}
  {{- 'You can call these tools:' -}}
  {%- for tool in tools -%}
    {%- set function = tool.function or tool -%}
    {%- set names = ((function.parameters or {}).properties or {}) | list | join(', ') -%}
    {{- '\\n- ' ~ function.name ~ '(' ~ names ~ '): ' ~ (function.description or '') -}}
  {%- endfor -%}
{%- endmacro -%}
{{- bos_token -}}
{%- if tools and (not messages or messages[0].role != 'system') -%}
  {{- '<|system|>' ~ list_tools() ~ eos_token -}}
{%- endif -%}
{%- for message in messages -%}
  {%- if message.role == 'system' -%}
    {{- '<|system|>' ~ text(message.content) -}}
    {%- if tools and loop.first -%}{{- '\\n' ~ list_tools() -}}{%- endif -%}
  {%- elif message.role == 'user' -%}
    {{- '<|user|>' ~ text(message.content) -}}
  {%- elif message.role == 'tool' -%}
    {{- '<|tool|>' ~ text(message.content) -}}
  {%- elif message.role == 'assistant' -%}
    {{- '<|assistant|>' ~ text(message.content) -}}
    {%- for call in message.tool_calls or [] -%}
      {%- set arguments = call.function.arguments -%}
      {%- set arguments = arguments if arguments is string else arguments | tojson -%}
      {{- '{"name": "' ~ call.function.name ~ '", "arguments": ' ~ arguments ~ '}' -}}
    {%- endfor -%}
  {%- else -%}
    {{- raise_exception('roles are system, user, assistant and tool, given ' ~ message.role) -}}
  {%- endif -%}
  {{- eos_token -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""


def train_tokenizer(texts: Iterable[str], size: int) -> Tokenizer:
    """Byte-level BPE with `size` entries; digits stay single, so that sums can be learnt."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    marks = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))
    tokenizer.train_from_iterator((piece for text in texts for piece in marks.split(text)), trainer)
    # Plain prompts get BEGIN here; the chat template writes its own and is encoded without this.
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))]
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": PAD,
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
