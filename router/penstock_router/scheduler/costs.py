"""From what steps take to how many rows they should have.

The shards measure steps with prompts at start, by their number of rows. Matrix products compute
rows in tiles, and tiles in turns of the whole card, so some sizes are cheap for what they compute
and others are not; which ones depends on the model, its format and the card.
"""

from __future__ import annotations

from collections.abc import Mapping

# Where nothing was measured, as of steps that are launched kernel by kernel: those of Llama-3.1-8B
# on an H100.
USUAL = (384, 1152, 2048)
# On a CPU a row costs about the same in all sizes, so long steps gain nothing, and those that
# decode wait for them.
ON_A_CPU = (64, 128)
# A long prompt is computed within so many steps, by device. On a GPU each reads all weights.
STEPS_A_PROMPT = {"cuda": 5, "cpu": 32}
# The first size takes at most so many times what the fewest rows take, which is reading the
# weights: so long tokens are apart while prompts are computed, also where few streams run. Planned
# with the times of eleven models, formats and numbers of GPUs (`benchmarks/step_sizes.py`) 64
# streams have 3 % more tokens a second than with USUAL, with 1.75 2.6 %, with 3 3.4 %. Served, 8B
# in bfloat16 on an H200 has 1 % less, 184 ms to the first token instead of 250, and at the 99th
# centile 18 ms between two instead of 28.
LITTLE_LONGER = 2.25
WORSE = 1.04  # than a mixture of other sizes; less is noise
# Beyond, a step that is longer than it must be makes those wait who decode: with sizes of up to
# 4,096 rows 256 streams have as many tokens a second, and a fifth more between two at the most.
MOST_ROWS = 2048


def step_rows(costs: Mapping[int, float], usual: tuple[int, ...] = USUAL) -> tuple[int, ...]:
    """Rows that steps with prompts should have, ascending; the first is what makes a step little
    longer than one without.

    costs: seconds by rows; where nothing was measured none, and `usual` counts. Times that fall
    with more rows are noise, so the larger time counts for both.
    """
    if not costs:
        return usual
    seconds: dict[int, float] = {}
    longest = 0.0
    for rows in sorted(costs):
        seconds[rows] = longest = max(longest, costs[rows])
    worth = [rows for rows in seconds if seconds[rows] <= WORSE * _mixed(seconds, rows)]
    most = LITTLE_LONGER * seconds[worth[0]]
    first = max(rows for rows in worth if seconds[rows] <= most)
    return (first, *(rows for rows in worth if first < rows <= MOST_ROWS))


def _mixed(seconds: Mapping[int, float], rows: int) -> float:
    """The least time a step in which steps of a smaller and of a larger size have so many rows on
    average: the lower convex hull of all sizes."""
    least = seconds[rows]
    for fewer in (other for other in seconds if other < rows):
        for more in (other for other in seconds if other > rows):
            share = (rows - fewer) / (more - fewer)
            least = min(least, (1 - share) * seconds[fewer] + share * seconds[more])
    return least
