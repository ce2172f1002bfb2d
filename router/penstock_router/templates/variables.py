"""Names of variables that a request may not give to a template."""

from __future__ import annotations

from collections.abc import Iterable

from penstock_router.templates.errors import TemplateError

RESERVED = frozenset(
    {
        # what the server gives
        *("messages", "add_generation_prompt", "tools", "documents"),
        # what Jinja gives
        *("self", "super", "loop", "caller", "varargs", "kwargs"),
        # functions
        *("range", "dict", "namespace", "cycler", "joiner", "raise_exception", "strftime_now"),
    }
)


def check_names(names: Iterable[str]) -> None:
    """Raises TemplateError for the first name that is taken."""
    for name in names:
        if name in RESERVED or name.startswith("_") or name.endswith("_token"):
            raise TemplateError(f"the variable `{name}` cannot be set by a request")
