from penstock_proto import request_pb2 as _request_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union
from penstock_proto.request_pb2 import Request as Request
from penstock_proto.request_pb2 import Grammar as Grammar
from penstock_proto.request_pb2 import Sampling as Sampling
from penstock_proto.request_pb2 import LogitBias as LogitBias
from penstock_proto.request_pb2 import TokenRules as TokenRules
from penstock_proto.request_pb2 import TokenRun as TokenRun

DESCRIPTOR: _descriptor.FileDescriptor

class InfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class InfoResponse(_message.Message):
    __slots__ = ("rank", "world_size", "device", "device_name", "dtype", "architecture", "vocab_size", "max_position_embeddings", "block_size", "kv_bytes_per_token", "weight_bytes", "weights", "kv_cache_dtype", "deterministic", "quantized_activations", "phases")
    class PhasesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    RANK_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_POSITION_EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    KV_BYTES_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_DTYPE_FIELD_NUMBER: _ClassVar[int]
    DETERMINISTIC_FIELD_NUMBER: _ClassVar[int]
    QUANTIZED_ACTIVATIONS_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    rank: int
    world_size: int
    device: str
    device_name: str
    dtype: str
    architecture: str
    vocab_size: int
    max_position_embeddings: int
    block_size: int
    kv_bytes_per_token: int
    weight_bytes: int
    weights: str
    kv_cache_dtype: str
    deterministic: bool
    quantized_activations: str
    phases: _containers.ScalarMap[str, float]
    def __init__(self, rank: _Optional[int] = ..., world_size: _Optional[int] = ..., device: _Optional[str] = ..., device_name: _Optional[str] = ..., dtype: _Optional[str] = ..., architecture: _Optional[str] = ..., vocab_size: _Optional[int] = ..., max_position_embeddings: _Optional[int] = ..., block_size: _Optional[int] = ..., kv_bytes_per_token: _Optional[int] = ..., weight_bytes: _Optional[int] = ..., weights: _Optional[str] = ..., kv_cache_dtype: _Optional[str] = ..., deterministic: _Optional[bool] = ..., quantized_activations: _Optional[str] = ..., phases: _Optional[_Mapping[str, float]] = ...) -> None: ...

class WarmupRequest(_message.Message):
    __slots__ = ("max_prefill_tokens", "max_slots", "max_sequence_length", "max_batch_total_tokens", "max_top_n", "max_chunks")
    MAX_PREFILL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_SLOTS_FIELD_NUMBER: _ClassVar[int]
    MAX_SEQUENCE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_TOTAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOP_N_FIELD_NUMBER: _ClassVar[int]
    MAX_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    max_prefill_tokens: int
    max_slots: int
    max_sequence_length: int
    max_batch_total_tokens: int
    max_top_n: int
    max_chunks: int
    def __init__(self, max_prefill_tokens: _Optional[int] = ..., max_slots: _Optional[int] = ..., max_sequence_length: _Optional[int] = ..., max_batch_total_tokens: _Optional[int] = ..., max_top_n: _Optional[int] = ..., max_chunks: _Optional[int] = ...) -> None: ...

class WarmupResponse(_message.Message):
    __slots__ = ("num_blocks", "prefill_seconds", "decode_seconds", "memory_used", "memory_total", "phases", "memory", "cost_rows", "cost_seconds", "max_prefill_tokens", "max_slots")
    class PhasesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class MemoryEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    PREFILL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DECODE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    COST_ROWS_FIELD_NUMBER: _ClassVar[int]
    COST_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_PREFILL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_SLOTS_FIELD_NUMBER: _ClassVar[int]
    num_blocks: int
    prefill_seconds: float
    decode_seconds: float
    memory_used: int
    memory_total: int
    phases: _containers.ScalarMap[str, float]
    memory: _containers.ScalarMap[str, int]
    cost_rows: _containers.RepeatedScalarFieldContainer[int]
    cost_seconds: _containers.RepeatedScalarFieldContainer[float]
    max_prefill_tokens: int
    max_slots: int
    def __init__(self, num_blocks: _Optional[int] = ..., prefill_seconds: _Optional[float] = ..., decode_seconds: _Optional[float] = ..., memory_used: _Optional[int] = ..., memory_total: _Optional[int] = ..., phases: _Optional[_Mapping[str, float]] = ..., memory: _Optional[_Mapping[str, int]] = ..., cost_rows: _Optional[_Iterable[int]] = ..., cost_seconds: _Optional[_Iterable[float]] = ..., max_prefill_tokens: _Optional[int] = ..., max_slots: _Optional[int] = ...) -> None: ...

class TokenizerPart(_message.Message):
    __slots__ = ("json", "eos")
    JSON_FIELD_NUMBER: _ClassVar[int]
    EOS_FIELD_NUMBER: _ClassVar[int]
    json: bytes
    eos: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, json: _Optional[bytes] = ..., eos: _Optional[_Iterable[int]] = ...) -> None: ...

