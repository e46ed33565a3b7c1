from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib import models
from lib.losses import info_nce, moco_logits, nearest_keys, nt_xent, seed_logits, seed_loss
from lib.methods import SEED, MoCo, SimCLR, Supervised


class Toy(nn.Module):
    """An encoder without BatchNorm: every image by itself."""

    dim = 6

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(12, 6)

    def forward(self, x):
        return torch.tanh(self.linear(x.flatten(1)))


class Normed(Toy):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x):
        return self.norm(super().forward(x))


def moco(encoder=Toy, queue=24, m=0.75, tau=0.2, seed=0, **kwargs):
    torch.manual_seed(seed)
    net = encoder()
    return MoCo(net, models.projector("simple", net.dim, 5), queue, m, tau, dim=5, **kwargs)


def views(n=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, 3, 2, 2, generator=generator) for _ in range(2))


def move(method, lr=0.1):
    """One step of plain gradient descent."""
    with torch.no_grad():
        for p in method.parameters():
            if p.grad is not None:
                p -= lr * p.grad


# --- momentum ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("m", [0.0, 0.75, 0.999, 1.0])
def test_the_key_follows_the_query_with_momentum_parameter_by_parameter(m):
    method = moco(m=m)
    before = deepcopy(method.key)
    loss, _ = method(*views())
    loss.backward()
    move(method)
    method.after_step(0)
    for old, new, query in zip(before.parameters(), method.key.parameters(), method.query.parameters(), strict=True):
        torch.testing.assert_close(new, m * old + (1 - m) * query)
        assert m in (0.0, 1.0) or not torch.equal(new, old)


def test_the_key_starts_as_a_copy_and_never_receives_a_gradient():
    method = moco()
    assert all(torch.equal(a, b) and a is not b for a, b in zip(method.query.parameters(), method.key.parameters(), strict=True))
    loss, _ = method(*views())
    loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in method.key.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.query.parameters())
    assert not method.queue.requires_grad and not any(key.requires_grad for key in method.new_keys)


def test_only_the_query_is_given_to_the_optimiser():
    method = moco()
    trained = {id(p) for p in method.parameters() if p.requires_grad}
    assert trained == {id(p) for p in method.query.parameters()}
    assert method.encoder is method.query[0]


# --- loss and queue ---------------------------------------------------------------------------------------------------

def one_way(method, query_view, key_view):
    with torch.no_grad():
        key = method.key(key_view)
    return info_nce(moco_logits(method.query(query_view), key, method.queue, method.tau))


def test_the_loss_is_info_nce_of_view0_against_the_keys_of_view1_and_the_queue():
    method, (view0, view1) = moco(), views()
    loss, _ = method(view0, view1)
    torch.testing.assert_close(loss, one_way(method, view0, view1))
    assert (loss - one_way(method, view1, view0)).abs() > 1e-4


def test_the_symmetric_loss_is_the_mean_of_both_directions():
    method, (view0, view1) = moco(symmetric=True, queue=32), views()
    loss, _ = method(view0, view1)
    torch.testing.assert_close(loss, (one_way(method, view0, view1) + one_way(method, view1, view0)) / 2)


def test_accuracy_is_how_often_the_positive_beats_the_whole_queue():
    method, (view0, view1) = moco(queue=4), views(4)
    with torch.no_grad():
        z0, z1 = F.normalize(method.query(view0), dim=1), F.normalize(method.key(view1), dim=1)
        hits = [float(z0[i] @ z1[i]) > max(float(z0[i] @ row) for row in method.queue) for i in range(4)]
        _, accuracy = method(view0, view1)
        assert accuracy.item() == pytest.approx(sum(hits) / 4)
        method.queue[:] = z0                                                # nothing is nearer to a query than itself
        assert method(view0, view1)[1].item() == 0.0
        method.queue[:] = -F.normalize(z0.sum(0, keepdim=True), dim=1)
        assert method(view0, view0)[1].item() == 1.0


