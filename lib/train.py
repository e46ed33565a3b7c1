"""The pretraining loop, its configuration and its schedule. Reads like the algorithm box of MoCo v2."""
import hashlib
import json
import math
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
from tqdm import tqdm

from lib import augment, check_name, checkpoint, models
from lib.methods import SEED, MoCo, SimCLR, Supervised

# Checksum of every file that decides what a training step does: nothing is gone on from that other code began.
CODE = hashlib.sha256(b"".join((Path(__file__).with_name(f"{name}.py")).read_bytes() for name in (
    "augment", "data", "kernels", "losses", "methods", "metrics", "models", "probe", "textures", "train"))).hexdigest()
ROUNDING = 7   # raised when the same training rounds otherwise: 2 the fused optimiser, 3 and 4 views by Numba, 5 to 7 lean layers
WATCH_EVERY = 8  # steps between two norms of the gradient: each reads all of it, 2 % of a small encoder's step on a CPU
METHODS = ("moco", "simclr", "seed", "supervised")


class Collapsed(RuntimeError):
    """All projections are the same point: no loss can tell them apart any more."""


@dataclass(frozen=True)
class PretrainConfig:
    """One training. The defaults are the paper's baseline (MoCo v2 on ImageNet); a profile states where it departs."""

    data: str = "folder:imagenet"   # data set by name, see lib.data
    limit: int | None = None        # train on a class-balanced part of this many images
    arch: str = "mobilenet_v3_small"  # key of lib.models.ENCODERS
    stem: str = "imagenet"          # imagenet, stride1 or cifar: how soon the encoder shrinks the image
    width: float = 1.0              # channel multiplier of the ResNets
    method: str = "moco"            # moco, simclr, seed (distils `teacher`), or supervised: the ceiling under the same budget
    projector: str = "simple"       # paper, baseline: Linear(d, d)-ReLU-Linear(d, 128)
    projector_bn: bool = False      # paper: no BatchNorm in projectors
    dim: int = 128                  # of the projection z
    tau: float = 0.2                # softmax temperature; paper: 0.2 baseline, 0.1 improved
    queue: int = 65536              # K, number of negatives; 0 with batch_keys: those of the batch alone
    batch_keys: bool = False        # the other keys of the batch are negatives too (paper: no)
    m: float = 0.999                # momentum of the key encoder
    symmetric: bool = False         # paper: one query view
    bn_splits: int = 8              # paper: 8 GPUs with shuffled BatchNorm; emulated
    epochs: int = 200               # paper: 200 baseline, 200 and 800 improved; 0 stores the untrained encoder
    batch_size: int = 256
    optimizer: str = "sgd"          # sgd (momentum 0.9, paper) or adamw
    lr: float = 0.03                # peak, as the optimiser sees it (paper: 0.03 at batch 256)
    weight_decay: float = 1e-4
    warmup_epochs: float = 0.0      # linear; paper: none
    crop_min: float = 0.2           # smallest crop, as a fraction of the image's area
    jitter: tuple = (0.4, 0.4, 0.4, 0.1)  # brightness, contrast, saturation, hue
    jitter_p: float = 0.8
    grayscale_p: float = 0.2
    blur_p: float = 0.5
    hide_p: float = 0.0             # Hide-and-Seek: each patch is hidden with this probability (paper: tried, left out)
    smoothing: float = 0.0          # share of the label for the keys nearest to the positive (not in the paper)
    standardize: str = "imagenet"   # pixels: imagenet (the paper) or image (each by its own mean and deviation)
    precision: str = "fp32"         # fp32, or bf16 autocast of the encoders' forward pass
    channels_last: bool = True
    compile: bool = False
    seed: int = 0
    evaluation: str = "full"        # full, or val: a run that chooses hyper-parameters and never touches the test images
    start: "PretrainConfig | None" = None    # begin with the encoder that this one trained; all else is new
    teacher: "PretrainConfig | None" = None  # of method seed: the run whose encoder and projector it distils
    teacher_tau: float = 0.01       # of method seed: the teacher's temperature

    def __post_init__(self):
        try:
            brightness, contrast, saturation, hue = map(float, self.jitter)
        except (TypeError, ValueError):
            raise ValueError(f"jitter = {self.jitter!r}; allowed: four numbers (brightness, contrast, saturation, hue)") from None
        object.__setattr__(self, "jitter", (brightness, contrast, saturation, hue))
        for name in ("start", "teacher"):
            if isinstance(getattr(self, name), dict):                          # as a stored configuration has it
                object.__setattr__(self, name, PretrainConfig(**getattr(self, name)))
        for f in fields(self):                                             # 1 -> 1.0, so that equal configs have equal ids
            value = getattr(self, f.name)
            if f.type is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2 ** 53:
                object.__setattr__(self, f.name, float(value))
        for name, known in [("arch", models.ENCODERS), ("stem", models.STEMS), ("method", METHODS),
                            ("optimizer", ("sgd", "adamw")), ("precision", ("fp32", "bf16")),
                            ("standardize", augment.STANDARDIZE), ("evaluation", ("full", "val"))]:
            check_name(name, getattr(self, name), known)
        for name in ("data", "projector"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} = {getattr(self, name)!r}; allowed: a name")
        with torch.device("meta"):
            models.projector(self.projector, 2)                            # raises on an unknown name
        for name, allowed, ok in [
                ("epochs", ">= 0", lambda x: x >= 0), ("batch_size", ">= 2", lambda x: x >= 2),
                ("queue", ">= 1, or 0 with batch_keys", lambda x: x >= 1 or x == 0 and self.batch_keys and self.method == "moco"),
                ("dim", ">= 1", lambda x: x >= 1),
                ("bn_splits", ">= 1", lambda x: x >= 1), ("seed", "0 to 2**31 - 2", lambda x: 0 <= x < augment.FIXED),
                ("tau", "> 0", lambda x: 0 < x < math.inf), ("teacher_tau", "> 0", lambda x: 0 < x < math.inf),
                ("m", "0 to 1", lambda x: 0 <= x <= 1),
                ("lr", "> 0", lambda x: 0 < x < math.inf), ("weight_decay", ">= 0", lambda x: 0 <= x < math.inf),
                ("warmup_epochs", "0 to epochs", lambda x: 0 <= x <= max(self.epochs, 0)),
                ("width", "> 0", lambda x: 0 < x < math.inf), ("limit", "None or >= 2", lambda x: x is None or x >= 2),
                ("crop_min", "above 0, at most 1", lambda x: 0 < x <= 1), *((name, "0 to 1", lambda x: 0 <= x <= 1)
                                                                       for name in ("jitter_p", "grayscale_p", "blur_p", "hide_p")),
                ("smoothing", "0 to below 1, and 0 with an empty queue", lambda x: 0 <= x < 1 and (self.queue or not x))]:
            value, kind = getattr(self, name), self.__dataclass_fields__[name].type
            right_type = isinstance(value, float) if kind is float else \
                value is None and name == "limit" or isinstance(value, int) and not isinstance(value, bool) and value < 2 ** 31
            if not right_type or not ok(value):
                raise ValueError(f"{name} = {value!r}; allowed: {'a number' if kind is float else 'an integer below 2**31,'} {allowed}")
        for name in ("projector_bn", "batch_keys", "symmetric", "channels_last", "compile"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} = {getattr(self, name)!r}; allowed: True or False")
        if self.batch_size % self.bn_splits or self.batch_size // self.bn_splits < 2:
            raise ValueError(f"bn_splits = {self.bn_splits} does not divide batch_size = {self.batch_size} into groups of "
                             "2 or more; allowed: a divisor of it")
        self._check_others()
        if self.method in ("moco", "seed") and self.queue % self.keys_per_step:
            raise ValueError(f"queue = {self.queue} is not a multiple of the {self.keys_per_step} keys of one step "
                             f"(batch_size{' x 2, symmetric' if self.symmetric else ''}); "
                             f"allowed: {max(1, self.queue // self.keys_per_step) * self.keys_per_step}, for instance")
        try:
            _ = self.augmentation
        except ValueError as error:                                        # crop and probabilities are right: it is the jitter
            raise ValueError(f"jitter = {self.jitter!r} (brightness, contrast, saturation, hue): {error}") from None

    def _check_others(self):
        """Raise ValueError where `start` or `teacher` is not a run that this one can begin with or learn from."""
        for name in ("start", "teacher"):
            other = getattr(self, name)
            if other is not None and not isinstance(other, PretrainConfig):
                raise ValueError(f"{name} = {other!r}; allowed: None or the PretrainConfig of a run")
            if other is not None and not other.epochs:
                raise ValueError(f"{name} = a {other.arch} of 0 epochs, which was never trained; allowed: 1 epoch or more")
        for same in ("arch", "stem", "width", "standardize"):
            if self.start and getattr(self.start, same) != getattr(self, same):
                raise ValueError(f"start = an encoder with {same} = {getattr(self.start, same)!r}, but this run has "
                                 f"{same} = {getattr(self, same)!r}; allowed: the same")
        for same in ("data", "stem", "standardize"):
            if self.teacher and getattr(self.teacher, same) != getattr(self, same):
                raise ValueError(f"teacher = an encoder with {same} = {getattr(self.teacher, same)!r}, but this run has "
                                 f"{same} = {getattr(self, same)!r}; allowed: the same, for both see the same pixels")
        if (self.method == "seed") != (self.teacher is not None):
            raise ValueError(f"teacher = {self.teacher and self.teacher.arch!r} with method = {self.method!r}; allowed: a run's "
                             "PretrainConfig with method 'seed', None with any other")
        if self.teacher and (self.teacher.method != "moco" or self.teacher.dim != self.dim):
            raise ValueError(f"teacher = a run of method {self.teacher.method!r} with dim = {self.teacher.dim}; allowed: one of "
                             f"method 'moco', whose projections are known, with dim = {self.dim}")

    @property
    def origin(self):
        """Where the first weights come from: random, seed (distilled), self (the same encoder and data before), or another data set."""
        if self.start is None:
            return "random"
        return self.start.method if self.start.method != "moco" else "self" if self.start.data == self.data else self.start.data

    @property
    def all_epochs(self):
        """Epochs of this run and of what it started from, so that arms compare at equal length."""
        return self.epochs + (self.start.all_epochs if self.start else 0)

    @property
    def candidates(self):
        """Keys among which the loss looks for the positive; its chance level is the logarithm of this."""
        if self.method == "simclr":
            return 2 * self.batch_size - 1
        return 1 + self.queue + (self.batch_size - 1 if self.batch_keys else 0)

    @property
    def keys_per_step(self):
        return self.batch_size * (2 if self.symmetric else 1)

    @property
    def augmentation(self):
        brightness, contrast, saturation, hue = self.jitter
        return augment.Augmentation(crop=(self.crop_min, 1.0), brightness=brightness, contrast=contrast,
                                    saturation=saturation, hue=hue, jitter_p=self.jitter_p,
                                    grayscale_p=self.grayscale_p, blur_p=self.blur_p, hide_p=self.hide_p,
                                    standardize=self.standardize)

    def check(self, data):
        """Raise ValueError where this configuration cannot run on `data` (a lib.data.Data)."""
        images = len(data.train.labels)
        if self.epochs and self.batch_size > images:
            raise ValueError(f"batch_size = {self.batch_size} is larger than the {images} training images of {data.name}; "
                             f"allowed: 2 to {images}")
        if self.method in ("moco", "seed") and self.epochs and self.queue >= images:
            raise ValueError(f"queue = {self.queue} is not below the {images} training images of {data.name}, so it would "
                             f"hold the positives; allowed: below {images}, better below {images // 2}")


