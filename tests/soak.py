"""`make soak`: a training killed at random moments ends in the bytes of one that was left alone; four processes share a grid.

The tables in results/soak/ are what this prints. `make test` runs the same functions with fewer kills.
"""
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
from conftest import TINY

from lib import checkpoint, runs, studies
from lib import data as datasets

ROOT = Path(__file__).resolve().parents[1]
KILLED = replace(TINY, limit=512, width=0.5, epochs=4, evaluation="full")      # 16 steps an epoch
STEPS = KILLED.limit // KILLED.batch_size
MIDWAY, EVALUATING, WRITING = "within an epoch", "within the evaluation", "within the writing of a checkpoint"
TIMING = ("provenance.json", "SHA256SUMS")                                     # what may differ between two trainings of a run


def begin(task, store, *arguments):
    """A process of its own that does `task` (a function below) in `store`."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    code = f"import soak; soak.{task}({str(store)!r}, *{arguments!r})"
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _prepare(store):
    """In a process: one thread, data beside the store, a line in the log when a training begins and when it is stored."""
    import torch
    torch.set_num_threads(1)
    store = Path(store)
    runs.STORE, train = store, runs._train
    runs.load_data = lambda name, limit=None, device="cpu": datasets.load(name, root=store.parent / "data", limit=limit)

    def logged(config, path, *rest):
        with open(store.parent / "log", "a") as file:
            file.write(f"{os.getpid()} {path.name}\n")
        train(config, path, *rest)
    runs._train = logged


def one(store, every=0.0, epochs=KILLED.epochs):
    """Train KILLED, with a checkpoint every so many seconds."""
    _prepare(store)
    runs.CHECKPOINT_SECONDS = every
    runs.run_or_load(replace(KILLED, epochs=epochs), "soak", progress=None)


def grid(store, jobs=1, epochs=6):
    """Train what a small profile lacks, as `python -m lib.studies` does."""
    _prepare(store)
    runs.CHECKPOINT_SECONDS = 0.2
    base = replace(TINY, width=1.0, epochs=epochs, evaluation="val")
    studies.PROFILES["soak"] = studies.Profile(base, encoders=("mobilenet_v3_small",), seeds=3, seeds_of={}, widths=(), sweeps=False)
    studies.main(["--profile", "soak", "--only", "observations", "--jobs", str(jobs)])


def contents(folder):
    """{file name: bytes} of a run, but for what only tells when and where it was made."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name not in TIMING}


def left(store):
    """What lies hidden beside the finished runs."""
    return [path.name for path in (store / "soak").iterdir() if path.name.startswith(".")]


def kills(place, wanted=20, midway=10, writing=3, evaluating=1, seed=0):
    """Kill trainings of KILLED at random until enough were hit. Returns (table, a row per kill; the runs that were finished between)."""
    draw, rows, finished = random.Random(seed), [], []
    resume = runs._checkpoint(runs.folder(KILLED, "soak", place / "store").with_name(f".{runs.folder(KILLED, 'soak').name}.partial"))
    aside = resume.with_name(f"{resume.name}.aside")
    while len(rows) < wanted or sum(row[MIDWAY] for row in rows) < midway or sum(row[WRITING] for row in rows) < writing \
            or sum(row[EVALUATING] for row in rows) < evaluating:
        if len(rows) > 5 * wanted:
            raise AssertionError(f"after {len(rows)} kills too few were within an epoch, an evaluation or the writing of a checkpoint")
        aside.unlink(missing_ok=True)                                      # of the last kill: this one's own shall be seen
        before = resume.stat().st_mtime_ns if resume.exists() else 0
        process = begin("one", place / "store")
        while process.poll() is None and not (resume.exists() and resume.stat().st_mtime_ns > before):
            time.sleep(0.001)                                              # until it has stored a step of its own
        began, wait = time.time(), draw.uniform(0.0, 1.5)
        while process.poll() is None and time.time() - began < wait:
            time.sleep(0.001)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGSTOP)                           # so that we know where it was
            time.sleep(0.01)
            hit = aside.exists()
            process.kill()
            process.wait()
            if resume.exists():                                            # else it was stored already
                step = checkpoint.load(resume)[1]["step"]
                rows.append({"kill": len(rows) + 1, "seconds after the first step of that process": round(wait, 2),
                             f"goes on after step (of {KILLED.epochs * STEPS})": step, MIDWAY: step % STEPS > 0,
                             EVALUATING: step == KILLED.epochs * STEPS, WRITING: hit})
        elif process.returncode:
            raise AssertionError(process.communicate()[0])
        folder = runs.folder(KILLED, "soak", place / "store")
        if folder.exists():
            runs.load(folder)
            finished.append(contents(folder))
            folder.rename(place / f"finished{len(finished)}")
    process = begin("one", place / "store")
    if process.wait():
        raise AssertionError(process.communicate()[0])
    return pd.DataFrame(rows), [*finished, contents(runs.folder(KILLED, "soak", place / "store"))]


