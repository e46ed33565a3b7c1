"""Metrics of a representation: instance discrimination, alignment, uniformity, neighbours, over-clustering.

Every function takes raw h (N, D), a torch tensor or numpy array of any float type, and L2-normalises it in here
(normalising twice is harmless) unless its docstring says otherwise; pass `centre(h, mean)` for the centred variant.
Nothing larger than `block` x `block` is held, so 50,000 x 50,000 pairs at D = 2048 take about 0.3 GB. Distances are
taken in full float32 whatever autocast or TF32 says. Scalars are returned as Python floats.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_mutual_info_score, homogeneity_completeness_v_measure
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information
from threadpoolctl import ThreadpoolController
from torch import Tensor

PER_CLASS = (1, 2, 4, 8, 16)  # clusters a class of the k-means curves that a run stores
BLOCK = 4096  # rows and columns of distances held at once: 64 MB
BLAS = ThreadpoolController()


@contextmanager
def _full_precision() -> Iterator[None]:
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad(), torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def _embeddings(h, name: str = "h", rows: int = 1, dim: int | None = None) -> Tensor:
    h = torch.as_tensor(h)
    if h.ndim != 2 or not h.is_floating_point():
        raise ValueError(f"{name} must be (N, D) floats, got {tuple(h.shape)} {h.dtype}")
    if len(h) < rows or dim not in (None, h.shape[1]):
        raise ValueError(f"{name} must have at least {rows} rows of {dim or 'any'} dimensions, got {tuple(h.shape)}")
    broken = (~torch.cat([part.sum(1, dtype=torch.float64) for part in h.split(BLOCK)]).isfinite()).nonzero().flatten()
    if len(broken):
        raise ValueError(f"{name} must be finite, got NaN or infinity in {len(broken)} rows, first {int(broken[0])}")
    return h


def _class_labels(labels, h: Tensor, name: str = "labels") -> Tensor:
    labels = torch.as_tensor(labels, device=h.device)
    if labels.shape != (len(h),) or labels.is_floating_point() or (len(labels) and labels.min() < 0):
        raise ValueError(f"{name} must be {len(h)} class numbers from 0 on, got {tuple(labels.shape)} {labels.dtype}")
    return labels.long()


def _integer(value: int, name: str, low: int, high: int) -> None:
    if value != int(value) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}, got {value}")


def unit(h: Tensor) -> Tensor:
    """L2-normalised rows, float32: (N, D) -> (N, D). A row of zeros stays zero."""
    return F.normalize(torch.as_tensor(h).float(), dim=1)


def centre(h: Tensor, mean: Tensor) -> Tensor:
    """h minus `mean` (D,), the mean of h over train, then L2-normalised: comparable across last nonlinearities."""
    h = torch.as_tensor(h)
    return unit(h.float() - torch.as_tensor(mean, device=h.device).float())


def _raw(h: Tensor) -> Tensor:
    return h.float()


def _mean(x: Tensor, scale: Callable = unit, block: int = BLOCK) -> Tensor:
    return sum(scale(part).sum(0, dtype=torch.float64) for part in x.split(block)) / len(x)


def _squared_distances(x: Tensor, y: Tensor, scale: Callable = unit, block: int = BLOCK, upper: bool = False):
    """Yield (rows, columns, squared distances) of x[rows] to y[columns]; `upper`: no blocks below the diagonal.

    Both sides are first shifted by y's mean: distances stay, and rounding error shrinks where all rows are nearly
    parallel.
    """
    shift = _mean(y, scale, block).float()
    for i in range(0, len(x), block):
        a = scale(x[i:i + block]) - shift
        for j in range(i if upper else 0, len(y), block):
            b = scale(y[j:j + block]) - shift
            squared = torch.addmm((b * b).sum(1)[None], a, b.T, alpha=-2).add_((a * a).sum(1, keepdim=True))
            yield slice(i, i + block), slice(j, j + block), squared.clamp_(min=0)


def _mean_squared_distance(x: Tensor, block: int = BLOCK) -> float:
    """Mean of ||x_i - x_j||^2 over i < j, unit rows, from sums: 2 / (n - 1) * sum_i ||x_i - mean||^2."""
    mean = _mean(x, unit, block)
    return float(sum((unit(part) - mean).square().sum() for part in x.split(block))) * 2 / (len(x) - 1)


# ---- the pretext task -----------------------------------------------------------------------------------------------


@_full_precision()
def instance_discrimination(query: Tensor, key: Tensor, negatives: Tensor | None = None, block: int = BLOCK) -> Tensor:
    """Instance discrimination: how many negatives are as cosine-similar as the own key, (N, D) each -> (N,) int64.

    Candidates are the own key and `negatives` (N, D; default: the queries), whose row i is left out for query i. So the
    paper's D-SD is (originals, view 1) and its SD-SD is (view 1, view 2), both with the other queries as negatives, not
    the other keys. Rank 0 is best; `topk_accuracy` at chance is k/N. Ties count against the key, so a collapsed encoder
    scores 0; distances under 1e-6 are ties. Other rules differ on ties only: the paper's formula counts strictly nearer
    negatives (a collapsed encoder would score 1); the official code sorts a list that holds the query itself and reads
    ranks 2..k+1, which leaves ties to the sort.
    """
    query = _embeddings(query, "query", rows=2)
    key = _embeddings(key, "key", rows=len(query), dim=query.shape[1])
    negatives = query if negatives is None else _embeddings(negatives, "negatives", rows=len(query), dim=query.shape[1])
    if not len(query) == len(key) == len(negatives):
        sizes = len(query), len(key), len(negatives)
        raise ValueError(f"query, key and negatives must pair row by row, got {sizes} rows")
    limit = alignment(query, key, block) + 1e-12 + 1e-6 * _mean_squared_distance(negatives, block)
    rank = torch.zeros(len(query), dtype=torch.int64, device=query.device)
    for rows, columns, squared in _squared_distances(query, negatives, block=block):
        if rows == columns:
            squared.fill_diagonal_(torch.inf)
        rank[rows] += (squared <= limit[rows, None]).sum(1)
    return rank


def topk_accuracy(rank: Tensor, ks: Sequence[int] = (1, 2, 3, 4, 5)) -> dict[int, float]:
    """Instance-discrimination accuracy k -> fraction of images with rank < k; chance k/N, optimum 1."""
    for k in ks:
        _integer(k, "ks", 1, len(rank))
    return {k: float((rank < k).double().mean()) for k in ks}


@_full_precision()
def alignment(x: Tensor, y: Tensor, block: int = BLOCK) -> Tensor:
    """Alignment: squared distance of two unit embeddings per image, (N, D), (N, D) -> (N,); 0 to 4, 2 orthogonal.

    The mean is Wang & Isola's alignment (alpha = 2). D-SD: (original, view 1); SD-SD: (view 1, view 2).
    """
    x, y = _embeddings(x, "x"), _embeddings(y, "y")
    if x.shape != y.shape:
        raise ValueError(f"x and y must pair row by row, got {tuple(x.shape)} and {tuple(y.shape)}")
    return torch.cat([(unit(a) - unit(b)).square().sum(1) for a, b in zip(x.split(block), y.split(block), strict=True)])


@_full_precision()
def uniformity(x: Tensor, t: float = 2, block: int = BLOCK) -> float:
    """Wang & Isola's uniformity over all pairs: log mean_{i<j} exp(-t ||x_i - x_j||^2), unit rows.

    0 when collapsed, -2t for orthonormal rows, about -3.96 (D = 192) to -3.996 (D = 2048) for a uniform sphere at t =
    2. Lower is more uniform.
    """
    x = _embeddings(x, "x", rows=2)
    total = 0.0
    for rows, columns, squared in _squared_distances(x, x, block=block, upper=True):
        kernel = squared.mul_(-t).exp_()
        if rows == columns:
            kernel = kernel.triu_(1)
        total = total + kernel.sum(dtype=torch.float64)
    return float(torch.log(total * 2 / len(x) / (len(x) - 1)))


def uniformity_official(x: Tensor, seed: int = 0, t: float = 2, batch_size: int = 128, batches: int = 3) -> float:
    """Uniformity by the official estimator: mean over 3 random batches of 128 images (seeded here, unseeded there)."""
    x = _embeddings(x, "x", rows=batch_size)
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randperm(len(x), generator=generator)[:batch_size].to(x.device) for _ in range(batches)]
    return sum(uniformity(x[index], t) for index in drawn) / batches


@_full_precision()
def intra_class_alignment(x: Tensor, labels: Tensor) -> float:
    """Mean over classes of the mean squared distance between two images of a class, unit rows; 0 tight, 2 orthogonal.

    The paper's measure of over-clustering, read together with uniformity. Classes weigh alike, whatever their size;
    each needs two images.
    """
    x = _embeddings(x, "x", rows=2)
    return float(np.mean([_mean_squared_distance(part) for part in _by_class(x, labels, least=2)]))


@_full_precision()
def intra_over_all(x: Tensor, labels: Tensor) -> float:
    """Intra-class alignment over the mean squared distance of all pairs: 1 at chance, 0 when each class is a point.

    Free of the scale that the last nonlinearity gives distances. NaN for collapsed h.
    """
    x = _embeddings(x, "x", rows=2)
    overall = _mean_squared_distance(x)
    return intra_class_alignment(x, labels) / overall if overall > 1e-12 else float("nan")


def _by_class(x: Tensor, labels: Tensor, least: int, name: str = "labels") -> list[Tensor]:
    labels = _class_labels(labels, x, name)
    classes, counts = labels.unique(return_counts=True)
    if counts.min() < least:
        smallest = int(classes[counts.argmin()])
        raise ValueError(f"{name} must give each class {least} images, got {int(counts.min())} in class {smallest}")
    return [x[labels == c] for c in classes]


# ---- dimensional collapse -------------------------------------------------------------------------------------------


@_full_precision()
def effective_rank(h: Tensor) -> float:
    """Effective rank (RankMe): exp entropy of raw h's singular values scaled to sum 1; 1 (collapsed) to min(N, D)."""
    h = _embeddings(h)
    h = h if len(h) >= h.shape[1] else h.T
    gram = sum(part.double().T @ part.double() for part in h.split(BLOCK))
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    return float(torch.special.entr(singular / singular.sum().clamp(min=1e-300)).sum().exp())


