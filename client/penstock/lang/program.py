"""Programs: Python functions of a state, with what they run with."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from penstock.lang import batch
from penstock.lang.backend import Backend, chosen
from penstock.lang.execution import Execution
from penstock.lang.sampling import NEUTRAL, RUN, Sampling, as_fields
from penstock.lang.state import ProgramState
from penstock.lang.tracing import Trace, traced

Arguments = Mapping[str, Any]
_SEVERAL = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Program:
    """A function that `@function` has decorated. bound: arguments that are given already."""

    def __init__(self, func: Callable[..., Any], bound: Arguments | None = None) -> None:
        """Raises TypeError for a function without an argument for the state."""
        signature = inspect.signature(func)
        parameters = [p.name for p in signature.parameters.values() if p.kind not in _SEVERAL]
        if not parameters:
            raise TypeError(f"{func.__name__}() must take the state as its first argument")
        self.func = func
        self.bound = dict(bound or {})
        self.__name__, self.__doc__ = func.__name__, func.__doc__
        self.__wrapped__ = func
        self.names = parameters[1:]
        self._signature = signature

    def bind(self, **arguments: Any) -> Program:
        """The same with these arguments given, for `run` and for `run_batch([…])`."""
        return Program(self.func, self.bound | arguments)

    def __call__(self, *args: Any, **arguments: Any) -> Any:
        """As `run`; with a state first, as a part of the program that the state is of."""
        if args and isinstance(args[0], ProgramState):
            return self.func(*args, **(self.bound | arguments))
        return self.run(*args, **arguments)

    def __repr__(self) -> str:
        return f"<program {self.__name__}>"

    def run(
        self,
        *args: Any,
        stream: bool = False,
        backend: Backend | None = None,
        use_thread: bool = True,
        **arguments: Any,
    ) -> ProgramState:
        """Run it to its end and return its state; with `stream` return at once, for `text_iter`.

        arguments: the function's, and fields of `Sampling` (max_new_tokens=128, temperature=1.0, …)
        for each `gen` that has none of its own. A name that is both is the function's.
        use_thread: False generates where the program says so, without threads.
        Raises the program's errors; in a stream where it is read.
        """
        own, sampling = self._divided(arguments)
        bound = self._arguments(args, own)
        return self._start(bound, sampling, chosen(backend), stream, use_thread)

    def run_batch(
        self,
        batch_kwargs: Sequence[Arguments | Sequence[Any]],
        *,
        backend: Backend | None = None,
        num_threads: int | str = "auto",
        progress_bar: bool = False,
        generator_style: bool = False,
        raise_errors: bool = True,
        **sampling: Any,
    ) -> Any:
        """Run it for each of many arguments (dicts, or tuples in their order), several at once.

        Returns the states in order; with `generator_style` an iterator of them, which runs not far
        ahead of who reads it. The first error ends the batch and is raised; without `raise_errors`
        it stays with its state, which raises it where it is read. sampling: as for `run`.
        """
        if isinstance(batch_kwargs, Mapping) or not isinstance(batch_kwargs, Sequence):
            raise TypeError("`batch_kwargs` must be a list of dicts or of tuples")
        rows = [self._row(row, place) for place, row in enumerate(batch_kwargs)]
        return run_batch(
            [self.bind(**row) for row in rows],
            backend=backend,
            num_threads=num_threads,
            progress_bar=progress_bar,
            generator_style=generator_style,
            raise_errors=raise_errors,
            **sampling,
        )

    def trace(self, **arguments: Any) -> Trace:
        """What it does until it looks at an argument that is not given here. Its function runs, and
        what that does beside is done."""
        given = self.bound | arguments
        return traced(self.func, self.names, given)

    def cache(self, backend: Backend | None = None) -> Trace:
        """Let the backend compute what each run begins with."""
        trace = self.trace()
        if trace.prefix.has_turns or trace.prefix.pieces:
            chosen(backend).prefill(trace.prefix)
        return trace

    def start(self, sampling: Sampling, backend: Backend, raises: bool) -> ProgramState:
        """Run it with what is bound. raises: else an error stays with the state."""
        return self._start(self._arguments((), {}), sampling, backend, False, True, raises)

    def _start(
        self,
        arguments: Arguments,
        sampling: Sampling,
        backend: Backend,
        stream: bool,
        threaded: bool,
        raises: bool = True,
    ) -> ProgramState:
        execution = Execution(backend, sampling, streams=stream, threaded=threaded)
        state = ProgramState(execution)
        body = partial(self._body, state, arguments)
        if stream:
            execution.body = threading.Thread(target=body, name="penstock-program", daemon=True)
            execution.body.start()
            return state
        execution.body = threading.current_thread()
        body()
        if raises:
            execution.lane.raise_error()
        return state

    def _body(self, state: ProgramState, arguments: Arguments) -> None:
        execution = state.execution
        try:
            state.ret_value = self.func(state, **arguments)
            execution.finish()
        except BaseException as error:
            execution.lane.fail(error)
            if not isinstance(error, Exception):
                raise
        finally:
            with execution.lane.changing():
                execution.body = None

    def _divided(self, arguments: Arguments) -> tuple[dict[str, Any], Sampling]:
        """The function's, and those that are about sampling."""
        about = {n: v for n, v in arguments.items() if n in RUN and n not in self.names}
        own = {n: v for n, v in arguments.items() if n not in about}
        return own, NEUTRAL.changed(as_fields(**about))

    def _arguments(self, args: Sequence[Any], arguments: Arguments) -> dict[str, Any]:
        """By name. Raises TypeError as Python does, and for *args."""
        given = self.bound | dict(arguments)
        self._signature.bind(None, *args, **given)
        if len(args) > len(self.names):
            raise TypeError(f"{self.__name__}() takes its arguments by name as a program")
        return dict(zip(self.names, args, strict=False)) | given

    def _row(self, row: Arguments | Sequence[Any], place: int) -> dict[str, Any]:
        if isinstance(row, Mapping):
            return dict(row)
        free = [name for name in self.names if name not in self.bound]
        if isinstance(row, str) or len(row) > len(free):
            raise TypeError(
                f"`batch_kwargs[{place}]` must be a dict, or a tuple of at most {len(free)} values "
                f"for {', '.join(free)}"
            )
        return dict(zip(free, row, strict=False))


def run_batch(
    programs: Sequence[Program],
    *,
    backend: Backend | None = None,
    num_threads: int | str = "auto",
    progress_bar: bool = False,
    generator_style: bool = False,
    raise_errors: bool = True,
    **sampling: Any,
) -> Any:
    """Run bound programs, several at once; see `Program.run_batch`."""
    for place, program in enumerate(programs):
        if not isinstance(program, Program):
            raise TypeError(
                f"`programs[{place}]` must be a program, as fn.bind(…) makes one. "
                f"Given: {type(program).__name__}"
            )
    if unknown := sorted(sampling.keys() - RUN):
        raise TypeError(f"run_batch() has no argument `{unknown[0]}`")
    shared, found = NEUTRAL.changed(as_fields(**sampling)), chosen(backend)
    tasks = [partial(program.start, shared, found, raise_errors) for program in programs]
    states: Iterator[ProgramState] = batch.run_all(
        tasks,
        threads=batch.thread_count(num_threads, len(tasks)),
        progress=progress_bar,
        ahead=batch.AHEAD if generator_style else None,
    )
    return states if generator_style else list(states)
