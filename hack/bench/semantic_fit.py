"""Trains the scorer of the semantic cache on the ``tune`` part of the real pairs, and writes it into the package.

python -m bench.semantic_fit

A forest of shallow trees, each on a bootstrap sample with a random third of the features at each split. Only pairs that
pass the lexical guards are used: it never sees others. Deterministic: the same data give the same file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.datasets import REPOSITORY, data_directory
from bench.semantic_pairs import Pair, quora
from ragkube_api.adapters.wordllama_model import load_model
from ragkube_api.text.alignment import FEATURES, Aligner
from ragkube_api.text.forest import Forest
from ragkube_api.text.guards import first_conflict
from ragkube_api.text.wording import wording

TARGET = REPOSITORY / "api" / "ragkube_api" / "text" / "paraphrase_forest.json"
TREES, DEPTH, LEAST_IN_LEAF, CUTS = 60, 7, 5, 48
Matrix = NDArray[np.float64]


def samples(pairs: Sequence[Pair]) -> tuple[Matrix, NDArray[np.float64]]:
    """Features and labels of the pairs that pass the guards."""
    aligner = Aligner(load_model())
    rows, labels = [], []
    for pair in pairs:
        left, right = wording(pair.cached), wording(pair.asked)
        if first_conflict(left, right) is None:
            rows.append(aligner.features(aligner.lay(left), aligner.lay(right)))
            labels.append(float(pair.same))
    return np.array(rows, dtype=np.float64), np.array(labels)


def fit(x: Matrix, y: NDArray[np.float64]) -> Forest:
    """Random forest by Gini impurity."""
    random = np.random.default_rng(7)
    inner, leaves = 2**DEPTH - 1, 2**DEPTH
    forest = Forest(
        np.zeros((TREES, inner), dtype=np.int64), np.full((TREES, inner), 99.0), np.zeros((TREES, leaves))
    )
    for tree in range(TREES):
        chosen = random.integers(0, len(y), len(y))
        _grow(forest, tree, 0, x[chosen], y[chosen], random)
    return forest


def _grow(
    forest: Forest, tree: int, node: int, x: Matrix, y: NDArray[np.float64], random: np.random.Generator
) -> None:
    inner = forest.features.shape[1]
    if node >= inner:
        forest.leaves[tree, node - inner] = round(float(y.mean()), 4)
        return
    feature, threshold = _best_split(x, y, random)
    forest.features[tree, node], forest.thresholds[tree, node] = feature, threshold
    left = x[:, feature] <= threshold
    for child, chosen in ((2 * node + 1, left), (2 * node + 2, ~left)):
        # an empty side is never reached: it takes the parent's samples to have a value
        kept = chosen if chosen.any() else ~chosen
        _grow(forest, tree, child, x[kept], y[kept], random)


def _best_split(x: Matrix, y: NDArray[np.float64], random: np.random.Generator) -> tuple[int, float]:
    best, found = 1e18, (0, 99.0)
    if len(y) < 2 * LEAST_IN_LEAF or y.min() == y.max():
        return found
    for feature in random.choice(x.shape[1], size=max(1, x.shape[1] // 3), replace=False):
        cuts = np.unique(np.quantile(x[:, feature], np.linspace(0, 1, CUTS + 2)[1:-1]).round(5))
        below = x[:, feature][:, None] <= cuts
        count = below.sum(axis=0)
        allowed = (count >= LEAST_IN_LEAF) & (len(y) - count >= LEAST_IN_LEAF)
        if not allowed.any():
            continue
        positive = y @ below
        rest, others = len(y) - count, y.sum() - positive
        with np.errstate(divide="ignore", invalid="ignore"):
            impurity = positive * (1 - positive / count) + others * (1 - others / rest)
        impurity = np.where(allowed, impurity, 1e18)
        place = int(impurity.argmin())
        if impurity[place] < best:
            best, found = float(impurity[place]), (int(feature), round(float(cuts[place]), 4))
    return found


def main() -> None:
    """Train and write."""
    x, y = samples([pair for pair in quora(data_directory()) if pair.split == "tune"])
    forest = fit(x, y)
    document = {"features_in_order": FEATURES, **forest.as_json()}
    TARGET.write_text(json.dumps(document, separators=(",", ":")) + "\n")
    print(f"{len(y)} pairs, {y.mean():.3f} of them duplicates: {TARGET.name}, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
