"""A small forest of decision trees: numbers in, a probability out. Deterministic; numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Forest:
    """Complete binary trees as arrays of shape (trees, nodes); the children of node n are 2n+1 and 2n+2.

    An inner node goes left where ``x[feature] <= threshold``; the last level holds probabilities.
    """

    features: NDArray[np.int64]
    thresholds: NDArray[np.float64]
    leaves: NDArray[np.float64]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Forest:
        """Read what ``as_json`` wrote."""
        return cls(
            np.array(data["features"], dtype=np.int64), np.array(data["thresholds"]), np.array(data["leaves"])
        )

    def as_json(self) -> dict[str, Any]:
        """Plain lists."""
        return {
            "features": self.features.tolist(),
            "thresholds": self.thresholds.tolist(),
            "leaves": self.leaves.tolist(),
        }

    def probability(self, x: NDArray[np.float32] | Sequence[float]) -> float:
        """The mean over the trees."""
        values = np.asarray(x, dtype=np.float64)
        trees = np.arange(len(self.features))
        node = np.zeros(len(trees), dtype=np.int64)
        for _ in range(int(np.log2(self.leaves.shape[1]))):
            right = values[self.features[trees, node]] > self.thresholds[trees, node]
            node = 2 * node + 1 + right
        return float(self.leaves[trees, node - self.features.shape[1]].mean())
