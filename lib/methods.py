"""What is trained: forward(view0, view1, index) -> (loss, accuracy); after_step(step) once the optimiser has moved.

`accuracy` is the fraction of the batch whose own answer is ranked first: the positive among the queue (MoCo), the class
(supervised). `encoder` is the part that is kept and evaluated.
"""
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import nn

from lib.losses import info_nce, moco_logits, nearest_keys, nt_xent, seed_logits, seed_loss
from lib.models import split_batchnorm

NEIGHBOURS = 5   # keys that share the smoothed label


class MoCo(nn.Module):
    """MoCo v2 (Chen et al. 2020) on one device.

    encoder, projector: f and g of the query; the key pair starts as their copy and follows with momentum m (parameters only, as
    the official code). queue: K unit rows, the keys of the last steps. symmetric: both views serve as queries (the paper: no).
    bn_splits: BatchNorm sees the batch in that many groups, and the key's groups are other images than the query's; this is what
    shuffled BatchNorm over that many GPUs does, so that batch statistics do not give the positive away. The loop draws batches
    at random, so dealing the images out in turn is as random a regrouping as a drawn one.
    batch_keys: the other keys of the batch are negatives too (lib.losses.moco_logits says what for; the paper: no); with them the
    queue may be empty.
    smoothing: share of the label that goes to the 5 keys of the queue nearest to the positive one (lib.losses.info_nce).
    """

    def __init__(self, encoder, projector, queue, m, tau, dim=128, symmetric=False, bn_splits=1,
                 batch_keys=False, smoothing=0.0):
        super().__init__()
        self.query = split_batchnorm(nn.Sequential(encoder, projector), bn_splits)
        self.key = deepcopy(self.query).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(queue, dim), dim=1))
        self.m, self.tau, self.symmetric, self.bn_splits = m, tau, symmetric, bn_splits
        self.batch_keys, self.smoothing = batch_keys, smoothing

    @property
    def encoder(self):
        return self.query[0]

    @torch.no_grad()
    def keys(self, view):
        deal = torch.arange(len(view), device=view.device).view(self.bn_splits, -1).T.reshape(-1)   # one image of each query group in turn
        z = self.key(view[deal] if self.bn_splits > 1 else view)
        z = z[deal.argsort()] if self.bn_splits > 1 else z
        return F.normalize(z.float(), dim=1)

    def forward(self, view0, view1, index=None):
        pairs = [(view0, view1), (view1, view0)] if self.symmetric else [(view0, view1)]
        losses, hits, self.new_keys = [], [], []
        for query_view, key_view in pairs:
            key = self.keys(key_view)
            logits = moco_logits(self.query(query_view), key, self.queue, self.tau, self.batch_keys)
            near = nearest_keys(key, self.queue, min(NEIGHBOURS, len(self.queue))) if self.smoothing else None
            losses.append(info_nce(logits, self.smoothing, near))
            hits.append((logits[:, :1] > logits[:, 1:]).all(1).float().mean())
            self.new_keys.append(key)
        return sum(losses) / len(losses), sum(hits) / len(hits)

    @torch.no_grad()
    def after_step(self, step):
        """Key parameters follow the query's; this step's keys replace the oldest in the queue."""
        torch._foreach_lerp_(list(self.key.parameters()), list(self.query.parameters()), 1 - self.m)
        _enqueue(self.queue, torch.cat(self.new_keys), step)


class SimCLR(nn.Module):
    """SimCLR (Chen et al. 2020): the other images of the batch are the negatives; no momentum, no queue."""

    def __init__(self, encoder, projector, tau):
        super().__init__()
        self.query, self.tau = nn.Sequential(encoder, projector), tau

    @property
    def encoder(self):
        return self.query[0]

    def forward(self, view0, view1, index=None):
        z0, z1 = self.query(torch.cat([view0, view1])).chunk(2)
        self.new_keys = [F.normalize(z1.detach().float(), dim=1)]
        loss, found = nt_xent(z0, z1, self.tau)
        return loss, found.float().mean()

    def after_step(self, step):
        pass


class SEED(nn.Module):
    """SEED (Fang et al. 2021): the student's similarities to a queue of the teacher's projections follow the teacher's own.

    teacher: encoder and projector, frozen and always in eval mode. Both see the same view (view0). queue: K of the teacher's
    projections of earlier images, random at first. tau, teacher_tau: of the two softmaxes.
    """

    def __init__(self, encoder, projector, teacher, queue, tau=0.2, teacher_tau=0.01, dim=128):
        super().__init__()
        self.query = nn.Sequential(encoder, projector)
        self.teacher = teacher.eval().requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(queue, dim), dim=1))
        self.tau, self.teacher_tau = tau, teacher_tau

    @property
    def encoder(self):
        return self.query[0]

    def train(self, mode=True):
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, view0, view1=None, index=None):
        with torch.no_grad():
            key = F.normalize(self.teacher(view0).float(), dim=1)
        z = self.query(view0)
        student, teacher = seed_logits(z, key, self.queue)
        self.new_keys, self.teachers = [F.normalize(z.detach().float(), dim=1)], key     # whose collapse is watched; what is queued
        return seed_loss(student, teacher, self.tau, self.teacher_tau), (student.argmax(1) == 0).float().mean()

    @torch.no_grad()
    def after_step(self, step):
        _enqueue(self.queue, self.teachers, step)


def _enqueue(queue, keys, step):
    """Write the keys of `step` over the oldest of the queue, in place."""
    if len(queue):
        at = step * len(keys) % len(queue)
        queue[at:at + len(keys)] = keys


class Supervised(nn.Module):
    """The ceiling: cross-entropy on the labels with the same encoder, views and budget, a linear head on h.

    labels: (N,) of the whole training set; `index` says which images a batch holds. Only view0 is used.
    """

    def __init__(self, encoder, labels, classes):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.dim, classes)
        self.register_buffer("labels", labels, persistent=False)

    def forward(self, view0, view1, index):
        logits = self.head(self.encoder(view0)).float()
        target = self.labels[index]
        return F.cross_entropy(logits, target), (logits.argmax(1) == target).float().mean()

    def after_step(self, step):
        pass
