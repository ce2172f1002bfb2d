"""Which folder the shards and the router read the model from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from penstock_launcher.errors import LauncherError
from penstock_launcher.options import Options

DEMO = Path(__file__).parent / "demo_model"
DEMO_ID = "penstock-demo"
KEPT = (".json", ".safetensors", ".jinja", "tokenizer.model")  # in the top folder of the repository
BESIDE = ("consolidated", "adapter")  # safetensors that are no weights where others are
S3_URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[^/\x00-\x1f\x7f]+)*)/?")
HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")


@dataclass(frozen=True, slots=True)
class Model:
    """A folder that was checked, and what it is called."""

    path: Path
    id: str  # the name that the operator gave
    sha: str | None  # commit on the hub


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model to fetch from the hub."""

    model_id: str
    revision: str | None  # None: the main branch
    cache: str | None  # folder; None: huggingface_hub's own
    token: str | None  # None: none is sent
    with_weights: bool


@dataclass(frozen=True, slots=True)
class S3Model:
    """A model to fetch from a bucket."""

    model_id: str  # s3://bucket/prefix
    bucket: str
    prefix: str  # of the keys, without a slash at its end; may be empty
    cache: str | None  # folder; None: as the hub's
    with_weights: bool

    @classmethod
    def parse(cls, url: str, cache: str | None, with_weights: bool) -> S3Model:
        """Raises LauncherError for what names no bucket."""
        if (found := S3_URL.fullmatch(url)) is None or len(url) > 1024:
            raise LauncherError(
                f"--model-id {url!r}: expected s3://BUCKET/PREFIX. A bucket's name has 3 to 63 "
                "small letters, digits, dots and dashes"
            )
        return cls(url, found[1], found[2].strip("/"), cache, with_weights)


def is_s3(model_id: str | None) -> bool:
    """Whether a model lies in a bucket."""
    return model_id is not None and model_id.startswith("s3://")


def local_model(options: Options) -> Model | None:
    """The model that is on this machine without asking the hub; None when it must be fetched.

    Raises LauncherError for an id that is neither a folder nor a possible name on the hub.
    """
    if options.model_id is None:
        if options.revision is not None:
            raise LauncherError("--revision was given without --model-id")
        return Model(DEMO, DEMO_ID, None)
    if is_s3(options.model_id):
        if options.revision is not None:
            raise LauncherError("--revision is of the hub: a bucket has none")
        return None
    folder = Path(options.model_id).expanduser()
    if folder.is_dir():
        return Model(folder.resolve(), options.model_id, None)
    is_id = HUB_ID.fullmatch(options.model_id)
    if is_id and ".." not in options.model_id and "--" not in options.model_id:
        return None
    raise LauncherError(
        f"--model-id {options.model_id!r} is no folder here, and no name that the hub could know"
    )


def check_folder(model: Model, *, with_weights: bool) -> Model:
    """The same model, or LauncherError for a folder that cannot be served."""
    if not (model.path / "config.json").is_file():
        if with_weights and (model.path / "adapter_config.json").is_file():
            check_weights(model.path, model.id)  # which says what an adapter is
        raise LauncherError(f"{model.path} holds no config.json")
    if with_weights:
        check_weights(model.path, model.id)
    return model


def check_weights(folder: Path, name: str) -> None:
    """Raises LauncherError unless the folder holds safetensors."""
    names = [path.name for path in folder.iterdir()]
    if problem := weights_problem(names, name):
        raise LauncherError(problem)


def weights_problem(file_names: list[str], model: str) -> str | None:
    """Why these files are not weights that can be served, as a sentence; None if they are."""
    weights = [name for name in file_names if name.endswith(".safetensors")]
    if weights and all(name.startswith("adapter") for name in weights):
        return (
            f"{model} holds an adapter ({weights[0]}) and no model: merge it into the model that "
            "it adapts, with `penstock merge`, and serve that"
        )
    if weights:
        return None
    if any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in file_names):
        return (
            f"{model} holds pickled weights (.bin, .pt) and no .safetensors; a pickle can run any "
            "code, so it is not loaded: convert it once, where you trust it, with "
            "`AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)` of the "
            "transformers library, and serve the new folder"
        )
    return f"{model} holds no .safetensors weights"


def choose_files(names: list[str], wanted: HubModel | S3Model) -> list[str]:
    """What is needed of a repository's files: nothing pickled, no code, no second copy.

    Raises LauncherError where the weights cannot be served.
    """
    top = [name for name in names if "/" not in name]
    if wanted.with_weights and (problem := weights_problem(top, wanted.model_id)):
        raise LauncherError(problem)
    chosen = [name for name in top if name.endswith(KEPT)]
    weights = [name for name in chosen if name.endswith(".safetensors")]
    if not wanted.with_weights:
        return [name for name in chosen if name not in weights]
    # some repositories hold the weights twice, for Mistral's own loader too, or an adapter
    beside = [name for name in weights if name.startswith(BESIDE)]
    if len(beside) < len(weights):
        chosen = [name for name in chosen if name not in beside]
    return chosen
