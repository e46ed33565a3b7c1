"""What a trained encoder is worth: embeddings, the linear probe, and every number that a run stores.

Everything here is computed on h, the penultimate output of the query encoder in eval mode, last checkpoint, BatchNorm statistics
re-estimated on CALIBRATION training images. Suffixes of the names: `_train` and `_test` say the images (test is held out; `_val`
is the part of train that chooses hyper-parameters); `_d` original images, `_sd` augmented views; `_centred` after subtracting the
mean of h over train.
"""
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.transforms.functional import resize

from lib import augment, metrics, models, train

CALIBRATION = 1024         # training images for the BatchNorm statistics
PROBE_LRS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
PROBE_EPOCHS = 30
INSTANCES = 5000           # images on each side of the instance-discrimination test
MONITORED = 500            # the same during training
FACTOR_IMAGES = 200        # held-out images that a class needs before its sub-clusters are compared with a factor
KNN_K, KNN_T = 20, 0.1     # weighted kNN
PROJECTION_K = 200         # the same on projections, as in the MoCo authors' CIFAR-10 notebook
# fine-tuning on another data set: a fixed recipe, crops of 60 to 100 % as the paper's transfer, no colours
FINE_TUNING = {"method": "supervised", "epochs": 10, "batch_size": 64, "optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.01,
               "warmup_epochs": 1.0, "queue": 64, "smoothing": 0.0, "bn_splits": 1, "crop_min": 0.6,
               "jitter_p": 0.0, "grayscale_p": 0.0, "blur_p": 0.0, "hide_p": 0.0}


@torch.no_grad()
def embed(encoder, split, rows, view, batch_size=500, to=None):
    """h of `split`'s images `rows` (n,) int64 -> (n, D) float32 on the device `to`, by default that of the images, where the encoder is.
    view(images, index) -> float (n, 3, S, S)."""
    was_training = encoder.training
    encoder.eval()
    h = [encoder(view(split.images[index], index).contiguous(memory_format=torch.channels_last)).float().to(to or split.images.device)
         for index in rows.split(batch_size)]
    encoder.train(was_training)
    return torch.cat(h)


@dataclass(frozen=True)
class Viewer:
    """The fixed views of the evaluation: the MoCo v2 augmentation, whatever the training used, keyed by augment.FIXED."""

    standardize: str
    flip: bool

    def original(self, images, index):
        return augment.original(images, self.standardize)

    def augmented(self, stream):
        recipe = augment.Augmentation(standardize=self.standardize, flip_p=0.5 if self.flip else 0.0)
        return lambda images, index: augment.view(images, index, recipe, augment.FIXED, 0, stream)


