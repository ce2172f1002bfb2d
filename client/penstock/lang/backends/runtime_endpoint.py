"""Penstock's server, by SGLang's /generate and what this server adds to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from penstock.lang.backend import Backend, BackendError, Generation, Selection, Unsupported
from penstock.lang.backends.http import Connections
from penstock.lang.backends.scoring import Scorer
from penstock.lang.backends.stop_regex import StopRegex
from penstock.lang.choices import Method
from penstock.lang.prompt import Message, Prompt
from penstock.lang.sampling import Sampling

TIMEOUT = 600.0  # seconds without a byte
NAMES = (
    "max_new_tokens",
    "min_new_tokens",
    "n",
    "stop",
    "stop_token_ids",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "ignore_eos",
    "regex",
    "json_schema",
)
SHOWN = ("return_logprob", "logprob_start_len", "top_logprobs_num", "return_text_in_logprobs")
TOOLS = ("tools", "tool_choice", "separate_reasoning")


class RuntimeEndpoint(Backend):
    """A server at a URL. Turns are written by its own chat template.

    Raises BackendError where there is none, ValueError for a URL that is none.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        verify: bool | str | None = None,
        chat_template_name: None = None,
        *,
        timeout: float = TIMEOUT,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """verify: of https. timeout: seconds without a byte of an answer. chat_template_kwargs:
        variables of the chat template, as {"enable_thinking": False}."""
        if chat_template_name is not None:
            raise ValueError(
                "`chat_template_name` must be left out: the server's own chat template is used"
            )
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._server = Connections(base_url, headers, timeout, verify)
        self._variables = dict(chat_template_kwargs or {})
        self.model_info: dict[str, Any] = self._server.ask("/model_info", method="GET")
        self._extensions = frozenset(self.model_info.get("extensions", ()))
        self._scorer = Scorer(self._server, self._prompt)

    @property
    def base_url(self) -> str:
        """Where the server is."""
        return self._server.url

    def generate(self, prompt: Prompt, sampling: Sampling) -> Generation:
        if sampling.stop_regex:
            return self._last(self.stream(prompt, sampling))
        answer = self._server.ask("/generate", self._body(prompt, sampling))
        if isinstance(answer, list):
            return Generation([one["text"] for one in answer], [one["meta_info"] for one in answer])
        return Generation(answer["text"], answer["meta_info"])

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Generation]:
        body = self._body(prompt, sampling) | {"stream": True}
        events = self._server.events("/generate", body)
        answers = (Generation(event["text"], event["meta_info"]) for event in events)
        if not sampling.stop_regex:
            return answers
        if sampling.n != 1:
            raise Unsupported("`stop_regex` needs `n` to be 1: it is looked for in one stream")
        return StopRegex(sampling.stop_regex).cut(answers)

    def select(self, prompt: Prompt, choices: Sequence[str], method: Method) -> Selection:
        scores = self._scorer.scores(prompt, choices, alone=method.alone)
        return Selection(*method(choices, scores))

    def text(self, prompt: Prompt) -> str:
        if not prompt.has_turns:
            return prompt.text
        body = self._prompt(prompt)
        behind = body.pop("text")
        body.setdefault("add_generation_prompt", False)
        return str(self._server.ask("/chat_tokenize", body)["templated_text"]) + str(behind)

    def prefill(self, prompt: Prompt) -> None:
        self._server.ask(
            "/generate", self._prompt(prompt) | {"sampling_params": {"max_new_tokens": 0}}
        )

    def flush_cache(self) -> None:
        self._server.ask("/flush_cache?timeout=60")

    def get_server_info(self) -> dict[str, Any]:
        info: dict[str, Any] = self._server.ask("/server_info", method="GET")
        return info

    def shutdown(self) -> None:
        self._server.close()

    def _body(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        parameters = sampling.given(*NAMES)
        parameters["max_new_tokens"] = sampling.max_new_tokens
        if sampling.grammar is not None:
            parameters["ebnf"] = sampling.grammar
        if sampling.seed is not None:
            parameters["sampling_seed"] = sampling.seed
        more = sampling.given(*SHOWN, *TOOLS)
        if unknown := sorted(more.keys() & set(TOOLS) - self._extensions):
            raise self._lacks(unknown[0])
        return self._prompt(prompt) | more | {"sampling_params": parameters}

    def _prompt(self, prompt: Prompt) -> dict[str, Any]:
        """The fields of a body that say a prompt."""
        if not prompt.has_turns:
            return {"text": prompt.text}
        if "messages" not in self._extensions:
            raise self._lacks("messages")
        messages = [message.shown for message in prompt.messages]
        ends: dict[str, Any] = {}
        if prompt.role == "assistant":
            ends = {"add_generation_prompt": True}
        elif prompt.role is not None:
            messages.append(Message(prompt.role, "").shown)
            ends = {"continue_final_message": True}
        else:
            ends = {"add_generation_prompt": False, "continue_final_message": False}
        if not messages:
            raise ValueError(
                "an assistant's turn cannot be the first: chat templates want a user's"
            )
        variables = {"chat_template_kwargs": self._variables} if self._variables else {}
        return {"messages": messages, "text": prompt.text} | ends | variables

    def _lacks(self, name: str) -> BackendError:
        return BackendError(
            f"the server at {self.base_url} does not know `{name}` of /generate, which Penstock's "
            "does: roles, tools and reasoning need it"
        )

    @staticmethod
    def _last(answers: Iterator[Generation]) -> Generation:
        return deque(answers, maxlen=1).pop()
