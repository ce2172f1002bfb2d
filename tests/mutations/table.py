"""Defences of docs/reliability.md, each with the edit that removes it and the test that tells.

One edit a row: a text that stands once in a file, what stands there without the defence, and a test
that must fail then.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """An edit that some test must notice."""

    row: str  # of docs/reliability.md
    file: str
    old: str
    new: str
    test: str  # path::name


ROUTER, SHARD = "router/penstock_router", "shard/penstock_shard"
LAUNCHER, KERNELS = "launcher/penstock_launcher", "kernels/penstock_kernels"
ENGINE = "tests/router/engine/test_engine.py"
LIFE = "tests/router/api/test_life.py"
GUARD = "tests/router/api/test_guard.py"
BOUNDS = "tests/router/api/test_bounds.py"
CONNECTIONS = "tests/router/api/test_connections.py"
SUPERVISOR = "tests/launcher/test_supervisor.py"

MUTATIONS = (
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
        "if self.group.world_size > 1 or not is_out_of_memory(error):",
        "if True:",
        "tests/shard/test_out_of_memory.py::test_the_same_slots_serve_again",
    ),
    # One rank goes on where the others wait for it.
    Mutation(
        "F1",
        f"{SHARD}/steps/runner.py",
        "if self.group.world_size > 1 or not is_out_of_memory(error):",
        "if not is_out_of_memory(error):",
        "tests/shard/test_out_of_memory.py::test_one_of_several_ranks_does_not_go_on",
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
        f"{ROUTER}/engine.py",
        "        if room.shrink(self._under_way[0]):",
        "        if False and room.shrink(self._under_way[0]):",
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
        f"{ROUTER}/scheduler/scheduler.py",
        "            self.blocks.forget(sequence)\n        return sequence if live else None",
        "            pass\n        return sequence if live else None",
        "tests/router/scheduler/test_refusals.py::test_what_a_refused_sequence_computed_is_not_shared",
    ),
    # A hung step is waited for.
    Mutation(
        "F2",
        f"{ROUTER}/engine.py",
        "            if self._silence > self._step_timeout:",
        "            if False:",
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
        "tests/router/engine/test_broken_wires.py::test_at_every_message",
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
        f"{ROUTER}/engine.py",
        "                self._on_stall(overdue)",
        "                pass",
        f"{ENGINE}::test_a_step_that_takes_far_too_long_is_not_ready",
    ),
    Mutation(
        "F6",
        f"{ROUTER}/api/probes.py",
        "    if reason := unready(request.app[SERVICE]):",
        "    if (reason := unready(request.app[SERVICE])) and False:",
        "tests/router/api/test_probes.py::test_trouble_of_the_shards_is_no_reason_to_kill_the_container",
    ),
    # Who leaves is generated for.
    Mutation(
        "F7",
        f"{ROUTER}/api/app.py",
        "            handler_cancellation=True,",
        "            handler_cancellation=False,",
        f"{LIFE}::test_disconnect_at_any_moment",
    ),
    # Who does not read fills the memory.
    Mutation(
        "F8",
        f"{ROUTER}/api/sse.py",
        "        if transport.get_write_buffer_size() > FULL_BYTES and group is not None:",
        "        if False:",
        f"{LIFE}::test_slow_reader",
    ),
    Mutation(
        "F8",
        f"{ROUTER}/api/connection.py",
        "        elif now - self._unsent_since > STUCK_SECONDS:",
        "        elif False:",
        f"{LIFE}::test_reader_that_stops_at_the_end",
    ),
    # Requests are turned away before balancers have looked.
    Mutation(
        "F11",
        f"{ROUTER}/server.py",
        "    if time.monotonic() - metrics.looked_at < config.drain_delay:",
        "    if False:",
        "tests/end_to_end/test_withdrawal.py::test_requests_are_taken_while_balancers_look_away",
    ),
    # A step that does not fit is the end of a start.
    Mutation(
        "F12",
        f"{SHARD}/memory/smaller.py",
        "    while tokens > LEAST_PREFILL_TOKENS:",
        "    while False:",
        "tests/shard/test_warmup.py::test_a_smaller_step_is_tried_and_said",
    ),
    Mutation(
        "F12",
        f"{SHARD}/memory/measure.py",
        '        raise MemoryError("the log\'s last line has the size")',
        "        pass",
        "tests/shard/test_out_of_memory.py::test_a_start_takes_smaller_steps_where_memory_ends",
    ),
    Mutation(
        "F12",
        f"{SHARD}/memory/warmup.py",
        "    for graphs, fewer in attempts(wanted, blocks, fixed):",
        "    for graphs, fewer in [(wanted, blocks)]:",
        "tests/shard/test_warmup.py::test_fewer_graphs_and_a_smaller_cache_are_tried_and_said",
    ),
    # A text that never ends keeps its thread.
    Mutation(
        "F13",
        f"{ROUTER}/text/workers.py",
        "        if replace:\n            self._start()",
        "        if False:\n            self._start()",
        "tests/cases/test_text.py::test_L2_a_text_that_never_ends",
    ),
    # A grammar is compiled for ever.
    Mutation(
        "F14",
        f"{SHARD}/grammars/templates.py",
        "            first = future.result(COMPILE_SECONDS)",
        "            first = future.result()",
        "tests/shard/test_grammar_templates.py::test_what_takes_too_long_is_given_up",
    ),
    # Waiting counts for nothing.
    Mutation(
        "F15",
        f"{ROUTER}/scheduler/scheduler.py",
        "        order = now - request.priority * SECONDS_PER_PRIORITY",
        "        order = -request.priority * 1e9 + now",
        "tests/router/scheduler/test_decisions.py::test_waiting_outweighs_priority_in_the_end",
    ),
    Mutation(
        "F15",
        f"{ROUTER}/deadlines.py",
        "        if sequence.state is State.WAITING:\n            self._expire(sequence)",
        "        if False:\n            self._expire(sequence)",
        "tests/router/engine/test_engine.py::test_time_is_up_in_the_queue",
    ),
    # A block is not given back.
    Mutation(
        "F16",
        f"{ROUTER}/scheduler/block_manager.py",
        "        self._free.extend(seat.private)\n",
        "",
        "tests/router/scheduler/test_decisions.py::test_waiting_outweighs_priority_in_the_end",
    ),
    Mutation(
        "F17",
        f"{LAUNCHER}/shared_memory.py",
        "    if free >= (needed := shards * LEAST_BYTES):",
        "    if (needed := shards * LEAST_BYTES) or free:",
        "tests/launcher/test_shared_memory.py::test_where_it_matters",
    ),
    # A launcher without standard output gives its socket away.
    Mutation(
        "-",
        f"{LAUNCHER}/outlet.py",
        "            os.open(os.devnull, os.O_RDWR)",
        "            pass",
        "tests/launcher/test_outlet.py::test_the_next_file_is_no_standard_one",
    ),
    # Lines that nobody reads are kept.
    Mutation(
        "-",
        f"{LAUNCHER}/outlet.py",
        "        if len(self._pending) >= PENDING:",
        "        if False:",
        "tests/launcher/test_outlet.py::test_lines_are_dropped_when_nobody_reads",
    ),
    # `--deterministic` is read and forgotten.
    Mutation(
        "-",
        f"{SHARD}/steps/operations.py",
        "device = InvariantTorchDevice if alone else TorchDevice",
        "device = TorchDevice",
        "tests/shard/test_deterministic.py::test_company_chunks_and_cache_change_no_bit",
    ),
    # Sizes of blocks are not tried.
    Mutation(
        "-",
        f"{KERNELS}/reference/invariant_products.py",
        "self._sizes[shape] = agreeing_sizes(shape)",
        "self._sizes[shape] = SIZES",
        "tests/shard/test_deterministic.py::test_sizes_that_do_not_agree_are_not_used",
    ),
    # Tiles of kernels are not tried.
    Mutation(
        "-",
        f"{KERNELS}/gpu/products/invariant_tiles.py",
        "agreed = {tile: tile for tile in tiles if all_equal(x, weight, tile, row)}",
        "agreed = {tile: tile for tile in tiles}",
        "tests/kernels/test_invariant.py::test_tiles_that_disagree_are_not_used",
    ),
    # Sums over ranks begin with any rank.
    Mutation(
        "-",
        f"{SHARD}/ranks/parallel.py",
        "        first, *others = parts\n",
        "        *others, first = parts\n",
        "tests/shard/test_ranks.py::test_sums_in_the_order_of_the_ranks",
    ),
    # -- attacks ---------------------------------------------------------------------------------
    Mutation(
        "S1",
        f"{ROUTER}/api/guard.py",
        "    if len(hosts) > 1 or not all(_HOST.fullmatch(host) for host in hosts):",
        "    if False:",
        f"{CONNECTIONS}::test_the_host_header",
    ),
    Mutation(
        "S2",
        f"{ROUTER}/api/guard.py",
        "            keys.check(request)\n",
        "",
        f"{GUARD}::test_no_route_without_key",
    ),
    Mutation(
        "S3",
        f"{ROUTER}/api/keys.py",
        "            if hmac.compare_digest(mine, digest):",
        "            if mine == digest:",
        f"{GUARD}::test_key_is_compared_in_constant_time",
    ),
    Mutation(
        "S7",
        f"{LAUNCHER}/model.py",
        '    if any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in file_names):',
        "    if False:",
        "tests/launcher/test_main.py::test_pickled_weights_are_never_opened",
    ),
    Mutation(
        "S9",
        f"{ROUTER}/templates/template.py",
        "            if size > MAX_CHARACTERS:",
        "            if False:",
        "tests/router/templates/test_template.py::test_output_is_bounded",
    ),
    Mutation(
        "S9",
        f"{ROUTER}/templates/confinement.py",
        "    _limit(resource.RLIMIT_NOFILE, 0)",
        "    pass",
        "tests/router/templates/test_pool.py::test_it_holds_no_secrets_and_opens_nothing",
    ),
    Mutation(
        "S9",
        f"{ROUTER}/api/template_variables.py",
        "        if nodes > MAX_VARIABLE_NODES:",
        "        if False:",
        f"{BOUNDS}::test_deep_template_variables",
    ),
    Mutation(
        "S11",
        f"{ROUTER}/grammars.py",
        "            if len(self._compiling) >= MOST_WAITING:",
        "            if False:",
        "tests/router/engine/test_grammars.py::test_too_many_at_once_are_turned_away",
    ),
    Mutation(
        "S12",
        f"{SHARD}/steps/admissions.py",
        "    wrong = tokens[(tokens < 0) | (tokens >= limits.vocab_size)]",
        "    wrong = tokens[:0]",
        "tests/shard/test_refusals.py::test_admissions_that_cannot_be_computed_harm_no_other",
    ),
    Mutation(
        "S15",
        f"{ROUTER}/api/guard.py",
        "    if (request.content_length or 0) > payload_limit and not",
        "    if False and not",
        f"{GUARD}::test_body_too_large",
    ),
    Mutation(
        "S16",
        f"{ROUTER}/api/connection.py",
        "            self._head_timer = self._loop.call_later(seconds, self._on_late_head)",
        "            pass",
        f"{CONNECTIONS}::test_a_head_that_does_not_come",
    ),
    Mutation(
        "S16",
        f"{ROUTER}/api/connections.py",
        "        if len(mine) >= self._most and not self._replace(mine):",
        "        if False:",
        f"{CONNECTIONS}::test_connections_of_a_client",
    ),
    Mutation(
        "S17",
        f"{ROUTER}/api/guard.py",
        '    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":',
        "    if False:",
        f"{GUARD}::test_compressed_body",
    ),
    Mutation(
        "S18",
        f"{LAUNCHER}/folder.py",
        "        if not any(target.is_relative_to(home) for home in (root, *_blobs(root))):",
        "        if False:",
        "tests/launcher/test_folder.py::test_m6_links_out_of_the_folder",
    ),
    Mutation(
        "S18",
        f"{LAUNCHER}/model.py",
        '    if is_id and ".." not in options.model_id and "--" not in options.model_id:',
        "    if True:",
        "tests/launcher/test_model.py::test_impossible_names_are_refused",
    ),
    Mutation(
        "S19",
        f"{ROUTER}/api/keys.py",
        '    own = request.get(_SALT, b"")',
        '    own = b""',
        "tests/router/api/test_cache_salt.py::test_one_salt_a_key_and_given_salt",
    ),
    Mutation(
        "S20",
        f"{LAUNCHER}/logs.py",
        '    return _escape(f"{time}',
        '    return str(f"{time}',
        "tests/launcher/test_logs.py::test_control_characters_cannot_forge_lines",
    ),
    Mutation(
        "S20",
        f"{LAUNCHER}/logs.py",
        "        if self._secret is not None:",
        "        if False:",
        "tests/launcher/test_logs.py::test_secrets_are_masked",
    ),
    Mutation(
        "S20",
        f"{ROUTER}/api/request_id.py",
        "given if _PATTERN.fullmatch(given) else secrets.token_hex(16)",
        "given or secrets.token_hex(16)",
        f"{GUARD}::test_request_id",
    ),
    Mutation(
        "S22",
        f"{SHARD}/weights/checkpoint.py",
        "        if (found := tuple(part.get_shape())) != shape:",
        "        if (found := tuple(part.get_shape())) != shape and False:",
        "tests/shard/test_weights.py::test_a_wrong_shape_is_named",
    ),
    Mutation(
        "S23",
        f"{ROUTER}/api/connection.py",
        "            elif message.version not in VERSIONS:",
        "            elif False:",
        f"{CONNECTIONS}::test_what_is_no_http",
    ),
)
