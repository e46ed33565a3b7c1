"""The store of runs: a folder per configuration, named by what a person wants to see and by a hash of the configuration.

    results/runs/<profile>/<slug>-<id>/
        config.json       the PretrainConfig, and the definition number that its metrics were computed under
        history.csv       one row per epoch: loss, learning rate, what the monitor measured
        metrics.json      every number of the finished run (lib.probe.evaluate)
        provenance.json   commit, versions, machine, seconds, memory: outside the id and outside every comparison
        SHA256SUMS        of the files above; `sha256sum -c --ignore-missing SHA256SUMS` checks them without us
        encoder.safetensors, projector.safetensors, embeddings.npz    stay on the machine that trained the run
        umap.csv          coordinates, once drawn
        transfer-*.json   accuracies on another data set, once asked for

A run in the making is a hidden checkpoint beside these folders (lib.checkpoint); whoever asks for it again goes on from there. A claim
on a run is a lock of the operating system, which ends with its process. Where a network file system has no such locks (NFS has them),
give each machine a store of its own.
"""
import ctypes
import errno
import hashlib
import inspect
import itertools
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, fields
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from joblib import cpu_count
from safetensors.torch import load_file

from lib import GLIBC, checkpoint, probe, train
from lib import data as datasets
from lib.train import PretrainConfig

ROOT = Path(__file__).resolve().parents[1]
STORE = ROOT / "results" / "runs"
UMAP_IMAGES = 2000
CHECKPOINT_SECONDS = 60
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)
LOCKLESS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
# a newer filelock would fall back to a mere file, which outlives a process that is killed
NO_SOFT_LOCKS = {"fallback_to_soft": False} if "fallback_to_soft" in inspect.signature(FileLock.__init__).parameters else {}
DEFINITION = 1    # bump when a default, an augmentation, a data set or a metric changes meaning, once runs outside this repository may
                  # rest on it; until then void runs are deleted and trained anew under the same number
SHOWN = {"method": "{}", "width": "w{:g}", "tau": "tau{:g}", "queue": "K{}", "projector": "{}", "symmetric": "symmetric",
         "lr": "lr{:g}", "epochs": "{}ep"}     # what a slug may show; tau, lr and epochs always


REQUIRED = ("config.json", "history.csv", "metrics.json", "provenance.json")


def git(*args, root=ROOT):
    """What git prints in the repository `root`; None where it fails or is missing."""
    try:
        answer = subprocess.run(["git", "-C", root, *args], capture_output=True, text=True)
    except OSError:
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


# The code that runs is the code that was imported, whatever is committed while it trains. A copy without git is told its commit.
COMMIT, CHANGES = git("rev-parse", "HEAD") or os.environ.get("COMMIT"), git("status", "--porcelain", "--", "lib", "requirements.txt")


class BrokenRun(RuntimeError):
    """A stored run that cannot be trusted: a file is missing, cut short or edited."""


@dataclass(frozen=True)
class Run:
    """What is stored of a training: its folder, configuration, {measure: number}, a row per epoch, and where it was made."""

    path: Path
    config: PretrainConfig
    metrics: dict
    history: pd.DataFrame
    provenance: dict

    @property
    def name(self):
        return self.path.name

    def encoder(self, size):
        """The trained encoder in eval mode; only where its weights are still stored. size: image side S."""
        c = self.config
        encoder = probe.models.encoder(c.arch, size=size, stem=c.stem, width=c.width)
        encoder.load_state_dict(load_file(self.path / "encoder.safetensors"))
        return encoder.eval()


def run_id(config):
    """Ten hex digits of sha256 over the fields that differ from their default, and the definition number. So a field added
    later, at a default that means "as before", leaves every id as it is."""
    changed = {f.name: getattr(config, f.name) for f in fields(config)
               if f.default is MISSING or getattr(config, f.name) != f.default}
    changed |= {name: run_id(value) for name, value in changed.items() if isinstance(value, PretrainConfig)}
    return hashlib.sha256(json.dumps([DEFINITION, changed], sort_keys=True).encode()).hexdigest()[:10]


def slug(config):
    """What a person wants to see: `mobilenet_v3_small-tau0.2-lr0.002-8ep-seed0`."""
    shown = [form.format(getattr(config, name)) for name, form in SHOWN.items()
             if name in ("tau", "lr", "epochs") or getattr(config, name) != PretrainConfig.__dataclass_fields__[name].default]
    if config.method == "supervised":                                      # it has no temperature, queue or projector
        shown = [form.format(getattr(config, name)) for name, form in SHOWN.items() if name in ("method", "lr", "epochs")]
    if config.start:
        shown.append(f"from-{config.origin}{config.start.epochs}ep")
    if config.epochs == 0:
        shown = ["untrained"]
    return "-".join([config.arch, *shown, f"seed{config.seed}"])