@_full_precision()
def collapse(h: Tensor) -> float:
    """Collapse: standard deviation of unit h per dimension, times sqrt(D), mean over D; 1 spread, 0 collapsed."""
    h = _embeddings(h, rows=2)
    mean = _mean(h)
    variance = sum((unit(part) - mean).square().sum(0) for part in h.split(BLOCK)) / (len(h) - 1)
    return float((variance * h.shape[1]).sqrt().mean())


# ---- nearest neighbours ---------------------------------------------------------------------------------------------


def _nearest(train_h: Tensor, test_h: Tensor, k: int, scale: Callable) -> tuple[Tensor, Tensor]:
    """Squared distances (M, k), ascending, and train indices (M, k) of the k nearest train rows."""
    best = None
    found = []
    for _, columns, squared in _squared_distances(test_h, train_h, scale):
        near, index = squared.topk(min(k, squared.shape[1]), largest=False)
        index += columns.start
        if columns.start:
            near, pick = torch.cat([best[0], near], 1).topk(min(k, best[0].shape[1] + near.shape[1]), largest=False)
            index = torch.cat([best[1], index], 1).gather(1, pick)
        best = near, index
        if columns.stop >= len(train_h):
            found.append(best)
    return torch.cat([near for near, _ in found]), torch.cat([index for _, index in found])


