"""Text to tokens and back: tokenizer, chat template, detokeniser, stop sequences."""

from penstock_router.text.eos import eos_token_ids
from penstock_router.text.model import Conversation, Rendered, TextModel

__all__ = ["Conversation", "Rendered", "TextModel", "eos_token_ids"]
