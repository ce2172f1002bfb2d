"""How rendering a chat template ends when it does not succeed."""

from __future__ import annotations

from collections.abc import Mapping

MOST_OF_A_SENTENCE = 2000  # characters


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


def as_answer(error: TemplateError) -> dict[str, str]:
    """An error for another process."""
    sentence = str(error)[:MOST_OF_A_SENTENCE].encode(errors="replace").decode()
    return {"error": type(error).__name__, "sentence": sentence}


def raise_from(answer: Mapping[str, str]) -> None:
    """Raise the error that another process has sent, if it has."""
    kinds = {kind.__name__: kind for kind in (TemplateError, MissingVariable, TooSlow)}
    if "error" in answer:
        raise kinds[answer["error"]](answer["sentence"])
