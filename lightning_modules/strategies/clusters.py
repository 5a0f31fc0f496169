"""Clusters of the images of one class: a graph of nearest neighbours, cut where its eigenvalues have a gap."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.sparse import identity
from scipy.sparse.csgraph import laplacian
from scipy.sparse.linalg import eigsh
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances_argmin
from sklearn.neighbors import kneighbors_graph
from sklearn.preprocessing import normalize

# What decides how many clusters there are, see :func:`find_clusters`.
FEWEST, MOST_CLUSTERS, MOST_CLUSTERED, N_NEIGHBORS, GAP_RATIO = 8, 8, 2000, 10, 0.25


class Clusters(NamedTuple):
    """The clusters of N images.

    Attributes:
        number: The cluster of each image, the largest is 0: int ``(N,)``.
        middles: The mean of each cluster, ``(K, D)``.
        gap: Between the eigenvalue of the last cluster and the next one, in [0, 1]; 0 where there is one cluster.
        places: Each image on the two principal components of its class, ``(N, 2)``.
    """

    number: np.ndarray
    middles: np.ndarray
    gap: float
    places: np.ndarray


def find_clusters(vectors: np.ndarray, seed: int = 0) -> Clusters:
    r"""Spectral clusters of vectors ``(N, D)``, as many as there are eigenvalues before a gap.

    Of the normalized Laplacian of the graph of the :data:`N_NEIGHBORS` nearest neighbours (of few images
    :math:`\sqrt N`), with eigenvalues :math:`0 = \lambda_1 \le \lambda_2 \le \dots`, there are :math:`k \ge 2` clusters
    where :math:`\lambda_{k+1} - \lambda_k` is largest among those with :math:`\lambda_k \le \lambda_{k+1} / 4`; without
    such a gap there is one. Groups of fewer than :data:`FEWEST` images are no clusters: their images go to the nearest
    middle, and so do all images beyond :data:`MOST_CLUSTERED`.

    Args:
        vectors: One of each image.
        seed: Of k-means, and of which images are clustered where there are too many.

    References: Lapuschkin et al., "Unmasking Clever Hans predictors and assessing what machines really learn", Nature
    Communications 2019 (SpRAy); von Luxburg, "A tutorial on spectral clustering", Statistics and Computing 2007.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=(40, 3))
        >>> found = find_clusters(noise + np.repeat([[0.0], [9.0]], [25, 15], axis=0))
        >>> np.bincount(found.number).tolist(), find_clusters(noise).gap
        ([25, 15], 0.0)
    """
    n = len(vectors)
    chosen = np.sort(np.random.default_rng(seed).permutation(n)[:MOST_CLUSTERED])
    groups, gap = _groups(vectors[chosen], seed)
    sizes = np.bincount(groups)
    large = [k for k in np.argsort(-sizes, kind="stable") if sizes[k] >= FEWEST] or [0]
    middles = np.stack([vectors[chosen[groups == k]].mean(0) for k in large])
    number = pairwise_distances_argmin(vectors, middles)
    for place, k in enumerate(large):
        number[chosen[groups == k]] = place
    places = PCA(2, random_state=seed).fit(vectors[chosen]).transform(vectors) if n > 2 else np.zeros((n, 2))
    return Clusters(number, middles, gap if len(large) > 1 else 0.0, places)


def _groups(vectors: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """The group of each vector, and the gap behind the eigenvalues of the groups; 0 where there is one group."""
    n = len(vectors)
    if n < 2 * FEWEST:
        return np.zeros(n, int), 0.0
    graph = kneighbors_graph(vectors, min(N_NEIGHBORS, math.ceil(math.sqrt(n))), include_self=True)
    # The smallest eigenvalues of L are found as the largest ones of 2 - L, of which none is negative.
    flipped = 2 * identity(n) - laplacian((graph + graph.T) / 2, normed=True)
    start = np.random.default_rng(seed).uniform(size=n)
    found, eigenvectors = eigsh(flipped, MOST_CLUSTERS + 1, which="LA", v0=start)
    order = np.argsort(-found)
    values = np.maximum(2 - found[order], 0)
    gaps = np.where(values[:-1] <= GAP_RATIO * values[1:], np.diff(values), 0)
    gaps[0] = 0  # the first eigenvalue is 0 of any graph
    k = int(gaps.argmax()) + 1
    rows = normalize(eigenvectors[:, order[:k]])
    return KMeans(k, n_init=10, random_state=seed).fit_predict(rows), float(gaps[k - 1])
