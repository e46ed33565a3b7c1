"""How fast training is on this machine, against its limit and against what a user would pick instead: `make bench`.

    steps         the whole training step, data to optimiser, against the bare model step on a constant batch
    rivals        ours against lightly's MoCo v2 and against torchvision's transforms image by image, same encoder, threads and batch;
                  on a CPU lightly's has torchvision's layers, and so has ours once, to tell what lib.models.lean gives
    tried         the whole step without one of the things that were done for its speed, in turn: what each gives
    switches      what bf16, channels_last, compiling and split BatchNorm give or cost, on one thread
    projectors    the bare step with each projector of notebook 07, relative to the baseline's, on one thread
    limits        the bare model step against the machine's own rates of matrix products and of memory
    parts         where the bare step's time goes, and how far each part is from what its own work and traffic would take
    augmentation  the two views alone, operation by operation
    scaling       rate and peak memory over encoders, resolution, K and number of images, each case in a process of its own
    evaluation    seconds and peak memory of what is computed once per run, likewise
    commands      the README's own, one after another in a fresh clone; half an hour, installs all packages, hence only when it is named

A row per measurement, in results/mine/bench/<item>.csv; ours are in results/bench. Alternatives are measured in turns; a rate is the median
of the rounds, a ratio the median of the ratios within a round, which suffers less from a machine that is not idle, with the least and the
most of them beside it; scaling and evaluation are measured once. `limits` and `parts` hold the best round against the machine's best.
Rates are images a second of wall time on all cores, except for `switches` and `projectors`: there, on a CPU, of processor time on one
thread. A source image counts once, though it gives two views.
"""
import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict, deque
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import flop_registry

from lib import augment, check_name, metrics, models, positive, probe, runs, studies, train
from lib import data as datasets

SWITCHES = {"fp32": {}, "fp32, no channels_last": {"channels_last": False}, "bf16": {"precision": "bf16"},
            "fp32, four shuffled BN groups": {"bn_splits": 4}, "fp32, compile": {"compile": True}}
IMAGES, QUEUE = 5120, 2048               # of an epoch, and of negatives, where pipelines are compared
BATCHES = (256, studies.TEXTURES.batch_size)             # at which rivals are compared: MoCo v2's own, and the study's
WORKERS = (0, 1, 2)                      # of a DataLoader; each rival gets the number that suits it
GOALS = {"whole step / bare step": 0.95, "lightly": 4.0, "lightly, same layers": 3.0}
WHY = {"lightly": "decodes nothing, but augments image by image in PIL, each operation a call of its own, where compiled loops "
                  "do here; on a CPU it convolves small maps with taps that meet nothing but padding, too, and has its products from MKL",
       "torchvision v2, our step": "the same step of ours behind a DataLoader that augments image by image on tensors",
       "ours, torchvision's encoder": "on a CPU: convolutions and products as lightly has them",
       "ours, bare step": "a constant batch, and no gradient norm: what data, views and watching cost us",
       "lightly, bare step": "its modules, loss and unfused optimiser on a constant batch: what is left when the pipeline costs nothing",
       "ours, compiled": "torch.compile of the step, its first minute not counted", "ours": ""}
AUGMENTATIONS = {"crop and flip": {}, "jitter": {"jitter_p": 0.8}, "greyscale": {"grayscale_p": 0.2}, "blur": {"blur_p": 0.5},
                 "all of MoCo v2": {"jitter_p": 0.8, "grayscale_p": 0.2, "blur_p": 0.5}}
SCALING = [*({"arch": arch} for arch in (*models.SMALL, models.LARGE)), *({"size": size} for size in (64, 96)),
           *({"queue": queue} for queue in (2048, 16_384, 65_536)), *({"images": images} for images in (1280, 12_800, 51_200))]
EVALUATION = [*(("instance discrimination, N x N", n) for n in (5_000, 20_000, 50_000)), ("kNN, 10,000 against N", 50_000),
              ("linear probe, N", 10_000), ("k-means, N", 5_000), ("UMAP, N", runs.UMAP_IMAGES)]
