"""The text of a model, as each process that serves HTTP loads it."""

from __future__ import annotations

from penstock_router.api.template_variables import checked_variables
from penstock_router.config import RouterConfig
from penstock_router.text import TextModel


def load_text(config: RouterConfig) -> TextModel:
    """Raises ValueError and OSError that name what is missing or wrong."""
    try:
        variables = checked_variables(config.default_chat_template_kwargs or {})
    except ValueError as error:
        raise ValueError(f"--default-chat-template-kwargs: {error}") from None
    return TextModel.load(
        config.model_path,
        config.tokenizer_config_path,
        config.validation_workers,
        tool_parser=config.tool_call_parser,
        reasoning_parser=config.reasoning_parser,
        variables=variables,
    )