def test_a_tie_is_no_hit():
    method, (view0, view1) = moco(queue=8), views()
    with torch.no_grad():
        for p in [*method.query.parameters(), *method.key.parameters()]:
            p.zero_()
        for net in (method.query, method.key):
            net[1][-1].bias[0] = 1.0                                        # every projection is the first axis, exactly
        method.queue[:] = torch.eye(5)[:1]
    assert method(view0, view1)[1].item() == 0.0                            # collapsed: like chance, not like perfection


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_queue_is_first_in_first_out_over_several_rounds(symmetric):
    method = moco(queue=24, symmetric=symmetric)
    expected = list(method.queue.clone())
    oldest = 0
    n = 4 if symmetric else 8
    for step in range(10):                                                  # 80 keys: more than three rounds of 24
        view0, view1 = views(n, seed=step)
        method(view0, view1)
        with torch.no_grad():
            keys = [F.normalize(method.key(view1), dim=1)]
            if symmetric:
                keys.append(F.normalize(method.key(view0), dim=1))
        method.after_step(step)
        for key in torch.cat(keys):                                         # 2 N keys of a symmetric step
            expected[oldest] = key
            oldest = (oldest + 1) % 24
        torch.testing.assert_close(method.queue, torch.stack(expected))
    torch.testing.assert_close(method.queue.norm(dim=1), torch.ones(24))


def test_a_batch_is_no_negative_of_itself():
    method = moco(m=1.0)
    view0, view1 = views()
    first = method(view0, view1)[0]
    before = method.queue.clone()
    assert torch.equal(method(view0, view1)[0], first) and torch.equal(method.queue, before)     # only after_step writes
    method.after_step(0)
    assert method(view0, view1)[0] > first                                  # now the positives are in it


def test_labels_never_enter_moco():
    method, (view0, view1) = moco(), views()
    index = torch.arange(8)
    assert torch.equal(method(view0, view1, index)[0], method(view0, view1, index.flip(0))[0])
    assert torch.equal(method(view0, view1, index)[0], method(view0, view1)[0])


# --- shuffled, split BatchNorm ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("n, splits", [(8, 2), (16, 4), (16, 8), (12, 3)])
def test_keys_return_to_their_own_images(n, splits):
    with_splits, without = moco(bn_splits=splits), moco(bn_splits=1)
    view, _ = views(n)
    torch.testing.assert_close(with_splits.keys(view), without.keys(view))  # no BatchNorm, so only the order could differ
    with_splits, without = (moco(Normed, bn_splits=s).eval() for s in (splits, 1))
    torch.testing.assert_close(with_splits.keys(view), without.keys(view))


def members(call, view):
    """members[i]: the images that share batch statistics with image i, namely those whose output changes when i does."""
    base, found = call(view), []
    for i in range(len(view)):
        other = view.clone()
        other[i] += 1.0
        moved = (call(other) - base).abs().amax(1) > 1e-6
        found.append(frozenset(moved.nonzero()[:, 0].tolist()))
    return found


@pytest.mark.parametrize("n, splits", [(8, 2), (16, 4)])
def test_the_keys_groups_are_other_images_than_the_querys(n, splits):
    method, (view, _) = moco(Normed, bn_splits=splits).train(), views(n)
    with torch.no_grad():
        query, key = set(members(method.query, view)), set(members(method.keys, view))
    size = n // splits
    assert query == {frozenset(range(start, start + size)) for start in range(0, n, size)}
    assert len(key) == splits and all(len(group) == size for group in key)
    assert frozenset().union(*key) == frozenset(range(n))
    for group in key:                                                       # equally many of every query group
        assert [len(group & other) for other in query] == [size // splits] * splits


def test_each_group_is_normalised_by_its_own_statistics():
    method, (view, _) = moco(Normed, bn_splits=2).train(), views(8)
    outputs = []
    method.query[0].norm.register_forward_hook(lambda module, args, out: outputs.append(out))
    with torch.no_grad():
        method.query(view)
    for chunk in outputs[0].chunk(2):
        torch.testing.assert_close(chunk.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
        assert (chunk.var(0, unbiased=False) - 1).abs().max() < 0.01
    plain = moco(Normed, bn_splits=1).train()
    with torch.no_grad():
        assert (plain.query[0](view) - outputs[0]).abs().max() > 0.01



# --- the ceiling ------------------------------------------------------------------------------------------------------

def supervised(labels, classes=3):
    torch.manual_seed(0)
    return Supervised(Toy(), labels, classes)


def test_supervised_uses_the_labels_of_the_index_and_only_view0():
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 2, 2, 2, 2])
    method, (view0, view1) = supervised(labels), views(4)
    index = torch.tensor([7, 0, 4, 2])
    loss, accuracy = method(view0, view1, index)
    logits = method.head(method.encoder(view0))
    torch.testing.assert_close(loss, F.cross_entropy(logits, torch.tensor([2, 0, 1, 2])))
    assert accuracy.item() == (logits.argmax(1) == torch.tensor([2, 0, 1, 2])).float().mean().item()
    assert torch.equal(loss, method(view0, -view1, index)[0])
    assert not torch.equal(loss, method(view0, view1, index.roll(1))[0])