def cosine_lr(step, total_steps, warmup_steps, peak):
    """Learning rate of `step` (0-based): linear to `peak` over warmup_steps, then half a cosine that reaches 0 at total_steps."""
    if step < warmup_steps:
        return peak * min(1.0, (step + 1) / warmup_steps)                  # min: warmup_steps need not be whole
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, total_steps - warmup_steps)))


def build(config, data, start=None, teacher=None):
    """The method of `config` with its initial weights, a function of config, config.seed and `start` alone; on the CPU.

    start: state dict of the encoder to begin with, weights and BatchNorm statistics; projector, queue and head are new all the same.
    teacher: of method seed, the frozen module (N, 3, S, S) -> (N, dim).
    """
    torch.manual_seed(config.seed)
    encoder = models.encoder(config.arch, size=data.size, stem=config.stem, width=config.width)
    if start is not None:
        encoder.load_state_dict(start)
    if config.method == "supervised":
        return Supervised(encoder, data.train.labels, len(data.classes))
    projector = models.projector(config.projector, encoder.dim, config.dim, bn=config.projector_bn)
    if config.method == "simclr":
        return SimCLR(encoder, projector, config.tau)
    if config.method == "seed":
        return SEED(encoder, projector, teacher, config.queue, config.tau, config.teacher_tau, config.dim)
    return MoCo(encoder, projector, config.queue, config.m, config.tau, config.dim, config.symmetric, config.bn_splits,
                config.batch_keys, config.smoothing)