COMMANDS = ("make .venv/installed", "make report", "make report", "make render", "make test")
HERE = ("device", "cores", "threads", "torch", "commit", "dirty", "date")


# ---- measuring ----

def device():
    """"cuda" where there is one, else "cpu": what everything here runs on."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def layout(config):
    """The memory format of images and weights."""
    return torch.channels_last if config.channels_last else torch.contiguous_format


def stepper(config, data):
    """step(view0, view1): one training step of ours, without our data path."""
    method = train.build(config, data).to(device()).to(memory_format=layout(config)).train()
    forward = train.compiled(method, device()) if config.compile else method
    optimizer = train.optimizer_of(config, [p for p in method.parameters() if p.requires_grad])
    count = itertools.count()

    def step(view0, view1):
        with torch.autocast(device(), torch.bfloat16, enabled=config.precision == "bf16"):
            loss, _ = forward(view0, view1, None)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        method.after_step(next(count))
    return step


def constant(config, data):
    """Two views of a batch, of noise."""
    return [torch.randn(config.batch_size, 3, data.size, data.size, device=device()).contiguous(memory_format=layout(config))
            for _ in range(2)]


def rate(call, images, clock=time.perf_counter):
    """Images a second of call(), which works on so many."""
    started = clock()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return images / (clock() - started)


def in_turns(rates, rounds):
    """{name: rates, one a round} of {name: function that returns a rate}: after a warm-up each has its turn in every round."""
    for measure in rates.values():
        measure()
    found = {name: [] for name in rates}
    for _ in range(rounds):
        for name, measure in rates.items():
            found[name].append(measure())
    return found


def median(found):
    """{name: the median of its rates}."""
    return {name: statistics.median(values) for name, values in found.items()}


def ratios(found, one, other, name, digits=2):
    """How many times as fast `one` is, as three columns {name, name_least, name_most}: median, least and most of the ratios within a round,
    since one round sees one state of a machine that others use too."""
    ratios = [a / b for a, b in zip(found[one], found[other], strict=True)]
    return {name: round(statistics.median(ratios), digits), f"{name}_least": round(min(ratios), digits),
            f"{name}_most": round(max(ratios), digits)}


def bare(config, data, steps, clock=time.perf_counter, step=None):
    """A function: the rate of so many steps, ours or `step`, on a constant batch."""
    step, batch = step or stepper(config, data), constant(config, data)
    return lambda: rate(lambda: [step(*batch) for _ in range(steps)], steps * config.batch_size, clock)


def whole(config, data):
    """A function: the rate of the second epoch of lib.train, for the first also makes room for gradients and the optimiser's state."""
    images = len(data.train) // config.batch_size * config.batch_size
    return lambda: images / train.pretrain(data, replace(config, epochs=2), device=device())[2][1]


def recipe(arch, **changes):
    """The configuration by which pipelines are compared: fp32, one epoch."""
    return replace(studies.base("textures", arch),
                   **{"limit": IMAGES, "queue": QUEUE, "batch_keys": False, "epochs": 1, "precision": "fp32"} | changes)


def compared(arch, **changes):
    """(recipe, its data)."""
    config = recipe(arch, **changes)
    return config, runs.load_data(config.data, config.limit, device())


# ---- items ----

