"""Where a model's chat template is found. What it does is `penstock_router.templates`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock_router.text.files import read_json, token_content


def template_source(
    model_path: Path, config: Mapping[str, Any], override: Path | None
) -> str | None:
    """The folder's template; None when it has none.

    config: tokenizer_config.json. override: a file that the operator named: one like it, or what is
    a template whatever it is called. Raises ValueError where it cannot be read as text.
    """
    if override is not None and override.suffix != ".json":
        try:
            return override.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"tokenizer_config_path: {override} cannot be read: {error}") from None
    if override is not None and (template := _choose(config.get("chat_template"))):
        return template
    if (path := model_path / "chat_template.jinja").is_file():
        return path.read_text(encoding="utf-8")
    if template := _choose(read_json(model_path / "chat_template.json").get("chat_template")):
        return template
    return _choose(config.get("chat_template"))


def _choose(template: object) -> str | None:
    """A template; of a list that named `default`, and for requests with tools that named
    `tool_use`, as transformers chooses."""
    if isinstance(template, str):
        return template
    if isinstance(template, list):
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        chosen = named.get("default", next(iter(named.values()), None))
        with_tools = named.get("tool_use")
        if isinstance(chosen, str) and isinstance(with_tools, str) and with_tools != chosen:
            return _of_two(with_tools, chosen)
        return chosen if isinstance(chosen, str) else None
    return None


def _of_two(with_tools: str, without: str) -> str:
    """One template of both. Empty expressions keep white space beside the tags that Jinja would
    take away; the new line at a template's end it would not keep."""
    first, second = (text.removesuffix("\n") for text in (with_tools, without))
    nothing = "{{ '' }}"
    pieces = ("{% if tools %}", first, "{% else %}", second, "{% endif %}")
    return nothing.join(pieces)


def special_tokens(model_path: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """bos_token, eos_token and so on, for the template to write."""
    tokens: dict[str, str] = {}
    for source in (read_json(model_path / "special_tokens_map.json"), config):
        for name, value in source.items():
            if name.endswith("_token") and (text := token_content(value)) is not None:
                tokens[name] = text
    return {"bos_token": "", "eos_token": ""} | tokens
