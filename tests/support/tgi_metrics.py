"""What TGI's users have dashboards of: names of series, as data with its origin."""

from __future__ import annotations

import json
import re
from pathlib import Path

_DATA = json.loads((Path(__file__).parents[1] / "router" / "data" / "tgi_metrics.json").read_text())
PANELS: dict[str, list[str]] = _DATA["panels"]  # of TGI's own Grafana dashboard
DOCUMENTED: list[str] = _DATA["documented"]  # in TGI's reference of metrics
# docs/api.md says why; in TGI it was empty too.
EMPTY_PANELS = {"Speculated Tokens"}


def values(text: str, series: str) -> list[float]:
    """The samples of a page of metrics that a selector such as `name{label="value"}` finds."""
    name, _, label = series.rstrip("}").partition("{")
    pattern = rf"^{name}(?:\{{(?=[^}}]*{re.escape(label)})[^}}]*\}})? (\S+)$"
    return [float(found) for found in re.findall(pattern, text, re.MULTILINE)]