def alternating(config, data, epochs):
    """{"whole", "bare": rates, one an epoch}: images a second of the steps of a training by lib.train that have their views made, and of
    those that are handed a constant batch in the same loop, one after the other, so that both see the same state of the machine. The
    first epoch warms up and is left out. The gradient's norm is taken in whole steps only, twice as often as in training.

    On a CPU: a GPU works on while the next views are made, which single steps do not see.
    """
    spent, views, constant = ([], []), augment.views, []

    def every_second(batches, order, *args):
        """As many batches as there were, but every second one is the first view again, gathered and augmented no more."""
        halved = order[:len(order) // config.batch_size * config.batch_size].view(-1, config.batch_size)
        real = views(data.train.batches(halved[::2].flatten(), config.batch_size), halved[::2].flatten(), *args)
        for number in range(len(halved)):
            began = time.perf_counter()
            if number % 2 == 0:
                batch = next(real)
                constant[:] = constant or [part.clone() for part in batch]
            yield batch if number % 2 == 0 else tuple(constant)
            spent[number % 2].append(time.perf_counter() - began)
    with patch.object(augment, "views", every_second):
        train.pretrain(data, replace(config, epochs=epochs), device=device())
    return {name: [config.batch_size / statistics.mean(epoch) for epoch in np.array_split(seconds, epochs)[1:]]
            for name, seconds in zip(("whole", "bare"), spent, strict=True)}


def steps(archs, rounds):
    """A row per encoder: images a second of the whole and of the bare step, the ratio of the two, its goal."""
    rows = []
    for arch in archs:
        config, data = compared(arch)
        found = alternating(config, data, rounds + 1) if device() == "cpu" else in_turns(
            {"whole": whole(config, data), "bare": bare(config, data, IMAGES // config.batch_size)}, rounds)
        rows.append({"arch": arch} | {f"{name}_step_images_per_second": round(value) for name, value in median(found).items()}
                    | ratios(found, "whole", "bare", "ratio", 3) | {"goal": GOALS["whole step / bare step"]})
    return pd.DataFrame(rows)


class ImageByImage(Dataset):
    """Two views of each image by a transform of one image, as peers have it."""

    def __init__(self, images, transform):
        self.images, self.transform = images, transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.transform(self.images[index]), self.transform(self.images[index])


def loader(dataset, batch_size, workers):
    """The DataLoader that a rival gets: shuffled, whole batches, `workers` processes that stay."""
    return DataLoader(dataset, batch_size, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0,
                      pin_memory=torch.cuda.is_available())


def through(batches, step, images):
    """A function: the rate of an epoch of a DataLoader through step(view0, view1)."""
    def epoch():
        for view0, view1 in batches:
            step(*(v.to(device(), non_blocking=True).contiguous(memory_format=torch.channels_last) for v in (view0, view1)))
    return lambda: rate(epoch, images)


def torchvision_transform(config, size):
    """MoCo v2's view of one uint8 image by torchvision's transforms."""
    from torchvision.transforms import v2
    jitter = v2.RandomApply([v2.ColorJitter(*config.jitter)], config.jitter_p)
    return v2.Compose([v2.RandomResizedCrop(size, (config.crop_min, 1.0), antialias=True), jitter, v2.RandomGrayscale(config.grayscale_p),
                       v2.RandomApply([v2.GaussianBlur(2 * augment.blur_radius(size) + 1, (0.1, 2.0))], config.blur_p),
                       v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True),
                       v2.Normalize(augment.IMAGENET_MEAN, augment.IMAGENET_STD)])


def plain():
    """Within it encoders are built of torchvision's layers, as anyone else has them."""
    return patch.object(models, "lean", lambda net: net)


def lightly_step(config, data):
    """step(view0, view1) of MoCo v2 as lightly's example writes it, with its head, loss, memory bank and momentum update."""
    from copy import deepcopy

    from lightly.loss import NTXentLoss
    from lightly.models.modules import MoCoProjectionHead
    from lightly.models.utils import update_momentum
    with plain():
        encoder = models.encoder(config.arch, size=data.size, stem=config.stem)
    query = torch.nn.Sequential(encoder, MoCoProjectionHead(encoder.dim, encoder.dim, config.dim)).to(device()).train()
    query = query.to(memory_format=torch.channels_last)
    key = deepcopy(query).requires_grad_(False)
    criterion = NTXentLoss(temperature=config.tau, memory_bank_size=(config.queue, config.dim)).to(device())
    optimizer = torch.optim.AdamW(query.parameters(), lr=config.lr)

    def step(view0, view1):
        update_momentum(query, key, m=config.m)
        z = query(view0)
        with torch.no_grad():
            z_key = key(view1)
        loss = criterion(z, z_key)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return step


def rivals(archs, rounds):
    """A row per encoder, batch size and pipeline: its best number of workers, images a second, how many times as fast ours is, and why."""
    from lightly.transforms import MoCoV2Transform
    from torchvision.transforms.functional import to_pil_image
    rows = []
    for arch, batch_size in itertools.product(archs, BATCHES):
        config, data = compared(arch, batch_size=batch_size)
        images = data.train.images.cpu()
        theirs = MoCoV2Transform(input_size=data.size, min_scale=config.crop_min, cj_hue=config.jitter[3])
        one_view = theirs.transforms[0]                                    # it holds the same transform twice
        sources = {"torchvision v2, our step": (ImageByImage(images, torchvision_transform(config, data.size)), stepper(config, data)),
                   "lightly": (ImageByImage([to_pil_image(i) for i in images], one_view), lightly_step(config, data))}
        measures, workers = {"ours": whole(config, data)}, {}
        if device() == "cpu":
            measures["ours, torchvision's encoder"] = undone(plain, config, data)
        for name, (dataset, step) in sources.items():
            tried = {w: through(loader(dataset, config.batch_size, w), step, IMAGES) for w in WORKERS}
            found = median(in_turns(tried, 1))
            workers[name] = max(found, key=found.get)
            measures[name] = tried[workers[name]]
        number = IMAGES // config.batch_size
        measures["ours, bare step"] = bare(config, data, number)
        measures["ours, compiled"] = bare(replace(config, compile=True), data, number)
        measures["lightly, bare step"] = bare(config, data, number, step=lightly_step(config, data))
        found = in_turns(measures, rounds)
        rows += [{"arch": arch, "batch_size": batch_size, "pipeline": name, "workers": workers.get(name, ""),
                  "images_per_second": round(value), **ratios(found, "ours", name, "ours_is_times_as_fast"), "goal": GOALS.get(name, ""),
                  **equal(found, name), "why": WHY[name]}
                 for name, value in median(found).items()]
    return pd.DataFrame(rows)


def equal(found, name, ours="ours, torchvision's encoder"):
    """How many times as fast as a rival of torchvision's layers ours is when it has them too, and the goal for that; nothing for other
    rivals, and on a GPU."""
    if ours not in found or not name.startswith("lightly"):
        return {}
    return ratios(found, ours, name, "with_the_same_layers") | {"goal_with_the_same": GOALS.get(f"{name}, same layers", "")}


def undone(within, config, data):
    """A function: the rate of an epoch within the context that within() gives."""
    def measured():
        with within():
            return whole(config, data)()
    return measured


def unfused(config, parameters):
    """lib.train.optimizer_of, not fused; AdamW."""
    return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)


def tried(archs, rounds):
    """A row per encoder and thing that was done for speed: images a second without it, and how many times as fast it makes the step. Of
    lean layers the products are a part. Freed memory that is kept (lib/__init__.py) cannot be undone here, and helps rivals, too."""
    from lib import kernels
    rows = []
    for arch in archs:
        config, data = compared(arch)
        without = {"parameters of views drawn ahead": partial(patch.object, augment, "AHEAD", 1),
                   "fused optimiser": partial(patch.object, train, "optimizer_of", unfused),
                   "gradient's norm at every eighth step": partial(patch.object, train, "WATCH_EVERY", 1)}
        if device() == "cpu":
            without |= {"views image by image": partial(patch.object, augment, "rendered", augment.batched),
                        "views on several threads": partial(patch.object, kernels, "PER_THREAD", 2 ** 62), "lean layers": plain,
                        "products by oneDNN": partial(patch.object, models, "LEAST", math.inf)}
        measures = {"everything": whole(config, data), "channels_last": whole(replace(config, channels_last=False), data)}
        measures |= {what: undone(within, config, data) for what, within in without.items()}
        found = in_turns(measures, rounds)
        rows += [{"arch": arch, "what": name, "images_per_second_without": round(value),
                  **ratios(found, "everything", name, "gives")} for name, value in median(found).items()]
    return pd.DataFrame(rows)


@contextmanager
def one_thread():
    """On a CPU one thread and its processor time, for as long as this lasts: gives the clock."""
    threads = torch.get_num_threads()
    if device() == "cpu":
        torch.set_num_threads(1)
    try:
        yield time.perf_counter if device() == "cuda" else time.process_time
    finally:
        torch.set_num_threads(threads)


def switches(archs, rounds, count=4):
    """A row per encoder and switch: images a second of the bare step, one thread on a CPU, also relative to plain fp32."""
    data, rows = runs.load_data("textures", 512, device()), []
    for arch in archs:
        base = replace(studies.base("textures", arch), precision="fp32", queue=256)
        with one_thread() as clock:
            measures = {name: bare(replace(base, **switch), data, count, clock) for name, switch in SWITCHES.items()}
            with patch.object(train, "optimizer_of", unfused):
                measures["fp32, optimiser not fused"] = bare(base, data, count, clock)
            found, threads = in_turns(measures, rounds), torch.get_num_threads()
        rows += [{"arch": arch, "switch": name, "images_per_second": round(value), **ratios(found, name, "fp32", "relative")}
                 for name, value in median(found).items()]
    return pd.DataFrame(rows).assign(threads=threads)


def projectors(archs, rounds, count=4):
    """A row per encoder and projector of notebook 07: time of the bare step relative to the baseline's, one thread on a CPU."""
    data, rows = runs.load_data("textures", 512, device()), []
    for arch in archs:
        kinds = list(dict.fromkeys((c.projector, c.projector_bn) for c in studies.projectors("textures", archs=[arch])))
        base = studies.base("textures", arch)
        usual = base.projector, base.projector_bn
        with one_thread() as clock:
            measures = {kind: bare(replace(base, projector=kind[0], projector_bn=kind[1]), data, count, clock) for kind in kinds}
            found, threads = in_turns(measures, rounds), torch.get_num_threads()
        rows += [{"arch": arch, "projector": kind, "projector_bn": bn, **ratios(found, usual, (kind, bn), "relative_time", 3)}
                 for kind, bn in kinds]
    return pd.DataFrame(rows).assign(threads=threads)


def flops_of(operation, args, kwargs, out):
    """PyTorch's own count, but for the gradients of a convolution, where it forgets groups, which is a hundredfold for depthwise ones, and
    for oneDNN's products, which it does not know."""
    if str(operation) == "mkldnn._linear_pointwise":
        return 2 * args[0].numel() * len(args[1])
    if operation is torch.ops.aten.convolution_backward:
        grad, weight, (of_input, of_weight, _) = args[0], args[2], args[-1]
        return 2 * grad.numel() * weight[0].numel() * (of_input + of_weight)
    return flop_registry[operation](*args, **kwargs, out_val=out) if operation in flop_registry else 0


class Count(TorchDispatchMode):
    """Multiplications and additions, and bytes read and written, of every operation within: {operation: [flops, bytes, calls]}; and
    {part of the step: [seconds, flops, bytes, calls]}.

    Views move nothing; every other operation is counted as if each of its tensors lay in main memory.
    """

    def __init__(self):
        super().__init__()
        self.operations, self.total, self.parts = defaultdict(lambda: [0, 0, 0]), [], defaultdict(lambda: np.zeros(4))

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs, flops, moved, started = kwargs or {}, 0, 0, time.perf_counter()
        out = function(*args, **kwargs)
        if device() == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        if not function.is_view:
            flops = flops_of(function.overloadpacket, args, kwargs, out)
            changed = [value for value, argument in zip(args, function._schema.arguments) if argument.is_write] if out is None else []
            moved = sum(t.numel() * t.element_size() for t in tree_leaves((args, kwargs, out, changed)) if isinstance(t, torch.Tensor))
            entry = self.operations[str(function.overloadpacket).removeprefix("aten.")]
            entry[0], entry[1], entry[2] = entry[0] + flops, entry[1] + moved, entry[2] + 1
            self.total.append((flops, moved))
        self.parts[part_of(function, args)] += [seconds, flops, moved, 1]
        return out


PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "mkldnn._linear_pointwise")


def part_of(function, args):
    """What an operation is a part of, in words."""
    name = str(function.overloadpacket).removeprefix("aten.")
    if name in ("convolution", "convolution_backward"):
        return "depthwise convolutions" if args[8 + (name != "convolution")] > 1 else "other convolutions"
    return ("products" if name in PRODUCTS else "optimiser and EMA" if name.startswith(("_fused_", "_foreach_", "lerp_"))
            else "BatchNorm and LayerNorm" if "_norm" in name else "random numbers" if name in ("bernoulli_", "randperm", "native_dropout")
            else "elementwise and the rest")


def machine():
    """{what: function that measures it}: operations a second of a large fp32 product, as torch takes it, as lib.models does, and as a 1 x 1
    convolution (on a CPU libraries differ twofold); bytes a second of a large copy."""
    a, b = (torch.randn(2048, 2048, device=device()) for _ in range(2))
    maps = torch.randn(256, 512, 8, 8, device=device()).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(512, 512, 1, 1, device=device())
    source = torch.randn(2 ** 26, device=device())
    target = torch.empty_like(source)
    return {"product": lambda: rate(lambda: torch.mm(a, b), 2 * 2048 ** 3),
            "our product": lambda: rate(lambda: models.linear(a, b), 2 * 2048 ** 3),
            "convolution": lambda: rate(lambda: torch.conv2d(maps, weight), 2 * maps.numel() * 512),
            "bytes": lambda: rate(lambda: target.copy_(source), 2 * source.numel() * 4)}


def limits(archs, rounds):
    """A row per encoder: work and traffic of a step an image, the machine's best rates, the images a second that these allow, ours."""
    usual, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    counted, steps = {}, {}                                                # a GPU's convolutions round as its products do
    for arch in archs:
        config, data = compared(arch)
        step, batch = stepper(config, data), constant(config, data)
        step(*batch)                                                       # the optimiser's state comes with the first step
        with Count() as count:
            step(*batch)
        counted[arch] = [sum(column) / config.batch_size for column in zip(*count.total)]
        steps[arch] = bare(config, data, 20)
    # a limit is a maximum, and so is what is held against it
    found = {name: max(values) for name, values in in_turns(machine() | steps, 2 * rounds).items()}
    torch.backends.cudnn.allow_tf32 = usual
    products, copied, rows = max(found["product"], found["our product"], found["convolution"]), found["bytes"], []
    for arch, (flops, moved) in counted.items():
        shortest = max(flops / products, moved / copied)                   # seconds an image, where products and memory overlap perfectly
        rows.append({"arch": arch, "mflop_per_image": round(flops / 1e6), "mbyte_per_image": round(moved / 1e6, 1),
                     "machine_gflop_per_second": round(products / 1e9), "machine_gbyte_per_second": round(copied / 1e9, 1),
                     "by_products_alone": round(products / flops), "by_memory_alone": round(copied / moved),
                     "limit_images_per_second": round(1 / shortest), "images_per_second": round(found[arch]),
                     "share_of_limit": round(found[arch] * shortest, 2)})
    return pd.DataFrame(rows)


def parts(archs, rounds):
    """A row per encoder and part of the bare step: microseconds an image in its best round, its share of all parts, calls, work and traffic
    an image, and how many times as long it takes as these would, where products and memory overlap perfectly. Last the whole step, which
    nobody interrupts to look at its parts."""
    best = {name: max(values) for name, values in in_turns(machine(), rounds).items()}
    products, copied, rows = max(best["product"], best["our product"], best["convolution"]), best["bytes"], []
    for arch in archs:
        config, data = compared(arch)
        step, batch, found = stepper(config, data), constant(config, data), []
        whole = max(in_turns({"": bare(config, data, 5, step=step)}, rounds)[""])
        for _ in range(2 * rounds):
            with Count() as count:
                step(*batch)
            found.append(count.parts)
        least = {part: min((each[part] for each in found), key=lambda row: row[0]) for part in found[0]}
        least = {part: (*row[:3] / config.batch_size, row[3]) for part, row in least.items()}
        for part, (seconds, flops, moved, calls) in sorted(least.items(), key=lambda item: -item[1][0]):
            floor = max(flops / products, moved / copied)
            rows.append({"arch": arch, "part": part, "microseconds_per_image": round(1e6 * seconds, 1),
                         "share": round(seconds / sum(row[0] for row in least.values()), 3), "calls": int(calls),
                         "mflop_per_image": round(flops / 1e6, 2), "mbyte_per_image": round(moved / 1e6, 3),
                         "times_its_limit": round(seconds / floor, 1) if floor else math.nan})
        rows.append({"arch": arch, "part": "the whole step, undisturbed", "microseconds_per_image": round(1e6 / whole, 1)})
    return pd.DataFrame(rows)


def augmentation(archs, rounds):
    """A row per set of operations: images (both views of each) a second, microseconds an image, and those beyond crop and flip."""
    config, data = compared(archs[0])
    off = {"jitter_p": 0.0, "grayscale_p": 0.0, "blur_p": 0.0}
    batch = data.train.images[:config.batch_size]
    order = torch.arange(IMAGES // config.batch_size * config.batch_size)

    def views(operations):
        wanted = replace(config.augmentation, **(off | operations))
        return lambda: rate(lambda: deque(augment.views(((ids, batch) for ids in order.split(config.batch_size)), order, wanted, 0, 0),
                                          maxlen=0), IMAGES)

    def batched():
        for stream in (0, 1):
            for ids in order.split(config.batch_size):
                augment.batched(batch, augment.draw(ids, config.augmentation, data.size, data.size, 0, 0, stream),
                                config.standardize, data.size)
    found = in_turns({name: views(operations) for name, operations in AUGMENTATIONS.items()}
                     | {"all of MoCo v2, as operations on the batch": lambda: rate(batched, IMAGES)}, rounds)
    rows = []
    for name, rates in found.items():
        beyond = statistics.median(1e6 / r - 1e6 / crop for r, crop in zip(rates, found["crop and flip"], strict=True))
        rows.append({"views_with": name, "images_per_second": round(statistics.median(rates)),
                     "microseconds_per_image": round(1e6 / statistics.median(rates), 1), "of_it_beyond_the_crop": round(beyond, 1)})
    return pd.DataFrame(rows)


def apart(case):
    """What `python -m lib.bench --case` prints, from a process of its own, so peak memory is that case's; or why it failed."""
    command = [sys.executable, "-m", "lib.bench", "--case", json.dumps(case)]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=runs.ROOT)
    if answer.returncode:
        last = answer.stderr.strip().splitlines()[-1:] or [f"ended with {answer.returncode}, perhaps for want of memory"]
        return {"failed": last[0]}
    return json.loads(answer.stdout.splitlines()[-1])


def noise(images, size):
    """A data set of noise, of so many images of S x S."""
    def split(n):
        pixels = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, device=device())
        return datasets.Split(pixels, torch.zeros(n, dtype=torch.int64))
    return datasets.Data("noise", size, ("one", "two"), True, "", split(images), split(2), split(2))


