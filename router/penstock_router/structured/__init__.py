"""What clients call structured output, as grammars: one file a language."""

from penstock_router.structured.kinds import KINDS, grammar_from

__all__ = ["KINDS", "grammar_from"]
