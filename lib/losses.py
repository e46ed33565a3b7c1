"""Losses: tensors in, scalar out."""
import torch
import torch.nn.functional as F


def moco_logits(query, key, queue, tau, batch_keys=False):
    """Similarities over tau: column 0 the positive, columns 1..K the queue; with batch_keys N more, the other keys of the batch.

    query, key: (N, D) projections, row i of each a view of image i; normalised in here. queue: (K, D) unit rows.
    batch_keys: a queue is older than the positive, and while the encoder still moves fast that age alone gives the positive away;
    keys of the same age close this shortcut (MoCo v3 has only them). An image's own key is -inf there.
    Returns (N, 1 + K) or (N, 1 + K + N), float32 also under autocast.
    """
    query, key = F.normalize(query.float(), dim=1), F.normalize(key.float(), dim=1)
    positive = (query * key).sum(1, keepdim=True)                          # (N, 1)
    with torch.autocast(query.device.type, enabled=False):                 # bf16 would blur the negatives alone, by 1/256
        negatives = query @ queue.float().T                                # (N, K)
        if batch_keys:
            others = (query @ key.T).masked_fill(torch.eye(len(key), dtype=torch.bool, device=key.device), -torch.inf)
            negatives = torch.cat([negatives, others], dim=1)              # (N, K + N)
    return torch.cat([positive, negatives], dim=1) / tau


def info_nce(logits, smoothing=0.0, neighbours=None):
    """InfoNCE of MoCo (He et al. 2020, eq. 1): cross-entropy of (N, 1 + K) logits whose column 0 is the positive.

    smoothing in [0, 1): the share of the label that goes, in equal parts, to the columns `neighbours` (N, k), those most like the
    key: smoothed InfoNCE, after Lin et al. 2022 (arXiv 2212.07158), whose exact weights are not known to us.
    Returns a scalar; log(number of candidates), such as log(K + 1), when every candidate looks alike (chance), towards 0
    when the positive stands out.
    """
    if not smoothing:
        return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))
    log_p = torch.log_softmax(logits, dim=1)
    return -((1 - smoothing) * log_p[:, 0] + smoothing * log_p.gather(1, neighbours).mean(1)).mean()


def nearest_keys(key, queue, k):
    """Columns of moco_logits' negatives in the queue that are most like the positive key: (N, D), (K, D) -> (N, k), the queue from 1 on."""
    with torch.autocast(key.device.type, enabled=False):
        return 1 + (F.normalize(key.float(), dim=1) @ queue.float().T).topk(k, dim=1).indices


def nt_xent(z0, z1, tau):
    """NT-Xent of SimCLR (Chen et al. 2020, eq. 1): each of the 2N views must find the other view of its image among 2N - 1.

    z0, z1: (N, D) projections of the two views, normalised in here. Returns (scalar loss, (2N,) bool: found); log(2N - 1) when all
    views look alike.
    """
    z = F.normalize(torch.cat([z0, z1]).float(), dim=1)
    with torch.autocast(z.device.type, enabled=False):
        logits = (z @ z.T / tau).fill_diagonal_(-torch.inf)                # (2N, 2N), never a view against itself
    target = torch.arange(len(z), device=z.device).roll(len(z0))           # view 0 of image i answers view 1 of it
    return F.cross_entropy(logits, target), logits.argmax(1) == target


def seed_logits(student, teacher, queue):
    """Similarities of SEED (Fang et al. 2021, sec. 3.2): of each image to its own teacher projection (column 0), then to the queue's.

    student, teacher: (N, D) projections of the same views, normalised in here. queue: (K, D) unit rows, earlier images through the
    teacher. Returns (of the student, of the teacher), (N, 1 + K) cosines each.
    """
    student, teacher = F.normalize(student.float(), dim=1), F.normalize(teacher.float(), dim=1)
    with torch.autocast(student.device.type, enabled=False):
        return tuple(torch.cat([(z * teacher).sum(1, keepdim=True), z @ queue.float().T], dim=1) for z in (student, teacher))


def seed_loss(student, teacher, tau, teacher_tau):
    """SEED (Fang et al. 2021, eq. 5): cross-entropy of the student's softmax over seed_logits against the teacher's.

    student, teacher: (N, 1 + K) cosines. teacher_tau towards 0 makes the teacher point at the image itself: InfoNCE with its keys.
    Returns a scalar; log(K + 1) for a student to whom all look alike.
    """
    return -(torch.softmax(teacher / teacher_tau, dim=1) * torch.log_softmax(student / tau, dim=1)).sum(1).mean()
