"""A tokenizer of the client's own, to make prompts of a length and to count tokens."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer


def load_tokenizer(name: str) -> Tokenizer:
    """That of a folder, of a tokenizer.json, or of a model on the hub.

    Raises ValueError that says why there is none.
    """
    path = Path(name).expanduser()
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        if file.is_file():
            return Tokenizer.from_file(str(file))
        if not path.exists():
            return Tokenizer.from_pretrained(name)
    except Exception as error:  # the library's own is of no other kind
        reason = str(error).strip().splitlines() or [repr(error)]
        raise ValueError(f"--tokenizer {name}: {reason[0]}") from None
    raise ValueError(f"--tokenizer {name}: there is no tokenizer.json")
