from penstock_proto import shard_pb2 as _shard_pb2
from penstock_proto import request_pb2 as _request_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FromFront(_message.Message):
    __slots__ = ("ready", "submit", "stop", "cancel", "count", "scrape", "fault", "lag", "abort", "flush", "prepare", "key_begin", "key_reserve", "key_settle")
    READY_FIELD_NUMBER: _ClassVar[int]
    SUBMIT_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SCRAPE_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    ABORT_FIELD_NUMBER: _ClassVar[int]
    FLUSH_FIELD_NUMBER: _ClassVar[int]
    PREPARE_FIELD_NUMBER: _ClassVar[int]
    KEY_BEGIN_FIELD_NUMBER: _ClassVar[int]
    KEY_RESERVE_FIELD_NUMBER: _ClassVar[int]
    KEY_SETTLE_FIELD_NUMBER: _ClassVar[int]
    ready: bool
    submit: _containers.RepeatedCompositeFieldContainer[Submission]
    stop: _containers.RepeatedCompositeFieldContainer[Stop]
    cancel: _containers.RepeatedScalarFieldContainer[int]
    count: Count
    scrape: int
    fault: str
    lag: _containers.RepeatedScalarFieldContainer[float]
    abort: _containers.RepeatedCompositeFieldContainer[Abort]
    flush: int
    prepare: _containers.RepeatedCompositeFieldContainer[Preparation]
    key_begin: _containers.RepeatedCompositeFieldContainer[KeyBegin]
    key_reserve: _containers.RepeatedCompositeFieldContainer[KeyReserve]
    key_settle: _containers.RepeatedCompositeFieldContainer[KeySettle]
    def __init__(self, ready: _Optional[bool] = ..., submit: _Optional[_Iterable[_Union[Submission, _Mapping]]] = ..., stop: _Optional[_Iterable[_Union[Stop, _Mapping]]] = ..., cancel: _Optional[_Iterable[int]] = ..., count: _Optional[_Union[Count, _Mapping]] = ..., scrape: _Optional[int] = ..., fault: _Optional[str] = ..., lag: _Optional[_Iterable[float]] = ..., abort: _Optional[_Iterable[_Union[Abort, _Mapping]]] = ..., flush: _Optional[int] = ..., prepare: _Optional[_Iterable[_Union[Preparation, _Mapping]]] = ..., key_begin: _Optional[_Iterable[_Union[KeyBegin, _Mapping]]] = ..., key_reserve: _Optional[_Iterable[_Union[KeyReserve, _Mapping]]] = ..., key_settle: _Optional[_Iterable[_Union[KeySettle, _Mapping]]] = ...) -> None: ...

class KeyBegin(_message.Message):
    __slots__ = ("number", "name", "answer")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    number: int
    name: str
    answer: bool
    def __init__(self, number: _Optional[int] = ..., name: _Optional[str] = ..., answer: _Optional[bool] = ...) -> None: ...

class KeyReserve(_message.Message):
    __slots__ = ("number", "tokens")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    number: int
    tokens: int
    def __init__(self, number: _Optional[int] = ..., tokens: _Optional[int] = ...) -> None: ...

class KeySettle(_message.Message):
    __slots__ = ("number", "prompt", "generated")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    GENERATED_FIELD_NUMBER: _ClassVar[int]
    number: int
    prompt: int
    generated: int
    def __init__(self, number: _Optional[int] = ..., prompt: _Optional[int] = ..., generated: _Optional[int] = ...) -> None: ...

class Preparation(_message.Message):
    __slots__ = ("number", "grammar")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    GRAMMAR_FIELD_NUMBER: _ClassVar[int]
    number: int
    grammar: _request_pb2.Grammar
    def __init__(self, number: _Optional[int] = ..., grammar: _Optional[_Union[_request_pb2.Grammar, _Mapping]] = ...) -> None: ...

class Submission(_message.Message):
    __slots__ = ("sequence", "request")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    request: _request_pb2.Request
    def __init__(self, sequence: _Optional[int] = ..., request: _Optional[_Union[_request_pb2.Request, _Mapping]] = ...) -> None: ...