def folder(config, profile, store=None):
    """Where the run of a configuration is stored, or would be."""
    return Path(store or STORE) / profile / f"{slug(config)}-{run_id(config)}"


def untrained(config):
    """The same encoder before training: everything that only training reads goes back to its default, so arms share it."""
    keep = {name: getattr(config, name) for name in ("data", "limit", "arch", "stem", "width", "standardize", "seed")}
    return PretrainConfig(**keep, epochs=0)


def needs(config):
    """The runs whose weights or numbers a training begins with, each after those that it needs itself."""
    found = [c for other in (config.start, config.teacher) if other for c in (*needs(other), other)]
    return list(dict.fromkeys([*found, *([untrained(config.teacher)] if config.teacher else [])]))


def load_data(name, limit=None, device="cpu"):
    """lib.data.load; the last three stay in memory."""
    return _loaded(name, limit, device)


@lru_cache(maxsize=3)
def _loaded(name, limit, device):
    return datasets.load(name, root=ROOT / ".data", device=device, limit=limit)


def load(path):
    """The run stored at `path`. Raises BrokenRun, naming the file, where a checksum does not hold."""
    path = Path(path)
    anew = (f"`{sys.executable} -m lib.studies --profile {path.parent.name} --match {path.name.split('-')[-1]} --retrain` sets the folder "
            "aside, and whatever asks for this run trains it anew")
    if path.parents[1].name.startswith("."):                               # a store beside the store
        anew = "move the folder away, and whatever needs it trains it anew"
    for name in ("SHA256SUMS", *REQUIRED):
        if not (path / name).is_file():
            raise BrokenRun(f"{path}: {name} is missing; {anew}")
    lines = (path / "SHA256SUMS").read_text(errors="replace").splitlines()
    expected = {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}
    for name in dict.fromkeys([*REQUIRED, *expected]):
        if name not in expected:
            raise BrokenRun(f"{path}: SHA256SUMS was edited or cut short (it has no line for {name}); {anew}")
        if (path / name).is_file() and _sha256(path / name) != expected[name]:
            raise BrokenRun(f"{path}: {name} was edited or cut short (its checksum is not the one in SHA256SUMS); {anew}")
    stored = json.loads((path / "config.json").read_text())
    if stored.pop("definition", None) != DEFINITION:
        raise BrokenRun(f"{path}: made under another definition of the metrics than today's ({DEFINITION}); {anew}")
    try:
        config = PretrainConfig(**stored)
    except (TypeError, ValueError) as error:
        raise BrokenRun(f"{path}: config.json is none that this code knows ({error}); {anew}") from None
    if not path.name.endswith(run_id(config)):
        raise BrokenRun(f"{path}: config.json is not the configuration that the folder is named after (its id is {run_id(config)}); {anew}")
    return Run(path, config, json.loads((path / "metrics.json").read_text()),
               pd.read_csv(path / "history.csv"), json.loads((path / "provenance.json").read_text()))


def set_aside(path):
    """Move the folder of a run that cannot be trusted to the store's .broken/<profile>/, where it is kept. Returns its place there."""
    kept = path.parents[1] / ".broken" / path.parent.name
    kept.mkdir(parents=True, exist_ok=True)
    place = next(p for i in itertools.count() if not (p := kept / f"{path.name}.{i}").exists())
    path.rename(place)
    _checkpoint(path.with_name(f".{path.name}.partial")).unlink(missing_ok=True)      # anew means anew
    return place


def run_or_load(config, profile, store=None, device=None, progress="bar", wait=True):
    """The stored run of `config`, trained first if it is not there, from its checkpoint if one was left. One process trains, others
    that want it, or a run that begins with it, wait; without `wait` they get None instead.

    progress: "bar", "lines" (one per epoch, for runs side by side) or None. A run is written aside and renamed when whole. Raises
    BrokenRun for a stored run that was damaged, OSError with the folder's name where nothing can be written.
    """
    path = folder(config, profile, store)
    partial = path.with_name(f".{path.name}.partial")
    if path.exists():
        _checkpoint(partial).unlink(missing_ok=True)                       # its owner may have died before it did so
        return load(path)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    label = f"{profile}/{slug(config)}" if progress else None
    try:
        with _claim(path, wait, label):
            if path.exists():                                              # another has just trained it
                return load(path)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            try:
                _train(config, partial, device, label, progress == "bar", wait)
                for file in [*partial.iterdir(), partial]:
                    checkpoint.synced(file)
                os.replace(partial, path)
                checkpoint.synced(path.parent)
            except (FloatingPointError, train.Collapsed):                  # another try must not begin in what was lost already
                _checkpoint(partial).unlink(missing_ok=True)
                raise
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            _checkpoint(partial).unlink(missing_ok=True)
    except Timeout:
        return None
    except OSError as error:
        if error.errno in LOCKLESS:
            raise OSError(error.errno, f"{path.parents[1]} lies on a file system without locks ({error.strerror}), so two processes could "
                          "train one run at once: keep this clone on another") from None
        if error.errno in UNWRITABLE:
            raise OSError(error.errno, f"{path} cannot be stored ({error.strerror}); what was stored before is whole, and a checkpoint is "
                          "gone on from: make room, or allow writing, and run again") from None
        raise
    return load(path)                                                      # what a reader will get, checked at once


