"""lib/metrics.py against plain loops, closed forms, scikit-learn, and made-up embeddings whose structure is planted."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from lib import metrics

BLOCKS = (3, 7, 4096)  # blocks that divide nothing, so that every seam is crossed
CLASSES, PER_CLASS, DIM = 4, 240, 24


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def loop_unit(x):
    return [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in x.tolist()]


def loop_squared(a, b):
    return sum((p - q) ** 2 for p, q in zip(a, b))


def planted(parts, spread=0.1, apart=1.5, seed=0):
    """Four classes, `apart` from each other, with `parts` sub-clusters each; factor "planted" names the sub-cluster."""
    labels = torch.arange(CLASSES).repeat_interleave(PER_CLASS)
    part = torch.arange(CLASSES * PER_CLASS) % parts
    centres = apart * normal(CLASSES, DIM, seed=seed)[labels]
    h = centres + normal(CLASSES, parts, DIM, seed=seed + 1)[labels, part] * (parts > 1)
    random = np.random.default_rng(seed)
    factors = {"planted": part.numpy(), "independent": random.uniform(size=len(h)), "constant": np.zeros(len(h))}
    return h + spread * normal(len(h), DIM, seed=seed + 2), labels, factors


# ---- instance discrimination ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", BLOCKS)
def test_instance_discrimination_equals_plain_loops(block):
    query, key, other = normal(20, 3), normal(20, 3) + 0.8 * normal(20, 3, seed=1), normal(20, 3, seed=2)
    for negatives in (None, key, other):
        q, k, n = loop_unit(query), loop_unit(key), loop_unit(query if negatives is None else negatives)
        similarity = [[sum(a * b for a, b in zip(q[i], n[j])) for j in range(20)] for i in range(20)]
        own = [sum(a * b for a, b in zip(q[i], k[i])) for i in range(20)]
        expected = [sum(similarity[i][j] >= own[i] for j in range(20) if j != i) for i in range(20)]
        assert metrics.instance_discrimination(query, key, negatives, block).tolist() == expected


def test_identical_views_of_distinct_images_are_told_apart_perfectly():
    h = normal(50, 8)
    assert metrics.topk_accuracy(metrics.instance_discrimination(h, 3 * h)) == dict.fromkeys(range(1, 6), 1.0)


def test_a_swapped_pair_gives_exactly_two_misses():
    query = normal(50, 8)
    key = query + 0.01 * normal(50, 8, seed=1)
    key[[4, 9]] = key[[9, 4]]
    for negatives in (None, key):
        assert (metrics.instance_discrimination(query, key, negatives) > 0).nonzero().flatten().tolist() == [4, 9]


@pytest.mark.parametrize("dim", [2, 64, 2048])
@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_a_collapsed_encoder_never_beats_chance_in_instance_discrimination(dim, noise):
    point = normal(1, dim).abs()
    query, key = point + noise * normal(300, dim, seed=1), point + noise * normal(300, dim, seed=2)
    accuracy = metrics.topk_accuracy(metrics.instance_discrimination(query, key, block=64))
    assert max(accuracy.values()) == 0
    assert metrics.topk_accuracy(metrics.instance_discrimination(torch.zeros(9, dim), torch.zeros(9, dim)))[1] == 0


def test_a_duplicated_image_ties_against_its_own_key():
    h = normal(20, 6)
    h[1] = h[0]
    assert (metrics.instance_discrimination(h, h) > 0).nonzero().flatten().tolist() == [0, 1]


def test_unrelated_views_are_at_chance():
    rank = metrics.instance_discrimination(normal(2000, 16), normal(2000, 16, seed=1))
    accuracy = metrics.topk_accuracy(rank, (1, 500, 1000))
    assert accuracy[1] < 0.005 and abs(accuracy[500] - 0.25) < 0.04 and abs(accuracy[1000] - 0.5) < 0.04


def test_nearly_parallel_embeddings_keep_their_ranks():
    """Cosines above 0.9999995, as an untrained ReLU encoder has: a plain float32 product would lose the order."""
    query, key = 1000 + normal(200, 16), 1000 + normal(200, 16) + normal(200, 16, seed=1)
    exact_q, exact_k = (torch.nn.functional.normalize(x.double(), dim=1) for x in (query, key))
    exact = (exact_q[:, None] - exact_q[None]).square().sum(2)
    exact.fill_diagonal_(torch.inf)
    expected = (exact <= (exact_q - exact_k).square().sum(1)[:, None]).sum(1)
    rank = metrics.instance_discrimination(query, key)
    assert 0.1 < (expected == 0).double().mean() < 0.9
    assert ((rank == 0) == (expected == 0)).double().mean() > 0.97


def test_twenty_thousand_images_are_ranked_without_their_similarity_matrix(monkeypatch):
    addmm, shapes = torch.addmm, []

    def recorded(bias, a, b, **options):
        shapes.append((len(a), b.shape[1]))
        return addmm(bias, a, b, **options)

    monkeypatch.setattr(torch, "addmm", recorded)
    h = normal(20_000, 8)
    assert (metrics.instance_discrimination(h, h) == 0).all()
    assert len(shapes) == math.ceil(20_000 / metrics.BLOCK) ** 2
    assert max(rows * columns for rows, columns in shapes) * 4 <= 2**26  # 64 MB; the whole matrix is 1.6 GB


# ---- alignment and uniformity ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", BLOCKS)
def test_alignment_and_uniformity_equal_plain_loops(block):
    x, y = normal(17, 5), normal(17, 5, seed=1)
    a, b = loop_unit(x), loop_unit(y)
    expected = [loop_squared(p, q) for p, q in zip(a, b)]
    assert metrics.alignment(x, y, block).tolist() == pytest.approx(expected, abs=1e-6)
    pairs = [loop_squared(a[i], a[j]) for i in range(17) for j in range(i + 1, 17)]
    for t in (0.5, 2, 3):
        expected = math.log(sum(math.exp(-t * d) for d in pairs) / len(pairs))
        assert metrics.uniformity(x, t, block) == pytest.approx(expected, abs=1e-5)


def test_orthonormal_rows_have_uniformity_minus_two_t_and_orthogonal_pairs_alignment_two():
    h = torch.eye(40)
    assert metrics.uniformity(5 * h) == pytest.approx(-4, abs=1e-6)
    assert metrics.uniformity(h, t=3) == pytest.approx(-6, abs=1e-5)
    assert metrics.alignment(h, h.roll(1, 0)).tolist() == pytest.approx([2.0] * 40)
    assert metrics.alignment(h, -h).tolist() == pytest.approx([4.0] * 40)


def test_a_uniform_sphere_reaches_the_known_uniformity():
    assert metrics.uniformity(normal(3000, 192)) == pytest.approx(-3.96, abs=0.01)


def test_collapsed_and_dead_encoders_have_uniformity_zero():
    assert metrics.uniformity(torch.ones(30, 4)) == pytest.approx(0, abs=1e-6)
    assert metrics.uniformity(torch.zeros(30, 4)) == 0  # a dead ReLU must not look orthogonal


def test_the_official_uniformity_is_seeded_and_close_to_the_full_one():
    x = normal(2000, 32) + 0.5
    official = metrics.uniformity_official(x, seed=3)
    assert official == metrics.uniformity_official(x, seed=3) != metrics.uniformity_official(x, seed=4)
    assert official == pytest.approx(metrics.uniformity(x), abs=0.1)
    assert metrics.uniformity_official(x[:128], seed=0) == pytest.approx(metrics.uniformity(x[:128]), abs=1e-5)


def test_intra_class_alignment_equals_plain_loops_with_classes_weighing_alike():
    x, labels = normal(20, 5) + 0.3, torch.tensor([0] * 3 + [2] * 12 + [5] * 5)
    a = loop_unit(x)

    def mean_distance(members):
        pairs = [loop_squared(a[i], a[j]) for i in members for j in members if i < j]
        return sum(pairs) / len(pairs)

    intra = sum(mean_distance(range(*span)) for span in ((0, 3), (3, 15), (15, 20))) / 3
    shuffled = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    assert metrics.intra_class_alignment(x[shuffled], labels[shuffled]) == pytest.approx(intra, abs=1e-6)
    assert metrics.intra_over_all(x, labels) == pytest.approx(intra / mean_distance(range(20)), abs=1e-6)


def test_intra_over_all_is_one_at_random_zero_for_points_and_nan_when_collapsed():
    labels = torch.arange(2000) % 10
    assert metrics.intra_over_all(normal(2000, 8), labels) == pytest.approx(1, abs=0.02)
    assert metrics.intra_over_all(torch.eye(10)[labels], labels) == 0
    assert math.isnan(metrics.intra_over_all(torch.ones(2000, 3), labels))


def test_metrics_do_not_depend_on_the_scale_of_h_and_centring_removes_a_shared_offset():
    x, labels = normal(200, 6), torch.arange(200) % 4
    scale = torch.linspace(0.1, 9, 200)[:, None]
    assert metrics.uniformity(x * scale) == pytest.approx(metrics.uniformity(x), abs=1e-5)
    intra = metrics.intra_class_alignment(x, labels)
    assert metrics.intra_class_alignment(x * scale, labels) == pytest.approx(intra, abs=1e-5)
    shifted = x + 7
    assert metrics.uniformity(shifted) > -0.5
    centred = metrics.centre(shifted, shifted.mean(0))
    assert torch.allclose(centred, metrics.centre(x, x.mean(0)), atol=1e-5)
    assert torch.allclose(centred.norm(dim=1), torch.ones(200))


def test_autocast_and_reduced_matmul_precision_change_no_metric(monkeypatch):
    addmm, precisions = torch.addmm, set()

    def recorded(*arguments, **options):
        precisions.add(torch.get_float32_matmul_precision())
        return addmm(*arguments, **options)

    monkeypatch.setattr(torch, "addmm", recorded)
    x = 3 + normal(300, 64)
    y = x + 0.5 * normal(300, 64, seed=1)
    exact = metrics.uniformity(x), metrics.instance_discrimination(x, y).tolist()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            other = metrics.uniformity(x), metrics.instance_discrimination(x, y).tolist()
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert other == exact and precisions == {"highest"}


# ---- dimensional collapse -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 12), (12, 40)])
def test_effective_rank_is_the_exponential_entropy_of_singular_values(shape):
    h = normal(*shape) * torch.logspace(0, -2, shape[1])
    p = torch.linalg.svdvals(h.double())
    p = p / p.sum()
    assert metrics.effective_rank(h) == pytest.approx(math.exp(-sum(float(v) * math.log(v) for v in p)), rel=1e-5)


def test_effective_rank_counts_equal_directions():
    assert metrics.effective_rank(torch.eye(16)) == pytest.approx(16)
    assert metrics.effective_rank(torch.eye(16)[torch.arange(160) % 5]) == pytest.approx(5, abs=1e-4)
    assert metrics.effective_rank(torch.ones(50, 30)) == pytest.approx(1, abs=1e-4)
    assert metrics.effective_rank(torch.zeros(50, 30)) == 1


def test_collapse_is_one_for_a_spread_and_zero_for_a_collapsed_encoder():
    h = normal(2000, 32)
    assert metrics.collapse(h) == pytest.approx(1, abs=0.02)
    assert metrics.collapse(h) == pytest.approx(float(metrics.unit(h).std(0).mean()) * math.sqrt(32), abs=1e-5)
    assert metrics.collapse(torch.ones(2000, 32)) == pytest.approx(0, abs=1e-6)


# ---- nearest neighbours ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", BLOCKS)
def test_best_nn_equals_scikit_learn(block, monkeypatch):
    monkeypatch.setattr(metrics._squared_distances, "__defaults__", (metrics.unit, block, False))
    train, test = 3 * normal(150, 6), 3 * normal(80, 6, seed=1)
    train_labels, test_labels = ((h[:, 0] > 0).long() + (h[:, 1] > 1).long() for h in (train, test))
    accuracy = metrics.best_nn(train, train_labels, test, test_labels, k_max=21)
    assert list(accuracy) == list(range(1, 22, 2))
    for k in accuracy:
        expected = KNeighborsClassifier(k, algorithm="brute").fit(train.numpy(), train_labels).predict(test.numpy())
        assert accuracy[k] == pytest.approx((expected == test_labels.numpy()).mean())


def test_soft_votes_equal_plain_loops_and_differ_from_uniform_ones():
    train, labels, test = normal(60, 4), torch.arange(60) % 3, normal(40, 4, seed=1)
    a, b, expected = loop_unit(train), loop_unit(test), []
    for row in b:
        similarity = sorted(((sum(p * q for p, q in zip(row, other)), i) for i, other in enumerate(a)), reverse=True)
        votes = [0.0, 0.0, 0.0]
        for value, i in similarity[:15]:
            votes[int(labels[i])] += math.exp(value / 0.1)
        expected.append(votes.index(max(votes)))
    assert metrics.knn_predict(train, labels, test, 15).tolist() == expected
    assert metrics.knn_predict(train, labels, test, 15, t=100.0).tolist() != expected


def test_a_tied_vote_goes_to_the_lowest_label():
    train = torch.tensor([[1.0, 0.0], [1.1, 0.0]])
    assert metrics.knn_predict(train, torch.tensor([5, 2]), torch.tensor([[0.9, 0.0]]), k=2).tolist() == [2]


def test_separable_blobs_give_one_and_shuffled_labels_give_chance():
    labels = torch.arange(2000) % 10
    h = normal(10, 16)[labels] + 0.05 * normal(2000, 16, seed=1)
    assert metrics.best_nn(h[:1000], labels[:1000], h[1000:], labels[1000:], 5)[5] == 1
    shuffled = labels[torch.randperm(2000, generator=torch.Generator().manual_seed(0))]
    accuracy = metrics.best_nn(h[:1000], shuffled[:1000], h[1000:], shuffled[1000:])
    assert all(abs(value - 0.1) < 0.05 for value in accuracy.values())
    predicted = metrics.knn_predict(h[:1000], shuffled[:1000], h[1000:], 20)
    assert abs(float((predicted == shuffled[1000:]).double().mean()) - 0.1) < 0.05


# ---- over-clustering ------------------------------------------------------------------------------------------------


def curve(h, labels):
    return metrics.cluster_structure(h, labels, (CLASSES, 2 * CLASSES, 3 * CLASSES, 6 * CLASSES), restarts=3)


@pytest.mark.parametrize("n, classes, k", [(5000, 10, 20), (5000, 10, 160), (2000, 12, 48)])
def test_the_homogeneity_that_chance_gives_is_that_of_clusters_dealt_at_random(n, classes, k):
    rng = np.random.default_rng(0)
    dealt = [metrics.homogeneity_completeness_v_measure(np.arange(n) % classes, rng.integers(0, k, n))[0] for _ in range(20)]
    assert metrics.chance_homogeneity(n, classes, k) == pytest.approx(np.mean(dealt), rel=0.03)


def test_planted_sub_clusters_need_more_clusters_to_be_pure_and_are_less_complete_then():
    (gathered, labels, _), (split, _, _) = planted(1, spread=0.3), planted(3, apart=0)
    reference, over = curve(gathered, labels), curve(split, labels)
    assert list(reference[0].values()) == pytest.approx([CLASSES, 1, 1])
    assert over[0]["homogeneity"] < 0.8 and over[2]["homogeneity"] == pytest.approx(1)
    assert over[2]["completeness"] == pytest.approx(math.log(4) / math.log(12), abs=0.01)


def test_at_one_large_k_completeness_cannot_tell_sub_clusters_from_gathered_classes():
    (gathered, labels, _), (split, _, _) = planted(1, spread=0.3), planted(3, apart=0)
    reference, over = curve(gathered, labels)[2], curve(split, labels)[2]
    assert reference["homogeneity"] == pytest.approx(over["homogeneity"])
    assert reference["completeness"] == pytest.approx(over["completeness"], abs=0.02)


def test_sub_clusters_inside_classes_that_stay_apart_are_gathered_by_labels_and_counted_by_the_gap_statistic():
    (gathered, labels, _), (nested, _, _) = planted(1, spread=0.3), planted(3, apart=6)
    assert curve(nested, labels)[0] == curve(gathered, labels)[0] == pytest.approx({"k": CLASSES, "homogeneity": 1, "completeness": 1})
    assert metrics.sub_clusters(nested, labels, references=5)["mean"] == 3


def test_mixed_classes_stay_impure_however_many_clusters():
    gathered, labels, _ = planted(1, spread=0.3)
    assert curve(normal(len(labels), DIM), labels)[0]["homogeneity"] < 0.05
    halves = torch.cat([gathered[::2], gathered[1::2]])  # each image stands among two classes
    assert max(row["homogeneity"] for row in curve(halves, labels)) < 0.6


def test_clusters_follow_the_planted_factor_and_no_other():
    h, labels, factors = planted(3)
    ami = metrics.factor_ami(h, labels, factors, restarts=5)
    assert ami["planted"]["mean"] == pytest.approx(1) and len(ami["planted"]["per_class"]) == CLASSES
    assert abs(ami["independent"]["mean"]) < 0.05
    assert np.isnan(ami["constant"]["mean"])


def test_classes_in_which_a_factor_does_not_show_are_left_out_of_its_mean():
    h, labels, factors = planted(3)
    whole = metrics.factor_ami(h, labels, factors, restarts=5)["independent"]["per_class"]
    hidden = np.where(np.asarray(labels) < 2, np.nan, factors["independent"])
    ami = metrics.factor_ami(h, labels, {"hidden": hidden}, restarts=5)["hidden"]
    assert np.isnan(ami["per_class"][:2]).all() and ami["per_class"][2:] == whole[2:]
    assert ami["mean"] == pytest.approx(np.mean(whole[2:]))
    assert set(metrics.bin_factor(hidden, np.asarray(labels))[np.asarray(labels) < 2]) == {-1}


def test_a_continuous_factor_is_found_and_gathered_classes_follow_none():
    h, labels, factors = planted(1, spread=0.05)
    gathered = metrics.factor_ami(h, labels, factors, restarts=5)
    assert abs(gathered["independent"]["mean"]) < 0.05
    axis = torch.nn.functional.normalize(normal(CLASSES, DIM, seed=9), dim=1)[labels]
    h = h + 4 * torch.as_tensor(factors["independent"]).float()[:, None] * axis
    followed = metrics.factor_ami(h, labels, factors, restarts=5)
    assert followed["independent"]["mean"] > 0.6
    assert followed["independent"]["mean"] == pytest.approx(np.mean(followed["independent"]["per_class"]))


def test_the_rotation_before_k_means_leaves_every_distance_as_it_was():
    for shape in ((30, 100), (100, 30)):
        h = normal(*shape)
        rotated, x = torch.as_tensor(metrics._rotated(h)), metrics.unit(h)
        assert rotated.shape[1] <= min(shape)
        assert torch.allclose(torch.cdist(rotated, rotated), torch.cdist(x, x), atol=1e-3)
        assert rotated.var(0).diff().max() <= 1e-6  # largest variance first


def test_factors_are_binned_into_equal_parts_inside_each_class_and_levels_are_kept():
    labels = np.repeat([0, 1], 400)
    values = np.random.default_rng(0).uniform(size=800) + 10 * labels  # bins over all would never mix the classes
    bins = metrics.bin_factor(values, labels)
    for c in (0, 1):
        assert np.bincount(bins[labels == c]).tolist() == [50] * 8
        assert (np.diff(bins[labels == c][np.argsort(values[labels == c])]) >= 0).all()
    polarity = np.where(np.arange(800) % 3 == 0, -1.0, 1.0)
    assert metrics.bin_factor(polarity, labels).tolist() == (polarity > 0).astype(int).tolist()
    assert len(np.unique(metrics.bin_factor(np.arange(800) % 8, labels))) == 8


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_the_gap_statistic_finds_the_planted_number_of_sub_clusters(parts):
    h, labels, _ = planted(parts)
    counted = metrics.sub_clusters(h, labels, k_max=6, references=5)
    assert counted == {"mean": parts, "per_class": [parts] * CLASSES}


def test_the_gap_statistic_of_a_collapsed_class_is_one_and_of_few_points_their_number():
    assert metrics.gap_statistic(torch.ones(100, 8)) == 1
    assert metrics.gap_statistic(torch.eye(8)[torch.arange(120) % 3]) == 3


def test_over_clustering_is_the_same_twice():
    h, labels, factors = planted(2, spread=0.8)
    np.testing.assert_equal(*(metrics.factor_ami(h, labels, factors, restarts=2) for _ in range(2)))
    assert metrics.cluster_structure(h, labels, (8, 16)) == metrics.cluster_structure(h, labels, (8, 16))
    collapsed = metrics.cluster_structure(torch.ones(len(h), 3), labels, (4,))
    assert collapsed == [{"k": 4, "homogeneity": 0.0, "completeness": 1.0}]


# ---- input ----------------------------------------------------------------------------------------------------------


def test_numpy_half_precision_embeddings_are_taken_as_they_are_stored():
    h, labels, _ = planted(2)
    half = h.half()
    assert metrics.uniformity(half.numpy()) == metrics.uniformity(half.float())
    assert metrics.intra_over_all(half.numpy(), labels.numpy()) == metrics.intra_over_all(half.float(), labels)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: metrics run on the CPU only here")
def test_a_gpu_gives_the_numbers_of_the_cpu():
    x, y, labels = normal(500, 64), normal(500, 64) + normal(500, 64, seed=1), torch.arange(500) % 5
    gpu = x.cuda(), y.cuda(), labels.cuda()
    assert torch.equal(metrics.instance_discrimination(*gpu[:2]).cpu(), metrics.instance_discrimination(x, y))
    assert metrics.uniformity(gpu[0]) == pytest.approx(metrics.uniformity(x), abs=1e-5)
    assert metrics.intra_over_all(gpu[0], gpu[2]) == pytest.approx(metrics.intra_over_all(x, labels), abs=1e-5)
    assert metrics.best_nn(gpu[0], gpu[2], gpu[1], gpu[2], 9) == metrics.best_nn(x, labels, y, labels, 9)


def broken(value):
    h = normal(20, 4)
    h[7, 2] = value
    return h


H, LABELS = normal(20, 4), torch.arange(20) % 2


@pytest.mark.parametrize("call, says", [
    (lambda: metrics.uniformity(broken(torch.nan)), "finite.*first 7"),
    (lambda: metrics.alignment(H, broken(torch.inf)), "y must be finite"),
    (lambda: metrics.instance_discrimination(broken(torch.nan), H), "query must be finite"),
    (lambda: metrics.effective_rank(broken(torch.nan)), "h must be finite"),
    (lambda: metrics.uniformity(H.long()), "floats"),
    (lambda: metrics.uniformity(H[0]), r"\(N, D\)"),
    (lambda: metrics.uniformity(H[:1]), "at least 2 rows"),
    (lambda: metrics.uniformity_official(H), "at least 128 rows"),
    (lambda: metrics.alignment(H, H[:9]), "pair row by row"),
    (lambda: metrics.instance_discrimination(H, H[:, :3]), "key must .* 4 dimensions"),
    (lambda: metrics.instance_discrimination(H[:9], H), "pair row by row"),
    (lambda: metrics.intra_class_alignment(H, LABELS[:9]), "labels must be 20"),
    (lambda: metrics.intra_class_alignment(H, LABELS.double()), "class numbers"),
    (lambda: metrics.intra_class_alignment(H, torch.arange(20)), "each class 2 images"),
    (lambda: metrics.knn_predict(H, LABELS, H, 0), "k must .* 1 to 20, got 0"),
    (lambda: metrics.knn_predict(H, LABELS, H, 21), "got 21"),
    (lambda: metrics.knn_predict(H, LABELS[:9], H, 1), "train_labels"),
    (lambda: metrics.knn_predict(H, LABELS, H[:, :3], 1), "test_h"),
    (lambda: metrics.best_nn(H, LABELS, H, LABELS), "k_max must"),
    (lambda: metrics.best_nn(H, LABELS, H, LABELS[:9], 3), "test_labels"),
    (lambda: metrics.topk_accuracy(torch.zeros(5), (0,)), "ks must"),
    (lambda: metrics.cluster_structure(H, LABELS, (21,)), "ks must"),
    (lambda: metrics.factor_ami(H, LABELS, {}), "each class 200 images, got 10"),
    (lambda: metrics.bin_factor(np.zeros(9), LABELS), "one finite number per label"),
    (lambda: metrics.gap_statistic(H, k_max=20), "k_max"),
])
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_instance_discrimination_of_many_images_never_holds_all_distances():
    """20,000 x 20,000 distances would be 1.6 GB; the peak grows by far less. In a process of its own, for a peak never falls."""
    code = ("import torch; from lib import metrics; from lib.runs import peak_memory; h = torch.randn(20_000, 16)\n"
            "metrics.instance_discrimination(h[:64], h[:64])\n"
            "before = peak_memory()\n"
            "metrics.instance_discrimination(h, h + 0.1), metrics.uniformity(h)\n"
            "print(peak_memory() - before)")
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 1e6 < int(answer) < 500e6
