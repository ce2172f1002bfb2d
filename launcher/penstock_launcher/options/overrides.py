"""What is otherwise than the files of the model say; they stay as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penstock_launcher.kinds import json_object, number, object_or
from penstock_launcher.options.option import option


@dataclass(frozen=True, kw_only=True)
class Overrides:
    hf_overrides: dict[str, Any] | None = option(
        None,
        json_object(),
        "Entries of config.json that are otherwise, such as "
        '`{"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}`; those of `text_config` one by '
        "one",
    )
    rope_scaling: str | dict[str, Any] | None = option(
        None,
        object_or("linear", "dynamic"),
        "How positions beyond those that the model was trained on are scaled; an object as "
        "config.json has it",
        default_text="config.json's, or linear with rope-factor",
    )
    rope_factor: float | None = option(
        None,
        number(1, 1000),
        "By how much",
        default_text="1 with rope-scaling",
    )
    override_generation_config: dict[str, Any] | None = option(
        None,
        json_object(),
        'What wins over generation_config.json: `{"temperature": 0.6}`',
    )
    default_chat_template_kwargs: dict[str, Any] | None = option(
        None,
        json_object(),
        'Variables of the chat template, such as `{"enable_thinking": false}`, where a request '
        "does not set them",
    )