def _neighbour_arguments(train_h, train_labels, test_h, k, name):
    train_h, test_h = _embeddings(train_h, "train_h"), _embeddings(test_h, "test_h")
    if train_h.shape[1] != test_h.shape[1]:
        raise ValueError(f"test_h must have train_h's {train_h.shape[1]} dimensions, got {test_h.shape[1]}")
    _integer(k, name, 1, len(train_h))
    return train_h, _class_labels(train_labels, train_h, "train_labels"), test_h


@_full_precision()
def knn_predict(train_h: Tensor, train_labels: Tensor, test_h: Tensor, k: int, t: float = 0.1) -> Tensor:
    """Labels of test_h by its k nearest in cosine, (M,) int64, with votes exp(similarity / t); a tie goes to the lowest label."""
    train_h, train_labels, test_h = _neighbour_arguments(train_h, train_labels, test_h, k, "k")
    squared, index = _nearest(train_h, test_h, k, unit)
    weights = torch.exp(-squared / 2 / t)  # cosine = 1 - squared / 2; the factor exp(1 / t) is common to all
    votes = torch.zeros(len(test_h), int(train_labels.max()) + 1, device=test_h.device)
    return votes.scatter_add_(1, train_labels[index], weights).argmax(1)


@_full_precision()
def best_nn(train_h: Tensor, train_labels: Tensor, test_h: Tensor, test_labels: Tensor,
            k_max: int = 101) -> dict[int, float]:
    """Accuracy of unweighted Euclidean nearest neighbours at every odd k <= k_max, from one search: k -> fraction.

    The paper's best-NN is the maximum over k, chosen on the very images it is reported on; choose k on val instead. h
    as given (not normalised). Chance 1/C for balanced classes; a tied vote goes to the lowest label.
    """
    train_h, train_labels, test_h = _neighbour_arguments(train_h, train_labels, test_h, k_max, "k_max")
    test_labels = _class_labels(test_labels, test_h, "test_labels")
    neighbours = train_labels[_nearest(train_h, test_h, k_max, _raw)[1]]
    votes = torch.zeros(len(test_h), int(train_labels.max()) + 1, dtype=torch.int16, device=test_h.device)
    one, accuracy = torch.ones(1, 1, dtype=torch.int16, device=test_h.device).expand(len(test_h), 1), {}
    for k in range(1, k_max + 1):
        votes.scatter_add_(1, neighbours[:, k - 1:k], one)
        if k % 2:
            accuracy[k] = float((votes.argmax(1) == test_labels).double().mean())
    return accuracy