def _claim(path, wait=True, label=None):
    """The lock of the run whose folder is `path`, taken until the end of a `with`. Raises Timeout where another has it and there is
    no `wait`; says that it waits if there is a label."""
    locks = path.parents[1] / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{path.parent.name}-{path.name[-10:]}.lock", **NO_SOFT_LOCKS)
    try:
        return lock.acquire(blocking=False)
    except Timeout:
        if not wait:
            raise
    if label:
        print(f"    {label}: another process trains it; waiting for that", flush=True)
    return lock.acquire()


def _checkpoint(partial):
    """Where the training that fills the folder `partial` leaves its checkpoint."""
    return partial.with_suffix(".checkpoint.safetensors")


def weights(config, profile, store=None, device=None, progress="bar", wait=True):
    """The folder of a run of `config` that still has its weights: the stored one, else one trained again beside the store. Raises Timeout
    where another process trains it and there is no `wait`."""
    store = Path(store or STORE)
    store = store.parent if store.name == ".again" else store              # what a retrained run begins with may still be there
    run = run_or_load(config, profile, store, device, progress, wait)
    if run and not (run.path / "encoder.safetensors").is_file():           # a clone has its numbers alone
        run = run_or_load(config, profile, store / ".again", device, progress, wait)
    if not run:
        raise Timeout(folder(config, profile, store))
    return run.path


def _teacher(config, size, profile, store, device, progress, wait):
    """Encoder and projector of a run, frozen: images (N, 3, S, S) -> z (N, dim). Raises ValueError where it has learned nothing, for its
    student would learn nothing either."""
    path = weights(config, profile, store, device, progress, wait)
    first = run_or_load(untrained(config), profile, store, device, progress, wait)
    if not first:
        raise Timeout(folder(untrained(config), profile, store))
    learned, before = (json.loads((p / "metrics.json").read_text())["knn_val"] for p in (path, first.path))
    if learned <= before:
        raise ValueError(f"teacher = {path.name}, which has learned nothing: kNN (val) {learned:.1%}, untrained {before:.1%}; allowed: "
                         "a run that has")
    encoder = probe.models.encoder(config.arch, size=size, stem=config.stem, width=config.width)
    encoder.load_state_dict(load_file(path / "encoder.safetensors"))
    projector = probe.models.projector(config.projector, encoder.dim, config.dim, bn=config.projector_bn)
    projector.load_state_dict(load_file(path / "projector.safetensors"))
    return torch.nn.Sequential(encoder, projector)


