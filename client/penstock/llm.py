"""The offline engine: prompts in, outputs back, in order."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from tqdm.auto import tqdm

from penstock.batch import Ask, Batch
from penstock.beam_search import search
from penstock.embedded import ServerError
from penstock.engine import CODE, Engine, check_priority, conversation_fields, tokenization
from penstock.loglikelihood import likelihood, scored
from penstock.outputs import BeamSearchOutput, LogLikelihood, RequestError, RequestOutput
from penstock.prompts import PromptType, read_prompts
from penstock.sampling_params import BeamSearchParams, SamplingParams
from penstock_proto.offline_pb2 import Prompt

ABSENT = {  # of vLLM's LLM -> why
    "apply_model": "no foreign code runs in the shards",
    "collective_rpc": "no foreign code runs in the shards",
    "from_engine_args": "LLM(…) takes the arguments themselves",
    "get_metrics": "what LLM.url + '/metrics' answers has them",
    "get_world_size": "it is tensor_parallel_size",
    "release_kv_cache_memory": "close() gives it back",
    "reset_mm_cache": "prompts are text alone, so there is none",
    "enqueue": "generate takes any number of prompts",
    "enqueue_chat": "chat takes any number of conversations",
    "wait_for_completion": "generate returns when all prompts are done",
    "sleep": "the weights stay in the GPUs' memory; close() gives it back",
    "wake_up": "nothing sleeps",
    "start_profile": "the server's /metrics say where time goes",
    "stop_profile": "the server's /metrics say where time goes",
    **dict.fromkeys(
        (
            "init_weight_transfer_engine", "shutdown_weight_transfer_engine",
            "start_weight_update", "start_draft_weight_update", "update_weights",
            "finish_weight_update", "update_weight_version", "get_weight_version",
        ),
        "weights stay as they were loaded",
    ),
}  # fmt: skip
Messages = Sequence[Mapping[str, Any]]
Progress = bool | Callable[..., Any]  # a bar; or what makes one, with tqdm's arguments


class LLM(Engine):
    """A model that a program has to itself; vLLM's class of that name.

    model: a hub id or a folder; None: the built-in demo model. The other arguments are vLLM's;
    docs/offline.md says how each is honoured.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        trust_remote_code: bool = False,
        **arguments: Any,
    ) -> None:
        if trust_remote_code:
            warnings.warn(CODE, stacklevel=2)
        try:
            super().__init__(model, arguments)
        except ServerError as error:
            if trust_remote_code:
                raise ServerError(f"{error}. {CODE}") from None
            raise

    def generate(
        self,
        prompts: PromptType | Sequence[PromptType] | None = None,
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        prompt_token_ids: Sequence[int] | Sequence[Sequence[int]] | None = None,
        use_tqdm: Progress = True,
        lora_request: None = None,
        priority: int | Sequence[int] | None = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        mm_processor_kwargs: None = None,
    ) -> list[RequestOutput]:
        """Continue prompts; an output for each, in their order.

        prompts: a text, token ids, a dict with `prompt` or `prompt_token_ids`, or a list of these.
        prompt_token_ids: what vLLM once took beside them. sampling_params: for all, or one for
        each; None: the model's own defaults. priority: of all, or one for each; -100 to 100,
        smaller is sooner.

        Raises ValueError for parameters that break a rule; RequestError, a ValueError, when all
        others are done, for prompts that do; ServerError where the server is gone.
        """
        _refuse(lora_request=lora_request, mm_processor_kwargs=mm_processor_kwargs)
        if (prompts is None) is (prompt_token_ids is None):
            raise ValueError("one of prompts and prompt_token_ids must be given")
        given = read_prompts(prompt_token_ids if prompts is None else prompts)  # type: ignore[arg-type]
        params = self._params_for(sampling_params, len(given))
        extra, order = tokenization(tokenization_kwargs), _order(priority, len(given))
        asks = (
            self.ask_of(place, one, params[place], priority=order[place], extra=extra)
            for place, one in enumerate(given)
        )
        return self._run(asks, len(given), use_tqdm)

    def chat(
        self,
        messages: Messages | Sequence[Messages],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: Progress = True,
        lora_request: None = None,
        priority: int | Sequence[int] | None = None,
        chat_template: str | None = None,
        chat_template_content_format: str = "auto",
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        mm_processor_kwargs: None = None,
    ) -> list[RequestOutput]:
        """Answer conversations; an output for each, in their order. The text is the model's own,
        calls of tools and thoughts as it writes them.

        messages: a conversation, or a list of them. What the template wants of contents is found
        out, whatever `chat_template_content_format` says. Raises what `generate` raises.
        """
        _refuse(lora_request=lora_request, mm_processor_kwargs=mm_processor_kwargs)
        conversations = [messages] if _is_one(messages) else list(messages)
        params = self._params_for(sampling_params, len(conversations))
        fields = conversation_fields(
            chat_template=chat_template,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tools=tools,
            chat_template_kwargs=chat_template_kwargs,
        )
        extra, order = tokenization(tokenization_kwargs), _order(priority, len(conversations))
        asks = (
            self.ask(
                place,
                Prompt(messages=json.dumps(list(one)).encode(), priority=-order[place]),
                params[place],
                prompt=None,
                extra=extra,
                conversation=fields,
            )
            for place, one in enumerate(conversations)
        )
        return self._run(asks, len(conversations), use_tqdm)

    def beam_search(
        self,
        prompts: PromptType | Sequence[PromptType],
        params: BeamSearchParams,
        lora_request: None = None,
        use_tqdm: bool = False,
        concurrency_limit: int | None = None,
        priority: int | Sequence[int] | None = None,
    ) -> list[BeamSearchOutput]:
        """The most likely continuations that a beam search finds, best first.

        concurrency_limit: prompts that are searched at a time. Raises what `generate` raises.
        """
        _refuse(lora_request=lora_request)
        read = read_prompts(prompts)
        given = list(zip(read, _order(priority, len(read)), strict=True))
        size = concurrency_limit or max(len(given), 1)
        outputs: list[BeamSearchOutput] = []
        with _bar(use_tqdm, len(given), "Searched prompts") as bar:
            for first in range(0, len(given), size):
                outputs += search(self, given[first : first + size], params)
                bar.update(len(given[first : first + size]))
        return outputs

    def loglikelihood(
        self,
        prompts: Sequence[str | Sequence[int]],
        continuations: Sequence[str | Sequence[int]],
        *,
        use_tqdm: Progress = True,
    ) -> list[LogLikelihood]:
        """The log-probability of each continuation behind its prompt, both text or token ids, and
        whether it is what greedy decoding writes. What prompts have in common is computed once.

        Raises what `generate` raises.
        """
        if len(prompts) != len(continuations):
            raise ValueError(
                f"there must be a continuation for each prompt. Given: {len(prompts)} and "
                f"{len(continuations)}"
            )
        pairs = enumerate(zip(prompts, continuations, strict=True))
        asks = (scored(self, place, *pair) for place, pair in pairs)
        return self._run(asks, len(prompts), use_tqdm, likelihood)

    def score(self, *_: Any, **__: Any) -> NoReturn:
        """Raises: see `encode`."""
        _no_pooling("score", "loglikelihood(prompts, continuations) scores texts")

    def embed(self, *_: Any, **__: Any) -> NoReturn:
        """Raises: see `encode`."""
        _no_pooling("embed")

    def classify(self, *_: Any, **__: Any) -> NoReturn:
        """Raises: see `encode`."""
        _no_pooling("classify")

    def encode(self, *_: Any, **__: Any) -> NoReturn:
        """Raises NotImplementedError: only models that generate text are served."""
        _no_pooling("encode", "get_tokenizer().encode(text) makes tokens of a text")

    def __getattr__(self, name: str) -> NoReturn:
        reason = f": {ABSENT[name]}" if name in ABSENT else ""
        raise AttributeError(f"LLM has no {name}{reason}")

    def _params_for(
        self, params: SamplingParams | Sequence[SamplingParams] | None, count: int
    ) -> Sequence[SamplingParams]:
        """One for each prompt."""
        if params is None:
            params = self.get_default_sampling_params()
        if isinstance(params, SamplingParams):
            return [params] * count
        if isinstance(params, Mapping | str) or not isinstance(params, Sequence):
            kind = type(params).__name__
            raise TypeError(f"sampling_params must be SamplingParams or a list of them, not {kind}")
        if len(params) != count:
            raise ValueError(
                f"sampling_params must be one for all prompts, or {count}, one for each. "
                f"Given: {len(params)}"
            )
        for place, one in enumerate(params):
            if not isinstance(one, SamplingParams):
                kind = type(one).__name__
                raise TypeError(f"sampling_params[{place}] must be SamplingParams, not {kind}")
        return params

    def _run(
        self,
        asks: Iterable[Ask],
        count: int,
        use_tqdm: Progress,
        output: Callable[[Ask], Any] = lambda ask: ask.assembly.output(),
    ) -> list[Any]:
        """What `output` makes of each prompt, in their order. Raises RequestError where some have
        none."""
        outputs: list[Any] = [None] * count
        errors: dict[int, Exception] = {}
        with _bar(use_tqdm, count, "Processed prompts") as bar:
            for ask in _shown(Batch(self.connection, asks), bar):
                if ask.error is None:
                    outputs[ask.place] = output(ask)
                else:
                    errors[ask.place] = ask.error
        if errors:
            raise RequestError(errors, outputs)
        return outputs