class TokenizerResponse(_message.Message):
    __slots__ = ("error",)
    ERROR_FIELD_NUMBER: _ClassVar[int]
    error: str
    def __init__(self, error: _Optional[str] = ...) -> None: ...

class CompileRequest(_message.Message):
    __slots__ = ("id", "grammar", "forces_much")
    ID_FIELD_NUMBER: _ClassVar[int]
    GRAMMAR_FIELD_NUMBER: _ClassVar[int]
    FORCES_MUCH_FIELD_NUMBER: _ClassVar[int]
    id: int
    grammar: _request_pb2.Grammar
    forces_much: bool
    def __init__(self, id: _Optional[int] = ..., grammar: _Optional[_Union[_request_pb2.Grammar, _Mapping]] = ..., forces_much: _Optional[bool] = ...) -> None: ...

class CompileResponse(_message.Message):
    __slots__ = ("outcome", "error", "seconds", "forced")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        READY: _ClassVar[CompileResponse.Outcome]
        REFUSED: _ClassVar[CompileResponse.Outcome]
        TOO_SLOW: _ClassVar[CompileResponse.Outcome]
        BUSY: _ClassVar[CompileResponse.Outcome]
    READY: CompileResponse.Outcome
    REFUSED: CompileResponse.Outcome
    TOO_SLOW: CompileResponse.Outcome
    BUSY: CompileResponse.Outcome
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    FORCED_FIELD_NUMBER: _ClassVar[int]
    outcome: CompileResponse.Outcome
    error: str
    seconds: float
    forced: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, outcome: _Optional[_Union[CompileResponse.Outcome, str]] = ..., error: _Optional[str] = ..., seconds: _Optional[float] = ..., forced: _Optional[_Iterable[int]] = ...) -> None: ...

class HealthRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HealthResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StepCommand(_message.Message):
    __slots__ = ("step", "release", "admit", "grant_slot", "grant_block", "chunk_slot", "chunk_length", "decode_changed", "decode", "repeat", "group_rows", "group_blocks", "forget_grammar", "append", "copy_from", "copy_to")
    STEP_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    ADMIT_FIELD_NUMBER: _ClassVar[int]
    GRANT_SLOT_FIELD_NUMBER: _ClassVar[int]
    GRANT_BLOCK_FIELD_NUMBER: _ClassVar[int]
    CHUNK_SLOT_FIELD_NUMBER: _ClassVar[int]
    CHUNK_LENGTH_FIELD_NUMBER: _ClassVar[int]
    DECODE_CHANGED_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    REPEAT_FIELD_NUMBER: _ClassVar[int]
    GROUP_ROWS_FIELD_NUMBER: _ClassVar[int]
    GROUP_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    FORGET_GRAMMAR_FIELD_NUMBER: _ClassVar[int]
    APPEND_FIELD_NUMBER: _ClassVar[int]
    COPY_FROM_FIELD_NUMBER: _ClassVar[int]
    COPY_TO_FIELD_NUMBER: _ClassVar[int]
    step: int
    release: _containers.RepeatedScalarFieldContainer[int]
    admit: _containers.RepeatedCompositeFieldContainer[Admission]
    grant_slot: _containers.RepeatedScalarFieldContainer[int]
    grant_block: _containers.RepeatedScalarFieldContainer[int]
    chunk_slot: _containers.RepeatedScalarFieldContainer[int]
    chunk_length: _containers.RepeatedScalarFieldContainer[int]
    decode_changed: bool
    decode: _containers.RepeatedScalarFieldContainer[int]
    repeat: int
    group_rows: _containers.RepeatedScalarFieldContainer[int]
    group_blocks: _containers.RepeatedScalarFieldContainer[int]
    forget_grammar: _containers.RepeatedScalarFieldContainer[int]
    append: _containers.RepeatedCompositeFieldContainer[Append]
    copy_from: _containers.RepeatedScalarFieldContainer[int]
    copy_to: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, step: _Optional[int] = ..., release: _Optional[_Iterable[int]] = ..., admit: _Optional[_Iterable[_Union[Admission, _Mapping]]] = ..., grant_slot: _Optional[_Iterable[int]] = ..., grant_block: _Optional[_Iterable[int]] = ..., chunk_slot: _Optional[_Iterable[int]] = ..., chunk_length: _Optional[_Iterable[int]] = ..., decode_changed: _Optional[bool] = ..., decode: _Optional[_Iterable[int]] = ..., repeat: _Optional[int] = ..., group_rows: _Optional[_Iterable[int]] = ..., group_blocks: _Optional[_Iterable[int]] = ..., forget_grammar: _Optional[_Iterable[int]] = ..., append: _Optional[_Iterable[_Union[Append, _Mapping]]] = ..., copy_from: _Optional[_Iterable[int]] = ..., copy_to: _Optional[_Iterable[int]] = ...) -> None: ...

class Append(_message.Message):
    __slots__ = ("slot", "tokens")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    slot: int
    tokens: bytes
    def __init__(self, slot: _Optional[int] = ..., tokens: _Optional[bytes] = ...) -> None: ...

