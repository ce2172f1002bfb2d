"""From what steps take to how many rows they should have.

The shards measure steps with prompts at start, by their number of rows. Matrix products compute
rows in tiles, and tiles in turns of the whole card, so some sizes are cheap for what they compute
and others are not; which ones depends on the model and the card.
"""

from __future__ import annotations

from collections.abc import Mapping

# Of Llama-3.1-8B on an H100, us a layer and row: 0.72 of 384, 0.63 of 1,152 and 2,048; 0.74 of 512,
# 0.66 of 768 and 1,536, 0.70 of 1,024. Sizes between are not worth their place: without 768 64
# streams had 4,853 -> 4,974 tokens a second, 32 streams 3,523 -> 3,548.
MEASURED_BEFORE = (384, 1152, 2048)
LITTLE_LONGER = 2.0  # times a step of few rows, whose time is that of reading the weights
CHEAPER = 0.89  # a larger size costs at most so much a row of what the one before it does


def step_rows(costs: Mapping[int, float]) -> tuple[int, ...]:
    """Rows that steps with prompts should have, ascending; the first is what makes a step little
    longer than one without.

    costs: seconds by rows; none where nothing was measured. Times that fall with more rows are
    noise, so the larger time counts for both, and a twentieth is no difference.
    """
    if not costs:
        return MEASURED_BEFORE
    sizes = sorted(costs)
    seconds = dict.fromkeys(sizes, 0.0)
    longest = 0.0
    for rows in sizes:
        seconds[rows] = longest = max(longest, costs[rows])
    base = seconds[sizes[0]]
    first = max(rows for rows in sizes if seconds[rows] <= LITTLE_LONGER * base)
    chosen = [first]
    for rows in sizes[sizes.index(first) + 1 :]:
        if seconds[rows] / rows <= CHEAPER * seconds[chosen[-1]] / chosen[-1]:
            chosen.append(rows)
    return tuple(chosen)
