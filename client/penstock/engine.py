"""What LLM and AsyncLLM have in common: a server of their own, and the connection to it."""

from __future__ import annotations

import json
import os
import random
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from penstock.assembly import Assembly
from penstock.batch import Ask, fields_of
from penstock.connection import Connection
from penstock.embedded import EmbeddedServer, ServerError
from penstock.engine_args import NAMES, SEQUENCES, launcher_options, own_arguments
from penstock.prompts import Given
from penstock.sampling_params import SamplingParams
from penstock.tokenizer import Tokenizer
from penstock_proto.offline_pb2 import Prompt

DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine
STOP_SEQUENCES = 256  # of one request
CODE = "trust_remote_code has no effect: nothing in a model folder is ever executed"


class Engine:
    """A running model. A context manager; `close`, or the end of the program, ends it.

    Raises ServerError with the launcher's words where the model cannot be served, ValueError and
    TypeError for arguments.
    """

    def __init__(self, model: str | os.PathLike[str] | None, arguments: Mapping[str, Any]) -> None:
        if model is not None and not isinstance(model, str | os.PathLike):
            raise TypeError(f"model must be text or a path, not {type(model).__name__}")
        own, options = own_arguments(arguments), launcher_options(arguments)
        tokenizer = own.get("tokenizer")
        if tokenizer is not None and str(tokenizer) != str(model):
            raise ValueError("tokenizer must be the model's own: others are not read")
        seats, further = options["max_batch_size"], own.get("launcher_options", {})
        at_once = max(SEQUENCES, seats) if isinstance(seats, int) else SEQUENCES
        options |= {"max_concurrent_requests": at_once, "max_stop_sequences": STOP_SEQUENCES}
        options |= further
        token = own.get("hf_token")  # True: the one that the hub's tools have kept
        environment = {"HF_TOKEN": token} if isinstance(token, str) and token else {}
        seed = arguments.get("seed", 0)
        self._seeds = random.Random(None if seed is None else int(seed))
        self._overrides = own.get("override_generation_config", {})
        self._key = options.get("api_key")
        self._requests = 0
        with _template_file(own.get("chat_template")) as template:
            if template is not None:
                options["tokenizer_config_path"] = template
            self.server = EmbeddedServer(
                model,
                environment=environment,
                quiet=own.get("quiet", False),
                progress=own.get("use_tqdm_on_load", True),
                names={option: name for option, name in NAMES.items() if option not in further},
                offline_socket=True,
                **options,
            )
        try:
            path = str(self.server.facts["offline_socket"])
            self.connection = Connection(path, self.server.why_gone)
        except BaseException:
            self.server.close()
            raise

    def close(self) -> None:
        """End the server, and whatever runs in it."""
        self.connection.close()
        self.server.close()

    shutdown = close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where the same model answers over HTTP, to programs of this machine."""
        return self.server.url

    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer, as the server has it."""
        return Tokenizer(self.call, list(self.connection.hello.eos))

    def get_default_sampling_params(self) -> SamplingParams:
        """What the model's generation_config.json asks for, and `override_generation_config`."""
        known = json.loads(self.connection.hello.sampling_defaults) | self._overrides
        known.pop("typical_p", None)  # vLLM has none
        renamed = {"max_new_tokens": "max_tokens"}
        return SamplingParams(**{renamed.get(name, name): known[name] for name in known})

    def reset_prefix_cache(self) -> bool:
        """Forget cached prefixes. False, and nothing is done, while anything runs."""
        try:
            self.call("/flush_cache", {})
        except ValueError:
            return False
        return True

    def call(self, route: str, body: Mapping[str, Any] | None) -> Any:
        """What a route of the server answers: GET where there is no body. Raises ValueError with
        its sentence, ServerError where it is gone."""
        headers = {"Content-Type": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + route, data, headers)
        try:
            with DIRECTLY.open(request) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            raise ValueError(_sentence(error.read())) from None
        except OSError:
            raise ServerError(self.server.why_gone()) from None
        try:
            return json.loads(content)
        except ValueError:
            return content.decode()

    def ask(
        self,
        place: int,
        message: Prompt,
        params: SamplingParams,
        *,
        prompt: str | None,
        request_id: str | None = None,
        extra: Mapping[str, Any] = {},
        conversation: bytes = b"",
    ) -> Ask:
        """A prompt that is ready to be sent. extra: fields beside those of `params`."""
        seed = self._seeds.getrandbits(63) if params.seed is None else params.seed
        message.seed = seed % 2**64
        if params.skip_reading_prefix_cache:
            message.cache_salt = f"{message.cache_salt} {os.urandom(8).hex()}"
        if request_id is None:
            request_id = str(self._requests)
            self._requests += 1
        assembly = Assembly(request_id, prompt, params)
        return Ask(place, message, assembly, fields_of(params, extra), conversation)

    def ask_of(
        self,
        place: int,
        given: Given,
        params: SamplingParams,
        *,
        priority: int = 0,
        stream: bool = False,
        request_id: str | None = None,
        extra: Mapping[str, Any] = {},
    ) -> Ask:
        """The same of a prompt. priority: vLLM's, where smaller is sooner."""
        message = given.message()
        check_priority(priority)
        message.priority = -priority
        message.stream = stream
        return self.ask(
            place, message, params, prompt=given.text, request_id=request_id, extra=extra
        )


def check_priority(priority: int) -> None:
    """Raises ValueError for one that no prompt has."""
    if not -100 <= priority <= 100:
        raise ValueError(f"`priority` must be >= -100 and <= 100. Given: {priority}")


def conversation_fields(
    *,
    chat_template: str | None,
    add_generation_prompt: bool,
    continue_final_message: bool,
    tools: Sequence[Mapping[str, Any]] | None,
    chat_template_kwargs: Mapping[str, Any] | None,
) -> bytes:
    """What makes prompts of conversations. Raises ValueError."""
    if chat_template is not None:
        raise ValueError("chat_template must be given to LLM(…), not with a call")
    if add_generation_prompt and continue_final_message:
        raise ValueError("add_generation_prompt and continue_final_message must not both be true")
    fields = {
        "add_generation_prompt": add_generation_prompt,
        "continue_final_message": continue_final_message,
        "tools": tools,
        "chat_template_kwargs": chat_template_kwargs,
    }
    return json.dumps({name: value for name, value in fields.items() if value}).encode()


def tokenization(arguments: Mapping[str, Any] | None) -> dict[str, Any]:
    """Fields for `tokenization_kwargs`. Raises ValueError for what has none."""
    known = {"add_special_tokens", "truncate_prompt_tokens"}
    given = dict(arguments or {})
    if unknown := given.keys() - known:
        raise ValueError(f"tokenization_kwargs may hold {sorted(known)}. Given: {sorted(unknown)}")
    return given


@contextmanager
def _template_file(template: str | os.PathLike[str] | None) -> Iterator[str | None]:
    """A file with a chat template, while the server reads it. template: its text or its path."""
    if template is None:
        yield None
    elif "{" not in str(template):
        yield str(Path(template).absolute())
    else:
        with tempfile.NamedTemporaryFile("w", prefix="penstock-", suffix=".jinja") as file:
            file.write(str(template))
            file.flush()
            yield file.name


def _sentence(body: bytes) -> str:
    """Of an error's body."""
    try:
        error = json.loads(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")