def test_supervised_labels_are_not_part_of_its_weights():
    assert set(supervised(torch.zeros(9, dtype=torch.int64)).state_dict()) == {
        "encoder.linear.weight", "encoder.linear.bias", "head.weight", "head.bias"}


def test_supervised_after_step_changes_nothing():
    method = supervised(torch.zeros(9, dtype=torch.int64))
    before = deepcopy(method.state_dict())
    method.after_step(3)
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())


# --- SimCLR and SEED --------------------------------------------------------------------------------------------------

def test_simclr_sees_both_views_in_one_batch_and_has_no_momentum():
    torch.manual_seed(0)
    net = Normed()
    method = SimCLR(net, models.projector("simple", 6, 5), tau=0.5)
    view0, view1 = views()
    loss, accuracy = method(view0, view1)
    z = method.query(torch.cat([view0, view1]))
    assert torch.allclose(loss, nt_xent(z[:8], z[8:], 0.5)[0]) and 0 <= accuracy <= 1
    assert method.encoder is net and {n.split(".")[0] for n, _ in method.named_parameters()} == {"query"}
    assert method.new_keys[0].shape == (8, 5) and not method.new_keys[0].requires_grad


def seed(queue=24, **kwargs):
    torch.manual_seed(0)
    teacher = nn.Sequential(Normed(), models.projector("simple", 6, 5)).train()
    return SEED(Toy(), models.projector("simple", 6, 5), teacher, queue, dim=5, **kwargs)


def test_seed_trains_the_student_and_never_touches_the_teacher():
    method = seed().train()
    before = deepcopy(method.teacher.state_dict())
    assert method.query.training and not method.teacher.training
    loss, _ = method(*views())
    loss.backward()
    assert all(p.grad is not None for p in method.query.parameters()) and all(p.grad is None for p in method.teacher.parameters())
    method.after_step(0)
    assert all(torch.equal(v, method.teacher.state_dict()[k]) for k, v in before.items())   # BatchNorm's statistics too


def test_seed_shows_both_the_same_view_and_queues_the_teachers_projections():
    method = seed()
    view0, view1 = views()
    loss, _ = method(view0, view1)
    key = F.normalize(method.teacher(view0), dim=1)
    student, teacher = seed_logits(method.query(view0), key, method.queue)
    assert torch.allclose(loss, seed_loss(student, teacher, 0.2, 0.01))
    for step in (0, 1, 2, 3):
        method(view0, view1)
        method.after_step(step)
        assert torch.allclose(method.queue[step % 3 * 8:][:8], key)


def test_a_seed_student_comes_to_agree_with_its_teacher():
    method = seed(teacher_tau=0.1)
    view0, _ = views()
    losses = []
    for _ in range(60):
        method.zero_grad()
        loss, _ = method(view0)
        loss.backward()
        move(method, 0.5)
        losses.append(loss.item())
    target = torch.softmax(seed_logits(method.teacher(view0), method.teacher(view0), method.queue)[1] / 0.1, dim=1)
    entropy = -(target * target.log()).sum(1).mean().item()
    assert entropy - 1e-4 <= losses[-1] < losses[0] - 0.2 * (losses[0] - entropy)


# --- fewer negatives and softer labels --------------------------------------------------------------------------------

def test_without_a_queue_the_other_keys_of_the_batch_are_the_negatives():
    method = moco(queue=0, batch_keys=True)
    view0, view1 = views()
    loss, _ = method(view0, view1)
    q, k = F.normalize(method.query(view0), dim=1), F.normalize(method.key(view1), dim=1)
    assert torch.allclose(loss, F.cross_entropy(q @ k.T / 0.2, torch.arange(8)), atol=1e-5)   # MoCo v3's loss, one side
    method.after_step(0)
    assert method.queue.shape == (0, 5)


def test_smoothing_reaches_the_loss():
    plain, smooth = moco(), moco(smoothing=0.3)
    view0, view1 = views()
    logits = moco_logits(smooth.query(view0), smooth.keys(view1), smooth.queue, 0.2)
    near = nearest_keys(smooth.keys(view1), smooth.queue, 5)
    assert torch.allclose(smooth(view0, view1)[0], info_nce(logits, 0.3, near)) and smooth(view0, view1)[0] > plain(view0, view1)[0]