def _train(config, path, device, label, bar=True, wait=True):
    data = load_data(config.data, config.limit, device)
    profile, store, progress = path.parent.name, path.parents[1], ("bar" if bar else "lines") if label else None
    begin = {}
    if config.start:
        begin["start"] = load_file(weights(config.start, profile, store, device, progress, wait) / "encoder.safetensors")
    if config.teacher:
        begin["teacher"] = _teacher(config.teacher, data.size, profile, store, device, progress, wait)
    monitor = probe.monitor(data, config)
    _forget_peak_memory(device)
    energy = joules(device)
    resume, here = _checkpoint(path), provenance(device)
    begin |= {"device": device, "label": label, "bar": bar, "resume": resume, "every": CHECKPOINT_SECONDS,
              "session": {name: here[name] for name in ("commit", "dirty", "device", "threads", "torch", "deterministic")}}
    try:
        method, history, epoch_seconds = train.pretrain(data, config, monitor, **begin)
    except checkpoint.BrokenCheckpoint as error:
        aside = next(p for i in itertools.count() if not (p := resume.with_suffix(f".broken{i}")).exists())
        resume.rename(aside)
        print(f"{error}; it is kept as {aside.name}, which nothing needs, and the run begins anew", file=sys.stderr, flush=True)
        method, history, epoch_seconds = train.pretrain(data, config, monitor, **begin)
    parts = checkpoint.state(resume) if resume.exists() else {"train_seconds": 0.0, "sessions": []}
    trained = time.time()
    if config.evaluation == "full":
        learned = config.epochs and config.method != "supervised"
        if label:
            print(f"    {label}: evaluating", flush=True)
        try:
            metrics, embeddings = probe.evaluate(method.encoder, data, config, method.query[1] if learned else None)
        except KeyboardInterrupt:
            raise checkpoint.Interrupted("stopped while evaluating; the training is stored: the same command, or the cell once more, "
                                         "goes on from there") from None
        np.savez_compressed(path / "embeddings.npz", **embeddings)
    else:
        metrics = {name: value for name, value in history[-1].items() if name not in ("epoch", "lr")}  # lr: the config's
    _save_weights(method.encoder, path / "encoder.safetensors")
    if config.method != "supervised":                                      # what a student of this encoder learns to match
        _save_weights(method.query[1], path / "projector.safetensors")
    (path / "config.json").write_text(json.dumps(asdict(config) | {"definition": DEFINITION}, indent=1) + "\n")
    pd.DataFrame(history).to_csv(path / "history.csv", index=False)
    (path / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    used = joules(device)
    (path / "provenance.json").write_text(json.dumps(provenance(device) | {
        "command": f"python -m lib.studies --profile {path.parent.name} --match {run_id(config)}",
        "data_checksum": data.checksum, "epoch_seconds": [round(s, 3) for s in epoch_seconds],
        "train_seconds": round(parts["train_seconds"], 1), "evaluate_seconds": round(time.time() - trained, 1),
        **({"sessions": parts["sessions"]} if len(parts["sessions"]) > 1 else {}),
        **({} if None in (energy, used) or len(parts["sessions"]) > 1 else {"whole_gpu_joules": round(used - energy)}),
    }, indent=1) + "\n")
    write_sums(path)


def _save_weights(module, path):
    """In float16, half the size."""
    state = {k: v.half() if v.dtype == torch.float32 else v for k, v in module.state_dict().items()}
    path.write_bytes(checkpoint.packed({k: v.contiguous().cpu() for k, v in state.items()}))


def umap(run, seed=0):
    """UMAP of the first 2,000 held-out h of a Run (class-balanced): columns x, y, label, index. Computed once, stored as umap.csv.

    It differs between machines even when seeded, so the stored one counts. index: place in the held-out split. Raises
    FileNotFoundError where neither coordinates nor embeddings are stored.
    """
    path = run.path / "umap.csv"
    if path.is_file():
        return pd.read_csv(path)
    if not (run.path / "embeddings.npz").is_file():
        raise FileNotFoundError(f"{run.path} holds neither umap.csv nor embeddings.npz: a run's embeddings are only on the machine "
                                "that trained it; move the folder aside and run again to train it anew")
    with warnings.catch_warnings():                                        # it asks notebooks for a progress widget that we do not need
        warnings.simplefilter("ignore")
        from umap import UMAP  # training does without it
    stored = np.load(run.path / "embeddings.npz")
    h, labels = stored["h"][:UMAP_IMAGES].astype(np.float32), stored["label"][:UMAP_IMAGES]
    xy = UMAP(metric="cosine", random_state=seed, n_jobs=1).fit_transform(h)
    table = pd.DataFrame({"x": xy[:, 0].round(3), "y": xy[:, 1].round(3), "label": labels, "index": np.arange(len(h))})
    _add(path, table.to_csv(index=False, float_format="%.3f", lineterminator="\n"))
    return pd.read_csv(path)


def transfer(run, target="digits", train=True):
    """probe.transfer of a Run to another data set, {"linear", "fine_tuned"}: computed once where its weights are, then stored.

    Raises FileNotFoundError where neither is; with train=False wherever it is not stored.
    """
    plain = re.fullmatch(r"\w+", target, re.ASCII)                          # a folder's name may hold anything
    path, c = run.path / f"transfer-{target if plain else hashlib.sha256(target.encode()).hexdigest()[:10]}.json", run.config
    if not path.is_file():
        if not train or not (run.path / "encoder.safetensors").is_file():
            raise FileNotFoundError(f"{run.path} holds neither a transfer to {target} nor encoder.safetensors: a run's weights are only on "
                                    "the machine that trained it; move the folder aside and run again to train it anew")
        data = load_data(c.data, c.limit)
        encoder = run.encoder(data.size)
        probe.calibrate(encoder, data, probe.Viewer(c.standardize, data.flip))     # as evaluated; an untrained one's would be fresh
        found = probe.transfer(encoder, load_data(target), c, data.size)
        _add(path, json.dumps(found, indent=1, sort_keys=True) + "\n")
    return json.loads(path.read_text())


def _add(path, text):
    """Add a file to a stored run, unless another process did: its checksum first, so a kill in between leaves a run that is whole."""
    try:
        with _claim(path.parent):
            if not path.exists():
                write_sums(path.parent, {path.name: hashlib.sha256(text.encode()).hexdigest()})
                _replace(path, text)
    except OSError as error:
        raise OSError(error.errno, f"{path} cannot be stored ({error.strerror}); the run itself is whole") from None


def write_sums(path, added=None):
    """SHA256SUMS of every file in the folder of a run; with `added` (name -> checksum) of these alone: the other lines stay as they are,
    for they may name files that only the training machine has, and must not bless what was edited."""
    sums = path / "SHA256SUMS"
    lines = sums.read_text().splitlines() if added else []
    listed = {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}
    listed |= added or {p.name: _sha256(p) for p in path.iterdir() if p != sums}
    _replace(sums, "".join(f"{listed[name]}  {name}\n" for name in sorted(listed)))


def _replace(path, text):
    """Write whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _forget_peak_memory(device):
    """So that peak memory is this run's, in a process that serves many; where the system does not allow it, it is the process's."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    if GLIBC:                                                              # what lib keeps of others' freed memory
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def peak_memory(device="cpu"):
    """Bytes that this process has held at most on a device, since _forget_peak_memory. Linux hands getrusage's on to children."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else \
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def provenance(device):
    """Where and by what a run is made; outside the id and outside every comparison."""
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")),
               platform.processor()) if os.path.exists("/proc/cpuinfo") else platform.processor()
    return {"commit": COMMIT, "dirty": None if CHANGES is None else bool(CHANGES), "code": train.CODE, "rounding": train.ROUNDING,
            "date": time.strftime("%Y-%m-%d", time.gmtime()), "python": platform.python_version(),
            "torch": torch.__version__, "torchvision": version("torchvision"), "numpy": np.__version__,
            "scikit-learn": version("scikit-learn"), "device": torch.cuda.get_device_name() if device == "cuda" else cpu,
            "cores": cpu_count(), "threads": torch.get_num_threads(),
            "deterministic": torch.are_deterministic_algorithms_enabled(), "peak_memory_mb": round(peak_memory(device) / 2 ** 20)}


def joules(device):
    """Energy that this GPU has used since its driver was loaded, whoever used it, by NVIDIA's management library; None where none tells."""
    if device != "cuda":
        return None
    try:
        library, handle, used = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_void_p(), ctypes.c_ulonglong()
        address = torch.cuda.get_device_properties(0)
        bus = f"{address.pci_domain_id:08x}:{address.pci_bus_id:02x}:{address.pci_device_id:02x}.0".encode()
        calls = (library.nvmlInit_v2(), library.nvmlDeviceGetHandleByPciBusId_v2(bus, ctypes.byref(handle)),
                 library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(used)))
    except (OSError, AttributeError):
        return None
    return None if any(calls) else used.value / 1000                       # it counts in millijoules; 0 is success