def processes(place, count=4):
    """`count` processes at one grid, the first that is within a training killed once all are at work. Returns a table: a row per training
    that was begun, and after which step."""
    crew = [begin("grid", place / "store", 1, 12) for _ in range(count)]

    def log():
        return [line.split() for line in (place / "log").read_text().splitlines()] if (place / "log").exists() else []

    def halfway():
        """(process, checkpoint) of a training that has stored a step, its process at rest; or None."""
        for pid, name in reversed(log()):
            resume = runs._checkpoint(place / "store" / "soak" / name)
            process = next(p for p in crew if p.pid == int(pid))
            run = resume.with_name(name.removeprefix(".").removesuffix(".partial"))
            if resume.exists() and not run.exists() and process.poll() is None:
                os.kill(process.pid, signal.SIGSTOP)
                if resume.exists() and not run.exists() and [n for p, n in log() if p == pid][-1] == name:
                    return process, resume
                os.kill(process.pid, signal.SIGCONT)
    found = None
    while not found and all(process.poll() is None for process in crew):
        found = halfway() if len({pid for pid, _ in log()}) == count else None
        time.sleep(0.005)
    if not found:
        for process in crew:
            process.kill()
        raise AssertionError("no process was met within a training: " + "".join(process.communicate()[0] for process in crew))
    victim, resume = found
    step = checkpoint.load(resume)[1]["step"]
    victim.kill()
    for process in crew:
        out = process.communicate()[0]
        if process.returncode and process is not victim:
            raise AssertionError(out)
    rows = pd.DataFrame([{"process": crew.index(next(p for p in crew if p.pid == int(pid))) + 1, "killed": int(pid) == victim.pid,
                          "run": name.removeprefix(".").removesuffix(".partial"), "goes on after step": 0} for pid, name in log()])
    half = resume.name.removeprefix(".").removesuffix(".checkpoint.safetensors")
    rows.loc[~rows.killed & (rows.run == half), "goes on after step"] = step
    return rows


def main():
    results = ROOT / "results" / "soak"
    results.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        (place / "alone").mkdir()
        undisturbed = begin("one", place / "alone" / "store", 1e9)
        if undisturbed.wait():
            raise AssertionError(undisturbed.communicate()[0])
        alone = contents(runs.folder(KILLED, "soak", place / "alone" / "store"))
        (place / "kills").mkdir()
        table, finished = kills(place / "kills")
        same = all(found == alone for found in finished)
        (place / "grid").mkdir()
        shared = processes(place / "grid")
        over = left(place / "kills" / "store") + left(place / "grid" / "store")
        stored = [path.name for path in runs.paths("soak", place / "grid" / "store")]
    table.to_csv(results / "kills.csv", index=False)
    shared.to_csv(results / "processes.csv", index=False)
    ended = shared[~shared.killed]
    once = sorted(ended.run) == sorted(set(ended.run)) and set(shared.run) == set(stored)
    summary = {"command": "make soak", "kills": len(table), MIDWAY: int(table[MIDWAY].sum()), EVALUATING: int(table[EVALUATING].sum()),
               WRITING: int(table[WRITING].sum()), "runs finished": len(finished),
               "files compared": list(alone), "identical to the undisturbed run": same,
               "left over": over, "processes": int(shared.process.nunique()), "runs": len(stored), "each trained to its end once": once,
               "machine": {k: v for k, v in runs.provenance("cpu").items() if k in ("commit", "dirty", "date", "torch", "device", "cores")}}
    (results / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(table.to_string(index=False), shared.to_string(index=False), json.dumps(summary, indent=1), sep="\n\n")
    sys.exit(0 if same and once and not over else 1)


if __name__ == "__main__":
    main()
