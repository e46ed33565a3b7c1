import math

import pytest
import torch
import torch.nn.functional as F

from lib.losses import info_nce, moco_logits, nearest_keys, nt_xent, seed_logits, seed_loss
from lib.train import PretrainConfig


def projections(n, k, dim=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query, key, queue = (torch.randn(rows, dim, generator=generator) for rows in (n, n, k))
    return query, key, F.normalize(queue, dim=1)


def loop(query, key, queue, tau):
    """InfoNCE as MoCo's equation 1 says it, one similarity at a time."""
    def unit(v):
        length = math.sqrt(sum(x * x for x in v))
        return [x / length for x in v]

    def dot(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    total = 0.0
    for q, k in zip(query.tolist(), key.tolist(), strict=True):
        q, k = unit(q), unit(k)
        positive = math.exp(dot(q, k) / tau)
        total -= math.log(positive / (positive + sum(math.exp(dot(q, other) / tau) for other in queue.tolist())))
    return total / len(query)


@pytest.mark.parametrize("n", [1, 3, 8])
@pytest.mark.parametrize("k", [1, 5, 32])
@pytest.mark.parametrize("tau", [0.07, 0.2, 1.0])
def test_info_nce_is_the_papers_formula(n, k, tau):
    query, key, queue = projections(n, k)
    assert info_nce(moco_logits(query, key, queue, tau)).item() == pytest.approx(loop(query, key, queue, tau), rel=1e-5)


def test_logits_are_the_positive_and_then_the_queue_in_its_order():
    query, key, queue = projections(4, 7)
    logits = moco_logits(query, key, queue, 0.5)
    assert logits.shape == (4, 8)
    for i in range(4):
        assert logits[i, 0].item() == pytest.approx(F.cosine_similarity(query[i], key[i], dim=0).item() / 0.5, abs=1e-5)
        for j in range(7):
            assert logits[i, 1 + j].item() == pytest.approx(F.cosine_similarity(query[i], queue[j], dim=0).item() / 0.5, abs=1e-5)


@pytest.mark.parametrize("k", [1, 15, 4096])
@pytest.mark.parametrize("tau", [0.05, 1.0])
def test_info_nce_of_a_collapsed_encoder_is_chance(k, tau):
    point = F.normalize(torch.ones(1, 8), dim=1)
    logits = moco_logits(point.expand(6, 8), point.expand(6, 8), point.expand(k, 8), tau)
    assert info_nce(logits).item() == pytest.approx(math.log(k + 1), rel=1e-4)


def test_a_perfect_encoder_costs_almost_nothing_and_less_at_a_lower_temperature():
    basis = torch.eye(16)
    costs = [info_nce(moco_logits(basis[:4], basis[:4], basis[4:], tau)).item() for tau in (1.0, 0.2, 0.05)]
    closed = [math.log(1 + 12 * math.exp(-1 / tau)) for tau in (1.0, 0.2, 0.05)]
    assert costs == pytest.approx(closed, abs=1e-6) and costs[0] > costs[1] > costs[2]


def test_a_wrong_pairing_costs_more_than_the_right_one():
    query, _, queue = projections(8, 32)
    key = query + 0.1 * torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
    right, wrong = (info_nce(moco_logits(query, k, queue, 0.2)).item() for k in (key, key.roll(1, 0)))
    assert wrong > right + 1


def test_the_lengths_of_query_and_key_do_not_matter():
    query, key, queue = projections(5, 9)
    torch.testing.assert_close(moco_logits(query, key, queue, 0.2), moco_logits(1e3 * query, 1e-3 * key, queue, 0.2))


def test_bf16_projections_give_float32_logits():
    query, key, queue = projections(5, 9)
    logits = moco_logits(query.bfloat16(), key.bfloat16(), queue.bfloat16(), 0.2)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, moco_logits(query, key, queue, 0.2), atol=0.06, rtol=0)


def test_autocast_changes_no_similarity():
    """A matrix product under autocast would be bf16, and blur the negatives but not the positive."""
    query, key, queue = projections(8, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = moco_logits(query, key, queue, 0.05)
    assert cast.dtype == torch.float32 and torch.equal(cast, moco_logits(query, key, queue, 0.05))


def test_the_gradient_pulls_the_query_to_its_key_and_scales_with_one_over_tau():
    query, key, queue = projections(1, 9)
    query.requires_grad_()
    before = F.cosine_similarity(query, key).item()
    gradient, = torch.autograd.grad(info_nce(moco_logits(query, key, queue, 0.2)), query)
    assert F.cosine_similarity(query - 0.1 * gradient, key).item() > before
    collapsed = F.normalize(torch.ones(9, 16), dim=1)                       # there the softmax is flat whatever tau
    start = collapsed[:1].clone().requires_grad_()
    lengths = [torch.autograd.grad(info_nce(moco_logits(start, key, collapsed, tau)), start)[0].norm().item() for tau in (2.0, 20.0)]
    assert lengths[0] > 5 * lengths[1]


@pytest.mark.parametrize("n, k, tau", [(2, 3, 0.2), (5, 1, 1.0), (7, 16, 0.05)])
def test_with_batch_keys_every_other_key_of_the_batch_is_a_negative_too(n, k, tau):
    torch.manual_seed(n)
    query, key, queue = torch.randn(n, 6), torch.randn(n, 6), F.normalize(torch.randn(k, 6), dim=1)

    def cosine(a, b):
        return float(a @ b / (a.norm() * b.norm()))
    total = 0
    for i in range(n):
        positive = math.exp(cosine(query[i], key[i]) / tau)
        negatives = [math.exp(cosine(query[i], other) / tau) for other in [*queue, *(key[j] for j in range(n) if j != i)]]
        total -= math.log(positive / (positive + sum(negatives)))
    assert float(info_nce(moco_logits(query, key, queue, tau, batch_keys=True))) == pytest.approx(total / n, rel=1e-5)


def test_with_batch_keys_the_chance_level_is_the_logarithm_of_the_candidates():
    same = torch.ones(4, 6)
    loss = info_nce(moco_logits(same, same, F.normalize(torch.ones(8, 6), dim=1), 0.2, batch_keys=True))
    config = PretrainConfig(queue=8, batch_size=4, bn_splits=1, batch_keys=True)
    assert float(loss) == pytest.approx(math.log(config.candidates)) == pytest.approx(math.log(4 + 8))
    assert PretrainConfig(queue=65536).candidates == 65537


# --- SimCLR and SEED --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_nt_xent_is_the_papers_formula(n, tau):
    z0, z1, _ = projections(n, 1)
    z = F.normalize(torch.cat([z0, z1]), dim=1).tolist()

    def similarity(a, b):
        return math.exp(sum(x * y for x, y in zip(a, b, strict=True)) / tau)
    losses, found = [], []
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        others = {k: similarity(z[i], z[k]) for k in range(2 * n) if k != i}
        losses.append(-math.log(others[j] / sum(others.values())))
        found.append(max(others, key=others.get) == j)
    loss, hit = nt_xent(z0, z1, tau)
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5) and hit.tolist() == found


def test_nt_xent_of_a_collapsed_encoder_is_chance():
    point = torch.ones(6, 8)
    assert nt_xent(point, point, 0.2)[0].item() == pytest.approx(math.log(11), rel=1e-5)


@pytest.mark.parametrize("tau, teacher_tau", [(0.2, 0.01), (0.2, 0.1), (1.0, 1.0)])
def test_seed_is_the_papers_formula(tau, teacher_tau):
    student, teacher, queue = projections(4, 9)
    entries = [torch.cat([t[None], queue]) for t in F.normalize(teacher, dim=1)]    # its own teacher embedding first
    expected = 0.0
    for s, t, entry in zip(F.normalize(student, dim=1), F.normalize(teacher, dim=1), entries, strict=True):
        aim = [math.exp((t @ e).item() / teacher_tau - 1 / teacher_tau) for e in entry]
        mine = [math.exp((s @ e).item() / tau) for e in entry]
        expected -= sum(a / sum(aim) * math.log(m / sum(mine)) for a, m in zip(aim, mine, strict=True)) / 4
    assert seed_loss(*seed_logits(student, teacher, queue), tau, teacher_tau).item() == pytest.approx(expected, rel=1e-4)


def test_seed_with_a_cold_teacher_is_info_nce_and_its_minimum_is_the_teachers_entropy():
    student, teacher, queue = projections(5, 12)
    logits = seed_logits(student, teacher, queue)
    assert seed_loss(*logits, 0.2, 1e-4).item() == pytest.approx(info_nce(moco_logits(student, teacher, queue, 0.2)).item(), rel=1e-5)
    p = torch.softmax(logits[1] / 0.2, dim=1)
    own = seed_loss(*seed_logits(teacher, teacher, queue), 0.2, 0.2).item()
    assert own == pytest.approx(-(p * p.log()).sum(1).mean().item(), rel=1e-5)
    assert seed_loss(*logits, 0.2, 0.2).item() > own


# --- smoothed InfoNCE -------------------------------------------------------------------------------------------------

def test_the_smoothed_label_lies_on_the_positive_and_on_the_keys_nearest_to_it():
    query, key, queue = projections(4, 20)
    logits, near = moco_logits(query, key, queue, 0.2), nearest_keys(key, queue, 3)
    for i in range(4):
        ranked = sorted(range(20), key=lambda j: -F.cosine_similarity(key[i], queue[j], dim=0).item())
        assert near[i].tolist() == [1 + j for j in ranked[:3]]
    p = torch.softmax(logits, dim=1)
    expected = -sum(0.7 * p[i, 0].log() + sum(0.1 * p[i, j].log() for j in near[i]) for i in range(4)) / 4
    assert info_nce(logits, 0.3, near).item() == pytest.approx(expected.item(), rel=1e-5)
    assert info_nce(logits, 1e-9, near).item() == pytest.approx(info_nce(logits).item(), rel=1e-6)
