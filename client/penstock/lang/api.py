"""The words that programs are written with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

from penstock.lang import constraints
from penstock.lang.backend import Backend, chosen
from penstock.lang.choices import Method, method_of
from penstock.lang.expressions import (
    Expression,
    Gen,
    Image,
    RoleBegin,
    RoleEnd,
    Select,
    SeparateReasoning,
    Series,
    parts_of,
)
from penstock.lang.program import Program
from penstock.lang.sampling import as_fields


@overload
def function(func: Callable[..., Any]) -> Program: ...
@overload
def function(func: None = None) -> Callable[[Callable[..., Any]], Program]: ...
def function(func: Callable[..., Any] | None = None) -> Any:
    """A Python function whose first argument is the state, as a program."""
    return Program if func is None else Program(func)


def gen(
    name: str | None = None,
    max_tokens: int | None = None,
    min_tokens: int | None = None,
    n: int | None = None,
    stop: str | Sequence[str] | None = None,
    stop_token_ids: Sequence[int] | None = None,
    stop_regex: str | Sequence[str] | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    frequency_penalty: float | None = None,
    presence_penalty: float | None = None,
    ignore_eos: bool | None = None,
    return_logprob: bool | None = None,
    logprob_start_len: int | None = None,
    top_logprobs_num: int | None = None,
    return_text_in_logprobs: bool | None = None,
    dtype: type | str | None = None,
    choices: Sequence[str] | None = None,
    choices_method: Method | str | None = None,
    regex: str | None = None,
    json_schema: Any = None,
    grammar: str | None = None,
    tools: Sequence[Any] | None = None,
    tool_choice: str | Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> Expression:
    """Text that the model writes, kept as the variable `name`.

    What is None is as the run says. At most one of `choices`, `dtype`, `regex`, `json_schema` (a
    dict, JSON, or a pydantic model) and `grammar` (Lark or GBNF) holds it to something. tools: bare
    {name, description, parameters} or OpenAI's; `get_meta_info(name)["tool_calls"]` has the calls.
    Raises ValueError, TypeError for arguments that are wrong in themselves.
    """
    constraints.only_one(
        regex=regex, json_schema=json_schema, grammar=grammar, dtype=dtype, choices=choices
    )
    if choices is not None:
        return select(name, choices, temperature or 0.0, choices_method)
    if choices_method is not None:
        raise ValueError("`choices_method` needs `choices`")
    if tool_choice is not None and tools is None:
        raise ValueError("`tool_choice` needs `tools`")
    fields = as_fields(
        max_new_tokens=max_tokens,
        min_new_tokens=min_tokens,
        n=n,
        stop=stop,
        stop_token_ids=stop_token_ids,
        stop_regex=stop_regex,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        frequency_penalty=frequency_penalty,
        presence_penalty=presence_penalty,
        ignore_eos=ignore_eos,
        return_logprob=return_logprob,
        logprob_start_len=logprob_start_len,
        top_logprobs_num=top_logprobs_num,
        return_text_in_logprobs=return_text_in_logprobs,
        regex=regex,
        json_schema=None if json_schema is None else constraints.json_schema(json_schema),
        grammar=grammar,
        tools=None if tools is None else constraints.openai_tools(tools),
        tool_choice=tool_choice,
        seed=seed,
    )
    if dtype is not None:
        fields |= constraints.of_dtype(dtype, fields.get("stop", ()))
    return Gen(name, fields)


def gen_int(name: str | None = None, max_tokens: int | None = None, **more: Any) -> Expression:
    """The text of an integer; more: as for `gen`."""
    return gen(name, max_tokens, dtype=int, **more)


def gen_string(name: str | None = None, max_tokens: int | None = None, **more: Any) -> Expression:
    """The text of a string in double quotes; more: as for `gen`."""
    return gen(name, max_tokens, dtype=str, **more)


def select(
    name: str | None = None,
    choices: Sequence[str] | None = None,
    temperature: float = 0.0,
    choices_method: Method | str | None = None,
) -> Select:
    """One of some texts, by the log-probabilities of their tokens. Raises ValueError."""
    if isinstance(choices, str) or not choices or not all(isinstance(c, str) for c in choices):
        raise ValueError("`choices` must be a list of strings that is not empty")
    if "" in choices:
        raise ValueError("`choices` must not hold an empty string: it has no tokens to score")
    if temperature > 1e-5:
        raise ValueError(
            "`temperature` must be 0 with `choices`: the likeliest one is taken, none is drawn. "
            f"Given: {temperature}"
        )
    return Select(name, tuple(choices), method_of(choices_method))


def image(source: Any) -> Image:
    """An image: a path, bytes or a PIL image. Backends whose models see none refuse it."""
    return Image(source)


def _turn(role: str, expression: Any) -> Series:
    inner = () if expression is None else parts_of(expression)
    return Series((RoleBegin(role), *inner, RoleEnd(role)))


def system(expression: Any = None) -> Series:
    """A turn of the system's."""
    return _turn("system", expression)


def user(expression: Any = None) -> Series:
    """A turn of the user's."""
    return _turn("user", expression)


def assistant(expression: Any = None) -> Series:
    """A turn of the assistant's."""
    return _turn("assistant", expression)


def system_begin() -> RoleBegin:
    """A turn of the system's begins."""
    return RoleBegin("system")


def system_end() -> RoleEnd:
    """It ends."""
    return RoleEnd("system")


def user_begin() -> RoleBegin:
    """A turn of the user's begins."""
    return RoleBegin("user")


def user_end() -> RoleEnd:
    """It ends."""
    return RoleEnd("user")


def assistant_begin() -> RoleBegin:
    """A turn of the assistant's begins."""
    return RoleBegin("assistant")


def assistant_end() -> RoleEnd:
    """It ends."""
    return RoleEnd("assistant")


def separate_reasoning(expression: Any, model_type: str | None = None) -> SeparateReasoning:
    """What is generated in it is split: `name` is what was said, `name_reasoning_content` what was
    thought. The server knows how its model marks thoughts. Raises ValueError for a model_type."""
    if model_type is not None:
        raise ValueError(
            "`model_type` must be left out: the server reads its model's answers as its "
            "--reasoning-parser says"
        )
    return SeparateReasoning(Series(parts_of(expression)))


def flush_cache(backend: Backend | None = None) -> None:
    """Empty the prefix cache of a backend."""
    chosen(backend).flush_cache()


def get_server_info(backend: Backend | None = None) -> dict[str, Any]:
    """Limits and options of a backend's server."""
    return chosen(backend).get_server_info()
