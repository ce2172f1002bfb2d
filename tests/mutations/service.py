"""What stands against faults beside the processes: F7 to F18, and those without a number."""

from __future__ import annotations

from tests.mutations.mutation import (
    CONNECTIONS,
    ENGINE,
    KERNELS,
    LAUNCHER,
    LIFE,
    ROUTER,
    SHARD,
    SUPERVISOR,
    Mutation,
)

SERVICE = (
    # Who leaves is generated for.
    Mutation(
        "F7",
        f"{ROUTER}/api/app.py",
        "            handler_cancellation=True,",
        "            handler_cancellation=False,",
        f"{LIFE}::test_disconnect",
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
    # Whoever comes is admitted.
    Mutation(
        "F9",
        f"{ROUTER}/api/service.py",
        "            if self.free < 0:",
        "            if False:",
        f"{LIFE}::test_overload",
    ),
    # Who comes while the server ends is admitted.
    Mutation(
        "F10",
        f"{ROUTER}/engine.py",
        "        self._withdrawn = self._draining = True\n",
        "        self._withdrawn = True\n",
        f"{ENGINE}::test_drain_lets_requests_end_and_takes_no_more",
    ),
    # The grace period is not kept.
    Mutation(
        "F10",
        f"{ROUTER}/engine.py",
        "            await asyncio.wait_for(self._quiet.wait(), timeout)",
        "            await self._quiet.wait()",
        f"{ENGINE}::test_drain_gives_up_after_its_time",
    ),
    # The second signal is as patient as the first.
    Mutation(
        "F10",
        f"{LAUNCHER}/supervisor.py",
        "        (self._stop_now if self._stop.is_set() else self._stop).set()",
        "        self._stop.set()",
        f"{SUPERVISOR}::test_second_signal_ends_at_once",
    ),
    # A port that closes still takes connections.
    Mutation(
        "F11",
        f"{ROUTER}/fronts/acceptor.py",
        "        admit_no_more(self._listener)\n",
        "",
        "tests/router/fronts/test_acceptor.py::test_who_is_connected_when_it_closes_is_served_and_who_comes_then_is_refused",
    ),
    # A balancer is not told that the server ends.
    Mutation(
        "F11",
        f"{ROUTER}/api/probes.py",
        '("the server is shutting down" if engine.withdrawn else "")',
        '""',
        "tests/router/api/test_probes.py::test_drain",
    ),
    # Requests are turned away before a balancer has looked.
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
        "    while prefill_tokens > LEAST_PREFILL_TOKENS:",
        "    while False:",
        "tests/shard/test_warmup.py::test_a_smaller_step_is_tried_and_said",
    ),
    Mutation(
        "F12",
        f"{SHARD}/memory/measure.py",
        '        raise MemoryError("the log\'s last line has the size")',
        "        pass",
        "tests/shard/test_warmup.py::test_a_trial_step_without_memory_is_no_time",
    ),
    Mutation(
        "F12",
        f"{SHARD}/memory/warmup.py",
        "    for attempt in attempts(plan.graphs, plan.blocks, fixed_cache(loaded, request)):",
        "    for attempt in [next(attempts(plan.graphs, plan.blocks, True))]:",
        "tests/shard/test_warmup.py::test_fewer_graphs_and_a_smaller_cache_are_tried_and_said",
    ),
    # A rank goes on with what another one could not allocate.
    Mutation(
        "F12",
        f"{SHARD}/ranks/agreement.py",
        "    if not able or made is None:",
        "    if made is None:",
        "tests/shard/test_agreement.py::test_a_rank_that_has_no_room_keeps_the_others_from_going_on",
    ),
    Mutation(
        "F12",
        f"{SHARD}/memory/plan.py",
        "    blocks = loaded.group.minimum(own, loaded.device)",
        "    blocks = own",
        "tests/shard/test_agreement.py::test_the_cache_is_as_large_as_the_shortest_rank_can_have_it",
    ),
    # What is free behind the capture is not looked at.
    Mutation(
        "F12",
        f"{SHARD}/memory/memory.py",
        "    if group.minimum(left - needed, device) < 0:",
        "    if False:",
        "tests/shard/test_agreement.py::test_what_is_really_free_is_looked_at",
    ),
    # The cache is what steps leave, however little that is.
    Mutation(
        "F12",
        f"{SHARD}/memory/plan.py",
        "    if problem is None and choice and blocks < wanted:",
        "    if False:",
        "tests/shard/test_warmup.py::test_steps_leave_room_for_a_cache",
    ),
    # Nobody hears that rank 0 could not draw.
    Mutation(
        "F12",
        f"{SHARD}/memory/measure.py",
        "            allocated(group, device, lambda: _rehearse(runner, loaded))",
        "            _rehearse(runner, loaded)",
        "tests/shard/test_agreement.py::test_all_ranks_know_that_draws_do_not_fit",
    ),
    # Graphs that were not tried take nothing.
    Mutation(
        "F12",
        f"{SHARD}/memory/graph_memory.py",
        "        if some:  # rounded up",
        "        if False:",
        "tests/shard/test_graph_memory.py::test_what_is_found_by_some_of_them_is_what_all_take",
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
        "            made = future.result(COMPILE_SECONDS)",
        "            made = future.result()",
        "tests/shard/test_grammar_templates.py::test_what_takes_too_long_is_given_up",
    ),
    # A client's burst stands before whoever comes behind it.
    Mutation(
        "F15",
        f"{ROUTER}/scheduler/shares.py",
        "start = min(max(now, self._last.get(client, -APART) + APART), now + MOST)",
        "start = now",
        "tests/router/scheduler/test_shares.py::test_one_that_comes_behind_a_burst_hardly_waits_for_it",
    ),
    # All answers of a step are made in one turn of the event loop.
    Mutation(
        "F9",
        f"{ROUTER}/api/awakening.py",
        "if self._woken < AT_ONCE and not self._waiting:",
        "if True:",
        "tests/router/api/test_awakening.py::test_answers_of_one_step_are_made_a_few_a_turn",
    ),
    # A process that renders keeps what Jinja's rings know.
    Mutation(
        "F16",
        f"{ROUTER}/templates/worker.py",
        "                gc.collect()  # Jinja leaves rings, and they know the text\n",
        "",
        "tests/router/templates/test_memory.py::test_a_process_that_renders_keeps_nothing",
    ),
    # What clients of refused bodies send meanwhile is kept.
    Mutation(
        "S15",
        f"{ROUTER}/api/body_pace.py",
        "client._pause_transport_reading()",
        "pass",
        "tests/router/api/test_bodies.py::test_nothing_is_kept_of_bodies_that_were_refused",
    ),
    # Threads for texts take any text.
    Mutation(
        "F9",
        f"{ROUTER}/text/lanes.py",
        "if characters <= most)",
        "if True)",
        "tests/router/text/test_tokenizer.py::test_nobody_waits_for_a_text_that_is_much_longer",
    ),
    # Short prompts wait for long ones, or long ones for all short ones.
    Mutation(
        "F15",
        f"{ROUTER}/scheduler/prompts.py",
        "kept = min(self.rest_left, budget - budget // 2)",
        "kept = min(self.rest_left, budget)",
        "tests/router/scheduler/test_prompts.py::test_a_short_one_does_not_wait_for_a_long_one",
    ),
    Mutation(
        "F15",
        f"{ROUTER}/scheduler/prompts.py",
        "kept = min(self.rest_left, budget - budget // 2)",
        "kept = 0",
        "tests/router/scheduler/test_prompts.py::test_the_long_one_has_half_of_a_step_whatever_comes",
    ),
    # Waiting counts for nothing.
    Mutation(
        "F15",
        f"{ROUTER}/scheduler/scheduler.py",
        " - request.priority * SECONDS_PER_PRIORITY\n",
        " - request.priority * 1e9\n",
        "tests/router/scheduler/test_decisions.py::test_waiting_outweighs_priority_in_the_end",
    ),
    Mutation(
        "F15",
        f"{ROUTER}/deadlines.py",
        "        if sequence.state is State.WAITING:\n            self._expire(sequence)",
        "        if sequence.state is State.WAITING:\n            pass",
        "tests/router/engine/test_engine.py::test_time_is_up_in_the_queue",
    ),
    # A block is not given back.
    Mutation(
        "F16",
        f"{ROUTER}/scheduler/block_manager.py",
        "        self._free.extend(running.private)\n",
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
    # A stream that fails just ends.
    Mutation(
        "F18",
        f"{ROUTER}/api/streaming.py",
        "    stream.push(error_event(error))\n",
        "",
        f"{LIFE}::test_failure_in_a_stream",
    ),
    # A launcher without standard output gives its socket away.
    Mutation(
        "-",
        f"{LAUNCHER}/outlet.py",
        "            os.open(os.devnull, os.O_RDWR)",
        "            pass",
        "tests/launcher/test_outlet.py::test_the_next_file_is_no_standard_one",
    ),
    # There may be more connections than descriptors.
    Mutation(
        "-",
        f"{ROUTER}/api/connections.py",
        "        elif len(self._all) >= self._room and not self._replace(self._all):",
        "        elif False:",
        f"{CONNECTIONS}::test_connections_of_many_clients",
    ),
    # A full disk is a fault.
    Mutation(
        "-",
        f"{ROUTER}/api/batch_routes.py",
        "        if error.errno not in (errno.ENOSPC, errno.EDQUOT):",
        "        if True:",
        "tests/end_to_end/test_host_faults.py::test_a_full_disk_refuses_files_and_nothing_else",
    ),
    # A download says that something went wrong, and not what.
    Mutation(
        "-",
        f"{LAUNCHER}/download.py",
        "    if isinstance(error, OSError) and error.strerror:",
        "    if False:",
        "tests/launcher/test_download.py::test_a_full_disk_is_said",
    ),
    # A step is as late as the clock on the wall says.
    Mutation(
        "-",
        f"{ROUTER}/engine.py",
        "        self._progress_at = time.monotonic()\n        self",
        "        self._progress_at = time.time()\n        self",
        "tests/test_clocks.py::test_the_clock_on_the_wall_is_read_for_dates_alone",
    ),
    # The router waits for a launcher that reads its lines no more.
    Mutation(
        "-",
        "proto/penstock_proto/outlet.py",
        "            if not self._poll.poll(max(deadline - time.monotonic(), 0) * 1000):",
        "            if False:",
        "tests/router/test_logs.py::test_a_launcher_that_is_stopped_holds_up_no_client",
    ),
    # Lines that nobody reads are kept.
    Mutation(
        "-",
        "proto/penstock_proto/outlet.py",
        "        if len(self._pending) >= PENDING:",
        "        if False:",
        "tests/proto/test_outlet.py::test_lines_are_dropped_when_nobody_reads",
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
    # Ranks add up as the library likes.
    Mutation(
        "-",
        f"{SHARD}/ranks/parallel.py",
        "        return OrderedGroup(self.rank, self.world_size)",
        "        return self",
        "tests/shard/test_deterministic_ranks.py::test_company_chunks_and_cache_change_no_bit",
    ),
)