class Abort(_message.Message):
    __slots__ = ("name", "all")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    name: str
    all: bool
    def __init__(self, name: _Optional[str] = ..., all: _Optional[bool] = ...) -> None: ...

class Stop(_message.Message):
    __slots__ = ("sequence", "generated")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    GENERATED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    generated: int
    def __init__(self, sequence: _Optional[int] = ..., generated: _Optional[int] = ...) -> None: ...

class Count(_message.Message):
    __slots__ = ("requests", "disconnects", "slow_readers", "served", "failed", "unsent", "looked")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    DISCONNECTS_FIELD_NUMBER: _ClassVar[int]
    SLOW_READERS_FIELD_NUMBER: _ClassVar[int]
    SERVED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    UNSENT_FIELD_NUMBER: _ClassVar[int]
    LOOKED_FIELD_NUMBER: _ClassVar[int]
    requests: int
    disconnects: int
    slow_readers: int
    served: _containers.RepeatedCompositeFieldContainer[Served]
    failed: _containers.RepeatedScalarFieldContainer[str]
    unsent: int
    looked: bool
    def __init__(self, requests: _Optional[int] = ..., disconnects: _Optional[int] = ..., slow_readers: _Optional[int] = ..., served: _Optional[_Iterable[_Union[Served, _Mapping]]] = ..., failed: _Optional[_Iterable[str]] = ..., unsent: _Optional[int] = ..., looked: _Optional[bool] = ...) -> None: ...

class Served(_message.Message):
    __slots__ = ("total", "validation", "per_token")
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    total: float
    validation: float
    per_token: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, total: _Optional[float] = ..., validation: _Optional[float] = ..., per_token: _Optional[_Iterable[float]] = ...) -> None: ...

class ToFront(_message.Message):
    __slots__ = ("prompt", "sequence", "token", "logprob", "top", "rank", "end", "failure", "metrics", "draining", "leave", "withdrawn", "trouble", "prepared", "flushed", "api_key", "key_verdict")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    LEAVE_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWN_FIELD_NUMBER: _ClassVar[int]
    TROUBLE_FIELD_NUMBER: _ClassVar[int]
    PREPARED_FIELD_NUMBER: _ClassVar[int]
    FLUSHED_FIELD_NUMBER: _ClassVar[int]
    API_KEY_FIELD_NUMBER: _ClassVar[int]
    KEY_VERDICT_FIELD_NUMBER: _ClassVar[int]
    prompt: _containers.RepeatedCompositeFieldContainer[ScoredPrompt]
    sequence: _containers.RepeatedScalarFieldContainer[int]
    token: _containers.RepeatedScalarFieldContainer[int]
    logprob: _containers.RepeatedScalarFieldContainer[float]
    top: _containers.RepeatedCompositeFieldContainer[_shard_pb2.TopTokens]
    rank: _containers.RepeatedScalarFieldContainer[int]
    end: _containers.RepeatedCompositeFieldContainer[End]
    failure: _containers.RepeatedCompositeFieldContainer[Failure]
    metrics: Metrics
    draining: bool
    leave: bool
    withdrawn: bool
    trouble: str
    prepared: _containers.RepeatedCompositeFieldContainer[Prepared]
    flushed: _containers.RepeatedCompositeFieldContainer[Flushed]
    api_key: _containers.RepeatedScalarFieldContainer[str]
    key_verdict: _containers.RepeatedCompositeFieldContainer[KeyVerdict]
    def __init__(self, prompt: _Optional[_Iterable[_Union[ScoredPrompt, _Mapping]]] = ..., sequence: _Optional[_Iterable[int]] = ..., token: _Optional[_Iterable[int]] = ..., logprob: _Optional[_Iterable[float]] = ..., top: _Optional[_Iterable[_Union[_shard_pb2.TopTokens, _Mapping]]] = ..., rank: _Optional[_Iterable[int]] = ..., end: _Optional[_Iterable[_Union[End, _Mapping]]] = ..., failure: _Optional[_Iterable[_Union[Failure, _Mapping]]] = ..., metrics: _Optional[_Union[Metrics, _Mapping]] = ..., draining: _Optional[bool] = ..., leave: _Optional[bool] = ..., withdrawn: _Optional[bool] = ..., trouble: _Optional[str] = ..., prepared: _Optional[_Iterable[_Union[Prepared, _Mapping]]] = ..., flushed: _Optional[_Iterable[_Union[Flushed, _Mapping]]] = ..., api_key: _Optional[_Iterable[str]] = ..., key_verdict: _Optional[_Iterable[_Union[KeyVerdict, _Mapping]]] = ...) -> None: ...