def compiled(method, device):
    """The method compiled: forward(view0, view1, index). On a GPU its kernels are captured as CUDA graphs, since hundreds of small ones
    take longer to launch than to run (not yet tried on one)."""
    torch._dynamo.reset()                                                  # after eight other methods it would silently compile no more
    inner = torch.compile(method, mode="reduce-overhead" if torch.device(device).type == "cuda" else None)

    def forward(*batch):
        torch.compiler.cudagraph_mark_step_begin()
        return tuple(value.clone() for value in inner(*batch))             # the next replay writes over its own
    return forward


def optimizer_of(config, parameters):
    """AdamW, or SGD with momentum 0.9. Fused: one pass over the memory, where torch's default on a CPU takes a dozen."""
    if config.optimizer == "adamw":
        optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    else:
        optimizer = torch.optim.SGD(parameters, lr=config.lr, momentum=0.9, weight_decay=config.weight_decay, fused=True)
    scattered = [p for p in parameters if p.device.type == "cpu" and p.ndim == 4 and not p.is_contiguous()]

    def turn(optimizer, axes):
        """channels_last weights and all of theirs seen as memory has them, or back: a fused step on a CPU copies what is not contiguous."""
        for p in scattered:
            grad, p.grad = p.grad, None
            p.data = p.data.permute(axes)
            p.grad = None if grad is None else grad.permute(axes)
            state = optimizer.state.get(p, {})
            state.update({name: t.permute(axes) for name, t in state.items() if t is not None and t.ndim == 4})
    if scattered:
        optimizer.register_step_pre_hook(lambda optimizer, *_: turn(optimizer, (0, 2, 3, 1)))
        optimizer.register_step_post_hook(lambda optimizer, *_: turn(optimizer, (0, 3, 1, 2)))
    return optimizer


