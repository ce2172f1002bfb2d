"""Paths that clients know from other servers and that this one does not serve: why not."""

from __future__ import annotations

_EMBEDS = "it turns no text into vectors, which other models are made for"
_RANKS = "it ranks and classifies no texts, which other models are made for"
_HEARS = "it reads and speaks no sound"
_DRAWS = "it draws no images"
_KEEPS = "it keeps nothing of what it answered"
_NO_FOLDER = "it was started without `--batch-folder`, which says where files may be kept"

# Beginnings of paths.
_REASONS = {
    "/v1/embeddings": _EMBEDS,
    "/v2/embed": _EMBEDS,
    "/embed": _EMBEDS,
    "/encode": _EMBEDS,
    "/pooling": _EMBEDS,
    "/v1/rerank": _RANKS,
    "/v2/rerank": _RANKS,
    "/rerank": _RANKS,
    "/v1/score": _RANKS,
    "/score": _RANKS,
    "/classify": _RANKS,
    "/predict": _RANKS,
    "/v1/moderations": _RANKS,
    "/v1/audio": _HEARS,
    "/v1/realtime": _HEARS,
    "/v1/images": _DRAWS,
    "/v1/videos": _DRAWS,
    "/v1/responses/": _KEEPS,
    "/v1/conversations": _KEEPS,
    "/v1/messages/batches": "it runs no jobs",
    "/v1/batches": _NO_FOLDER,
    "/v1/fine_tuning": "it trains no models",
    "/v1/files": _NO_FOLDER,
    "/v1/vector_stores": "it keeps no files",
    "/v1/assistants": _KEEPS,
    "/v1/threads": _KEEPS,
}


def why_absent(path: str) -> str:
    """A sentence for a path that there is not."""
    for beginning, reason in _REASONS.items():
        if path.startswith(beginning):
            return f"This server does not serve `{beginning}`: {reason}"
    return "There is no such path"
