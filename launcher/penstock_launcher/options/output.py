"""What answers are made of."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_launcher.kinds import number, one_of, switch, text
from penstock_launcher.options.option import option


@dataclass(frozen=True, kw_only=True)
class Output:
    tool_call_parser: str = option(
        "auto",
        text(),
        "How the model writes tool calls: a name of docs/tools.md, among them vLLM's and SGLang's; "
        "none: as models that know no tools; auto: as the checkpoint or its chat template shows",
    )
    reasoning_parser: str = option(
        "auto",
        text(),
        "How the model marks its reasoning: a name of docs/tools.md; none: all of it is text; "
        "auto: as the checkpoint or its chat template shows",
    )
    disable_grammar_support: bool = option(
        False,
        switch(),
        "Refuse requests that hold the answer to a grammar; calls of tools are as the model writes "
        "them",
    )
    generation_config: str = option(
        "auto",
        one_of("auto", "none", names={"vllm": "none"}),
        "auto: where a request of /v1 gives no temperature, top_k, top_p, typical_p, min_p or "
        "repetition_penalty, the model's generation_config.json does. none: OpenAI's defaults. "
        "TGI's routes have TGI's in any case",
    )
    watermark_gamma: float = option(
        0.5,
        number(0, 1, above=True),
        "Share of the vocabulary that is green behind each token, for requests with `watermark`",
    )
    watermark_delta: float = option(
        2.0,
        number(0, 100, above=True),
        "What such a request has added to the logits of green tokens",
    )
