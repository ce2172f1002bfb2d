"""`launcher`, `penstock`, `text-generation-launcher`, `python -m penstock_launcher`."""

from __future__ import annotations

import dataclasses
import os
import sys

from penstock_launcher.api_keys import api_keys, secrets_of
from penstock_launcher.command_line import parse
from penstock_launcher.configs import SECRETS
from penstock_launcher.environment import report
from penstock_launcher.errors import LauncherError
from penstock_launcher.hub_token import hub_token
from penstock_launcher.launch import given, serve
from penstock_launcher.logs import Log
from penstock_launcher.outlet import open_standard_descriptors
from penstock_launcher.parent import draws_progress, variables_of_options
from penstock_launcher.sagemaker import adapt
from penstock_launcher.vertex import storage_notice


def main() -> int:
    """The exit code: 0 after a signal and a clean end, 1 after a failure, 2 for a bad option."""
    open_standard_descriptors()
    argv, environ = adapt(sys.argv[1:], dict(os.environ))
    options, notices = parse(argv, variables_of_options(environ))
    try:
        keys = api_keys(options)
        if notice := storage_notice(options, environ):
            notices.append(notice)
    except LauncherError as error:
        secrets = tuple(secrets_of(options.api_key))
        Log(as_json=options.json_output, secrets=secrets).error(str(error))
        return 1
    asked, options = options, dataclasses.replace(options, api_key=keys)
    hidden = [*secrets_of(keys), hub_token(environ) or ""]
    hidden += [environ.get(name, "") for name in SECRETS]
    log = Log(
        as_json=options.json_output,
        level=options.log_level,
        secrets=tuple(hidden),
        records_of_progress=options.json_output and draws_progress(environ),
    )
    for notice in notices:
        log.warning(notice)
    if options.env:
        log.info("runtime environment", **report())
    log.info("options", **given(options))
    try:
        read_keys = (lambda: api_keys(asked)) if asked.api_key_file is not None else None
        return serve(options, environ, log, read_keys)
    except LauncherError as error:
        log.error(str(error))
        return 1
    finally:
        log.close()


if __name__ == "__main__":
    sys.exit(main())
