"""How models mark what they think before they answer: one row each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True)
class ReasoningFormat:
    """One row.

    implied: such a model thinks from its first token on, whether the prompt says so or not.
    channel: its reasoning is a channel of its tool format, which alone can read it.
    """

    name: str
    opens: tuple[str, ...] = ()
    closes: tuple[str, ...] = ()
    implied: bool = False
    channel: str | None = None  # name of that format
    names: tuple[str, ...] = ()
    template: str = r"(?!)"

    @property
    def strings(self) -> list[str]:
        """Those that may be tokens."""
        return [*self.opens, *self.closes]

    def encoded(self, encode: Callable[[str], str]) -> Self:
        """The same with its markers as an `Alphabet` encodes them."""
        opens, closes = tuple(map(encode, self.opens)), tuple(map(encode, self.closes))
        return replace(self, opens=opens, closes=closes)

    def recognises(self, template: str) -> bool:
        """Whether a chat template is one of such a model."""
        return re.search(self.template, template) is not None


# The first row that recognises a template is taken.
# fmt: off
REASONING: tuple[ReasoningFormat, ...] = (
    ReasoningFormat(
        "openai_gptoss", channel="harmony",
        names=("gpt-oss", "gpt_oss", "openai"), template=r"<\|channel\|>analysis",
    ),
    ReasoningFormat(
        "gemma4", ("<|channel>thought",), ("<channel|>",), template=r"<\|channel>",
    ),
    ReasoningFormat(
        "mistral", ("[THINK]",), ("[/THINK]",), template=r"\[THINK\]",
    ),
    ReasoningFormat(
        "cohere", ("<|START_THINKING|>",), ("<|END_THINKING|>",),
        names=("cohere_command3", "cohere_command4"), template=r"<\|START_THINKING\|>",
    ),
    ReasoningFormat(
        "kimi_k3", ("<|open|>think<|sep|>",), ("<|close|>think<|sep|>",),
        template=r"<\|open\|>",
    ),
    ReasoningFormat(
        "kimi", ("◁think▷",), ("◁/think▷",), template=r"◁think▷",
    ),
    ReasoningFormat(
        "seed_oss", ("<seed:think>",), ("</seed:think>",), template=r"<seed:think>",
    ),
    ReasoningFormat(
        "minimax_m3", ("<mm:think>",), ("</mm:think>",),
        names=("minimax-m3",), template=r"<mm:think>",
    ),
    ReasoningFormat(
        "hy_v3", ("<think:opensource>",), ("</think:opensource>",), template=r"<think\{\}>",
    ),
    ReasoningFormat(
        "solar_open", ("<|think|>",), ("<|end|><|begin|>assistant",),
        template=r"<\|begin\|>assistant<\|think\|>",
    ),
    ReasoningFormat(
        "apertus", ("<|inner_prefix|>",), ("<|inner_suffix|>",), template=r"<\|inner_prefix\|>",
    ),
    ReasoningFormat(
        "granite",
        ("Here is my thought process:", "Here's my thought process:"),
        ("Here is my response:", "Here's my response:"),
        template=r"Here(?: is|'s) my thought process",
    ),
    # Such a template cuts thoughts away and never opens them: the model does, or leaves it out.
    ReasoningFormat(
        "deepseek_r1", ("<think>",), ("</think>",), implied=True,
        names=("deepseek-r1", "minimax_m2", "minimax-m2", "minimax_m2_append_think", "step3",
               "qwen3-thinking"),
        template=r"(?s)\A(?!.*<think>).*</think>",
    ),
    ReasoningFormat(
        "think", ("<think>",), ("</think>",),
        names=("qwen3", "deepseek_v3", "deepseek-v3", "deepseek_v4", "glm45", "glm47", "kimi_k2",
               "nemotron_v3", "mimo", "step3p5", "granite_thinking_parser", "hunyuan_a13b",
               "ernie45", "olmo3", "holo2", "poolside_v1"),
        template=r"<think>|</think>",
    ),
)
# fmt: on

NAMED = {name: row for row in REASONING for name in (row.name, *row.names)}


def find_reasoning(template: str) -> ReasoningFormat | None:
    """The row of a chat template; None where it shows none."""
    return next((row for row in REASONING if row.recognises(template)), None)