def pretrain(data, config, monitor=None, stop_after=None, device="cpu", label=None, bar=True, start=None, teacher=None, resume=None,
             every=60, session=None):
    """Train `config` on data.train. Returns (method, history, seconds): one dict and one number per epoch.

    monitor(encoder, epoch) -> dict is merged into the epoch's row (epoch 0: before training); gradient_norm there is the mean over every
    eighth step and the epoch's last. stop_after ends early without changing the schedule. Every random number is a function of (seed,
    epoch, image, operation), so two configurations that differ in one thing see the same images, order and crops. start, teacher: see
    `build`. label: of the progress bar, or of a line per epoch and minute where bar is False (runs side by side); None shows neither.
    resume: path of a checkpoint, written every `every` seconds, when the training is asked to stop, and at its end; where it is there,
    the training goes on from it and ends in the same bytes, given the same device, threads and torch (on a GPU: as far as its kernels
    repeat themselves). session: dict that tells where this process runs, kept in the checkpoint's state, one for each process that had
    a part.
    Raises FloatingPointError on a non-finite loss or gradient, Collapsed on collapsed projections, checkpoint.Interrupted when asked to
    stop, checkpoint.BrokenCheckpoint for one that cannot be gone on from.
    """
    config.check(data)
    method = build(config, data, start, teacher).to(device)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    method = method.to(memory_format=layout)
    forward = compiled(method, device) if config.compile else method
    parameters = [p for p in method.parameters() if p.requires_grad]
    optimizer = optimizer_of(config, parameters)

    images = len(data.train.labels)
    steps = images // config.batch_size                                    # per epoch; the last incomplete batch is dropped
    total, last = config.epochs * steps, config.epochs if stop_after is None else min(stop_after, config.epochs)
    augmentation = replace(config.augmentation, flip_p=0.5 if data.flip else 0.0)
    everyone = torch.arange(images)
    random = torch.default_generator if torch.device(device).type == "cpu" else torch    # which asks every kind of device, on each step
    belongs = {"data": data.checksum, "code": CODE}                        # what else a checkpoint is bound to, beside the configuration
    if resume and resume.exists():
        step, state, (losses, hits, norms) = _resumed(resume, config, belongs, method, optimizer, parameters)
        other = [name for name in ("device", "threads", "torch")
                 if session and {session.get(name)} != {part.get(name) for part in state["sessions"]}]
        if label:
            print(f"    {label}: goes on in epoch {min(step // steps + 1, last)}/{config.epochs}, after step {step} of {total}"
                  + (f"; not to the same bytes, since {' and '.join(other)} changed" if other else ""), flush=True)
    else:
        step, (losses, hits, norms) = 0, ([], [], [])                      # step: of all; losses, hits, norms: of the epoch so far
        state = {"history": [{"epoch": 0, **monitor(method.encoder, 0)}] if monitor else [], "seconds": [], "sessions": [],
                 "epoch_seconds": 0.0, "train_seconds": 0.0}
    history, seconds, began_at = state["history"], state["seconds"], step
    state["sessions"].append({"from_step": step} | (session or {}))
    began = time.perf_counter() - state["train_seconds"]
    kept = time.perf_counter()

    def keep():
        """Store everything that the next step depends on, if it is time or asked for."""
        nonlocal kept
        if not resume or not (asked or step == total or time.perf_counter() - kept >= every):
            return
        state.update(epoch_seconds=time.perf_counter() - started if step % steps else 0.0, train_seconds=time.perf_counter() - began)
        _keep(resume, config, method, optimizer, parameters, (losses, hits, norms), state | belongs | {"step": step})
        kept = time.perf_counter()
        if losses:
            shown.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
        if label and not bar and step % steps:
            print(f"    {label}: epoch {step // steps + 1}/{config.epochs}, step {step % steps}/{steps}, loss {losses[-1]:.3f}", flush=True)
        if asked:
            raise checkpoint.Interrupted(f"stopped by {asked[0]} in epoch {-(-step // steps)} of {config.epochs}; all of it is stored: "
                                         "the same command, or the cell once more, goes on from there")

    shown = tqdm(total=total * config.batch_size, initial=step * config.batch_size, desc=label, unit="img", unit_scale=True, leave=False,
                 disable=not (label and bar and total), mininterval=1 if sys.stderr.isatty() else 10)
    with checkpoint.requests() if resume else nullcontext() as asked, shown:
        for epoch in range(step // max(1, steps), last):
            started = time.perf_counter() - state["epoch_seconds"]
            method.train()
            order = augment.keyed_uniform(everyone, 1, config.seed, epoch, stream=2)[:, 0].argsort(stable=True)
            rest = order[(step - epoch * steps) * config.batch_size:]
            batches = data.train.batches(rest, config.batch_size)
            for index, view0, view1 in augment.views(batches, rest, augmentation, config.seed, epoch):
                view0, view1 = (v.contiguous(memory_format=layout) for v in (view0, view1))
                for group in optimizer.param_groups:
                    group["lr"] = cosine_lr(step, total, config.warmup_epochs * steps, config.lr)
                random.manual_seed(config.seed * 1_000_003 + step)         # dropout and stochastic depth
                with torch.autocast(device_type=torch.device(device).type, dtype=torch.bfloat16,
                                    enabled=config.precision == "bf16"):
                    loss, hit = forward(view0, view1, index.to(device, non_blocking=True))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                if step % WATCH_EVERY == 0 or (step + 1) % steps == 0:
                    norms.append(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
                optimizer.step()
                method.after_step(step)
                losses.append(loss.detach())
                hits.append(hit.detach())
                shown.update(len(index))
                step += 1
                if step % steps:
                    keep()
            row = {"epoch": epoch + 1, "lr": optimizer.param_groups[0]["lr"], **summary(losses, hits, norms, method, epoch)}
            shown.set_postfix(loss=f"{row['loss']:.3f}")
            seconds.append(time.perf_counter() - started)
            state["epoch_seconds"], losses, hits, norms = 0.0, [], [], []
            if label and not bar:
                print(f"    {label}: epoch {epoch + 1}/{config.epochs}, loss {row['loss']:.3f}, "
                      f"{steps * config.batch_size / seconds[-1]:,.0f} images/s", flush=True)
            history.append(row | (monitor(method.encoder, epoch + 1) if monitor else {}))
            keep()
        if total and began_at == total:                                    # whoever only evaluates had a part, too
            keep()
    return method, history, seconds


def _keep(path, config, method, optimizer, parameters, epoch_so_far, state):
    """The checkpoint of a training: all that its next step depends on. Random numbers need no state: they are hashes of where we are."""
    tensors = {f"method.{name}": t for name, t in method.state_dict().items()}
    tensors |= {f"optimizer.{i}.{name}": t for i, p in enumerate(parameters) for name, t in optimizer.state[p].items() if t is not None}
    tensors |= {f"epoch.{i}": torch.stack(part) for i, part in enumerate(epoch_so_far) if part}
    checkpoint.save(path, tensors, state | {"config": asdict(config)})


def _resumed(path, config, belongs, method, optimizer, parameters):
    """Put what `_keep` stored back into method and optimizer. Returns (step, state, (losses, hits, norms) of the epoch so far)."""
    tensors, state = checkpoint.load(path)
    if state.pop("config") != json.loads(json.dumps(asdict(config))):
        raise checkpoint.BrokenCheckpoint(f"{path} is of another configuration")
    for name, now in belongs.items():
        if state.pop(name, None) != now:
            raise checkpoint.BrokenCheckpoint(f"{path} is of other {name} than today's")
    try:
        method.load_state_dict({name.removeprefix("method."): t for name, t in tensors.items() if name.startswith("method.")})
    except RuntimeError as error:                                          # made by other code
        raise checkpoint.BrokenCheckpoint(f"{path} does not fit this code ({str(error).splitlines()[0]})") from None
    for name, t in tensors.items():
        kind, i, *what = name.split(".")
        if kind == "optimizer":                                            # in the memory layout of its parameter
            p = parameters[int(i)].detach()
            optimizer.state[parameters[int(i)]][what[0]] = (torch.empty_like(p).copy_(t) if t.shape == p.shape and what[0] != "step"
                                                            else t.to(p.device))
    device = parameters[0].device
    return state.pop("step"), state, [list(tensors[f"epoch.{i}"].to(device)) if f"epoch.{i}" in tensors else [] for i in range(3)]


def summary(losses, hits, norms, method, epoch):
    """One epoch's numbers, with the only synchronisation of the epoch; raises when training cannot go on."""
    losses, norms = torch.stack(losses), torch.stack(norms)
    bad = ~losses.isfinite()
    if bad.any() or not norms.isfinite().all():
        where = f", at or just before step {bad.nonzero()[0].item()} of it" if bad.any() else ""
        raise FloatingPointError(f"the loss or its gradient is not finite in epoch {epoch + 1}{where}: lower lr, raise tau, or use "
                                 "precision = 'fp32'")
    row = {"loss": losses.mean().item(), "accuracy": torch.stack(hits).mean().item(), "gradient_norm": norms.mean().item()}
    if not isinstance(method, Supervised):
        z = torch.cat(method.new_keys)
        row["z_spread"] = (z.std(0).mean() * z.shape[1] ** 0.5).item()     # 1: spread over the sphere; 0: all the same point
        if row["z_spread"] < 1e-3:
            more = f", raise m (now {method.m}), or raise queue (now {len(method.queue)})" if isinstance(method, MoCo) else " or raise tau"
            raise Collapsed(f"the projections have collapsed to one point in epoch {epoch + 1}: lower lr{more}")
    return row
