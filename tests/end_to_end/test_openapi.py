"""/openapi.json against the server that it describes, by schemathesis.

Bodies are drawn from the schemas, and from what the schemas forbid. None of them may be answered
by an error of the server, nor in a way that the document does not name.

PENSTOCK_OPENAPI_CASES says how many are drawn for each operation and mode.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from support.server import Server, running_server

CASES = int(os.environ.get("PENSTOCK_OPENAPI_CASES", "12"))
CHECKS = [
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
DEADLINE = 504  # the answer to a `timeout` that is over, which bodies ask for


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("openapi")
    options = ("--device", "cpu", "--batch-folder", str(folder / "batches"))
    with running_server(folder, *options) as running:
        yield running


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_every_answer_is_one_that_the_document_names(server: Server, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) > 35
    for operation in operations:
        if mode is GenerationMode.POSITIVE or operation.body:
            _ask(operation, mode)


def _ask(operation: APIOperation, mode: GenerationMode) -> None:
    """Raises AssertionError with a request that is answered wrongly."""

    @seed(1)
    @settings(
        max_examples=CASES,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # shrinking asks hundreds of times more
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Case) -> None:
        response = case.call(timeout=240)
        status = response.status_code
        assert status < 500 or status == DEADLINE, (status, response.text, case.as_curl_command())
        if status != 413:  # which the document names for bodies beyond a limit of the server
            case.validate_response(response, checks=CHECKS)

    ask()
