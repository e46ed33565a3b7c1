"""`python -m lib.reproduce`: train stored runs anew in a store of their own, and print the stored numbers beside the new ones.

On the machine that made a run (device, threads, versions and rounding as in its provenance.json; on a GPU in deterministic mode) they
must be identical, history included. On another, each measure must lie within 3 standard deviations over seeds of the stored one: pooled
over the arms of that encoder that are trained by the same method, or not at all. Where no arm has two seeds, nothing is judged.
"""
import argparse
import sys
from collections import Counter
from concurrent.futures import BrokenExecutor

import numpy as np
import pandas as pd
import torch

from lib import check_name, claims, positive, runs, schedule, studies, train

STORE = runs.STORE / ".reproduced"
MEASURES = ("knn_val", "knn_test", "linear_test", "instdisc_dsd_top1_test", "uniformity_d_test", "intra_class_d_test")
SAME = ("device", "threads", "python", "torch", "torchvision", "numpy", "scikit-learn")
DEVIATIONS = 3


def spread(table, measure):
    """{kind: standard deviation over seeds}, pooled over the arms of a kind (equal but for the seed) that have two or more seeds."""
    arm = [c for c in studies.PretrainConfig.__dataclass_fields__ if c in table and c != "seed"]
    groups = table.assign(arm=claims._key(table, arm), kind=[kind(**row) for row in table.to_dict("records")])
    groups = groups.groupby(["kind", "arm"])[measure]
    of_arms = pd.DataFrame({"variance": groups.var(), "freedom": groups.count() - 1}).query("freedom > 0")
    pooled = (of_arms.variance * of_arms.freedom).groupby("kind").sum() / of_arms.freedom.groupby("kind").sum()
    return np.sqrt(pooled).to_dict()


def kind(arch, method, epochs, evaluation, **_):
    """The runs whose seeds spread alike."""
    return f"{arch} {method} {evaluation}" if epochs else f"{arch} untrained"


def differences(stored, again):
    """Why the two runs need not be identical: a list of sentences, empty where they must be."""
    pairs = [(name, stored.provenance.get(name), again.provenance.get(name)) for name in SAME]
    if stored.config.epochs:                                               # 1: before it was stored
        pairs.append(("lib.train.ROUNDING", *(run.provenance.get("rounding", 1) for run in (stored, again))))
    found = [f"{name} was {before}, here {now}" for name, before, now in pairs if before != now]
    for run in (stored, again):                                            # a run that was stopped may have gone on elsewhere
        parts = run.provenance.get("sessions", [])
        found += [f"{name} changed where it went on" for name in ("device", "threads", "torch") if len({part[name] for part in parts}) > 1]
    if torch.cuda.is_available() and not all(run.provenance.get("deterministic") for run in (stored, again)):
        found.append("a GPU without DETERMINISTIC=1")
    return found


def compared(stored, again, table):
    """Rows of one run: measure, stored, reproduced, tolerance, agrees. table: of the profile's stored runs, for the seeds' spread."""
    same, rows = not differences(stored, again), []
    for measure in [m for m in MEASURES if m in stored.metrics and m in again.metrics]:
        a, b = stored.metrics[measure], again.metrics[measure]
        tolerance = 0.0 if same else DEVIATIONS * spread(table, measure).get(kind(**vars(stored.config)), np.nan)
        rows.append({"run": stored.name, "measure": measure, "stored": a, "reproduced": b, "tolerance": tolerance,
                     "agrees": bool(abs(a - b) <= tolerance) if not np.isnan(tolerance) else None})
    if same:
        equal = stored.metrics == {name: again.metrics.get(name) for name in stored.metrics} and stored.history.equals(again.history)
        rows.append({"run": stored.name, "measure": "all metrics and history", "stored": np.nan, "reproduced": np.nan, "tolerance": 0.0,
                     "agrees": equal})
    return rows


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m lib.reproduce", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="textures", help=f"one of {', '.join(studies.PROFILES)}")
    parser.add_argument("--match", metavar="TEXT", default="", help="only runs whose folder's name contains TEXT")
    parser.add_argument("--jobs", type=positive, default=1, help="runs side by side")
    args = parser.parse_args(argv)
    try:
        check_name("profile", args.profile, studies.PROFILES)
        everything = []
        for path in runs.paths(args.profile):
            try:
                everything.append(runs.load(path))
            except runs.BrokenRun as error:                                # of the others, it matters for the seeds' spread alone
                if args.match in path.name:
                    raise
                print(f"left out of the spread over seeds: {error}", flush=True)
        wanted = [run for run in everything if args.match in run.name]
        if not wanted:
            raise ValueError(f"--match {args.match!r} is in the name of none of the {len(everything)} stored runs of {args.profile}")
        for run in wanted:
            studies.check(run.config)
        rest_on = dict.fromkeys(c for run in wanted for c in (run.config, *runs.needs(run.config)))
        earlier = [path for c in rest_on if (path := runs.folder(c, args.profile, STORE)).exists()]
        here = runs.provenance("cuda" if torch.cuda.is_available() else "cpu")
        for path in earlier:                                               # what other code or versions made says nothing of today's
            try:
                made = runs.load(path).provenance
                current = made.get("code") == train.CODE and all(made.get(name) == here[name] for name in SAME if name != "threads")
            except runs.BrokenRun:
                current = False
            if not current:
                runs.set_aside(path)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    needs = schedule.duration(schedule.hours([run.config for run in wanted]))
    print(f"{counted(len(wanted))} of {args.profile}, about {needs} on two idle cores with --jobs 2, into {STORE}", flush=True)
    failed = []
    try:
        for config, error in schedule.outcomes([run.config for run in wanted], args.profile, args.jobs, STORE):
            failed += [f"{runs.folder(config, args.profile).name}: {error}"] if error else []
    except KeyboardInterrupt:
        print("stopped: the same command goes on where this one was", *failed, sep="\n", file=sys.stderr)
        sys.exit(130)
    except BrokenExecutor:
        failed.append(schedule.WORKER_KILLED)
    table, rows, why = runs.tidy(everything), [], []
    for run in wanted:
        path = runs.folder(run.config, args.profile, STORE)
        if path.exists():
            rows += compared(run, again := runs.load(path), table)
            why += differences(run, again)
    result = pd.DataFrame(rows, columns=["run", "measure", "stored", "reproduced", "tolerance", "agrees"])
    shown = result.assign(agrees=result.agrees.map({True: "yes", False: "NO"}).fillna("no spread known"))
    print(shown.to_string(index=False, float_format=lambda x: f"{x:.4f}", na_rep=""))
    for reason, count in Counter(why).items():
        print(f"{counted(count)} compared within the seeds' spread, not to the bit: {reason}")
    apart = result[result.agrees.eq(False)].run.nunique()
    failed += [f"{apart} of {counted(len(wanted))} not reproduced"] if apart else []
    if failed:
        sys.exit("error: " + "; ".join(failed))
    judged = result[result.agrees.notna()].run.nunique()
    print(f"reproduced: {counted(judged)}" + ("" if judged == len(wanted) else
          f"; not judged, since no arm of that kind has two seeds: {counted(len(wanted) - judged)}"))


def counted(number):
    return f"{number} run" + "s" * (number != 1)


if __name__ == "__main__":
    main()
