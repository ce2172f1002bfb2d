"""All mutations, in the order of docs/reliability.md."""

from __future__ import annotations

from tests.mutations.attacks import ATTACKS
from tests.mutations.processes import PROCESSES
from tests.mutations.service import SERVICE

MUTATIONS = (*PROCESSES, *SERVICE, *ATTACKS)
