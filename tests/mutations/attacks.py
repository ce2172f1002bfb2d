"""What stands against attacks: S1 to S24."""

from __future__ import annotations

from tests.mutations.mutation import (
    BOUNDS,
    CONNECTIONS,
    GUARD,
    LAUNCHER,
    READING,
    ROUTER,
    SHARD,
    TOOLS,
    Mutation,
)

ATTACKS = (
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
        "S4",
        f"{SHARD}/server.py",
        "import queue\n",
        "import pickle\nimport queue\n",
        "tests/test_layout.py::test_nothing_is_unpickled_or_evaluated",
    ),
    # Ranks of one host listen on its network.
    Mutation(
        "S5",
        f"{SHARD}/ranks/parallel.py",
        '            os.environ[name] = "lo"',
        "            pass",
        "tests/shard/test_agreement.py::test_ranks_of_one_host_meet_on_its_loopback",
    ),
    Mutation(
        "S6",
        f"{LAUNCHER}/run_folder.py",
        "            self.path.mkdir(mode=0o700)",
        "            self.path.mkdir(mode=0o755)",
        "tests/end_to_end/test_faults.py::test_the_port_is_all_that_listens",
    ),
    Mutation(
        "S6",
        f"{SHARD}/server.py",
        '        options=[("grpc.max_receive_message_length", message_limit)],',
        '        options=[("grpc.max_receive_message_length", -1)],',
        "tests/shard/test_process.py::test_strangers_on_its_socket",
    ),
    Mutation(
        "S7",
        f"{LAUNCHER}/model.py",
        '    if any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in file_names):',
        "    if False:",
        "tests/launcher/test_main.py::test_pickled_weights_are_never_opened",
    ),
    Mutation(
        "S8",
        f"{SHARD}/json_file.py",
        "import json\n",
        'import json\nexec("")\n',
        "tests/test_layout.py::test_nothing_is_unpickled_or_evaluated",
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
    # Any control token is taken for the template's.
    Mutation(
        "S10",
        f"{ROUTER}/text/tokenizer.py",
        "            if guard.forged(found, marked).any():",
        "            if False:",
        "tests/router/text/test_chat_template.py::test_users_cannot_write_control_tokens",
    ),
    Mutation(
        "S11",
        f"{ROUTER}/grammars.py",
        "            if len(self._compiling) >= MOST_WAITING:",
        "            if False:",
        "tests/router/engine/test_grammars.py::test_too_many_at_once_are_turned_away",
    ),
    # A schema may have as many objects as fit in its bytes.
    Mutation(
        "S11",
        f"{ROUTER}/structured/json_schema.py",
        "        if objects > MAX_OBJECTS:",
        "        if False:",
        "tests/router/test_structured.py::test_what_is_wrong_is_said",
    ),
    # A grammar may have any multiples.
    Mutation(
        "S11",
        f"{ROUTER}/structured/multiples.py",
        "    if sum(map(_states_of, _schemas(grammar))) > MOST_STATES:",
        "    if False:",
        "tests/router/test_multiples.py::test_too_large",
    ),
    # Large grammars are kept as long as small ones.
    Mutation(
        "S11",
        f"{ROUTER}/grammars.py",
        " and seconds <= MOST_IDLE_SECONDS",
        "",
        "tests/router/engine/test_grammars.py::test_few_are_kept_that_take_long",
    ),
    # Expressions that search a client's text give characters back, and read them again.
    Mutation(
        "S11",
        f"{ROUTER}/structured/lark.py",
        '(?:\\\\.|[^"\\\\\\n])*+(?:"i?)?',
        '(?:\\\\.|[^"\\\\\\n])*"i?',
        f"{READING}::test_a_grammar_is_read_once",
    ),
    Mutation(
        "S11",
        f"{ROUTER}/structured/lark.py",
        'r"^[ \\t]*+[?!]?([A-Za-z_]\\w*+)[ \\t]*+(?:',
        'r"^[ \\t]*+[?!]?([A-Za-z_]\\w*+)[ \\t]*(?:',
        f"{READING}::test_a_grammar_of_blanks",
    ),
    # Python compiles what a client calls a pattern.
    Mutation(
        "S11",
        f"{ROUTER}/tools/patterns.py",
        "        _parser.parse(value)",
        "        re.compile(value)",
        f"{READING}::test_the_pattern_of_a_tool_is_not_compiled",
    ),
    # A structural tag comes to a grammar of any size, and so do the schemas of tools.
    Mutation(
        "S11",
        f"{ROUTER}/structured/tags.py",
        "        if self._characters > MAX_CHARACTERS:",
        "        if False:",
        f"{READING}::test_a_structural_tag_has_an_end",
    ),
    Mutation(
        "S11",
        f"{ROUTER}/tools/lark.py",
        "        if self._written > MOST_WRITTEN:",
        "        if False:",
        f"{READING}::test_a_grammar_within_a_grammar_is_counted",
    ),
    # The least common multiple of all is found before it is held against a limit.
    Mutation(
        "S11",
        f"{ROUTER}/structured/multiples.py",
        "        if common > MOST_STATES:",
        "        if False:",
        f"{READING}::test_multiples_of_very_many_digits",
    ),
    # A page that takes long is made for each who asks.
    Mutation(
        "F9",
        f"{ROUTER}/shared_page.py",
        "        await asyncio.sleep(self._rested_at - time.monotonic())",
        "        await asyncio.sleep(0)",
        "tests/router/test_shared_page.py::test_it_is_made_a_part_of_the_time",
    ),
    # Each sequence of a request brings any number of rules along.
    Mutation(
        "S12",
        f"{ROUTER}/api/options.py",
        "            if count * sequences > MOST_TOGETHER[name]:",
        "            if False:",
        f"{BOUNDS}::test_what_every_sequence_brings_along",
    ),
    # Stop sequences are read again for each sequence.
    Mutation(
        "F9",
        f"{ROUTER}/text/stop.py",
        "@functools.lru_cache(maxsize=64)",
        "@functools.lru_cache(maxsize=0)",
        "tests/router/text/test_stop.py"
        "::test_sequences_of_a_request_share_what_is_made_of_its_stop_sequences",
    ),
    # Any number of log-probabilities is kept, and the event loop writes them.
    Mutation(
        "S12",
        f"{ROUTER}/api/scores.py",
        " > most:",
        " > 1 << 60:",
        "tests/router/api/test_scores.py::test_they_are_counted",
    ),
    Mutation(
        "S12",
        f"{ROUTER}/api/sglang_routes.py",
        "return await written(sum(map(_scores, listeners)), show)",
        "return show()",
        "tests/router/api/test_scores.py::test_many_are_written_by_a_thread",
    ),
    # Texts wait for grammars.
    Mutation(
        "F9",
        f"{ROUTER}/text/lanes.py",
        "        return await self._aside.run(work)",
        "        return await self.run(work)",
        "tests/router/text/test_tokenizer.py::test_no_text_waits_for_a_grammar",
    ),
    # Long bodies are checked on the event loop.
    Mutation(
        "S15",
        f"{ROUTER}/api/fields.py",
        "    if request.get(BODY_BYTES, 0) <= SHORT_BYTES:",
        "    if True:",
        f"{TOOLS}::test_long_bodies_are_checked_off_the_event_loop",
    ),
    # What stands in strings is not counted, nor are the schemas of tools.
    Mutation(
        "S15",
        f"{ROUTER}/api/schema.py",
        "        self.within += shape_of(data)\n",
        "",
        f"{TOOLS}::test_arguments_in_strings_are_counted_as_the_body_is",
    ),
    Mutation(
        "S15",
        f"{ROUTER}/tools/definition.py",
        "    if size > MAX_SCHEMAS:",
        "    if False:",
        f"{TOOLS}::test_schemas_are_weighed_before_they_are_read",
    ),
    # Grammars may force long texts, which are then looked for.
    Mutation(
        "S11",
        f"{ROUTER}/grammars.py",
        "forces_much=longest > MOST_FORCED",
        "forces_much=False",
        "tests/router/engine/test_grammars.py::test_what_may_force_much_is_said",
    ),
    Mutation(
        "S11",
        f"{SHARD}/grammars/templates.py",
        "(CHOOSING,) if request.forces_much else (FORCING, CHOOSING)",
        "(FORCING, CHOOSING)",
        "tests/shard/test_long_forced_texts.py::test_one_that_may_force_much_is_never_asked",
    ),
    # One that forces more than its bounds allow fails.
    Mutation(
        "S11",
        f"{SHARD}/grammars/matching.py",
        "    if constraint.forcing and constraint.template.stop_forcing():",
        "    if False:",
        "tests/shard/test_long_forced_texts.py::test_one_that_does_later_goes_on_without",
    ),
    # A grammar that becomes slow in the middle of a text goes on.
    Mutation(
        "S11",
        f"{SHARD}/grammars/matching.py",
        "REASON if one.slow >= SLOW_TOKENS else None",
        "None",
        "tests/shard/test_grammars.py::test_a_matcher_that_is_slow_ends_its_sequence_alone",
    ),
    Mutation(
        "S12",
        f"{SHARD}/steps/admissions.py",
        "    wrong = tokens[(tokens < 0) | (tokens >= limits.vocab_size)]",
        "    wrong = tokens[:0]",
        "tests/shard/test_refusals.py::test_admissions_that_cannot_be_computed_harm_no_other",
    ),
    # Bodies are read as Python's json reads them.
    Mutation(
        "S13",
        f"{ROUTER}/api/json_body.py",
        "            value: object = orjson.loads(data)",
        '            value: object = __import__("json").loads(data)',
        "tests/router/api/test_bodies.py::test_what_is_no_number_is_named",
    ),
    Mutation(
        "S14",
        f"{ROUTER}/api/openai_message.py",
        "from pydantic import Field, model_validator\n",
        "import urllib.request\nfrom pydantic import Field, model_validator\n",
        "tests/test_layout.py::test_the_router_fetches_nothing",
    ),
    # Parts of a message that are no text are taken for text.
    Mutation(
        "S14",
        f"{ROUTER}/api/openai_message.py",
        '        if isinstance(data, dict) and data.get("type") not in (None, "text"):',
        "        if False:",
        f"{BOUNDS}::test_parts_with_urls_are_refused",
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
    # Tokens of a key are not counted against its limit.
    Mutation(
        "S16",
        f"{ROUTER}/quotas.py",
        "if bucket is not None and not (wait := bucket.take(tokens, now)):",
        "if bucket is not None and not (wait := 0.0):",
        "tests/router/test_quotas.py::test_no_schedule_takes_more_than_was_allowed",
    ),
    # Nor are they in the metrics.
    Mutation(
        "S16",
        f"{ROUTER}/quotas.py",
        "        account.generated_tokens += generated\n",
        "",
        "tests/router/api/test_quota.py::test_tokens_a_minute",
    ),
    # Dear bytes are parsed as fast as they come.
    Mutation(
        "S16",
        f"{ROUTER}/api/paced_parsing.py",
        "            if self._dear > DEAR_SECONDS and self.transport is not None:",
        "            if False:",
        "tests/router/api/test_paced_parsing.py::test_who_waits_is_not_read_from_and_others_are",
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
        "S21",
        f"{ROUTER}/tools/values.py",
        "        value = json.loads(word)",
        "        value = eval(word)",
        "tests/test_layout.py::test_nothing_is_unpickled_or_evaluated",
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
    Mutation(
        "S24",
        "Dockerfile",
        "pip install --no-cache-dir --require-hashes -r",
        "pip install --no-cache-dir -r",
        "tests/deployment/test_images.py::test_packages_are_checked_against_the_lock",
    ),
    Mutation(
        "S24",
        "Dockerfile.cpu",
        "ARG BASE=python:3.11-slim-bookworm",
        "ARG BASE=python:latest",
        "tests/deployment/test_images.py::test_bases_are_named_exactly",
    ),
    # What orjson reads and cannot write.
    Mutation(
        "S12",
        f"{ROUTER}/api/json_body.py",
        "        fault = fault_of_levels(data)",
        "        fault = None",
        "tests/router/api/test_responses.py::test_what_is_shown_again_is_not_too_deep",
    ),
    # Files of keys whose numbers Python does not read end a server that runs.
    Mutation(
        "S3",
        f"{LAUNCHER}/key_file.py",
        "    except (ValueError, RecursionError) as error:  # TOMLDecodeError",
        "    except (tomllib.TOMLDecodeError, RecursionError) as error:  #",
        "tests/launcher/test_api_keys.py::test_tables_that_will_not_do",
    ),
)
