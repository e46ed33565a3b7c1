"""`python -m lib.gpu`: a check and a share of the study on a GPU that is ours for minutes, in one call that ends in time.

It unpacks the data, measures training rates, trains what a profile lacks (most wanted first, several runs side by side) until its
minutes are over, packs every finished run that did not lie here before the first call, and prints what is left. The next call goes on
where this one was: on the same machine from the checkpoints, on another from the finished runs.
"""
import argparse
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from lib import augment, bench, positive, runs, studies, train

CAPTURED = ("mobilenet_v3_small", "resnet18")   # whose step is also compiled, which takes a minute or two each
RATED, RATED_EPOCHS = 10_240, 5   # images and epochs whose rate is taken; of more images where the queue wants it
RATES_SHARE = 0.4          # of the minutes, at most
PACKED = (*runs.REQUIRED, "SHA256SUMS")
LARGEST = 15 * 2 ** 20     # bytes of a packed file
ARCHIVED = "cifar10_jpeg"  # the data set that comes as an archive of one folder; the others are downloaded or lie there
TOLERANCE = 0.05           # of views, standardised, of h and of the loss: a GPU's convolutions may round to 10 bits (TF32)


def unpack(archive, place):
    """Unpack the data set's archive into its folder, unless it lies there."""
    if archive and not place.is_dir():
        aside = place.with_name(f"{place.name}.aside")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        with tarfile.open(archive) as file:
            file.extractall(aside, filter="data")
        aside.rename(place)


