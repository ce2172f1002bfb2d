from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Request(_message.Message):
    __slots__ = ("prompt", "sampling", "max_new_tokens", "ignore_eos", "prompt_logprobs", "prompt_logprobs_start", "prompt_top_n", "max_time", "priority", "name", "grammar", "cache_salt", "client")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    IGNORE_EOS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_LOGPROBS_START_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOP_N_FIELD_NUMBER: _ClassVar[int]
    MAX_TIME_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    GRAMMAR_FIELD_NUMBER: _ClassVar[int]
    CACHE_SALT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    prompt: bytes
    sampling: Sampling
    max_new_tokens: int
    ignore_eos: bool
    prompt_logprobs: bool
    prompt_logprobs_start: int
    prompt_top_n: int
    max_time: float
    priority: int
    name: str
    grammar: Grammar
    cache_salt: bytes
    client: str
    def __init__(self, prompt: _Optional[bytes] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., max_new_tokens: _Optional[int] = ..., ignore_eos: _Optional[bool] = ..., prompt_logprobs: _Optional[bool] = ..., prompt_logprobs_start: _Optional[int] = ..., prompt_top_n: _Optional[int] = ..., max_time: _Optional[float] = ..., priority: _Optional[int] = ..., name: _Optional[str] = ..., grammar: _Optional[_Union[Grammar, _Mapping]] = ..., cache_salt: _Optional[bytes] = ..., client: _Optional[str] = ...) -> None: ...

class Grammar(_message.Message):
    __slots__ = ("kind", "text", "asked_by")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        JSON_SCHEMA: _ClassVar[Grammar.Kind]
        REGEX: _ClassVar[Grammar.Kind]
        LARK: _ClassVar[Grammar.Kind]
    JSON_SCHEMA: Grammar.Kind
    REGEX: Grammar.Kind
    LARK: Grammar.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ASKED_BY_FIELD_NUMBER: _ClassVar[int]
    kind: Grammar.Kind
    text: str
    asked_by: str
    def __init__(self, kind: _Optional[_Union[Grammar.Kind, str]] = ..., text: _Optional[str] = ..., asked_by: _Optional[str] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("temperature", "top_k", "top_p", "typical_p", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty", "seed", "logit_bias", "logprobs", "top_n", "given", "rules")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    TYPICAL_P_FIELD_NUMBER: _ClassVar[int]
    MIN_P_FIELD_NUMBER: _ClassVar[int]
    REPETITION_PENALTY_FIELD_NUMBER: _ClassVar[int]
    FREQUENCY_PENALTY_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_PENALTY_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    LOGIT_BIAS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    TOP_N_FIELD_NUMBER: _ClassVar[int]
    GIVEN_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_k: int
    top_p: float
    typical_p: float
    min_p: float
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    seed: int
    logit_bias: LogitBias
    logprobs: bool
    top_n: int
    given: _containers.RepeatedScalarFieldContainer[int]
    rules: TokenRules
    def __init__(self, temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., typical_p: _Optional[float] = ..., min_p: _Optional[float] = ..., repetition_penalty: _Optional[float] = ..., frequency_penalty: _Optional[float] = ..., presence_penalty: _Optional[float] = ..., seed: _Optional[int] = ..., logit_bias: _Optional[_Union[LogitBias, _Mapping]] = ..., logprobs: _Optional[bool] = ..., top_n: _Optional[int] = ..., given: _Optional[_Iterable[int]] = ..., rules: _Optional[_Union[TokenRules, _Mapping]] = ...) -> None: ...

class LogitBias(_message.Message):
    __slots__ = ("token", "value")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    token: _containers.RepeatedScalarFieldContainer[int]
    value: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, token: _Optional[_Iterable[int]] = ..., value: _Optional[_Iterable[float]] = ...) -> None: ...

class TokenRules(_message.Message):
    __slots__ = ("allowed", "late", "min_tokens", "banned", "green_share", "green_bias")
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    MIN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    BANNED_FIELD_NUMBER: _ClassVar[int]
    GREEN_SHARE_FIELD_NUMBER: _ClassVar[int]
    GREEN_BIAS_FIELD_NUMBER: _ClassVar[int]
    allowed: bytes
    late: _containers.RepeatedScalarFieldContainer[int]
    min_tokens: int
    banned: _containers.RepeatedCompositeFieldContainer[TokenRun]
    green_share: float
    green_bias: float
    def __init__(self, allowed: _Optional[bytes] = ..., late: _Optional[_Iterable[int]] = ..., min_tokens: _Optional[int] = ..., banned: _Optional[_Iterable[_Union[TokenRun, _Mapping]]] = ..., green_share: _Optional[float] = ..., green_bias: _Optional[float] = ...) -> None: ...

class TokenRun(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, token: _Optional[_Iterable[int]] = ...) -> None: ...