class KeyVerdict(_message.Message):
    __slots__ = ("number", "refused", "wait", "requests", "tokens")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    number: int
    refused: str
    wait: float
    requests: Allowance
    tokens: Allowance
    def __init__(self, number: _Optional[int] = ..., refused: _Optional[str] = ..., wait: _Optional[float] = ..., requests: _Optional[_Union[Allowance, _Mapping]] = ..., tokens: _Optional[_Union[Allowance, _Mapping]] = ...) -> None: ...

class Allowance(_message.Message):
    __slots__ = ("left", "full_in")
    LEFT_FIELD_NUMBER: _ClassVar[int]
    FULL_IN_FIELD_NUMBER: _ClassVar[int]
    left: int
    full_in: float
    def __init__(self, left: _Optional[int] = ..., full_in: _Optional[float] = ...) -> None: ...

class Flushed(_message.Message):
    __slots__ = ("number", "done")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    number: int
    done: bool
    def __init__(self, number: _Optional[int] = ..., done: _Optional[bool] = ...) -> None: ...

class Prepared(_message.Message):
    __slots__ = ("number", "failure")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    number: int
    failure: Failure
    def __init__(self, number: _Optional[int] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class ScoredPrompt(_message.Message):
    __slots__ = ("sequence", "logprob", "top_token", "top_logprob", "rank")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    TOP_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOP_LOGPROB_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    logprob: _containers.RepeatedScalarFieldContainer[float]
    top_token: bytes
    top_logprob: bytes
    rank: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, sequence: _Optional[int] = ..., logprob: _Optional[_Iterable[float]] = ..., top_token: _Optional[bytes] = ..., top_logprob: _Optional[bytes] = ..., rank: _Optional[_Iterable[int]] = ...) -> None: ...

class End(_message.Message):
    __slots__ = ("sequence", "reason", "generated", "cached", "queue", "first_token", "total")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        LENGTH: _ClassVar[End.Reason]
        EOS: _ClassVar[End.Reason]
        STOP: _ClassVar[End.Reason]
    LENGTH: End.Reason
    EOS: End.Reason
    STOP: End.Reason
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    GENERATED_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    reason: End.Reason
    generated: int
    cached: int
    queue: float
    first_token: float
    total: float
    def __init__(self, sequence: _Optional[int] = ..., reason: _Optional[_Union[End.Reason, str]] = ..., generated: _Optional[int] = ..., cached: _Optional[int] = ..., queue: _Optional[float] = ..., first_token: _Optional[float] = ..., total: _Optional[float] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("sequence", "kind", "message")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        GENERATION: _ClassVar[Failure.Kind]
        DRAINING: _ClassVar[Failure.Kind]
        SHUT_DOWN: _ClassVar[Failure.Kind]
        GRAMMAR: _ClassVar[Failure.Kind]
        BUSY: _ClassVar[Failure.Kind]
        ABORTED: _ClassVar[Failure.Kind]
    GENERATION: Failure.Kind
    DRAINING: Failure.Kind
    SHUT_DOWN: Failure.Kind
    GRAMMAR: Failure.Kind
    BUSY: Failure.Kind
    ABORTED: Failure.Kind
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    kind: Failure.Kind
    message: str
    def __init__(self, sequence: _Optional[int] = ..., kind: _Optional[_Union[Failure.Kind, str]] = ..., message: _Optional[str] = ...) -> None: ...

class Metrics(_message.Message):
    __slots__ = ("scrape", "text")
    SCRAPE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    scrape: int
    text: bytes
    def __init__(self, scrape: _Optional[int] = ..., text: _Optional[bytes] = ...) -> None: ...
