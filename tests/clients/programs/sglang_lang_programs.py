"""Programs of `lang_programs` on SGLang's frontend: what they return, or raise."""

from __future__ import annotations

import json
import sys
from typing import Any

from lang_programs import PROGRAMS
from sglang_frontend import sgl


def outcome(name: str) -> Any:
    try:
        return PROGRAMS[name](sgl)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


sgl.set_default_backend(sgl.RuntimeEndpoint(sys.argv[1]))
print(json.dumps({name: outcome(name) for name in PROGRAMS}))