def training_case(arch="mobilenet_v3_small", size=32, queue=128, images=None):
    """The bare step; with `images` the whole step over a data set of so many."""
    config, data = recipe(arch, queue=queue), noise(images or 512, size)
    measure = whole(config, data) if images else bare(config, data, 5)
    return {"images_per_second": round(median(in_turns({"": measure}, 1))[""])}


def evaluation_case(what, n):
    """One of EVALUATION on n made-up features: seconds, the peak of memory in MB, and by how many it grew."""
    generator, where = torch.Generator().manual_seed(0), device() if what.startswith(("instance", "kNN", "linear")) else "cpu"
    h, z = (torch.randn(n, dim, generator=generator).to(where) for dim in (1024, 128))     # MobileNetV3-Small's sizes
    few = torch.randn(10_000 if what.startswith("kNN") else 2, 1024, generator=generator).to(where)
    metrics.alignment(few, few)                                            # a GPU's first operation loads its libraries
    labels, before = torch.arange(n) % 10, runs.peak_memory(where)
    started = time.perf_counter()
    if what.startswith("instance"):
        metrics.instance_discrimination(z, z + 0.1)
    elif what.startswith("kNN"):
        metrics.knn_predict(h, labels, few, 200)
    elif what.startswith("linear"):
        probe.linear_probe(h, labels, h[:2000], labels[:2000], h[:2000], labels[:2000], 10)
    elif what.startswith("k-means"):
        metrics.cluster_structure(h, labels, [24])
    else:
        from umap import UMAP
        UMAP(metric="cosine", random_state=0, n_jobs=1).fit_transform(np.asarray(h))
    if where == "cuda":
        torch.cuda.synchronize()
    seconds, peak = time.perf_counter() - started, runs.peak_memory(where)
    return {"seconds": round(seconds, 1), "grew_by_mb": round((peak - before) / 2 ** 20), "peak_memory_mb": round(peak / 2 ** 20)}


