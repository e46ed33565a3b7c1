"""How long a list of trainings takes, and to train it: several side by side, stopped in order, what is damaged set aside."""
import math
import os
import signal
import sys
import threading
import uuid
from concurrent.futures import BrokenExecutor
from contextlib import nullcontext

import torch
from joblib import Parallel, cpu_count, delayed

from lib import checkpoint, models, runs
from lib import data as datasets

IMAGES_PER_SECOND = {"mobilenet_v3_small": 1800, "deit_tiny": 205, "efficientnet_b0": 430, "mobilenet_v3_large": 670,
                     "resnet18": 950, "resnet50": 200}      # roughly, images a second, one thread, 32 px, ImageNet stem
BUSY, STOPPED = "busy", "stopped"
WORKER_KILLED = ("a worker was killed, perhaps for want of memory; what is finished is stored, and the same command, better with fewer "
                 "--jobs, goes on where the others were")
_SEEN = {}           # extents of folders: a plan asks often, and a large one takes a while


def extent(name):
    """lib.data.folder_extent, (side, images), read once; None for what is no folder or not there."""
    if name not in _SEEN and (found := datasets.folder_extent(name)):
        _SEEN[name] = found
    return _SEEN.get(name)


def hours(configs):
    """Rough hours on two CPU cores, two runs side by side, from measured steps; the work grows with the multiply-adds. Starts and teachers
    that are not among `configs` count too: in a clone, which has no weights, they are trained again.

    A step is MoCo's and worth four forward passes: query forward and backward (three), key forward (one). Both views of SimCLR have a
    gradient; who has no key has the teacher's forward pass, or nothing.
    """
    def speed(c):                                                          # images a second of a step
        usual = models.multiply_adds(c.arch, 32)
        rate = IMAGES_PER_SECOND.get(c.arch, 2e9 / usual)
        return rate * usual / models.multiply_adds(c.arch, there[c.data][0], c.stem, c.width)
    total, others = 0, {needed for config in configs for needed in runs.needs(config)} - {*configs}
    there = {name: extent(name) or datasets.EXTENTS.get(name.split(":")[0], (224, 1_281_167))
             for name in {c.data for c in (*others, *configs)}}
    for c in [*others, *configs]:
        if c.arch == "pixels":
            continue
        images = min(there[c.data][1], c.limit or there[c.data][1])
        embedded = min(3.7 * images, 1.3 * images + 30_000) if c.evaluation == "full" else 0.6 * images
        share = 2 if c.symmetric else {"simclr": 1.5, "seed": 0.75, "supervised": 0.75}.get(c.method, 1)
        total += (c.epochs * images * share + 0.25 * embedded) / speed(c)              # to embed is one forward pass
        total += 0.25 * c.epochs * images / speed(c.teacher) if c.teacher else 0
        total += 30 if c.evaluation == "full" else 5
    return total / 2 / 3600


def damaged(paths, mend=False):
    """{path: what is wrong} of stored runs that cannot be trusted; `mend` sets them aside and says where they are now."""
    found = {}
    for path in paths:
        with runs._claim(path) if mend else nullcontext():                 # of two that mend, the slower must leave the new run alone
            try:
                runs.load(path) if path.exists() else None
            except runs.BrokenRun as error:
                found[path] = f"{str(error).split(';')[0]}; it is now {runs.set_aside(path)}" if mend else str(error)
    return found


def duration(hours):
    """Hours as a reader says them: minutes below one hour."""
    return f"{hours:.1f} hours" if hours >= 1 else f"{math.ceil(60 * hours) or 1} min"


def outcomes(configs, profile_name, jobs, store=None):
    """Train, `jobs` side by side, what is not stored: (config, None or what went wrong) of each run as it ends; those that another
    process trains last, once that is done or dead. Raises KeyboardInterrupt when asked to stop, once what runs is stored, and
    BrokenExecutor where a worker was killed."""
    store = store or runs.STORE
    flag = store / ".locks" / f"stop-{uuid.uuid4().hex}" if jobs > 1 else None      # its own, also among machines that share the store
    with checkpoint.requests(flag) if flag else nullcontext([]) as asked:
        for wait in (False, True):
            busy = []
            workers = Parallel(n_jobs=jobs, return_as="generator_unordered", pre_dispatch="n_jobs", batch_size=1)
            try:
                for config, outcome in workers(delayed(_run)(c, profile_name, jobs, store, wait, flag) for c in configs if not asked):
                    if outcome == BUSY:
                        busy.append(config)
                    elif outcome == STOPPED:
                        asked.append(outcome)
                    else:
                        yield config, outcome
            except BrokenExecutor:
                if not asked:                                              # else a worker that had just begun when it was asked to stop
                    raise
            configs = busy
        if asked:
            raise KeyboardInterrupt


def _run(config, profile_name, jobs, store, wait, flag=None):
    """One run in a worker: (config, None once it is stored, BUSY, STOPPED or what went wrong)."""
    if jobs > 1:                                                           # a worker serves many runs: never from what it has now
        torch.set_num_threads(max(1, cpu_count() // jobs))          # those that a scheduler gave us
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers
              if signal.getsignal(number) is not signal.SIG_IGN or flag}
    done = threading.Event()
    try:
        if flag and flag.exists():                                         # handed out before the request
            return config, STOPPED
        if flag:
            threading.Thread(target=_obey, args=(flag, done), daemon=True).start()
        bar = jobs == 1 and sys.stderr.isatty()
        run = runs.run_or_load(config, profile_name, store=store, progress="bar" if bar else "lines", wait=wait)
    except KeyboardInterrupt:
        return config, STOPPED
    except Exception as error:  # one bad run must not end a night's study; to be asked to stop is no Exception
        return config, f"{type(error).__name__}: {error}"
    finally:
        done.set()
        for number, handler in before.items():                             # a worker without a run has nothing to store
            signal.signal(number, signal.SIG_IGN if flag else handler)
    return config, None if run else BUSY


def _obey(flag, done, seconds=0.2):
    """In a worker that trains: once the flag is raised, be asked to stop as by SIGTERM. A process without a run is never signalled."""
    while not done.wait(seconds):
        if flag.exists():
            os.kill(os.getpid(), signal.SIGTERM)
            return
