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
