"""What Text Generation Inference (TGI) takes and Penstock does not: an error, never ignored."""

from __future__ import annotations

from dataclasses import dataclass

# Variables that TGI reads without an option of that name. They change how it computes, not what it
# serves, so they are worth a warning and no error.
TGI_VARIABLES = (
    "ATTENTION",
    "LOG_COLORIZE",
    "MAX_IMAGE_FETCH_SIZE",
    "PREFILL_CHUNKING",
    "PREFIX_CACHING",
    "TGI_WIGGLE_ROOM",
    "USE_FLASH_ATTENTION",
)


@dataclass(frozen=True, slots=True)
class Unsupported:
    """An option of TGI's that Penstock cannot honour: giving it is an error that says why.

    Values in `harmless` ask for what Penstock does anyway, and are accepted.
    """

    name: str
    reason: str  # completes "--name …"
    harmless: tuple[str, ...] = ()
    takes_value: bool = True
    in_environment: bool = True
    also: tuple[str, ...] = ()  # further variables that say the same

    @property
    def flag(self) -> str:
        return "--" + self.name

    @property
    def variable(self) -> str | None:
        return self.name.replace("-", "_").upper() if self.in_environment else None

    @property
    def variables(self) -> tuple[str, ...]:
        """Where the environment may give it."""
        return (self.variable, f"TGI_{self.variable}", *self.also) if self.variable else ()


_LATER = "is not built yet"
_SWITCH_OFF = ("false", "0", "no", "off")
_SWITCH_ON = ("true", "1", "yes", "on")

UNSUPPORTED = (
    Unsupported("speculate", f"{_LATER}: one token a step", harmless=("0",)),
    Unsupported(
        "trust-remote-code",
        "cannot be granted: nothing in a model folder is ever executed",
        harmless=_SWITCH_OFF,
        takes_value=False,
        also=("HF_MODEL_TRUST_REMOTE_CODE",),
    ),
    Unsupported(
        "disable-custom-kernels",
        "is accepted: there are no custom kernels for Bloom and GPT-NeoX to disable",
        harmless=_SWITCH_ON + _SWITCH_OFF,
        takes_value=False,
    ),
    Unsupported(
        "ngrok",
        "is not built (it never worked in TGI 3)",
        harmless=_SWITCH_OFF,
        takes_value=False,
    ),
    # ngrok's own tools set these variables; TGI read them only together with --ngrok
    Unsupported("ngrok-authtoken", "is not built, as --ngrok is not", in_environment=False),
    Unsupported("ngrok-edge", "is not built, as --ngrok is not", in_environment=False),
    Unsupported(
        "lora-adapters", f"{_LATER}: adapters cannot be loaded, but merged (docs/adapters.md)"
    ),
    Unsupported(
        "usage-stats", "has no other value than off: Penstock reports to nobody", harmless=("off",)
    ),
    Unsupported(
        "enable-prefill-logprobs",
        "is accepted: a request that asks for prompt log-probabilities always gets them",
        harmless=_SWITCH_ON + _SWITCH_OFF,
        takes_value=False,
    ),
)