class Admission(_message.Message):
    __slots__ = ("slot", "request", "generated", "cached", "blocks", "grammar")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    GENERATED_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    GRAMMAR_FIELD_NUMBER: _ClassVar[int]
    slot: int
    request: _request_pb2.Request
    generated: bytes
    cached: int
    blocks: bytes
    grammar: int
    def __init__(self, slot: _Optional[int] = ..., request: _Optional[_Union[_request_pb2.Request, _Mapping]] = ..., generated: _Optional[bytes] = ..., cached: _Optional[int] = ..., blocks: _Optional[bytes] = ..., grammar: _Optional[int] = ...) -> None: ...

class StepResult(_message.Message):
    __slots__ = ("step", "token", "logprob", "top", "prompt", "device_ns", "error", "refused", "mask_ns", "mask_wait_ns", "forced", "rank")
    STEP_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_NS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    MASK_NS_FIELD_NUMBER: _ClassVar[int]
    MASK_WAIT_NS_FIELD_NUMBER: _ClassVar[int]
    FORCED_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    step: int
    token: _containers.RepeatedScalarFieldContainer[int]
    logprob: _containers.RepeatedScalarFieldContainer[float]
    top: _containers.RepeatedCompositeFieldContainer[TopTokens]
    prompt: _containers.RepeatedCompositeFieldContainer[PromptLogprobs]
    device_ns: int
    error: StepError
    refused: _containers.RepeatedCompositeFieldContainer[Refusal]
    mask_ns: int
    mask_wait_ns: int
    forced: _containers.RepeatedCompositeFieldContainer[Forced]
    rank: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, step: _Optional[int] = ..., token: _Optional[_Iterable[int]] = ..., logprob: _Optional[_Iterable[float]] = ..., top: _Optional[_Iterable[_Union[TopTokens, _Mapping]]] = ..., prompt: _Optional[_Iterable[_Union[PromptLogprobs, _Mapping]]] = ..., device_ns: _Optional[int] = ..., error: _Optional[_Union[StepError, _Mapping]] = ..., refused: _Optional[_Iterable[_Union[Refusal, _Mapping]]] = ..., mask_ns: _Optional[int] = ..., mask_wait_ns: _Optional[int] = ..., forced: _Optional[_Iterable[_Union[Forced, _Mapping]]] = ..., rank: _Optional[_Iterable[int]] = ...) -> None: ...

class Forced(_message.Message):
    __slots__ = ("row", "token")
    ROW_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    row: int
    token: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, row: _Optional[int] = ..., token: _Optional[_Iterable[int]] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("slot", "kind", "message")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        BAD_ADMISSION: _ClassVar[Refusal.Kind]
        NOT_A_NUMBER: _ClassVar[Refusal.Kind]
        GRAMMAR_FAILED: _ClassVar[Refusal.Kind]
        OUT_OF_MEMORY: _ClassVar[Refusal.Kind]
    BAD_ADMISSION: Refusal.Kind
    NOT_A_NUMBER: Refusal.Kind
    GRAMMAR_FAILED: Refusal.Kind
    OUT_OF_MEMORY: Refusal.Kind
    SLOT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    slot: int
    kind: Refusal.Kind
    message: str
    def __init__(self, slot: _Optional[int] = ..., kind: _Optional[_Union[Refusal.Kind, str]] = ..., message: _Optional[str] = ...) -> None: ...

class TopTokens(_message.Message):
    __slots__ = ("row", "token", "logprob")
    ROW_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    row: int
    token: _containers.RepeatedScalarFieldContainer[int]
    logprob: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, row: _Optional[int] = ..., token: _Optional[_Iterable[int]] = ..., logprob: _Optional[_Iterable[float]] = ...) -> None: ...

class PromptLogprobs(_message.Message):
    __slots__ = ("slot", "start", "logprob", "top_token", "top_logprob", "rank")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    TOP_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOP_LOGPROB_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    slot: int
    start: int
    logprob: _containers.RepeatedScalarFieldContainer[float]
    top_token: bytes
    top_logprob: bytes
    rank: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, slot: _Optional[int] = ..., start: _Optional[int] = ..., logprob: _Optional[_Iterable[float]] = ..., top_token: _Optional[bytes] = ..., top_logprob: _Optional[bytes] = ..., rank: _Optional[_Iterable[int]] = ...) -> None: ...

class StepError(_message.Message):
    __slots__ = ("kind", "message")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        INTERNAL: _ClassVar[StepError.Kind]
        OUT_OF_MEMORY: _ClassVar[StepError.Kind]
        BAD_COMMAND: _ClassVar[StepError.Kind]
    INTERNAL: StepError.Kind
    OUT_OF_MEMORY: StepError.Kind
    BAD_COMMAND: StepError.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    kind: StepError.Kind
    message: str
    def __init__(self, kind: _Optional[_Union[StepError.Kind, str]] = ..., message: _Optional[str] = ...) -> None: ...
