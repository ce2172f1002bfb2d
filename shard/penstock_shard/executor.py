"""The executor thread: commands in, results out, in order, one step after the other.

On CUDA the thread only launches; a second one waits for the device and builds the messages, so that
the next step is launched while the last one still runs. On a CPU there is nothing to wait for.
"""

from __future__ import annotations

import gc
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future

import torch

from penstock_proto import shard_pb2
from penstock_shard.memory.out_of_memory import is_out_of_memory
from penstock_shard.memory.warmup import warm_up
from penstock_shard.steps.results import PendingResult
from penstock_shard.steps.runner import Runner
from penstock_shard.steps.slots import BadCommand
from penstock_shard.weights.loaded_model import LoadedModel

_Task = Callable[[], None]


class Executor:
    """Owns the thread that touches the model.

    emit is called with every result, in order, and with None when nothing more will follow;
    fail is called with the reason when a step failed, after its error result was emitted.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        emit: Callable[[shard_pb2.StepResult | None], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._loaded, self._emit, self._fail = loaded, emit, fail
        self._runner: Runner | None = None
        self._tasks: queue.SimpleQueue[_Task | shard_pb2.StepCommand | None] = queue.SimpleQueue()
        self._pending: queue.SimpleQueue[PendingResult | BaseException | None] | None = None
        self._threads = [threading.Thread(target=self._work, name="executor", daemon=True)]
        if loaded.device.type == "cuda":
            self._pending = queue.SimpleQueue()
            self._threads.append(
                threading.Thread(target=self._deliver, name="results", daemon=True)
            )
        for thread in self._threads:
            thread.start()

    @property
    def ready(self) -> bool:
        """Warmup is done, so steps can run."""
        return self._runner is not None

    def warm_up(self, request: shard_pb2.WarmupRequest) -> shard_pb2.WarmupResponse:
        """Run warmup on the executor's thread and wait for it. Raises what warmup raises."""
        done: Future[shard_pb2.WarmupResponse] = Future()

        def task() -> None:
            try:
                self._runner, response = warm_up(self._loaded, request)
                # Some 190,000 objects live as long as the process: a collection that walks them
                # stops steps for 60 ms.
                gc.collect()
                gc.freeze()
                done.set_result(response)
            except BaseException as error:
                done.set_exception(error)

        self._tasks.put(task)
        return done.result()

    def submit(self, command: shard_pb2.StepCommand) -> None:
        """Queue a command; warmup must be done."""
        self._tasks.put(command)

    def close(self) -> None:
        """No more commands: finish what is queued, then emit None."""
        self._tasks.put(None)

    def join(self, timeout: float) -> None:
        """Wait for the threads to end, so long at most."""
        for thread in self._threads:
            thread.join(timeout)

    def _work(self) -> None:
        if self._loaded.device.type == "cuda":
            torch.cuda.set_device(self._loaded.device)
        while (task := self._tasks.get()) is not None:
            if isinstance(task, shard_pb2.StepCommand):
                if not self._execute(task):
                    return
            else:
                task()
        self._pass_on(None)

    def _execute(self, command: shard_pb2.StepCommand) -> bool:
        """Run a command. False: it failed, and nothing may follow."""
        assert self._runner is not None, "submit before warm_up"
        try:
            for pending in self._runner.execute(command):
                self._pass_on(pending)
        except BaseException as error:
            self._pass_on(_Failure(command.step, error))
            return False
        return True

    def _pass_on(self, item: PendingResult | BaseException | None) -> None:
        if self._pending is not None:
            self._pending.put(item)
        else:
            self._deliver_one(item)

    def _deliver(self) -> None:
        assert self._pending is not None
        # Else waiting would make a context on the first GPU, some 500 MB, on every other rank too.
        torch.cuda.set_device(self._loaded.device)
        while self._deliver_one(self._pending.get()):
            pass

    def _deliver_one(self, item: PendingResult | BaseException | None) -> bool:
        """Emit one result. False: it was the last."""
        if isinstance(item, PendingResult):
            try:
                self._emit(item.build())
                return True
            except RuntimeError as error:  # CUDA reports what a kernel did when we wait for it
                item = _Failure(item.step, error)
        if isinstance(item, _Failure):
            self._emit(item.result())
            self._emit(None)
            self._fail(item.cause)
        else:
            self._emit(None)
        return False


class _Failure(Exception):
    """A step failed."""

    def __init__(self, step: int, cause: BaseException) -> None:
        super().__init__(f"step {step} failed: {cause}")
        self.step = step
        self.cause = cause

    def result(self) -> shard_pb2.StepResult:
        kinds = shard_pb2.StepError
        if isinstance(self.cause, BadCommand):
            kind = kinds.BAD_COMMAND
        elif is_out_of_memory(self.cause):
            kind = kinds.OUT_OF_MEMORY
        else:
            kind = kinds.INTERNAL
        message = str(self.cause) or type(self.cause).__name__
        error = shard_pb2.StepError(kind=kind, message=message)
        return shard_pb2.StepResult(step=self.step, error=error)
