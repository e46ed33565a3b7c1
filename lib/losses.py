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


def info_nce(logits):
    """InfoNCE of MoCo (He et al. 2020, eq. 1): cross-entropy of (N, 1 + K) logits whose column 0 is the positive.

    Returns a scalar; log(number of candidates), such as log(K + 1), when every candidate looks alike (chance), towards 0
    when the positive stands out.
    """
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))
