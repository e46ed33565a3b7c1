"""What each notebook compares: profile -> list of PretrainConfig. And `python -m lib.studies`, which trains what is missing.

Adding an encoder, a value or a data set here or in lib.models carries through to tables, figures and ledger.
"""
import argparse
import ast
import math
import signal
import sys
import time
import warnings
from collections import Counter
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import wraps

import numpy as np
import pandas as pd
import torch

from lib import check_name, claims, models, positive, runs, schedule
from lib import data as datasets
from lib.train import PretrainConfig

# Chosen by `search` on val with a seed that the study does not use; tests/test_studies.py compares this table with the stored runs.
CHOSEN = {                                             # encoder -> (peak learning rate, weight decay)
    "mobilenet_v3_small": (2e-3, 0.01), "deit_tiny": (2e-4, 0.1), "efficientnet_b0": (6e-3, 0.01), "mobilenet_v3_large": (6e-4, 0.1),
    "resnet18": (6e-4, 0.1), "resnet50": (2e-3, 0.01)}
SEARCH_LRS = (6e-5, 2e-4, 6e-4, 2e-3, 6e-3, 2e-2)
FINALISTS = {                                          # encoder -> the two best learning rates of the grid, best first
    "mobilenet_v3_small": (2e-2, 2e-3), "deit_tiny": (2e-4, 6e-5), "efficientnet_b0": (6e-3, 2e-2), "mobilenet_v3_large": (2e-3, 6e-4),
    "resnet18": (2e-3, 6e-4), "resnet50": (2e-3, 6e-3)}
SHORT_LRS = SEARCH_LRS[1:5]   # of the shorter search on photographs; PHOTOGRAPHS: what it chose on cifar10_subset
PHOTOGRAPHS = {"mobilenet_v3_small": (6e-4, 0.01), "deit_tiny": (2e-4, 0.1), "efficientnet_b0": (2e-4, 0.01),
               "mobilenet_v3_large": (6e-4, 0.1), "resnet18": (6e-4, 0.1), "resnet50": (6e-4, 0.01)}
SEARCH_WEIGHT_DECAY = 0.1     # tried at the best learning rate, against the profile's own
SEARCH_SEED, FINAL_SEED = 100, 101
# What `tau_search` and `recipe_search` found on val, with these two seeds as well; tests/test_studies.py compares it with the stored runs.
TAU_LRS = {                   # encoder -> {temperature: its best learning rate} (best_rates)
    "mobilenet_v3_small": {0.02: 2e-3, 0.05: 2e-3, 0.1: 6e-4, 0.2: 6e-4, 0.5: 6e-3, 1.0: 6e-4}}
UNION = {}                    # what helps in the first stage of the search for a recipe, together (helpful): its second stage; {}: nothing
SINGLES = (claims.COOLER, {"tau": 0.5}, claims.WIDER, {"projector": "mlp2048"}, {"projector_bn": True}, {"crop_min": 0.5},
           {"crop_min": 0.08}, {"blur_p": 0.0})     # its first stage, beside the longest queue


@dataclass(frozen=True)
class Profile:
    """How much of the study, on what. base: the configuration that its arms start from."""

    base: PretrainConfig
    encoders: tuple = (*models.SMALL, models.LARGE)
    seeds: int = 3                                     # per encoder, numbered from 0 and fixed beforehand
    seeds_of: dict = field(default_factory=lambda: {"mobilenet_v3_small": 5, "resnet18": 5})   # where it differs
    ceilings: tuple | None = None                      # encoders trained with labels too; None: all
    widths: tuple = (0.25, 0.5, 2.0)                   # of ResNet-18; 1.0 is in the table anyway
    extra: dict = field(default_factory=dict)          # arch -> fields that differ (with the reason beside it)
    remedied: tuple = claims.REMEDIED                  # encoders on which remedies are tried one at a time
    together: tuple = ()                               # others that notebook 08 tries them on, together, where nothing is swept
    queues: tuple = (128, 512, 2048)                   # lengths of the queue that are tried
    sweeps: bool = True                                # False: one arm of each remedy
    once: bool = False                                 # True: a remedy has one seed, whatever its baseline has
    long: int = 0                                      # epochs of the few long runs (anchors); 0: none
    copies: tuple = ()                                 # data sets that its committed runs may rest on instead, other bytes of the same
    repeats: str = ""                                  # the profile whose main arms of notebook 08 this one trains on other seeds, alone
    transfers: int = 100                               # runs whose transfer notebook 08 computes, at most; the others say so
    rates: dict | None = None                          # as CHOSEN, where a search on the profile's own data chose them; None: CHOSEN

    @property
    def first_seed(self):
        """Of a repetition, those that nobody had seen when its rules were written begin here."""
        return claims.UNSEEN if self.repeats else 0


# A short schedule on a small set, chosen on val with MobileNetV3-Small and a seed that the study does not use. AdamW: SGD was much
# slower to start. Keys of the batch as negatives and a short queue: the encoder moves so fast here that it tells the positive from
# an older queue by age alone (its accuracy in the loss is high at first and *falls* as the learning rate does). One BatchNorm
# group: four shuffled ones did not help and took longer.
TEXTURES = PretrainConfig(data="textures", queue=128, batch_keys=True, m=0.99, bn_splits=1, epochs=16, batch_size=128,
                          optimizer="adamw", lr=1e-3, weight_decay=0.01, standardize="image")
