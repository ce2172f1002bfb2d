"""A server of the program's own: `Runtime` as a backend, `Engine` for plain generation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Self

from penstock.embedded import EmbeddedServer
from penstock.lang.backends.runtime_endpoint import RuntimeEndpoint

# SGLang's names of options, and the launcher's. `max_total_tokens` is the launcher's, of a request.
OPTIONS = {
    "context_length": "max_total_tokens",
    "disable_radix_cache": "disable_prefix_cache",
    "max_prefill_tokens": "max_batch_prefill_tokens",
    "max_running_requests": "max_batch_size",
    "mem_fraction_static": "cuda_memory_fraction",
    "page_size": "kv_block_size",
    "quantization": "quantize",
    "tokenizer_path": "tokenizer_config_path",
    "tp_size": "num_shard",
    "tp": "num_shard",
}


class Runtime(RuntimeEndpoint):
    """Starts a server and is its backend. It ends with `shutdown`, as a context manager, or with
    the program, however that ends.

    model_path: a hub id or a folder; None: the built-in demo model. options: the launcher's under
    their names with underscores, or SGLang's in `OPTIONS`. Raises penstock.ServerError with what
    the server says.
    """

    def __init__(
        self,
        model_path: str | None = None,
        *,
        timeout: float = 600.0,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        given: dict[str, Any] = {"max_requests_per_client": 0}  # there is one client
        given |= {OPTIONS.get(name, name): value for name, value in options.items()}
        names = {OPTIONS.get(name, name): name for name in options}
        self.server = EmbeddedServer(model_path, names=names, **given)
        try:
            super().__init__(
                self.server.url,
                api_key=options.get("api_key"),
                timeout=timeout,
                chat_template_kwargs=chat_template_kwargs,
            )
        except BaseException:
            self.server.close()
            raise

    @property
    def url(self) -> str:
        """Where the server listens."""
        return self.server.url

    @property
    def endpoint(self) -> RuntimeEndpoint:
        """The backend: itself."""
        return self

    def shutdown(self) -> None:
        """End the server. Harmless when it has ended."""
        super().shutdown()
        self.server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()


class Engine:
    """SGLang's offline engine: prompts in, dicts with `text` and `meta_info` out.

    options: as of `Runtime`. Raises penstock.ServerError.
    """

    def __init__(self, model_path: str | None = None, **options: Any) -> None:
        self.runtime = Runtime(model_path, **options)

    def generate(
        self,
        prompt: str | Sequence[str] | None = None,
        sampling_params: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        input_ids: Sequence[int] | Sequence[Sequence[int]] | None = None,
        *,
        stream: bool = False,
        **fields: Any,
    ) -> Any:
        """One dict, or of a list of prompts a list; with `stream` an iterator of all there is so
        far. fields: others of /generate, as return_logprob=True. Raises BackendError."""
        body = _body(prompt, sampling_params, input_ids, fields)
        if stream:
            return self._events(body)
        return self.runtime._server.ask("/generate", body)

    async def async_generate(self, *args: Any, stream: bool = False, **fields: Any) -> Any:
        """The same for asyncio; with `stream` an asynchronous iterator."""
        if stream:
            return _pulled(self.generate(*args, stream=True, **fields))
        return await asyncio.to_thread(self.generate, *args, **fields)

    def get_server_info(self) -> dict[str, Any]:
        """Limits and options of the server."""
        return self.runtime.get_server_info()

    def flush_cache(self) -> None:
        """Empty the prefix cache."""
        self.runtime.flush_cache()

    def shutdown(self) -> None:
        """End the server. Harmless when it has ended."""
        self.runtime.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def _events(self, body: Mapping[str, Any]) -> Iterator[Any]:
        return self.runtime._server.events("/generate", {**body, "stream": True})


def _body(
    prompt: Any, sampling_params: Any, input_ids: Any, fields: Mapping[str, Any]
) -> dict[str, Any]:
    given = {"text": prompt, "input_ids": input_ids, "sampling_params": sampling_params, **fields}
    return {"sampling_params": {}} | {n: v for n, v in given.items() if v is not None}


async def _pulled(events: Iterator[Any]) -> AsyncIterator[Any]:
    """Each taken in a thread, as it waits for the server."""
    end = object()
    while (event := await asyncio.to_thread(next, events, end)) is not end:
        yield event