def paths(profile, store=None):
    """The folders of a profile's finished runs, the damaged ones among them."""
    return sorted(p for p in Path(store or STORE).glob(f"{profile}/[!.]*") if p.is_dir())


def table(*profiles, store=None):
    """The tidy table of every run stored for these profiles. A folder that cannot be trusted raises BrokenRun."""
    return tidy(load(path) for profile in profiles for path in paths(profile, store))


def tidy(runs):
    """One row per Run: profile, run, every field of its configuration, every metric, commit, device, seconds."""
    return pd.DataFrame([{"profile": run.path.parent.name, "run": run.name, "definition": DEFINITION, **asdict(run.config),
                          "start": run.config.origin, "teacher": run.config.teacher.arch if run.config.teacher else "",
                          "all_epochs": run.config.all_epochs, "candidates": run.config.candidates,
                          **run.metrics, "commit": run.provenance["commit"],
                          "device": run.provenance["device"], "seconds": run.provenance["train_seconds"]} for run in runs])


def histories(runs):
    """One row per Run and epoch: profile, arch, seed, width, method, run, and the columns of history.csv."""
    return pd.concat([run.history.assign(profile=run.path.parent.name, arch=run.config.arch, seed=run.config.seed, width=run.config.width,
                                         method=run.config.method, run=run.name) for run in runs], ignore_index=True)
