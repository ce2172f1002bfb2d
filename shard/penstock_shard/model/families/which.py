"""Which family a config.json is of."""

from __future__ import annotations

from penstock_shard.model.families import FAMILIES
from penstock_shard.model.families.layer_kinds import Config

# Models that see images too: their text_config is that of a family.
TEXT_PARTS = {"Gemma3ForConditionalGeneration": "Gemma3ForCausalLM"}
# What old or hand-made files call a family: `model_type`, in lower case.
MODEL_TYPES = {kind: name for name, row in FAMILIES.items() for kind in row.model_types}


def text_part(config: Config) -> Config:
    """Of a model that also sees, what describes its language model. The rest is not served."""
    part = config.get("text_config")
    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and named else None
    if name not in tuple(TEXT_PARTS) or not isinstance(part, dict):
        return config
    around = {key: value for key, value in config.items() if key != "text_config"}
    return {**around, **part, "architectures": [TEXT_PARTS[name]]}


def family_name(config: Config) -> str:
    """By the first of `architectures`; by `model_type` where that says nothing known.

    Names of other things than a causal language model are taken at their word.
    """
    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and named else "(none given)"
    for known in FAMILIES:
        if str(name).lower() == known.lower():
            return known
    family = MODEL_TYPES.get(str(config.get("model_type")).lower())
    if family is not None and (not named or str(name).endswith("ForCausalLM")):
        return family
    supported = ", ".join(FAMILIES)
    raise ValueError(f"architecture {name!s:.60} is not supported; supported: {supported}")
