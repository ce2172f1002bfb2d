"""SGLang's frontend as `sgl`. From 0.5 on its package imports the server's parts, torch among them,
so only the language is imported there; the package itself stands in with its place alone."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import types

VERSION = importlib.metadata.version("sglang")
if VERSION.startswith("0.4"):
    import sglang as sgl
    from sglang.lang.choices import (
        greedy_token_selection,
        token_length_normalized,
        unconditional_likelihood_normalized,
    )
else:
    spec = importlib.util.find_spec("sglang")
    assert spec is not None
    package = types.ModuleType("sglang")
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["sglang"] = package
    import sglang.lang.api as sgl
    from sglang.lang.backend.runtime_endpoint import RuntimeEndpoint
    from sglang.lang.choices import (
        greedy_token_selection,
        token_length_normalized,
        unconditional_likelihood_normalized,
    )

    sgl.RuntimeEndpoint = RuntimeEndpoint

METHODS = (token_length_normalized, greedy_token_selection, unconditional_likelihood_normalized)
for name in (
    "greedy_token_selection",
    "token_length_normalized",
    "unconditional_likelihood_normalized",
):
    setattr(sgl, name, globals()[name])