# On one thread, two runs side by side, bf16 makes ResNets and DeiT faster and the depthwise networks slower, so each encoder takes
# what suits it (results/bench/switches.csv has one of each kind; python -m lib.bench --only switches --archs measures others).
FASTER = {arch: {"precision": "bf16"} for arch in ("resnet18", "resnet50", "deit_tiny")}
PROFILES = {
    # tests: all notebooks in minutes; numbers mean nothing
    "smoke": Profile(replace(TEXTURES, limit=512, epochs=3, batch_size=64, queue=128),
                     encoders=("mobilenet_v3_small", "resnet18", "resnet50"), seeds=1, seeds_of={}, ceilings=("mobilenet_v3_small",),
                     widths=(0.25,), remedied=("mobilenet_v3_small",), queues=(128, 256), sweeps=False, transfers=1),
    # a reader's own machine, within `make report`; half the images, since an evaluation takes as long as these trainings
    "quick": Profile(replace(TEXTURES, limit=5000, epochs=6), encoders=("mobilenet_v3_small", "resnet18", "resnet50"),
                     seeds=1, seeds_of={"mobilenet_v3_small": 2}, ceilings=("mobilenet_v3_small",), widths=(),
                     extra=FASTER, remedied=("mobilenet_v3_small",), queues=(128, 2048), sweeps=False, once=True, transfers=2),
    # the controlled study; width 2 would take half an hour of its twelve and is no longer small
    "textures": Profile(TEXTURES, extra=FASTER, widths=(0.25, 0.5)),
    # notebook 08's main arms of two encoders again, on seeds and a teacher that nobody had seen when the rules were written
    "textures_again": Profile(TEXTURES, repeats="textures", extra=FASTER, encoders=(*claims.REMEDIED, models.LARGE), seeds=5,
                              seeds_of={models.LARGE: 1}, ceilings=claims.REMEDIED, widths=(), remedied=(), sweeps=False),
    # photographs without a GPU: more resolution than the ImageNet stem leaves, or ResNet-18 stays at its untrained kNN
    "cifar10_subset": Profile(replace(TEXTURES, data="cifar10_jpeg", limit=10_000, stem="stride1", epochs=20),
                              encoders=tuple(PHOTOGRAPHS), seeds_of={}, widths=(), sweeps=False,
                              extra={arch: FASTER[arch] for arch in ("deit_tiny", models.LARGE)},     # ResNet-18's runs are older
                              remedied=("mobilenet_v3_small",),                 # of the others a run takes up to 40 minutes
                              together=("efficientnet_b0", "mobilenet_v3_large", "resnet18"), rates=PHOTOGRAPHS),
    # the same of MobileNetV3-Small alone (ResNet-18: half an hour a run), and without a teacher, which two cores cannot train
    "cifar10_subset_again": Profile(replace(TEXTURES, data="cifar10_jpeg", limit=10_000, stem="stride1", epochs=20),
                                    repeats="cifar10_subset", encoders=("mobilenet_v3_small",), seeds=5, seeds_of={}, widths=(),
                                    remedied=(), sweeps=False, rates=PHOTOGRAPHS),
    # photographs with one GPU: the settings of the MoCo authors' CIFAR-10 notebook, but the paper's projector and temperature, and a
    # tenth of their epochs, so that six encoders fit in half an hour
    "cifar10": Profile(replace(TEXTURES, data="cifar10", stem="cifar", queue=4096, batch_keys=False, bn_splits=8, epochs=20,
                               batch_size=512, optimizer="sgd", lr=0.06, weight_decay=5e-4, standardize="imagenet",
                               precision="bf16", blur_p=0.0, crop_min=0.08), queues=(512, 4096, 16384),
                       long=200, copies=("cifar10_jpeg",)),
    # the paper's own scale and recipe
    "imagenet": Profile(PretrainConfig(data="folder:imagenet", precision="bf16"), seeds=1, seeds_of={}, widths=(),
                        queues=(1024, 4096, 16384, 65536)),
}
# Profiles whose runs are in git, the richest first.
COMMITTED = ("textures", "textures_again", "cifar10_subset", "cifar10_subset_again", "cifar10")


def profile(name):
    """The Profile of that name; ValueError, with the nearest name, where there is none."""
    check_name("profile", name, PROFILES)
    return PROFILES[name]


def seeds(name, arch):
    """The seeds of an encoder in a profile, fixed beforehand: five for two encoders, three for the others (design)."""
    p = profile(name)
    return range(p.first_seed, p.first_seed + p.seeds_of.get(arch, p.seeds))


def base(name, arch, data=None, **changes):
    """The configuration that an arm of `arch` starts from; data overrides the profile's data set."""
    p = profile(name)
    start = replace(p.base, **({"data": data} if data else {}))
    if start.optimizer == "adamw":
        lr, weight_decay = (p.rates or CHOSEN).get(arch, (start.lr, start.weight_decay))
        start = replace(start, lr=lr, weight_decay=weight_decay)
    return replace(start, arch=arch, **p.extra.get(arch, {}), **changes)


def chosen(name, archs=None):
    """The encoders of a profile, or those asked for instead: a list of names, or a text such as "resnet18,resnet50"."""
    archs = [a.strip() for a in archs.split(",") if a.strip()] if isinstance(archs, str) else archs
    if archs is not None and not isinstance(archs, (list, tuple)):
        raise ValueError(f"archs = {archs!r}; allowed: a list of encoders, or a text such as resnet18,resnet50")
    for arch in archs or ():
        check_name("archs", arch, [known for known in models.ENCODERS if known != "pixels"])
    return tuple(dict.fromkeys(archs or profile(name).encoders))


def encoders(name, data=None, archs=None):
    """Every encoder, every seed: the arms of notebooks 01 and 02."""
    return [base(name, arch, data, seed=seed) for arch in chosen(name, archs) for seed in seeds(name, arch)]


def search_note(name, arms):
    """Where the peak learning rates and weight decays of the arms of a profile come from, in a sentence for each origin."""
    rates, own = {c.arch: c for c in arms}, profile(name).rates
    found = {arch: c for arch, c in rates.items() if c.optimizer == "adamw" and arch in (own or CHOSEN)}
    tried = SHORT_LRS if own else SEARCH_LRS

    def listed(some):
        edge = {min(tried): " (the least rate that was tried)", max(tried): " (the greatest rate that was tried)"}
        return ", ".join(f"{models.ENCODERS[arch].label} {c.lr:g} and {c.weight_decay:g}{edge.get(c.lr, '') if arch in found else ''}"
                         for arch, c in some.items())
    lines = []
    if found:
        data = ", ".join(dict.fromkeys(c.data for c in found.values()))
        searched = profile(name).base.data if own else TEXTURES.data
        elsewhere = "" if data == searched else f", not on {data}"
        lines.append(f"peak learning rates and weight decays chosen by the search on a part of train of {searched}"
                     f"{elsewhere}: {listed(found)}")
    if len(found) < len(rates):
        lines.append("peak learning rates and weight decays that are the profile's own, without a search: "
                     + listed({arch: c for arch, c in rates.items() if arch not in found}))
    return "\n".join(lines)


def untrained(configs):
    """The same encoders before training, each once."""
    return list(dict.fromkeys(runs.untrained(c) for c in configs))


def pixels(name, data=None):
    """What raw pixels say: the identity as an encoder, untrained."""
    return [runs.untrained(replace(base(name, "mobilenet_v3_small", data), arch="pixels"))]


def supervised(name, data=None, archs=None):
    """The labels, by the same recipe: encoder, views, epochs and learning rate; one seed. A lower bound of the ceiling, for the
    recipe suits contrastive training. Of `archs`, those that the profile trains with labels."""
    ceilings = profile(name).ceilings
    return [base(name, arch, data, method="supervised", seed=profile(name).first_seed) for arch in chosen(name, archs)
            if ceilings is None or arch in ceilings]


def widths(name, data=None, archs=None):
    """ResNet-18 at several widths: size without a change of architecture. None where `archs` lacks it."""
    p = profile(name)
    return [base(name, "resnet18", data, width=width, seed=seed)
            for width in p.widths for seed in range(p.seeds) if not archs or "resnet18" in chosen(name, archs)]


