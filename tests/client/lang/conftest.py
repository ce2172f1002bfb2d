"""One embedded server for all tests of the language, and a backend that needs none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

import penstock.lang as sgl
from penstock.lang.backend import Generation, Selection
from penstock.lang.choices import Method
from penstock.lang.prompt import Prompt
from penstock.lang.sampling import Sampling


@pytest.fixture(scope="session")
def runtime() -> Iterator[sgl.Runtime]:
    """The demo model in a server of this process's own."""
    with sgl.Runtime(device="cpu") as running:
        yield running


@pytest.fixture
def endpoint(runtime: sgl.Runtime) -> sgl.RuntimeEndpoint:
    """That server by its URL, as the default backend."""
    found = sgl.RuntimeEndpoint(runtime.url)
    sgl.set_default_backend(found)
    return found


@pytest.fixture(params=["server", "embedded"])
def either(request: pytest.FixtureRequest, runtime: sgl.Runtime) -> sgl.RuntimeEndpoint:
    """The default backend: by the URL, or the embedded server itself."""
    backend = runtime if request.param == "embedded" else sgl.RuntimeEndpoint(runtime.url)
    sgl.set_default_backend(backend)
    return backend


class Told(sgl.Backend):
    """Answers as it is told, at once or when it is let."""

    def __init__(self, answer: Callable[[Prompt], str] = lambda prompt: "…") -> None:
        self.answer = answer
        self.prompts: list[Prompt] = []
        self.samplings: list[Sampling] = []
        self.at_once = self.most_at_once = 0
        self.gate: threading.Barrier | None = None
        self._lock = threading.Lock()

    def generate(self, prompt: Prompt, sampling: Sampling) -> Generation:
        with self._lock:
            self.prompts.append(prompt)
            self.samplings.append(sampling)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.gate is not None:
                self.gate.wait(20)
            return Generation(self.answer(prompt), {"about": len(prompt.text)})
        finally:
            with self._lock:
                self.at_once -= 1

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Generation]:
        whole = self.generate(prompt, sampling)
        assert isinstance(whole.text, str)
        for end in range(len(whole.text) + 1):
            yield Generation(whole.text[:end], {"seen": end})

    def select(self, prompt: Prompt, choices: Sequence[str], method: Method) -> Selection:
        return Selection(choices[-1], {"method": method.name})

    def prefill(self, prompt: Prompt) -> None:
        self.prompts.append(prompt)


@pytest.fixture
def told() -> Told:
    """The default backend."""
    backend = Told()
    sgl.set_default_backend(backend)
    return backend
