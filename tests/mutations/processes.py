"""What stands against faults of steps and processes: F1 to F6."""

from __future__ import annotations

from tests.mutations.mutation import (
    ENGINE,
    LAUNCHER,
    ROUTER,
    SHARD,
    SUPERVISOR,
    Mutation,
)

PROCESSES = (
    # What makes an answer may raise in the engine.
    Mutation(
        "F1",
        f"{ROUTER}/api/sequence_group.py",
        "            guarded = _Guarded(listener, self)",
        "            guarded = listener",
        "tests/router/engine/test_broken_listeners.py::test_its_request_alone_ends",
    ),
    # A result that the router cannot take in looks like a shard that hangs.
    Mutation(
        "F1",
        f"{ROUTER}/shard_client.py",
        "        except Exception as error:  # ours",
        "        except ZeroDivisionError as error:  # ours",
        "tests/router/engine/test_broken_listeners.py::test_a_fault_of_the_router_is_said",
    ),
    Mutation(
        "F1",
        f"{ROUTER}/engine.py",
        "        except Exception as error:  # ours",
        "        except ZeroDivisionError as error:  # ours",
        "tests/router/engine/test_broken_listeners.py::test_a_fault_of_the_router_is_said",
    ),
    # A step's error is not heard.
    Mutation(
        "F1",
        f"{ROUTER}/shard_client.py",
        '                if result.HasField("error"):',
        "                if False:",
        f"{ENGINE}::test_a_failing_step_ends_every_request_with_an_error",
    ),
    # Memory that ran out ends the shard.
    Mutation(
        "F1",
        f"{SHARD}/steps/runner.py",
        "            if not known or not is_out_of_memory(error):",
        "            if True:",
        "tests/shard/test_out_of_memory.py::test_the_same_slots_serve_again",
    ),
    # One rank goes on where the others wait for it.
    Mutation(
        "F1",
        f"{SHARD}/steps/runner.py",
        "            if not known or not is_out_of_memory(error):",
        "            if not is_out_of_memory(error):",
        "tests/shard/test_out_of_memory.py::test_one_of_several_ranks_does_not_go_on",
    ),
    # The ranks do not ask each other.
    Mutation(
        "F1",
        f"{SHARD}/steps/runner.py",
        "        self._check_room(chunks)\n",
        "",
        "tests/shard/test_out_of_memory.py::test_whichever_rank_it_is",
    ),
    # What rank 0 has no memory for ends the group.
    Mutation(
        "F1",
        f"{SHARD}/ranks/agreement.py",
        "        if group.world_size == 1 or not is_out_of_memory(error):",
        "        if True:",
        "tests/shard/test_out_of_memory.py::test_what_rank_0_alone_has_no_memory_for",
    ),
    # Any error is taken for memory that ran out.
    Mutation(
        "F1",
        f"{SHARD}/memory/out_of_memory.py",
        "    return isinstance(error, RuntimeError) and CPU_ALLOCATOR in str(error)",
        "    return isinstance(error, RuntimeError)",
        "tests/shard/test_out_of_memory.py::test_other_errors_of_a_step_still_end_the_shard",
    ),
    # What is left of a failed step is computed on.
    Mutation(
        "F1",
        f"{SHARD}/steps/slots.py",
        "        self.refused.update(slots.tolist())\n",
        "",
        "tests/shard/test_out_of_memory.py::test_the_same_slots_serve_again",
    ),
    # The next step is as large as the one that did not fit.
    Mutation(
        "F1",
        f"{ROUTER}/shard_refusals.py",
        " and limits.shrink(plan):",
        " and False:",
        "tests/router/engine/test_refusals.py::test_steps_that_do_not_fit_in_memory_become_smaller",
    ),
    # NaN is a token.
    Mutation(
        "F1",
        f"{SHARD}/steps/results.py",
        "        if len(without):  # NO_TOKEN",
        "        if False:",
        "tests/shard/test_refusals.py::test_nan_in_a_prompt_is_known_when_its_last_chunk_is_computed",
    ),
    # NaN stays in the prefix cache.
    Mutation(
        "F1",
        f"{ROUTER}/scheduler/results.py",
        "            self._blocks.forget(sequence)\n        return sequence if live else None",
        "            pass\n        return sequence if live else None",
        "tests/router/scheduler/test_refusals.py::test_what_a_refused_sequence_computed_is_not_shared",
    ),
    # A hung step is waited for.
    Mutation(
        "F2",
        f"{ROUTER}/health.py",
        "        if self._silence > self.step_timeout:",
        "        if False:",
        f"{ENGINE}::test_a_hung_step_is_noticed",
    ),
    Mutation(
        "F2",
        f"{ROUTER}/shard_client.py",
        "s.Warmup(request, timeout=WARM_UP_SECONDS)",
        "s.Warmup(request)",
        "tests/router/engine/test_shard_client.py::test_a_warm_up_has_an_end",
    ),
    Mutation(
        "F2",
        f"{ROUTER}/fronts/child.py",
        "        if self._idle > SILENT_BEATS or self._silence > BUSY_BEATS:",
        "        if False:",
        "tests/router/fronts/test_group.py::test_one_that_says_nothing_hangs",
    ),
    Mutation(
        "F2",
        f"{ROUTER}/fronts/child.py",
        "        if self._wire.unread > UNREAD_BYTES:",
        "        if False:",
        "tests/router/fronts/test_group.py::test_one_that_takes_nothing_hangs",
    ),
    Mutation(
        "F2",
        f"{LAUNCHER}/stopped.py",
        "    if looks >= LIMIT:",
        "    if False:",
        f"{SUPERVISOR}::test_child_that_stays_stopped",
    ),
    # Who cannot say where it stands is not looked at.
    Mutation(
        "F2",
        f"{LAUNCHER}/stopped.py",
        "                if count + 1 == NOTICE:",
        "                if False:",
        f"{SUPERVISOR}::test_where_a_stopped_child_stands",
    ),
    # A shard's death is none.
    Mutation(
        "F3",
        f"{LAUNCHER}/supervisor.py",
        "                self._died.set()",
        "                pass",
        f"{SUPERVISOR}::test_child_killed_while_serving",
    ),
    Mutation(
        "F3",
        f"{ROUTER}/shard_client.py",
        '            self._fail(rank, "its stream ended")',
        "            pass",
        f"{ENGINE}::test_a_failing_step_ends_every_request_with_an_error",
    ),
    # A killed launcher leaves its children.
    Mutation(
        "F4",
        f"{LAUNCHER}/janitor.py",
        "            os.killpg(group, signal.SIGKILL)",
        "            pass",
        f"{SUPERVISOR}::test_launcher_killed",
    ),
    # The requests of a front that is gone run on.
    Mutation(
        "F5",
        f"{ROUTER}/fronts/front_link.py",
        "            self._engine.cancel(number)\n        self._numbers.clear()",
        "            pass\n        self._numbers.clear()",
        "tests/router/fronts/test_broken_wires.py::test_at_every_frame",
    ),
    # A shard that does not answer is well.
    Mutation(
        "F6",
        f"{ROUTER}/shard_client.py",
        "                self.on_trouble(reason)",
        "                pass",
        f"{ENGINE}::test_a_shard_that_does_not_answer_is_not_ready",
    ),
    Mutation(
        "F6",
        f"{ROUTER}/health.py",
        "            self._note_late_step(overdue)",
        "            pass",
        f"{ENGINE}::test_a_step_that_takes_far_too_long_is_not_ready",
    ),
    Mutation(
        "F6",
        f"{ROUTER}/api/probes.py",
        "    if reason := unready(request.app[SERVICE]):",
        "    if (reason := unready(request.app[SERVICE])) and False:",
        "tests/router/api/test_probes.py::test_trouble_of_the_shards_is_no_reason_to_kill_the_container",
    ),
)
