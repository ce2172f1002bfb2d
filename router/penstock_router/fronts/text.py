"""The text of a model, as each process that serves HTTP loads it."""

from __future__ import annotations

from penstock_router.config import RouterConfig
from penstock_router.text import TextModel


def load_text(config: RouterConfig) -> TextModel:
    """Raises ValueError and OSError that name what is missing or wrong."""
    return TextModel.load(
        config.model_path,
        config.tokenizer_config_path,
        config.validation_workers,
        tool_parser=config.tool_call_parser,
        reasoning_parser=config.reasoning_parser,
    )
