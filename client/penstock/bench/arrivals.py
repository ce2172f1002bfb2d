"""When requests are due: Poisson arrivals, burstier or smoother ones, and ramps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST_RATE = 1e-3  # requests a second: what a ramp may begin with


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """An open loop: gaps between requests follow a gamma distribution around the rate.

    burstiness: its shape; 1: Poisson, below burstier, above smoother. The rate goes from `rate` to
    `end_rate` over the requests, by equal steps or by equal factors (`exponential`).
    """

    rate: float  # requests a second
    burstiness: float = 1.0
    end_rate: float | None = None  # None: it stays
    exponential: bool = False

    def __post_init__(self) -> None:
        for name in ("rate", "burstiness", "end_rate"):
            value = getattr(self, name)
            if value is not None and not LEAST_RATE <= value <= 1e6:
                raise ValueError(f"{name} must be >= {LEAST_RATE} and <= 1,000,000, not {value:g}")

    def rates(self, count: int) -> np.ndarray:
        """The rate at which each request comes. `[count]`."""
        end = self.rate if self.end_rate is None else self.end_rate
        space = np.geomspace if self.exponential else np.linspace
        return np.asarray(space(self.rate, end, count))

    def due(self, count: int, seed: int) -> list[float]:
        """Seconds after the start at which each request is due, ascending."""
        rng = np.random.default_rng([seed, 1])
        gaps = rng.gamma(self.burstiness, 1 / self.burstiness, count) / self.rates(count)
        return [float(when) for when in np.cumsum(gaps)]