# ---- over-clustering ------------------------------------------------------------------------------------------------


def _kmeans(x: np.ndarray, k: int, restarts: int, seed: int) -> KMeans:
    # Its products are small: on more BLAS threads than idle cores they wait for one another (measured: 11 times as long).
    with warnings.catch_warnings(), BLAS.limit(limits=1, user_api="blas"):
        warnings.simplefilter("ignore", ConvergenceWarning)  # collapsed h: fewer distinct points than k
        return KMeans(k, n_init=restarts, random_state=seed).fit(x)


def _rotated(x: Tensor) -> np.ndarray:
    """Unit rows in their principal axes, largest variance first, (n, D) -> (n, rank): distances unchanged."""
    x = unit(x).cpu().double()  # where k-means wants it
    x = x - x.mean(0)
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    keep = int((s > 1e-6 * s[0].clamp(min=1e-6)).sum())  # below that lies float32 rounding
    return (u * s)[:, :max(1, keep)].float().cpu().numpy()


@_full_precision()
def cluster_structure(h: Tensor, labels: Tensor, ks: Sequence[int], seed: int = 0, restarts: int = 1) -> list[dict]:
    """Over-clustering without factors: k-means of unit h at each k, [{"k", "homogeneity", "completeness"}, ...].

    Both in [0, 1]. Homogeneity: does a cluster hold one class? Completeness: does a class sit in one cluster? With k =
    C both are 1 for perfectly gathered classes. Pure clusters have completeness H(classes) / H(clusters), gathered or
    not: at one large k it says nothing, so compare encoders at equal homogeneity (lib.claims). Neither is corrected for
    chance, which gives more the more clusters there are (`chance_homogeneity`).
    """
    h = _embeddings(h)
    labels = _class_labels(labels, h).cpu().numpy()
    x, rows = unit(h).cpu().numpy(), []
    for k in ks:
        _integer(k, "ks", 1, len(h))
        clusters = _kmeans(x, int(k), restarts, seed).labels_
        homogeneity, completeness, _ = homogeneity_completeness_v_measure(labels, clusters)
        rows.append({"k": int(k), "homogeneity": float(homogeneity), "completeness": float(completeness)})
    return rows


@cache
def chance_homogeneity(images: int, classes: int, clusters: int) -> float:
    """The homogeneity that k clusters of N images have by chance: if C classes are dealt to them at random, all of (nearly) equal size.

    Expected mutual information (Vinh, Epps & Bailey 2010, eq. 24a, scikit-learn's) over the entropy of the classes.
    """
    dealt = np.arange(images)
    table = contingency_matrix(dealt % classes, dealt % clusters).astype(np.int64)          # of which the margins alone count
    return float(expected_mutual_information(table, images) / np.log(classes))


