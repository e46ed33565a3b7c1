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
import sys
import tarfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from lib import augment, bench, positive, runs, studies, train

CAPTURED = ("mobilenet_v3_small", "resnet18")   # whose step is also compiled, which takes a minute or two each
RATED = 10_240             # images of an epoch whose rate is taken
RATES_SHARE = 0.4          # of the minutes, after which no other rate is begun
PACKED = (*runs.REQUIRED, "SHA256SUMS")
LARGEST = 15 * 2 ** 20     # bytes of a packed file
ARCHIVED = "cifar10_jpeg"  # the data set that comes as an archive of one folder; the others are downloaded or lie there
TOLERANCE = 0.05           # of views, standardised, and of h: a GPU's convolutions may round to 10 bits (TF32)


def unpack(archive, place):
    """Unpack the data set's archive into its folder, unless it lies there."""
    if archive and not place.is_dir():
        aside = place.with_name(f"{place.name}.aside")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        with tarfile.open(archive) as file:
            file.extractall(aside, filter="data")
        aside.rename(place)


def rates(archs, profile, data_name, device, until=math.inf):
    """Rows, one after the other, of each encoder and on a GPU, of CAPTURED, of the step compiled and captured, too: images a second of
    the whole training step (data to optimiser) in the second epoch of RATED images, of the bare model step on a constant batch, seconds of
    the first epoch, which compiles, and peak memory. None is begun after `until`, in seconds as of time.time()."""
    for arch, captured in [*((arch, False) for arch in archs), *((arch, True) for arch in archs if arch in CAPTURED and device == "cuda")]:
        if time.time() > until:
            print(f"no minutes are left for the rate of {arch}{', captured' if captured else ''}", flush=True)
            continue
        config = studies.base(profile, arch, data_name, epochs=2, compile=captured)
        config = replace(config, limit=min(config.limit or RATED, RATED))
        row = {"arch": arch, "captured": captured}
        try:
            row |= rate(config, device)
        except Exception as error:                                         # a compiler that fails, say: the study does without
            row |= {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(row, flush=True)
        yield row


def rate(config, device):
    """A row of `rates` for one configuration."""
    data = runs.load_data(config.data, config.limit, device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    first, second = train.pretrain(data, config, device=device)[2]
    memory = runs.peak_memory(device)
    step, batch, took = bench.stepper(config, data), bench.constant(config, data), []
    for _ in range(12):
        started = time.perf_counter()
        step(*batch)
        if device == "cuda":
            torch.cuda.synchronize()
        took.append(time.perf_counter() - started)
    images = len(data.train.labels) // config.batch_size * config.batch_size
    return {"images_per_second": round(images / second), "model_step_images_per_second": round(config.batch_size / sorted(took)[6]),
            "seconds_of_first_epoch": round(first, 1), "peak_memory_mb": round(memory / 2 ** 20)}


def agreement(device):
    """Largest difference between this device and the CPU, in the views of a batch and in h of an untrained ResNet-18. Both make views as
    operations on the batch, so a machine with a GPU needs no Numba."""
    config = studies.base("smoke", "resnet18")
    found = {}
    for where in dict.fromkeys(("cpu", device)):
        data = runs.load_data(config.data, config.limit, where)
        index = torch.arange(64)
        drawn = augment.draw(index, augment.Augmentation(), data.size, data.size, augment.FIXED, 0, 0)
        views = augment.batched(data.train.images[index.to(where)], drawn, "image", data.size)
        encoder = train.build(config, data).encoder.to(where).eval()
        with torch.no_grad():
            found[where] = views.float().cpu(), encoder(views).float().cpu()
    return {name: float((a - b).abs().max()) for name, a, b in zip(("views", "features"), found["cpu"], found[device])}


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
    parser.add_argument("--rates", action="store_true",
                        help=f"measure training rates first; none is begun after {RATES_SHARE:g} of the minutes")
    args = parser.parse_args(argv)
    started, out = time.time(), Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        name = studies.base(args.profile, "resnet18", args.data).data
        if args.archive and name != ARCHIVED:
            raise ValueError(f"archive = {args.archive!r} with data = {name!r}; allowed: with --data {ARCHIVED} alone")
    except ValueError as error:
        sys.exit(f"error: {error}")
    unpack(args.archive, runs.ROOT / ".data" / ARCHIVED)
    check = {"device": torch.cuda.get_device_name() if device == "cuda" else "cpu", "torch": torch.__version__, **agreement(device)}
    print(check, flush=True)
    if not (check["views"] <= TOLERANCE and check["features"] <= TOLERANCE):          # nan too
        sys.exit(f"error: this device differs from the CPU by more than {TOLERANCE:g} in the views or features of a batch")
    (out / "check.json").write_text(json.dumps(check, indent=1) + "\n")
    if args.rates:
        rows, until = [], started + args.minutes * 60 * RATES_SHARE
        for row in rates(studies.profile(args.profile).encoders, args.profile, args.data, device, until):
            rows.append(row)                                               # kept one by one: the machine may be gone before the last
            pd.DataFrame(rows).to_csv(out / "rates.csv", index=False)
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
        studies.main(["--profile", args.profile, "--only", args.only, "--jobs", str(args.jobs),
                      *(["--data", args.data] if args.data else []), *(["--match", args.match] if args.match else [])])
    except SystemExit as stop:                                             # stopped, or some runs failed: the others are worth packing
        print(stop.code if stop.code != 130 else f"{args.minutes:g} minutes are over", flush=True)
        status = 0 if stop.code == 130 else 1
    timer.cancel()
    signal.signal(signal.SIGTERM, before)
    for file in pack(args.profile, out, known):
        print(f"{file}  {file.stat().st_size:,} bytes", flush=True)
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main()