def balanced(labels, n):
    """Row numbers of at most n images, as many of each class, the first of each: (n',) int64, in order."""
    classes, counts = labels.unique(return_counts=True)
    per_class = min(int(counts.min()), max(1, n // len(classes)))
    return torch.cat([(labels == c).nonzero()[:per_class, 0] for c in classes]).sort().values


def calibrate(encoder, data, viewer):
    """Re-estimate BatchNorm's statistics on the first CALIBRATION training images, un-augmented."""
    rows = torch.arange(min(CALIBRATION, len(data.train.labels)))
    batches = rows.chunk(-(-len(rows) // 512))                             # of one size: never a last one of a single image
    models.calibrate_batchnorm(encoder, (viewer.original(data.train.images[i], i) for i in batches))


def instance_metrics(d, sd1, sd2, labels, mean, suffix):
    """The paper's measures of one side: h of originals `d` and of two views (N, D) each -> {name: number}.

    D-SD: an original against its own view and the other originals; SD-SD: view 1 against view 2 and the other views 1. Left out of the
    centred ones, since no claim or figure rests on them: SD-SD, and the full-set uniformity of views.
    """
    out = {}
    for tag, norm in (("", metrics.unit), ("_centred", lambda h: metrics.centre(h, mean))):
        x, x1, x2 = norm(d), norm(sd1), norm(sd2)
        pairs = {"dsd": (x, x1, x)} | ({"sdsd": (x1, x2, x1)} if not tag else {})
        for mode, (query, key, negatives) in pairs.items():
            rank = metrics.instance_discrimination(query, key, negatives)
            out |= {f"instdisc_{mode}_top{k}_{suffix}{tag}": accuracy for k, accuracy in metrics.topk_accuracy(rank).items()}
            out[f"alignment_{mode}_{suffix}{tag}"] = metrics.alignment(query, key).mean().item()
        for domain, y in (("d", x), ("sd", x1)):
            if domain == "d" or not tag:
                out[f"uniformity_{domain}_{suffix}{tag}"] = metrics.uniformity(y)
            out[f"uniformity_official_{domain}_{suffix}{tag}"] = metrics.uniformity_official(y, seed=0, batch_size=min(128, len(y)))
            out[f"intra_class_{domain}_{suffix}{tag}"] = metrics.intra_class_alignment(y, labels)
            out[f"intra_over_all_{domain}_{suffix}{tag}"] = metrics.intra_over_all(y, labels)
    return out


def linear_probe(train_h, train_y, val_h, val_y, test_h, test_y, classes, lrs=PROBE_LRS, epochs=PROBE_EPOCHS, seed=0):
    """Accuracy of a linear classifier on frozen, standardised h: SGD (momentum 0.9, batch 256, cosine, no weight decay).

    Features are standardised by train's mean and deviation (an affine-free BatchNorm), so one grid of learning rates serves every
    encoder; all are trained at once and val chooses. The paper: lr 30 for all, with augmentation, 100 epochs.
    Returns {"linear_test", "linear_val", "linear_lr"}; chance is 1/classes.
    """
    device = train_h.device
    train_y, val_y, test_y = (y.to(device) for y in (train_y, val_y, test_y))
    mean, std = train_h.mean(0), train_h.std(0) + 1e-5
    train_h, val_h, test_h = ((h - mean) / std for h in (train_h, val_h, test_h))
    generator = torch.Generator().manual_seed(seed)
    weight = torch.zeros(len(lrs), train_h.shape[1], classes, device=device)   # (L, D, C): one head per learning rate
    bias = torch.zeros(len(lrs), 1, classes, device=device)
    momentum = [torch.zeros_like(weight), torch.zeros_like(bias)]
    lr = torch.tensor(lrs, device=device)[:, None, None]
    steps, step = epochs * -(-len(train_h) // 256), 0
    for _ in range(epochs):
        for rows in torch.randperm(len(train_h), generator=generator).to(device).split(256):
            h, y = train_h[rows], F.one_hot(train_y[rows], classes).float()
            error = (torch.softmax(h @ weight + bias, dim=2) - y) / len(rows)  # (L, n, C): the gradient of the logits
            for parameter, velocity, gradient in zip((weight, bias), momentum, (h.T @ error, error.sum(1, keepdim=True))):
                velocity.mul_(0.9).add_(gradient)
                parameter.sub_(lr * velocity * (0.5 * (1 + np.cos(np.pi * step / steps))))
            step += 1
    accuracy = {name: ((h @ weight + bias).argmax(2) == y).double().mean(1) for name, h, y in
                (("val", val_h, val_y), ("test", test_h, test_y))}
    best = int(accuracy["val"].argmax())
    return {"linear_test": accuracy["test"][best].item(), "linear_val": accuracy["val"][best].item(), "linear_lr": lrs[best]}


def transfer(encoder, target, config, size, device="cpu"):
    """What an encoder is worth on another data set (paper, transfer): {"linear", "fine_tuned"}, accuracies on its test images.

    target: lib.data.Data in memory, resized to the side `size` that the encoder was trained at. linear: linear_probe on frozen h, the
    BatchNorm statistics the encoder's own. fine_tuned: all weights, FINE_TUNING, last epoch; the recipe is fixed, so it compares arms
    of one encoder (the untrained one: training from scratch), not encoders. Chance is one over the classes. `encoder` stays as it is.
    """
    parts = {name: getattr(target, name) for name in ("train", "val", "test")}
    if target.size != size:
        parts = {name: replace(part, images=resize(part.images, [size, size], antialias=True)) for name, part in parts.items()}
    target = replace(target, size=size, **parts)
    viewer, encoder = Viewer(config.standardize, target.flip), deepcopy(encoder)
    h = {name: embed(encoder, part, torch.arange(len(part.labels)), viewer.original) for name, part in parts.items()}
    y = {name: part.labels for name, part in parts.items()}
    out = {"linear": linear_probe(h["train"], y["train"], h["val"], y["val"], h["test"], y["test"], len(target.classes))["linear_test"]}
    if any(True for _ in encoder.parameters()):                            # pixels have none to tune
        tuning = replace(config, data=target.name, limit=None, start=None, teacher=None, **FINE_TUNING)
        method = train.pretrain(target, tuning, device=device, start=encoder.state_dict())[0]
        calibrate(method.encoder, target, viewer)
        logits = method.head(embed(method.encoder, target.test, torch.arange(len(y["test"])), viewer.original))
        out["fine_tuned"] = (logits.argmax(1) == y["test"].to(logits.device)).double().mean().item()
    return out


@torch.no_grad()
def _projected(projector, h):
    """z of h (N, D), projector in eval mode: (N, dim) where h is."""
    return deepcopy(projector).to(h.device).eval()(h)


def _place(device, images, dim):
    """The device on which the metrics of h (images, dim) run: the images' own, unless h takes over an eighth of a GPU's free memory
    (metrics hold a few copies of it), then the CPU."""
    device = torch.device(device)
    large = device.type == "cuda" and images * dim * 4 > torch.cuda.mem_get_info(device)[0] / 8
    return torch.device("cpu") if large else device


def monitored(images, classes):
    """How many of `images` balanced ones a side the pretext task has during training: MONITORED at most, as many of each class."""
    return max(1, min(MONITORED, images) // classes) * classes


def monitor(data, config):
    """What the loop records during training: a function (encoder, epoch) -> dict, at five epochs, {} at the others; only at the last
    where evaluation is "val".

    MONITORED images a side (all of them, if fewer); chance of instance discrimination is one over that. The kNN uses 2,048 training images
    against 1,000 of val; homogeneity and completeness are those of k-means on these at four clusters a class.
    """
    viewer = Viewer(config.standardize, data.flip)
    fractions = (0, 0.125, 0.25, 0.5, 1) if config.evaluation == "full" else (1,)
    at = {round(config.epochs * f) for f in fractions}

    def measure(encoder, epoch):
        if epoch not in at:
            return {}
        encoder = deepcopy(encoder)                                        # what is being trained stays as it is
        calibrate(encoder, data, viewer)
        out, sides = {}, ("train", "test" if config.evaluation == "full" else "val")
        fewest = min(int(getattr(data, side).labels.bincount().min()) for side in sides) * len(data.classes)
        for side in sides:                                                 # as many on both sides, so chance is the same
            split = getattr(data, side)
            rows = balanced(split.labels, monitored(fewest, len(data.classes)))
            h = [metrics.unit(embed(encoder, split, rows, v)) for v in (viewer.original, viewer.augmented(0))]
            out[f"instdisc_{side}"] = (metrics.instance_discrimination(h[0], h[1], h[0]) < 1).double().mean().item()
        gallery, rows = (torch.arange(min(n, len(split.labels))) for n, split in ((2048, data.train), (1000, data.val)))
        h = embed(encoder, data.val, rows, viewer.original)
        predicted = metrics.knn_predict(embed(encoder, data.train, gallery, viewer.original), data.train.labels[gallery], h,
                                        min(KNN_K, len(gallery)))
        labels = data.val.labels[rows].to(h.device)
        out["knn_val"] = (predicted == labels).double().mean().item()
        clusters = min(4 * len(data.classes), len(h) // 2)
        structure = metrics.cluster_structure(h, labels, [clusters], seed=0, restarts=1)[0]
        return out | {name: structure[name] for name in ("homogeneity", "completeness")}
    return measure


def evaluate(encoder, data, config, projector=None):
    """Every number of a finished run. Returns (metrics {name: number}, embeddings {name: array} of held-out images).

    With a projector, `knn_projection_test` too: the weighted kNN with k = PROJECTION_K on z instead of h.
    """
    viewer = Viewer(config.standardize, data.flip)
    encoder = deepcopy(encoder)
    calibrate(encoder, data, viewer)
    everything = {name: torch.arange(len(getattr(data, name).labels)) for name in ("train", "val", "test")}
    to = _place(data.train.images.device, len(data.train.labels), encoder.dim)
    h = {name: embed(encoder, getattr(data, name), rows, viewer.original, to=to) for name, rows in everything.items()}
    y = {name: getattr(data, name).labels.to(to) for name in everything}
    mean, classes = h["train"].mean(0), len(data.classes)

    out = {"images_train": len(y["train"]), "images_test": len(y["test"]), "classes": classes, "dim_h": h["train"].shape[1]}
    per_class = min(int(y[side].bincount().min()) for side in ("train", "test"))
    for side in ("train", "test"):                                         # the same number and class balance on both sides
        rows = balanced(getattr(data, side).labels, min(INSTANCES, per_class * classes))
        views = [embed(encoder, getattr(data, side), rows, viewer.augmented(stream), to=to) for stream in (0, 1)]
        out[f"instances_{side}"] = len(rows)
        out |= instance_metrics(h[side][rows], *views, y[side][rows], mean, side)

    k = min(KNN_K, len(y["train"]))
    for side in ("val", "test"):
        predicted = metrics.knn_predict(h["train"], y["train"], h[side], k, t=KNN_T)
        out[f"knn_{side}"] = (predicted == y[side]).double().mean().item()
    if projector is not None:
        z = {side: _projected(projector, h[side]) for side in ("train", "test")}
        predicted = metrics.knn_predict(z["train"], y["train"], z["test"], min(PROJECTION_K, len(y["train"])), t=KNN_T)
        out["knn_projection_test"] = (predicted == y["test"]).double().mean().item()
    nn = {side: metrics.best_nn(h["train"], y["train"], h[side], y[side], min(101, len(y["train"]))) for side in ("val", "test")}
    best_k = max(nn["val"], key=lambda k: (nn["val"][k], -k))
    out |= {"best_nn_k": best_k, "best_nn_test": nn["test"][best_k], "best_nn_test_paper": max(nn["test"].values())}
    out |= {f"nn{k}_test": accuracy for k, accuracy in nn["test"].items() if k in (1, 3, 5, 9, 15, 25, 41, 61, 81, 101)}
    out |= linear_probe(h["train"], y["train"], h["val"], y["val"], h["test"], y["test"], classes)
    out |= {"effective_rank_test": metrics.effective_rank(h["test"]), "spread_test": metrics.collapse(h["test"])}

    ks = [k for k in (classes * f for f in metrics.PER_CLASS) if k <= len(y["test"]) // 5]
    for row in metrics.cluster_structure(h["test"], y["test"], ks, seed=0, restarts=1):
        out |= {f"{name}_k{row['k']}": row[name] for name in ("homogeneity", "completeness")}
    if data.test.factors and int(y["test"].bincount().min()) >= FACTOR_IMAGES:
        scores = metrics.factor_ami(h["test"], y["test"], data.test.factors, min_images=FACTOR_IMAGES)
        out |= {f"ami_{name}": score["mean"] for name, score in scores.items() if not np.isnan(score["mean"])}
        out["sub_clusters"] = metrics.sub_clusters(h["test"], y["test"])["mean"]
    return out, {"h": h["test"].cpu().numpy().astype(np.float16), "label": data.test.labels.numpy()}
