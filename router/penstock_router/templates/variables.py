"""Names that a template gets from the server, and not from a request."""

from __future__ import annotations

RESERVED = frozenset(
    {
        # what is said of the conversation
        *("messages", "tools", "documents", "add_generation_prompt", "continue_final_message"),
        # what Jinja means by them
        *("self", "super", "loop", "caller", "varargs", "kwargs"),
        # functions
        *("range", "dict", "namespace", "cycler", "joiner", "raise_exception", "strftime_now"),
    }
)
