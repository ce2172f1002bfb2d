"""The table of families: how their models differ from Llama's, and what they call their tensors.

A family is a row of one of these files. Adding one that the switches cover is a row, and a
checkpoint in the tests.
"""

from penstock_shard.model.families.experts import EXPERTS
from penstock_shard.model.families.family import Family
from penstock_shard.model.families.learned import LEARNED
from penstock_shard.model.families.parallel import PARALLEL
from penstock_shard.model.families.sandwich import SANDWICH
from penstock_shard.model.families.sequential import SEQUENTIAL

FAMILIES: dict[str, Family] = SEQUENTIAL | EXPERTS | SANDWICH | PARALLEL | LEARNED

# Models that see images too: their text_config is that of a family.
TEXT_PARTS = {"Gemma3ForConditionalGeneration": "Gemma3ForCausalLM"}

# What old or hand-made files call a family: `model_type`, in lower case.
MODEL_TYPES = {kind: name for name, row in FAMILIES.items() for kind in row.model_types}
