"""How rendering a chat template ends when it does not succeed."""

from __future__ import annotations


class TemplateError(Exception):
    """The template is missing or broken, refuses the messages, or ran beyond its bounds."""


class MissingVariable(TemplateError):
    """The template needs something that the request does not have."""


class TooSlow(TemplateError):
    """The template has not finished in the time that it was given."""

    def __init__(self, sentence: str = "the template takes too long") -> None:
        super().__init__(sentence)


class TemplatesBusy(TemplateError):
    """Every process that renders is busy, and none became free in time."""

    def __init__(self, sentence: str = "too many conversations wait for the template") -> None:
        super().__init__(sentence)