def scaling(archs, rounds):
    """A row per case of SCALING: images a second, and the peak of memory in MB of a process of its own."""
    over = {"arch": "encoder", "size": "side, pixels", "queue": "K", "images": "images, whole step"}
    return pd.DataFrame([{"over": over[name], "value": value} | apart({name: value}) for case in SCALING for name, value in case.items()])


def evaluation(archs, rounds):
    """A row per case of EVALUATION: seconds, and memory in MB of a process of its own."""
    return pd.DataFrame([{"what": what, "n": n} | apart({"what": what, "n": n}) for what, n in EVALUATION])


def commands(archs, rounds):
    """A row per command of COMMANDS, in a clone of what is committed here: seconds, and the status that it ended with."""
    mine = ("PYTHONPATH", "OMP_NUM_THREADS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")        # what a user's shell does not have
    environment = {name: value for name, value in os.environ.items() if name not in mine} | {"PIP_NO_CACHE_DIR": "1"}
    rows = []
    with tempfile.TemporaryDirectory() as clone:
        subprocess.run(["git", "clone", "-q", runs.ROOT, clone], check=True)
        for command in COMMANDS:
            started = time.perf_counter()
            status = subprocess.run(command.split(), cwd=clone, env=environment).returncode
            rows.append({"what": command, "seconds": round(time.perf_counter() - started), "status": status})
    return pd.DataFrame(rows)


