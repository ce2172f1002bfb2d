"""Real tokenizers, templates and configurations, which lie beside the repository where they do."""

from __future__ import annotations

from pathlib import Path

import pytest

_FOLDER = Path(__file__).parents[2].parent / "shared" / "assets"


def assets() -> Path:
    """The folder. Tests that use it are marked `needs_assets`."""
    return _FOLDER


needs_assets = pytest.mark.skipif(
    not _FOLDER.is_dir(), reason="the folder ../shared/assets is not on this machine"
)