def search(name, data=None, archs=None):
    """The search on val, a quarter of the schedule, on seeds of its own and with the same budget for each encoder.

    Six learning rates; the two best again with another seed, for one is a lottery; then another weight decay at the one that is the
    better on average. Shorter where a profile has rates of its own: four learning rates, the weight decay of CHOSEN.
    """
    start = profile(name).base
    if profile(name).rates is not None:
        return [base(name, arch, data, lr=lr, weight_decay=CHOSEN.get(arch, (lr, start.weight_decay))[1], seed=SEARCH_SEED,
                     epochs=max(1, start.epochs // 4), evaluation="val") for arch in chosen(name, archs) for lr in SHORT_LRS]
    wanted = [(arch, *rest) for arch in chosen(name, archs) for rest in [
        *((lr, start.weight_decay, SEARCH_SEED) for lr in SEARCH_LRS),
        *((lr, start.weight_decay, FINAL_SEED) for lr in FINALISTS.get(arch, ())),
        *([(CHOSEN[arch][0], SEARCH_WEIGHT_DECAY, SEARCH_SEED)] if arch in CHOSEN else [])]]
    return [base(name, arch, data, lr=lr, weight_decay=weight_decay, seed=seed, epochs=max(1, start.epochs // 4), evaluation="val")
            for arch, lr, weight_decay, seed in wanted]


def tau_search(name, data=None, archs=None):
    """A learning rate for each temperature: of the first remedied encoder, the three of the grid nearest to its own, on val, a quarter of
    the schedule. At the baseline's temperature `search` has them. Nothing where a profile sweeps nothing or has another optimiser."""
    p, found = profile(name), []
    for arch in remedied(name, archs)[:1] if p.sweeps and p.base.optimizer == "adamw" else ():
        standard = base(name, arch, data, epochs=max(1, p.base.epochs // 4), evaluation="val")
        rates = sorted(sorted(SEARCH_LRS, key=lambda lr: abs(math.log(lr / standard.lr)))[:3])
        found += [replace(standard, tau=tau, lr=lr, seed=seed) for tau in TAUS for lr in rates for seed in (SEARCH_SEED, FINAL_SEED)]
    return found


def best_rates(table):
    """{encoder: {temperature: the learning rate with the best kNN on val}} from a table of the runs of `tau_search`."""
    means = table.groupby(["arch", "tau", "lr"], as_index=False).knn_val.mean()
    best = means.loc[means.groupby(["arch", "tau"]).knn_val.idxmax()]
    return {arch: dict(zip(part.tau, part.lr)) for arch, part in best.groupby("arch")}


def recipe_search(name, data=None, archs=None):
    """Our own recipe: single departures from the baseline, then those together that help (UNION), on every remedied encoder, both seeds
    of the search, on val, half the schedule. Nothing where a profile sweeps nothing or has another optimiser."""
    p = profile(name)
    changes = [{}, *SINGLES, {"queue": max(queues_of(name, data))}, UNION] if p.sweeps and p.base.optimizer == "adamw" else []
    return list(dict.fromkeys(
        base(name, arch, data, seed=seed, epochs=max(1, p.base.epochs // 2), evaluation="val", **change)
        for change in changes for arch in remedied(name, archs) for seed in (SEARCH_SEED, FINAL_SEED)))


def recipe_gains(table, standard=TEXTURES):
    """What each recipe gains in kNN on val over the baseline, per encoder, mean over seeds: {recipe: array}, a recipe as a sorted tuple of
    (field, value), from a table of the runs of `recipe_search`. One that lacks a run that the baseline has is left out."""
    return {recipe: np.array([np.mean(list(of_seeds.values())) for of_seeds in found.values()])
            for recipe, found in _recipe_gains(table, standard).items()}


def _recipe_gains(table, standard=TEXTURES):
    """{recipe: {encoder: {seed: gain in kNN on val}}}, as `recipe_gains`."""
    fields, knn = sorted({field for change in SINGLES for field in change} | {"queue"}), {}
    for row in table.sort_values("seed").to_dict("records"):
        recipe = tuple((field, row[field]) for field in fields if row[field] != getattr(standard, field))
        knn.setdefault(recipe, {}).setdefault(row["arch"], {})[row["seed"]] = row["knn_val"]
    whole = {arch: set(of_seeds) for arch, of_seeds in knn[()].items()}
    return {recipe: {arch: {seed: found[arch][seed] - knn[()][arch][seed] for seed in found[arch]} for arch in whole}
            for recipe, found in knn.items() if recipe and {arch: set(of_seeds) for arch, of_seeds in found.items()} == whole}


def rate_choices(table):
    """What the search for a rate per temperature saw, from a table of its runs of one encoder: a row per temperature, a column per learning
    rate, kNN accuracy on val in percent: the mean and in brackets each seed's."""
    cells = table.sort_values("seed").groupby(["tau", "lr"]).knn_val.agg(_seed_by_seed).unstack()
    return cells.rename_axis(index="temperature", columns="learning rate")


def _seed_by_seed(values, sign=""):
    """Fractions as percent or points: the mean, and in brackets each."""
    return f"{100 * np.mean(values):{sign}.1f} ({', '.join(f'{100 * value:{sign}.1f}' for value in values)})".replace("-", "−")


def recipe_choices(table, name=TEXTURES.data):
    """What the search for our recipe saw, from a table of its runs: a row per departure, in words, the best on average first; a column per
    encoder with the gain in kNN on val, points, and in brackets each seed's."""
    found, gains, rows = _recipe_gains(table), recipe_gains(table), []
    for recipe in sorted(gains, key=lambda r: -gains[r].mean()):
        words = change(replace(base(name, claims.REMEDIED[0]), **dict(recipe)), name)
        rows.append({"departure": words} | {models.ENCODERS[arch].label: _seed_by_seed(list(of_seeds.values()), "+")
                                            for arch, of_seeds in found[recipe].items()})
    return pd.DataFrame(rows)


def helpful(table):
    """UNION: of each field its best single value, where that gains on average over the encoders and loses on none."""
    gains, best = recipe_gains(table), {}
    for recipe in sorted((r for r in gains if len(r) == 1), key=lambda r: gains[r].mean()):
        best[recipe[0][0]] = recipe                                        # the last is the best
    return dict(recipe[0] for recipe in best.values() if gains[recipe].mean() > 0 and gains[recipe].min() >= 0)


def our_recipe(table):
    """claims.OURS: what helps, together, if that gains on average at least what the best of it gains alone, else that; {} if nothing
    helps. Raises KeyError while the runs of what helps together are not in the table."""
    gains, union = recipe_gains(table), helpful(table)
    return max([union, *({field: value} for field, value in union.items())],
               key=lambda recipe: gains[tuple(sorted(recipe.items()))].mean() if recipe else 0)


def searches(name, data=None, archs=None):
    """Everything that chooses something on val: learning rates; of the remedied encoders also those of a temperature, and a recipe."""
    few = [arch for arch in chosen(name, archs) if arch in profile(name).remedied]
    more = [*tau_search(name, data, few), *recipe_search(name, data, few)] if few else []
    return list(dict.fromkeys([*search(name, data, archs), *more]))


# ---- the remedies: notebooks 03 to 08 ----

TAUS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
STRENGTHS = (0.25, 1.5)             # of the colours, the official code's --cj; the paper's recipe is 1.0 with greyscale 0.5
PROJECTORS = ("linear", "simple", "wide", "deep", "dropout", "mlp256", "mlp4096")
SWEPT = 2                                # seeds of an arm that no claim rests on: a shape to be seen, no verdict
STARTED = 2                              # epochs of the whole that a start takes, as in the official script of MobileNetV3-Large
PAPERS = claims.COOLER | claims.STRONGER | claims.WIDER
PLAIN = {"crop_min": 1.0, "jitter_p": 0.0, "grayscale_p": 0.0, "blur_p": 0.0}     # no augmentation; a component alone departs from it


def colours(strength):
    """Colour jitter of one strength c, as the official code has it: (0.8 c, 0.8 c, 0.8 c, min(0.5, 0.4 c)). Raises ValueError below 0."""
    if not isinstance(strength, (int, float)) or not 0 <= strength < math.inf:
        raise ValueError(f"strengths = {strength!r}; allowed: numbers, 0 or more")
    return {"jitter": (0.8 * strength,) * 3 + (min(0.5, 0.4 * strength),)}


def remedied(name, archs=None):
    """The encoders of a remedy's notebook: those asked for, else those of the profile."""
    return chosen(name, archs) if archs else profile(name).remedied


def value(text):
    """A command line's text as a Python value: number, True, None, list (quotes optional), else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        if text.startswith("[") and text.endswith("]") and text.count("[") == 1:
            return [value(item.strip()) for item in text[1:-1].split(",") if item.strip()]
        return text


def swept(parameter, values):
    """`values`, a list, one value or a text as papermill's -p gives it, as a tuple. Raises ValueError, naming the notebook's parameter,
    where there is none or one comes twice."""
    if isinstance(values, str):
        given = value(values)
        values = [value(part.strip()) for part in given.split(",") if part.strip()] if isinstance(given, str) else given
    values = tuple(values) if isinstance(values, (list, tuple)) else (values,)
    twice = [value for i, value in enumerate(values) if value in values[:i]]
    if not values or twice:
        raise ValueError(f"{parameter} = {list(values)!r}; allowed: one value or more, each once")
    return values


def naming(parameter, field):
    """Decorator of a notebook's function: a value that `field` of a configuration refuses is told of as the `parameter` that gave it."""
    def decorate(study):
        @wraps(study)
        def told(name, data=None, archs=None, *given, **named):
            try:
                return study(name, data, archs, *given, **named)
            except (ValueError, TypeError) as error:
                values = next(iter((*given, *named.values())), None)
                if values is None or not str(error).startswith(f"{field} ="):
                    raise
                raise type(error)(f"{parameter} = {values!r}: {error}") from None
        return told
    return decorate


def queues_of(name, data=None):
    """The lengths of the queue that a profile tries; of a folder's those alone that its training images allow, and the baseline's, which
    is never shortened."""
    p = profile(name)
    there = schedule.extent(data or p.base.data)
    few = there and min(there[1] * 9 // 10, p.base.limit or there[1])     # a tenth chooses hyper-parameters
    return tuple(queue for queue in p.queues if not few or queue < few) or (p.base.queue,)


def tried(name, changes, data=None, archs=None, everywhere=False):
    """Arms that depart from the baseline in each of `changes` (dicts of fields), the untrained encoders first.

    Where a claim rests on the arm (lib.claims.REMEDIES), every seed of every remedied encoder; one where the profile says so. Else SWEPT
    seeds, of the first of them alone unless the caller named `archs` or wants them everywhere. Where nothing is swept, one seed of each.
    """
    p, found = profile(name), []
    everywhere = everywhere or archs or not p.sweeps
    judged = [{}, *({"queue": end(queues_of(name, data))} for end in (min, max)), *(remedy.changes for remedy in claims.REMEDIES)]
    for arch in remedied(name, archs):
        standard = base(name, arch, data)
        for change in changes:
            departs = {key: value for key, value in change.items() if getattr(standard, key) != value}
            rests = departs in judged and not (p.once and departs)
            if rests or everywhere or arch == p.remedied[0]:
                few = seeds(name, arch)[:None if rests else SWEPT if p.sweeps else 1]
                found += [replace(standard, seed=seed, **departs) for seed in few]
    return [*untrained(found), *dict.fromkeys(found)]


def ruled(notebook, elsewhere=None):
    """What the remedies that a notebook's verdicts are on change (lib.claims.REMEDIES), but for starts: arms that it has in any case.
    elsewhere: only those that are judged on a variant of the data set, or only the others."""
    return [r.changes for r in claims.REMEDIES if r.notebook == notebook and r.changes and "start" not in r.changes
            and elsewhere in (None, bool(r.elsewhere))]


@naming("taus", "tau")
def temperature(name, data=None, archs=None, taus=None):
    """Notebook 03: the temperature, all else equal, the learning rate too; and with the one that was chosen for it (TAU_LRS)."""
    everywhere = taus is not None
    taus = swept("taus", taus) if everywhere else TAUS if profile(name).sweeps else (0.1,)
    standard = [base(name, arch, data) for arch in remedied(name, archs) if profile(name).sweeps]
    own = [replace(c, tau=tau, lr=lr, seed=seed) for c in standard if c.optimizer == "adamw" for tau, lr in TAU_LRS.get(c.arch, {}).items()
           if tau in taus and lr != c.lr for seed in seeds(name, c.arch)[:SWEPT]]
    wanted = [{}, *({"tau": tau} for tau in taus), *([] if everywhere else ruled("03_temperature"))]
    return [*tried(name, wanted, data, archs, everywhere), *own]


def by_rate(table):
    """Runs of the temperature as two curves, told by a column `rate`: all that have the baseline's learning rate, and all that have the one
    chosen for their temperature (TAU_LRS), the baseline's temperature included; of an encoder without a choice the first alone."""
    standard = table[table.arm == "trained"]
    first = standard.groupby("arch").lr.first()
    rates = {(row.arch, row.tau): row.lr for row in standard.itertuples() if row.arch in TAU_LRS and row.optimizer == "adamw"} | {
        (arch, tau): lr for arch, found in TAU_LRS.items() for tau, lr in found.items()}
    own = pd.Series([rates.get(pair) for pair in zip(table.arch, table.tau)], index=table.index)
    return pd.concat([table[table.lr == table.arch.map(first)].assign(rate="same learning rate"),
                      table[table.lr == own].assign(rate="learning rate chosen for it")])


@naming("queues", "queue")
def negatives(name, data=None, archs=None, queues=None):
    """Notebook 04: the length of the queue at two temperatures; none at all (keys of the batch alone); SimCLR; and the longest queue
    the other way round about the keys of the batch."""
    p, usual = profile(name), queues_of(name, data)
    longest = max(usual)
    if queues is None and not p.sweeps:
        return tried(name, [{}, {"queue": longest}, *ruled("04_negatives")], data, archs)
    everywhere, queues = queues is not None, usual if queues is None else swept("queues", queues)
    changes = [{}, *({"queue": queue} for queue in queues), *({"queue": queue, "tau": 0.1} for queue in queues),
               {"queue": 0, "batch_keys": True}, {"method": "simclr"}, {"queue": longest, "batch_keys": not p.base.batch_keys},
               *([] if everywhere else ruled("04_negatives"))]
    return tried(name, changes, data, archs, everywhere)


def augmentation(name, data=None, archs=None, strengths=None):
    """Notebook 05: crops and blur alone, no augmentation, Hide-and-Seek; the colours' strength, each component of them alone, neither, no
    augmentation and the paper's recipe. Colours are tried on a tint where the images themselves are grey."""
    if strengths is None and not profile(name).sweeps:
        return tried(name, [{}, *ruled("05_augmentation")], data, archs)
    everywhere, strengths = strengths is not None, STRENGTHS if strengths is None else swept("strengths", strengths)
    start = profile(name).base
    alone = {key: PLAIN | {key: getattr(start, key)} for key in PLAIN}
    shapes = [PLAIN, alone["crop_min"], alone["blur_p"], {"hide_p": 0.5}]
    grey = {"jitter_p": 0.0, "grayscale_p": 0.0}
    hues = [PLAIN, alone["jitter_p"], alone["grayscale_p"], grey, claims.STRONGER, *map(colours, strengths)]
    if not everywhere:
        shapes, hues = shapes + ruled("05_augmentation", elsewhere=False), hues + ruled("05_augmentation", elsewhere=True)
    tinted = next(r for r in claims.REMEDIES if r.name == "augmentation").elsewhere.get(data or start.data)
    if not tinted:
        return tried(name, [{}, *shapes, *hues], data, archs, everywhere)
    return [*tried(name, [{}, *shapes], data, archs, everywhere), *tried(name, [{}, *hues], tinted, archs, everywhere)]


def begun(config, kind, name):
    """`config` with its first epochs spent on a start: "self", the same encoder by the baseline; "seed", distilled from the reference.

    A start is a short run with a schedule and a seed (1000 and more) of its own, so that its views and its projector are others.
    Encoder and its BatchNorm statistics are carried over; projector, queue, optimiser and schedule are new. Epochs in all: the same.
    """
    check_name("start", kind, ("random", "self", "seed"))
    if kind == "random":
        return config
    if config.epochs <= STARTED:
        raise ValueError(f"epochs = {config.epochs}; allowed with a start: more than the {STARTED} that it takes")
    first = replace(base(name, config.arch, config.data, seed=1000 + config.seed), epochs=STARTED, evaluation="val")
    return replace(config, start=distilled(first, name) if kind == "seed" else first, epochs=config.epochs - STARTED)


def distilled(config, name):
    """`config` as SEED's student of the profile's reference (its first seed). The teacher is frozen, so its queue may be long."""
    teacher = base(name, models.LARGE, config.data, seed=profile(name).first_seed)
    return replace(config, method="seed", teacher=teacher, batch_keys=False, tau=0.2, queue=max(queues_of(name, config.data)))


def light(config):
    """light-moco's recipe (Lin et al. 2022) in our terms: wider projector, lower temperature, both views as queries, smoothed labels."""
    queue = -(-config.queue // (2 * config.batch_size)) * 2 * config.batch_size
    return replace(config, projector="mlp2048", tau=0.1, symmetric=True, queue=queue, smoothing=0.1)


@naming("starts", "start")
def initialization(name, data=None, archs=None, starts=None):
    """Notebook 06: where the first weights come from, at equal epochs in all."""
    starts = swept("starts", ("random", "self") + ("seed",) * profile(name).sweeps if starts is None else starts)
    standard = tried(name, [{}], data, archs)
    few = [c for c in standard if c.epochs and not (profile(name).once and c.seed)]
    arms = [begun(c, kind, name) for kind in starts for c in few]
    return list(dict.fromkeys([*standard, *arms, *teachers(arms)]))


def teachers(arms):
    """The teachers behind arms that one distils or starts, so that what they are worth stands beside what they give."""
    return list(dict.fromkeys(c.teacher for arm in arms for c in (arm, arm.start) if c and c.teacher))


@naming("kinds", "projector")
def projectors(name, data=None, archs=None, kinds=None):
    """Notebook 07: the projector's depth, width and dropout; with BatchNorm too."""
    if kinds is None and not profile(name).sweeps:
        return tried(name, [{}, *ruled("07_projector")], data, archs)
    everywhere, kinds = kinds is not None, PROJECTORS if kinds is None else swept("kinds", kinds)
    return tried(name, [{}, *({"projector": kind} for kind in kinds),
                        *({"projector": kind, "projector_bn": True} for kind in kinds if kind in ("simple", "wide", "deep", "dropout")),
                        *([] if everywhere else ruled("07_projector"))], data, archs, everywhere)


SWEEPS = {"taus": temperature, "queues": negatives, "strengths": augmentation, "starts": initialization, "kinds": projectors}


def improved(name, data=None, archs=None):
    """Notebook 08: the paper's remedies together, with the SEED start and without, and our recipe once there is one (claims.OURS), against
    the baseline and SEED alone, all at equal epochs; on the encoders of the remedies also light-moco, each remedy alone and left out, and
    twice the epochs: the baseline on every seed, since that is the rival of any remedy, and, on the first of them, the remedies without a
    teacher on top of it. Where nothing is swept, only the paper's remedies without SEED's start and our recipe, on the encoders of the
    remedies and those of Profile.together. Of a repetition (Profile.repeats) only the baseline, once and for twice the epochs, the paper's
    remedies without SEED's start and, where it has the reference, with it, and that start alone."""
    p = profile(name)
    few = remedied(name, archs)
    small = [arch for arch in chosen(name, archs) if arch != models.LARGE]
    if not small:
        raise ValueError(f"archs = {archs!r}; allowed: at least one encoder beside the reference {models.LARGE}")
    standard = [base(name, arch, data, seed=seed) for arch in small for seed in seeds(name, arch)]
    papers = [replace(c, **PAPERS) for c in standard]
    if p.repeats:
        arms = [begun(c, "seed", name) for c in (*papers, *standard) if models.LARGE in p.encoders]
        return [*untrained(standard), *standard, *papers, *arms, *(replace(c, epochs=2 * c.epochs) for c in standard), *teachers(arms)]
    if not p.sweeps:
        few = remedied(name, archs or [*few, *p.together])
        return [*tried(name, [{}, PAPERS, claims.OURS or {}], data, few), *supervised(name, data, few)]
    first = [c for c in standard if c.seed == 0]
    longer = [c for c in first if c.arch in few]
    three, mine = (claims.COOLER, claims.STRONGER, claims.WIDER), [c for c in standard if c.arch in few]
    alone = [replace(c, **remedy) for remedy in three for c in mine if c.seed < 2 or remedy != claims.STRONGER]     # on a tint in 05
    alone += [begun(c, "seed", name) for c in mine]
    without = [replace(c, **{k: v for k, v in PAPERS.items() if k not in left}) for left in three for c in mine if c.seed < 2]
    return list(dict.fromkeys([
        *untrained(standard), *standard, *(begun(c, "seed", name) for c in papers), *papers,
        *(replace(c, **claims.OURS) for c in standard if claims.OURS), *alone, *(begun(c, "seed", name) for c in without),
        *(distilled(c, name) for c in first), *(light(c) for c in longer), *(replace(c, epochs=2 * c.epochs) for c in mine),
        *(replace(c, **PAPERS, epochs=2 * c.epochs) for c in mine if c.arch == few[0]),
        *(begun(replace(c, **PAPERS, epochs=2 * c.epochs), "seed", name) for c in longer), *supervised(name, data, small),
        *teachers(distilled(c, name) for c in first)]))


WORDS = {"tau": "temperature {:g}", "queue": "K = {}", "projector": "{} projector", "crop_min": "crops from {:g}",
         "hide_p": "Hide-and-Seek", "jitter": "jitter {0[0]:g}, hue {0[3]:g}",
         "jitter_p": "jitter p {:g}", "grayscale_p": "greyscale {:g}", "blur_p": "blur p {:g}",
         "epochs": "{} epochs", "lr": "learning rate {:g}"}
METHODS = {"simclr": "SimCLR", "seed": "SEED alone"}
GROUPS = {"the paper's three": PAPERS, "stronger augmentation": claims.STRONGER, "no augmentation": PLAIN,
          "no queue": {"queue": 0, "batch_keys": True}} | {
    f"{name} alone": {key: value for key, value in PLAIN.items() if key != field}
    for field, name in (("crop_min", "crops"), ("jitter_p", "jitter"), ("grayscale_p", "greyscale"), ("blur_p", "blur"))}


def change(config, name):
    """What an arm of a profile changes of its encoder's baseline, in words; "" for the baseline itself and what is no arm of MoCo."""
    standard = base(name, config.arch, config.data, seed=config.seed)
    if config.method == "supervised" or not config.epochs or config.width != standard.width:
        return ""
    if config == light(standard):
        return "light-moco's recipe"
    if config.method in METHODS:
        return METHODS[config.method]
    differs = {f: getattr(config, f) for f in standard.__dataclass_fields__ if getattr(config, f) != getattr(standard, f)}
    parts = []
    if config.start:
        parts.append({"seed": "SEED start", "self": "own start"}.get(config.origin, f"start on {config.origin}"))
        del differs["start"]
        if config.all_epochs == standard.epochs:
            del differs["epochs"]
        else:
            differs["epochs"] = config.all_epochs
    ours = claims.OURS == differs and bool(differs)
    for words, group in GROUPS.items():
        if group.items() <= {f: getattr(config, f) for f in group}.items() and set(differs) & set(group):
            parts.append(words)
            differs = {f: value for f, value in differs.items() if f not in group}
    if parts == ["SEED start", "the paper's three"]:
        parts = ["the paper's four"]
    flags = {"projector_bn": "BatchNorm in the projector", "batch_keys": "keys of the batch" if config.batch_keys else "queue alone"}
    parts += [WORDS[f].format(value) if f in WORDS else flags.get(f, f"{f} = {value}") for f, value in differs.items()]
    return ", ".join(parts) if not ours else "our recipe" if len(claims.OURS) > 1 else f"{parts[0]} (our recipe)"


def remedies(name, data=None, archs=None):
    """Everything that notebooks 03 to 08 train: first, seed by seed, the arms that claims rest on, which have more than SWEPT seeds."""
    studies = [initialization, temperature, augmentation, projectors, negatives]
    studies += [improved] if set(chosen(name, archs)) != {models.LARGE} else []
    arms = list(dict.fromkeys(c for study in studies for c in study(name, data, archs)))
    first = {c: replace(c, seed=0, start=c.start and replace(c.start, seed=0)) for c in arms}
    count = Counter(first.values())
    return sorted(arms, key=lambda c: (count[first[c]] <= SWEPT, c.seed))


def headline(name, data=None, archs=None):
    """The first seed of every encoder: the baseline, itself untrained and with labels, and the paper's remedies from a random start."""
    if not profile(name).sweeps:
        return []
    first = [c for c in encoders(name, data, archs) if c.seed == profile(name).first_seed]
    return [*pixels(name, data), *untrained(first), *first, *(replace(c, **PAPERS) for c in first if c.arch != models.LARGE),
            *supervised(name, data, archs)]


def anchors(name, data=None, archs=None):
    """Long runs of a profile that says how long: the MoCo authors' notebook on ResNet-18, whose kNN is known (results/reference), with one
    query view and with both (lib.summary.check_on_photographs); the baseline of MobileNetV3-Small and ResNet-18."""
    p = profile(name)
    both = [base(name, arch, data, epochs=p.long) for arch in claims.REMEDIED if p.long and arch in chosen(name, archs)]
    known = [replace(c, projector="linear", tau=0.1, symmetric=s) for c in both if c.arch == "resnet18" for s in (False, True)]
    return [*known, *both]


def plan(name, data=None, archs=None):
    """Everything that a profile trains, of `archs` if they are given, in the order in which it is worth most."""
    parts = (headline, observations, remedies, anchors)
    return list(dict.fromkeys(c for part in parts for c in part(name, data, archs)))


def observations(name, data=None, archs=None):
    """Everything that notebooks 01 and 02 train, in the order in which it is worth most."""
    arms = encoders(name, data, archs)
    by_seed = [[c for c in arms if c.seed == seed] for seed in sorted({c.seed for c in arms})]
    wanted = [*pixels(name, data), *untrained(by_seed[0]), *by_seed[0], *supervised(name, data, archs)]
    for same in by_seed[1:]:                                               # one seed of everything before the next of any
        wanted += [*untrained(same), *same]
    return list(dict.fromkeys([*wanted, *untrained(widths(name, data, archs)), *widths(name, data, archs)]))


def stored(name, data=None, study=plan):
    """The runs of a study of a profile that are stored, in its order: what tables and ledger rest on."""
    wanted = [c for given in ([data] if data else [None, *profile(name).copies]) for c in study(name, given)]
    return [runs.load(path) for c in wanted if (path := runs.folder(c, name)).exists()]


def pending(names, profile_name, data=None, archs=None, study=plan):
    """How many of the runs that a study of a profile plans are not among `names` of runs, as a list of at most one sentence."""
    planned = [{runs.folder(c, profile_name).name for c in study(profile_name, given, archs)}
               for given in ([data] if data else [None, *profile(profile_name).copies])]
    planned = min(planned, key=lambda wanted: len(wanted - set(names)))    # on the data set, or on its copy
    lacking = len(planned - set(names))
    if not lacking:
        return []
    where = "" if study is plan else " in this notebook"
    rest = study is plan and not pending(names, profile_name, data, archs, observations)
    return [f"Of {len(planned)} runs planned for {profile_name}{where}, {lacking} are not trained yet"
            + (", all of remedies: verdicts on these" if rest else ": verdicts")
            + " rest on the others, some on fewer seeds than were fixed for them, and may change."]


def gather(name, configs, train=True, study=observations):
    """What a notebook compares: {profile: [Run]}, the runs of `configs` in profile `name` and what is stored of the same `study` (one
    of the functions above) of each committed profile.

    train=False leaves out what is not stored yet instead of training it.
    """
    mine = [c for c in dict.fromkeys(configs) if train or runs.folder(c, name).exists()]
    unchanged([c for c in mine if train and runs.folder(c, name).exists()], name)
    for config in mine:                                                    # whatever cannot run says so before anything is trained
        if not runs.folder(config, name).exists():
            check(config)
    found = {name: [runs.run_or_load(c, name) for c in mine]} | {other: stored(other, study=study) for other in COMMITTED if other != name}
    return {p: some for p, some in found.items() if some}


def transferred(table, loaded, name, train=True, archs=None, target="digits"):
    """What encoders are worth on another data set: (rows of compared's `table` with `linear_{target}` and `fine_tuned_{target}`, sentences
    that say how many more of them there might be).

    Of the remedied encoders, seeds 0 to 2: the baseline, untrained, the paper's remedies with the SEED start and without, supervised.
    What is not stored (runs.transfer) is computed for runs of profile `name` whose weights are here, at most Profile.transfers of them,
    the baseline first; nothing with train=False.
    """
    found, sentences = [], []
    for p, some in loaded.items():
        few = remedied(p, archs if p == name else None)
        rows = table[(table.profile == p) & table.arch.isin(few) & (table.seed < 3) & (table.width == 1)
                     & table.change.isin(["", "the paper's three", "the paper's four"])]
        rows = rows.assign(rank=rows.arm.map({"trained": 0, "untrained": 1}).fillna(2)).sort_values(["seed", "rank"], kind="stable")
        by, lacking = {run.name: run for run in some}, 0
        for i, row in enumerate(rows.to_dict("records")):
            try:
                worth = runs.transfer(by[row["run"]], target, train and p == name and i < profile(p).transfers)
                found.append(row | {f"{kind}_{target}": accuracy for kind, accuracy in worth.items()})
            except FileNotFoundError:
                lacking += 1
        if lacking:
            most = f", for {profile(p).transfers} of them at most" if profile(p).transfers < len(rows) else ""
            sentences.append(f"{p}: {lacking} of {len(rows)} runs have no transfer to {target} stored; it is computed where their weights "
                             f"are, with profile = {p!r} and train = True{most}.")
    return pd.DataFrame(found, columns=[*table, f"linear_{target}", f"fine_tuned_{target}"]), sentences


def check(config):
    """Raise ValueError where `config`, its start or its teacher cannot run on its data, or what comes of it cannot be evaluated there."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for c in (config, *runs.needs(config)):
        data = runs.load_data(c.data, c.limit, device)
        c.check(data)
        with torch.device("meta"):                                         # shapes alone: a side that an encoder cannot take
            models.encoder(c.arch, data.size, c.stem, c.width)
        least = max(2, -(-5 // len(data.classes)))                         # pairs within a class; five images for top-5 accuracy
        sides = {"train": "training images beside those of val", "test": "held-out images"} if c.evaluation == "full" else {}
        for side, words in sides.items():
            counts = getattr(data, side).labels.bincount(minlength=len(data.classes)).tolist()
            for name, count in zip(data.classes, counts, strict=True):
                if count < least:
                    raise ValueError(f"data = {c.data!r}: class {name!r} has {count} {words}; allowed: {least} or more, which "
                                     "the evaluation needs")


def unchanged(configs, name):
    """Raise ValueError where a stored run of `configs` was trained on other images than its folder holds now."""
    for c in configs:
        if c.data.startswith("folder:"):
            run = runs.load(runs.folder(c, name))
            if run.provenance["data_checksum"] != runs.load_data(c.data, c.limit).checksum:
                raise ValueError(f"data = {c.data!r}: {run.path} was trained on other images than lie there now; allowed: the same images, "
                                 "or a folder of another name; or move the run aside")


def labelled(found):
    """runs.tidy of Runs with the columns `change`, what an arm departs in, and `arm`: `remedy` where it departs from the baseline."""
    from lib import plots  # not at the top: training does without matplotlib
    found = list(found)
    table = plots.arms(runs.tidy(found))
    changes = [change(run.config, run.path.parent.name) for run in found]
    return table.assign(change=changes, arm=[("remedy" if c else arm) if arm == "trained" else arm for c, arm in zip(changes, table.arm)])


def compared(name, configs, train=True, study=observations):
    """What the figures of a notebook are drawn from: (loaded, table, tables, history, figures).

    loaded: `gather`'s {profile: [Run]}; table: a row per run, with its arm (`remedy` where it departs from the baseline) and `change`,
    what it departs in, and completeness at equal purity (plots.matched: the reference's for the observations, else an encoder's own
    baseline's); tables: {profile: its part of table}; history: a row per epoch of the trained arms; figures: {profile: title} of the
    profiles to draw: the notebook's own and textures, for the observations and the recipes every committed one but repetitions.
    """
    from lib import plots  # not at the top: training does without matplotlib
    loaded = gather(name, configs, train, study)
    if not loaded:
        raise ValueError(f"train = {train!r}, and no run of profile {name} nor of a committed one is stored; allowed: True, or a profile "
                         "with stored runs")
    for p in [p for p in COMMITTED if p in loaded and {run.config.data for run in loaded[p]} & {profile(p).base.data, *profile(p).copies}]:
        for sentence in pending([path.name for path in runs.paths(p)], p, study=study):
            print(sentence)
    table = plots.matched(labelled(run for found in loaded.values() for run in found), models.LARGE if study is observations else None)
    tables = dict(tuple(table.groupby("profile", sort=False)))
    history = runs.histories(run for found in loaded.values() for run in found)
    history = history[history.run.isin(table[table.arm.isin(["trained", "remedy"])].run)].merge(table[["profile", "run", "change"]])
    figures = {p: f"{p}{'' if t.data.iloc[0] == p else f': {plots.plain(t.data.iloc[0])}'}, "
                  f"{t.epochs[t.arm == 'trained'].max()} epochs" for p, t in tables.items() if (t.arm == "trained").any()
               and (p in (name, "textures") or study in (observations, improved) and not profile(p).repeats)}
    return loaded, table, tables, history, figures


def check_parameters(namespace, *known):
    """Raise TypeError, with the nearest name, for a parameter that papermill injected into a notebook and that is none of `known`, and
    for a text or a truth value that is none.

    papermill alone warns and runs the defaults. namespace: the notebook's globals(); what is injected begins with "# Parameters" and
    follows the cell of the defaults.
    """
    def assigned(cell):
        return {target.id: node.value for node in ast.parse(cell).body if isinstance(node, ast.Assign)
                for target in node.targets if isinstance(target, ast.Name)}
    cells, defaults = namespace.get("In", ()), {}
    for before, cell in zip(["", *cells], cells):
        if not cell.lstrip().startswith("# Parameters"):
            continue
        with suppress(SyntaxError):                                        # a magic, in a cell that was run by hand before it
            defaults = {name: node.value for name, node in assigned(before).items() if isinstance(node, ast.Constant)}
        for name in assigned(cell):
            if name not in known:
                close = get_close_matches(name, known, n=1, cutoff=0.4)
                raise TypeError(f"no parameter {name!r}{f'; did you mean {close[0]!r}?' if close else ''} (there are: {', '.join(known)})")
            given, kind = namespace.get(name), type(defaults.get(name))
            if kind in (bool, str) and not isinstance(given, kind):
                raise TypeError(f"parameter {name} = {given!r}; allowed: {'True or False' if kind is bool else 'a text'}, as its default "
                                f"{defaults[name]!r}")


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m lib.studies", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="quick", help=f"one of {', '.join(PROFILES)}")
    parser.add_argument("--data", help="a data set instead of the profile's, for instance folder:/my/images")
    parser.add_argument("--archs", help="encoders instead of the profile's, for instance resnet18,resnet50")
    parser.add_argument("--only", choices=("all", "observations", "remedies", "search"), default="all",
                        help="notebooks 01 and 02, 03 to 08, or the searches for learning rates and for our recipe alone")
    parser.add_argument("--match", metavar="TEXT", help="only runs, of the study or the search, whose folder's name contains TEXT")
    parser.add_argument("--jobs", type=positive, default=1, help="runs side by side")
    parser.add_argument("--retrain", action="store_true", help="set stored runs that are damaged aside and train them anew")
    parser.add_argument("--dry-run", action="store_true", help="print what is missing and train nothing")
    args = parser.parse_args(argv)
    try:
        wanted = searches(args.profile, args.data, args.archs) if args.only == "search" or args.match else []
        study = {"all": plan, "observations": observations, "remedies": remedies}.get(args.only)
        wanted += study(args.profile, args.data, args.archs) if study else []
        wanted = list(dict.fromkeys(x for c in wanted for x in (c.start, c) if x))         # a start is a run of its own, before its first
        wanted = [c for c in wanted if (args.match or "") in runs.folder(c, args.profile).name]
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    names = {runs.folder(c, args.profile).name for c in wanted}
    try:
        for name in {c.data for c in wanted if c.data.startswith("folder:")}:
            datasets.check(name)                                           # a folder that is not there, before its runs are listed
        looked_at = [path for path in runs.paths(args.profile)             # with --retrain also those that another data set needs
                     if path.name in names or (args.retrain and (args.match or "") in path.name)]
        found = schedule.damaged(looked_at, mend=args.retrain and not args.dry_run)
        whole = [c for c in wanted if (path := runs.folder(c, args.profile)).exists() and path not in found]
        unchanged([] if args.dry_run else whole, args.profile)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    aside, failed = (list(found), []) if args.retrain else ([], [f"damaged: {sentence}" for sentence in found.values()])
    for sentence in found.values() if args.retrain else ():
        print(sentence)
    if not wanted and not aside:
        sys.exit(f"error: --match {args.match!r} is in the name of no run of profile {args.profile}; --dry-run lists them")
    missing = [c for c in wanted if (path := runs.folder(c, args.profile)) in aside or not path.exists()]
    try:
        needs = schedule.duration(schedule.hours(missing))
    except ValueError as error:                                            # a side that an encoder cannot take
        sys.exit(f"error: {error}")
    starts = len({c.start for c in wanted if c.start})
    print(f"{args.profile}: {len(wanted)} runs, {f'{starts} of them starts of others, ' if starts else ''}{len(missing)} missing"
          + (f", {len(failed)} damaged" if failed else "")
          + (f", about {needs} on two idle cores with --jobs 2" if missing else ""), flush=True)
    for config in missing if args.dry_run else []:
        print(" ", runs.folder(config, args.profile).name)
    if {path.name for path in aside} - names:
        print("what was set aside and is of none of these runs is trained anew where it is asked for (a notebook, --data or --archs)")
    if args.dry_run or not missing:
        sys.exit("error: " + "\n".join(failed)) if failed else None
        return
    try:                                                                   # whatever cannot run says so before anything is trained
        for config in missing:
            check(config)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    warnings.filterwarnings("ignore", message="A worker stopped")          # joblib renews a worker that has grown, and says so
    done, lost, started = 0, 0, time.time()
    try:
        for config, error in schedule.outcomes(missing, args.profile, args.jobs):
            done, minutes, name = done + 1, (time.time() - started) / 60, runs.folder(config, args.profile).name
            failed, lost = failed + ([f"{name}: {error}"] if error else []), lost + bool(error)
            print(f"[{done}/{len(missing)}] {minutes:.1f} min, about {minutes / done * (len(missing) - done):.0f} to go: {name}"
                  f"{f' FAILED: {error}' if error else ''}", flush=True)
    except KeyboardInterrupt:
        print(f"stopped: {done - lost} of {len(missing)} runs are stored" + (f" and {lost} failed" if lost else "")
              + "; the same command goes on where the others were", *failed, sep="\n", file=sys.stderr)
        sys.exit(130)
    except BrokenExecutor:
        failed.append(schedule.WORKER_KILLED)
    if failed:                                                             # the others are stored; this many need a look
        raise (SystemExit if found and not args.retrain else Failed)("error: " + "\n".join(failed))


class Failed(SystemExit):
    """Some runs were tried and failed, and nothing else is wrong: what is stored can be drawn."""


if __name__ == "__main__":
    if "--dry-run" in sys.argv and hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)                      # `| head` has seen enough; a training must not end by that
    main()