def rates(archs, profile, data_name, device, file):
    """Write a table, row by row: of each encoder, and on a GPU of CAPTURED once more with the step compiled and captured, images a second
    of the whole training step (data to optimiser) and of the bare model step on a constant batch, both medians, seconds of the first
    epoch, which compiles, and peak memory; or why it failed."""
    rows, configs = [], [studies.base(profile, arch, data_name, epochs=RATED_EPOCHS) for arch in archs]
    configs += [replace(c, compile=True) for c in configs if c.arch in CAPTURED and device == "cuda"]
    configs = [replace(c, limit=min(c.limit or math.inf, max(RATED, 2 * c.queue))) for c in configs]
    for c in configs:
        data = runs.load_data(c.data, c.limit, device)
        rows.append({"arch": c.arch, "captured": c.compile})
        try:
            rows[-1] |= measured(c, data, device)
        except Exception as error:                                         # a compiler that fails, say: the study does without
            traceback.print_exc()
            rows[-1] |= {"failed": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
        print(rows[-1], flush=True)
        pd.DataFrame(rows).to_csv(file, index=False)                       # now, since time may be over before the last


def measured(config, data, device):
    """A row of `rates` but for its names."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    first, *others = train.pretrain(data, config, device=device)[2]
    memory = runs.peak_memory(device)
    step, batch, took = bench.stepper(config, data), bench.constant(config, data), []
    for _ in range(12):
        started = time.perf_counter()
        step(*batch)
        if device == "cuda":
            torch.cuda.synchronize()
        took.append(time.perf_counter() - started)
    images = len(data.train.labels) // config.batch_size * config.batch_size
    return {"images_per_second": round(images / statistics.median(others)),
            "model_step_images_per_second": round(config.batch_size / statistics.median(took)),
            "seconds_of_first_epoch": round(first, 1), "peak_memory_mb": round(memory / 2 ** 20)}


def rates_apart(options, file, seconds):
    """`rates` in a process of its own, which is ended after so many seconds: a compiler that hangs, a broken context or memory that is
    kept on the card stay its own."""
    try:
        subprocess.run([sys.executable, "-m", "lib.gpu", *options, "--measure", file], cwd=Path(__file__).parents[1], timeout=seconds)
    except subprocess.TimeoutExpired:
        print(f"the rates took longer than {seconds:.0f} s; those that were measured are kept", flush=True)


def agreement(device):
    """Largest difference between this device and the CPU: in the views of a batch, in h of an untrained ResNet-18, and in the loss of its
    first step with eight groups of BatchNorm. Both make views as operations on the batch, so a machine with a GPU needs no Numba."""
    config = replace(studies.base("smoke", "resnet18"), bn_splits=8)
    found = {}
    for where in dict.fromkeys(("cpu", device)):
        data = runs.load_data(config.data, config.limit, where)
        index = torch.arange(64)
        drawn = [augment.draw(index, augment.Augmentation(), data.size, data.size, augment.FIXED, 0, stream) for stream in (0, 1)]
        views = [augment.batched(data.train.images[index.to(where)], part, "image", data.size) for part in drawn]
        method = train.build(config, data).to(where)
        with torch.no_grad():
            found[where] = [x.cpu() for x in (views[0], method.encoder.eval()(views[0]), method.train()(*views)[0])]
    return {name: float((a - b).abs().max()) for name, a, b in zip(("views", "features", "loss"), found["cpu"], found[device])}


def pack(profile, out, known=()):
    """Tar the finished runs of a profile, but those `known`, into files that are small enough to travel. Returns their paths."""
    files, size = [], LARGEST
    for path in [p for p in runs.paths(profile) if p.name not in known and all((p / name).is_file() for name in PACKED)]:
        weight = sum((path / name).stat().st_size for name in PACKED) + 6 * 1024
        if size + weight > LARGEST:
            files.append(out / f"runs-{profile}-{len(files)}.tar")
            files[-1].unlink(missing_ok=True)
            size = 0
        size += weight
        with tarfile.open(files[-1], "a") as tar:
            for name in PACKED:
                tar.add(path / name, f"{profile}/{path.name}/{name}")
    return files


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m lib.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="cifar10")
    parser.add_argument("--data", help="a data set instead of the profile's, for instance cifar10_jpeg")
    parser.add_argument("--archive", help=f"of the data set {ARCHIVED}, unpacked into .data/{ARCHIVED} where that is not there")
    parser.add_argument("--only", default="all", choices=("all", "observations", "remedies", "search"))
    parser.add_argument("--match", default=None)
    parser.add_argument("--out", default=os.environ.get("OUT", "out"), help="folder for rates.csv, check.json and the packed runs")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which whatever is not finished is stopped")
    parser.add_argument("--jobs", type=positive, default=4, help="runs side by side")
    parser.add_argument("--rates", action="store_true", help=f"measure training rates first, for {RATES_SHARE:g} of the minutes at most")
    parser.add_argument("--cpu", action="store_true", help="rehearse on the CPU where there is no GPU")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    started, out, device = time.time(), Path(args.out), "cuda" if torch.cuda.is_available() else "cpu"
    options = ["--profile", args.profile, *(["--data", args.data] if args.data else [])]
    try:
        name = studies.base(args.profile, "resnet18", args.data).data
        if args.archive and name != ARCHIVED:
            raise ValueError(f"archive = {args.archive!r} with data = {name!r}; allowed: with --data {ARCHIVED} alone")
    except ValueError as error:
        sys.exit(f"error: {error}")
    if device == "cpu" and not args.cpu:
        sys.exit("error: torch sees no GPU here; --cpu rehearses on the CPU")
    if args.measure:
        return rates(studies.profile(args.profile).encoders, args.profile, args.data, device, args.measure)
    out.mkdir(parents=True, exist_ok=True)
    unpack(args.archive, runs.ROOT / ".data" / ARCHIVED)
    check = {"device": torch.cuda.get_device_name() if device == "cuda" else "cpu", "torch": torch.__version__, **agreement(device)}
    print(check, flush=True)
    if not all(check[name] <= TOLERANCE for name in ("views", "features", "loss")):  # nan too
        sys.exit(f"error: this device differs from the CPU by more than {TOLERANCE:g} in views, features or loss of a batch")
    (out / "check.json").write_text(json.dumps(check, indent=1) + "\n")
    if args.rates:
        rates_apart([*options, *(["--cpu"] if args.cpu else [])], str((out / "rates.csv").resolve()), args.minutes * 60 * RATES_SHARE)
    noted = runs.ROOT / ".data" / f"known-{args.profile}.json"              # what this machine was given, not made here
    if not noted.exists():
        noted.write_text(json.dumps([path.name for path in runs.paths(args.profile)]))
    known = json.loads(noted.read_text())
    if known:
        print(f"{len(known)} runs of {args.profile} lay here before the first call (noted in {noted}) and are not packed", flush=True)
    left = args.minutes * 60 - (time.time() - started)
    timer = threading.Timer(max(1.0, left), os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))       # also where nobody listens to requests
    timer.start()
    status = 0
    try:
        studies.main([*options, "--only", args.only, "--jobs", str(args.jobs), *(["--match", args.match] if args.match else [])])
    except SystemExit as stop:                                             # stopped, or some runs failed: the others are worth packing
        print(stop.code if stop.code != 130 else f"{args.minutes:g} minutes are over", flush=True)
        status = 0 if stop.code == 130 else 1
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)
        for file in pack(args.profile, out, known):
            print(f"{file}  {file.stat().st_size:,} bytes", flush=True)
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main()
