from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ToRouter(_message.Message):
    __slots__ = ("parameters", "prompt", "cancel", "forget")
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    FORGET_FIELD_NUMBER: _ClassVar[int]
    parameters: _containers.RepeatedCompositeFieldContainer[Parameters]
    prompt: _containers.RepeatedCompositeFieldContainer[Prompt]
    cancel: _containers.RepeatedScalarFieldContainer[int]
    forget: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, parameters: _Optional[_Iterable[_Union[Parameters, _Mapping]]] = ..., prompt: _Optional[_Iterable[_Union[Prompt, _Mapping]]] = ..., cancel: _Optional[_Iterable[int]] = ..., forget: _Optional[_Iterable[int]] = ...) -> None: ...

class Parameters(_message.Message):
    __slots__ = ("number", "fields", "conversation")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_FIELD_NUMBER: _ClassVar[int]
    number: int
    fields: bytes
    conversation: bytes
    def __init__(self, number: _Optional[int] = ..., fields: _Optional[bytes] = ..., conversation: _Optional[bytes] = ...) -> None: ...

class Prompt(_message.Message):
    __slots__ = ("number", "parameters", "text", "ids", "messages", "text_scored", "ids_scored", "stream", "priority", "cache_salt", "seed")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    TEXT_SCORED_FIELD_NUMBER: _ClassVar[int]
    IDS_SCORED_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    CACHE_SALT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    number: int
    parameters: int
    text: str
    ids: bytes
    messages: bytes
    text_scored: str
    ids_scored: bytes
    stream: bool
    priority: int
    cache_salt: str
    seed: int
    def __init__(self, number: _Optional[int] = ..., parameters: _Optional[int] = ..., text: _Optional[str] = ..., ids: _Optional[bytes] = ..., messages: _Optional[bytes] = ..., text_scored: _Optional[str] = ..., ids_scored: _Optional[bytes] = ..., stream: _Optional[bool] = ..., priority: _Optional[int] = ..., cache_salt: _Optional[str] = ..., seed: _Optional[int] = ...) -> None: ...

class FromRouter(_message.Message):
    __slots__ = ("hello", "started", "piece", "failed")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    PIECE_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    started: _containers.RepeatedCompositeFieldContainer[Started]
    piece: _containers.RepeatedCompositeFieldContainer[Piece]
    failed: _containers.RepeatedCompositeFieldContainer[Failed]
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., started: _Optional[_Iterable[_Union[Started, _Mapping]]] = ..., piece: _Optional[_Iterable[_Union[Piece, _Mapping]]] = ..., failed: _Optional[_Iterable[_Union[Failed, _Mapping]]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("most_prompts", "vocab_size", "max_total_tokens", "eos", "sampling_defaults")
    MOST_PROMPTS_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_TOTAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    EOS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    most_prompts: int
    vocab_size: int
    max_total_tokens: int
    eos: _containers.RepeatedScalarFieldContainer[int]
    sampling_defaults: bytes
    def __init__(self, most_prompts: _Optional[int] = ..., vocab_size: _Optional[int] = ..., max_total_tokens: _Optional[int] = ..., eos: _Optional[_Iterable[int]] = ..., sampling_defaults: _Optional[bytes] = ...) -> None: ...

class Started(_message.Message):
    __slots__ = ("prompt", "ids", "text")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    prompt: int
    ids: bytes
    text: str
    def __init__(self, prompt: _Optional[int] = ..., ids: _Optional[bytes] = ..., text: _Optional[str] = ...) -> None: ...

class Piece(_message.Message):
    __slots__ = ("prompt", "index", "text", "ids", "scores", "prompt_scores", "end")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    PROMPT_SCORES_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    prompt: int
    index: int
    text: str
    ids: bytes
    scores: Scores
    prompt_scores: Scores
    end: End
    def __init__(self, prompt: _Optional[int] = ..., index: _Optional[int] = ..., text: _Optional[str] = ..., ids: _Optional[bytes] = ..., scores: _Optional[_Union[Scores, _Mapping]] = ..., prompt_scores: _Optional[_Union[Scores, _Mapping]] = ..., end: _Optional[_Union[End, _Mapping]] = ...) -> None: ...

class End(_message.Message):
    __slots__ = ("reason", "stop_text", "stop_token", "cached", "queue", "first_token", "total")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        LENGTH: _ClassVar[End.Reason]
        STOP: _ClassVar[End.Reason]
    LENGTH: End.Reason
    STOP: End.Reason
    REASON_FIELD_NUMBER: _ClassVar[int]
    STOP_TEXT_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    reason: End.Reason
    stop_text: str
    stop_token: int
    cached: int
    queue: float
    first_token: float
    total: float
    def __init__(self, reason: _Optional[_Union[End.Reason, str]] = ..., stop_text: _Optional[str] = ..., stop_token: _Optional[int] = ..., cached: _Optional[int] = ..., queue: _Optional[float] = ..., first_token: _Optional[float] = ..., total: _Optional[float] = ...) -> None: ...

class Scores(_message.Message):
    __slots__ = ("skipped", "width", "token", "logprob", "text", "rank")
    class TextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: str
        def __init__(self, key: _Optional[int] = ..., value: _Optional[str] = ...) -> None: ...
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    skipped: int
    width: int
    token: _containers.RepeatedScalarFieldContainer[int]
    logprob: _containers.RepeatedScalarFieldContainer[float]
    text: _containers.ScalarMap[int, str]
    rank: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, skipped: _Optional[int] = ..., width: _Optional[int] = ..., token: _Optional[_Iterable[int]] = ..., logprob: _Optional[_Iterable[float]] = ..., text: _Optional[_Mapping[int, str]] = ..., rank: _Optional[_Iterable[int]] = ...) -> None: ...

class Failed(_message.Message):
    __slots__ = ("prompt", "kind", "message", "parameters")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        INVALID: _ClassVar[Failed.Kind]
        GENERATION: _ClassVar[Failed.Kind]
    INVALID: Failed.Kind
    GENERATION: Failed.Kind
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    prompt: int
    kind: Failed.Kind
    message: str
    parameters: bool
    def __init__(self, prompt: _Optional[int] = ..., kind: _Optional[_Union[Failed.Kind, str]] = ..., message: _Optional[str] = ..., parameters: _Optional[bool] = ...) -> None: ...