def bin_factor(values: np.ndarray, labels: np.ndarray, levels: int = 8) -> np.ndarray:
    """A factor as levels from 0, (N,) int64: its own values if at most `levels`, else quantile bins in each class; -1 for NaN."""
    values, labels = np.asarray(values, dtype=np.float64), np.asarray(labels)
    if values.ndim != 1 or values.shape != labels.shape or np.isinf(values).any():
        raise ValueError(f"values must be one finite number per label (or NaN), got {values.shape} for {labels.shape} labels")
    _integer(levels, "levels", 2, max(2, len(values)))
    known, bins = np.isfinite(values), np.full(len(values), -1)
    distinct, bins[known] = np.unique(values[known], return_inverse=True)
    if len(distinct) > levels:
        for c in np.unique(labels[known]):
            inside = known & (labels == c)
            edges = np.quantile(values[inside], np.arange(1, levels) / levels)
            bins[inside] = np.searchsorted(edges, values[inside], side="right")
    return bins


@_full_precision()
def factor_ami(h: Tensor, labels: Tensor, factors: Mapping[str, np.ndarray], levels: int = 8, restarts: int = 20,
               seed: int = 0, min_images: int = 200) -> dict[str, dict]:
    """Factor that clusters inside a class follow: factor -> {"mean": over classes, "per_class": [ordered by label]}.

    Inside each class: adjusted mutual information (arithmetic mean) between the factor's levels (`bin_factor`) and
    k-means clusters of unit h, k = the number of levels. 0 at chance, 1 when clusters are the levels. A factor that is
    constant or NaN in a class has NaN there, and the mean leaves that class out. k-means runs on h rotated into the
    class's principal axes, which is exact: fewer dimensions, same distances.
    """
    h = _embeddings(h)
    parts = _by_class(h, labels, least=min_images)
    labels = _class_labels(labels, h).cpu().numpy()
    bins = {name: bin_factor(torch.as_tensor(values).cpu().numpy(), labels, levels) for name, values in factors.items()}
    scores = {name: [] for name in factors}
    for c, part in zip(np.unique(labels), parts, strict=True):
        x, clusters = _rotated(part), {}
        for name in factors:
            inside = bins[name][labels == c]
            k = len(np.unique(inside))
            if k > 1 and k not in clusters:
                clusters[k] = _kmeans(x, k, restarts, seed).labels_
            scores[name].append(float(adjusted_mutual_info_score(inside, clusters[k])) if k > 1 else np.nan)
    return {name: {"mean": float(np.mean([s for s in score if s == s] or np.nan)), "per_class": score} for name, score in scores.items()}


@_full_precision()
def gap_statistic(h: Tensor, k_max: int = 8, references: int = 10, seed: int = 0, restarts: int = 3, axes: int = 16) -> int:
    """Number of k-means clusters of unit h by the gap statistic, 1 to k_max (k_max: or more); 1 when collapsed.

    The smallest k with gap(k) >= gap(k + 1) - s(k + 1), gap(k) = mean over references of log W*_k - log W_k, W the
    within-cluster sum of squares (Tibshirani et al. 2001). h and references live in h's first `axes` principal
    components, references uniform in h's box there. It over-counts a single cloud with a steep spectrum (measured on ReLU
    clouds, deviations falling as i^-0.7: 4 to 7), so read counts beside the untrained and the supervised encoder's.
    """
    h = _embeddings(h, rows=2)
    _integer(k_max, "k_max", 1, len(h) - 1)
    x = _rotated(h)[:, :axes]
    if x.var(0).sum() < 1e-12:
        return 1
    drawn = np.random.default_rng(seed).uniform(x.min(0), x.max(0), (references, *x.shape)).astype(np.float32)
    floor = 1e-9 * x.var(0).sum() * len(x)  # keeps log finite when k points are all there are

    def log_w(points: np.ndarray, k: int) -> float:
        return float(np.log(max(_kmeans(points, k, restarts, seed).inertia_, floor)))

    def gap(k: int) -> tuple[float, float]:
        reference = [log_w(points, k) for points in drawn]
        return np.mean(reference) - log_w(x, k), np.std(reference) * np.sqrt(1 + 1 / references)

    current, _ = gap(1)
    for k in range(1, k_max):
        following, error = gap(k + 1)
        if current >= following - error:
            return k
        current = following
    return k_max


def sub_clusters(h: Tensor, labels: Tensor, k_max: int = 8, references: int = 10, seed: int = 0) -> dict:
    """Clusters per class by the gap statistic, {"mean": over classes, "per_class": [by label]}; 1 if gathered."""
    parts = _by_class(_embeddings(h), labels, least=k_max + 1)
    counts = [gap_statistic(part, k_max, references, seed) for part in parts]
    return {"mean": float(np.mean(counts)), "per_class": counts}