def _shown(batch: Batch, bar: Any) -> Iterator[Ask]:
    """The same prompts, with progress: tokens a second, computed and generated."""
    start, read, written = time.monotonic(), 0, 0
    for ask in batch:
        read += len(ask.assembly.prompt_ids)
        written += ask.assembly.generated
        seconds = max(time.monotonic() - start, 1e-6)
        bar.set_postfix_str(
            f"input {read / seconds:.0f} tokens/s, output {written / seconds:.0f} tokens/s",
            refresh=False,
        )
        bar.update(1)
        yield ask


def _bar(use_tqdm: Progress, total: int, what: str) -> Any:
    make = use_tqdm if callable(use_tqdm) else tqdm
    return make(total=total, desc=what, dynamic_ncols=True, disable=not use_tqdm)


def _is_one(messages: Any) -> bool:
    """A conversation, not a list of them. Raises TypeError for what is neither."""
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise TypeError(
            "messages must be a conversation, which is a list of dicts with `role` and `content`, "
            f"or a list of conversations, not {type(messages).__name__}"
        )
    return bool(messages) and isinstance(messages[0], Mapping)


def _order(priority: int | Sequence[int] | None, count: int) -> Sequence[int]:
    """A priority for each prompt. Raises ValueError."""
    order = [priority or 0] * count if isinstance(priority, int | None) else priority
    if len(order) != count:
        raise ValueError(f"priority must have {count} entries, one for each prompt")
    for one in order:
        check_priority(one)
    return order


def _refuse(**arguments: Any) -> None:
    for name, value in arguments.items():
        if value is not None:
            reason = "adapters" if name == "lora_request" else "images and sound"
            raise ValueError(f"{name} is not supported: {reason} are not built yet")


def _no_pooling(name: str, instead: str = "") -> NoReturn:
    hint = f"; {instead}" if instead else ""
    raise NotImplementedError(f"{name} is not supported: this server generates text{hint}")