ITEMS = {item.__name__: item for item in (steps, rivals, tried, switches, projectors, limits, parts, augmentation, scaling, evaluation,
                                          commands)}


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m lib.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[name for name in ITEMS if name != "commands"],
                        help=f"of {', '.join(ITEMS)}; all but the last, unless it is named")
    parser.add_argument("--archs", nargs="+", default=["mobilenet_v3_small", "resnet18"])
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--output", type=Path, default=runs.ROOT / "results" / "mine" / "bench", help="folder of the tables")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.case is not None:
        found = evaluation_case(**args.case) if "what" in args.case else training_case(**args.case)
        print(json.dumps({"peak_memory_mb": runs.provenance(device())["peak_memory_mb"]} | found))
        return
    try:
        for item in args.only:
            check_name("item", item, ITEMS)
        for arch in args.archs:
            check_name("archs", arch, models.ENCODERS)
    except ValueError as error:
        sys.exit(f"error: {error}")
    made = runs.provenance(device())
    command = " ".join(["python -m lib.bench", *(sys.argv[1:] if argv is None else map(str, argv))])
    os.makedirs(args.output, exist_ok=True)
    for item in args.only:
        try:
            table = ITEMS[item](args.archs, args.rounds)
        except ImportError as error:
            print(f"{item}: left out, since {error.name} is not installed (`make bench` installs it)\n", flush=True)
            continue
        print(f"{item}\n{table.to_string(index=False)}\n", flush=True)
        table = table.assign(**{name: made[name] for name in HERE if name not in table}, command=command)
        table.to_csv(args.output / f"{item}.csv", index=False)


if __name__ == "__main__":
    main()
