"""The report: notebooks executed in batch, the ledger of claims, and pages that open without a network.

    python -m lib.report --profile quick            train what is missing, execute the notebooks, build results/report/index.html
    python -m lib.report --profile textures --no-train    draw committed results alone
    python -m lib.report --readme                   refresh README.md's tables, results/README.md, figure.svg and claims.csv

lib.pages draws the pages, lib.readme writes the READMEs, lib.summary says in words what the numbers say.
"""
import argparse
import hashlib
import json
import os
import sys
import time
from difflib import get_close_matches
from pathlib import Path

import pandas as pd
from joblib import Parallel, cpu_count, delayed

from lib import check_name, claims, models, positive, readme, runs, studies
from lib.pages import REPORT, build, figure
from lib.summary import pending, terminal

ROOT = runs.ROOT
NOTEBOOKS = ROOT / "notebooks"


# ---- notebooks in batch ----

def check_parameters(notebooks, parameters):
    """Raise TypeError, in one sentence, for a parameter that none of `notebooks` has or whose type is not its default's."""
    import papermill
    known = {}
    for notebook in notebooks:
        known |= papermill.inspect_notebook(str(notebook))
    for name, given in parameters.items():
        if name not in known:
            close = get_close_matches(name, known, n=1, cutoff=0.4)
            raise TypeError(f"{', '.join(Path(n).name for n in notebooks)}: no parameter {name!r}"
                            f"{f'; did you mean {close[0]!r}?' if close else ''} (there are: {', '.join(known) or 'none'})")
        default = studies.value(known[name]["default"])
        allowed = (int, float) if type(default) is float else type(default)
        if default is not None and (not isinstance(given, allowed) or isinstance(given, bool) != isinstance(default, bool)):
            raise TypeError(f"parameter {name} = {given!r}; allowed: a {type(default).__name__}, as its default {default!r}")


def execute(notebook, output, **parameters):
    """Run `notebook` with `parameters` into `output`, a bar showing its cells.

    Raises TypeError for an unknown parameter (papermill only warns), RuntimeError where a cell fails: the output then holds the
    notebook up to there, with the traceback.
    """
    check_parameters([notebook], parameters)
    import papermill
    from papermill.exceptions import PapermillExecutionError
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")                  # this environment's kernel before a user's own
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")           # a warning about the debugger, for every kernel
    bar = {"desc": f"{parameters.get('profile', '')} {Path(notebook).stem}".strip(), "mininterval": 1 if sys.stderr.isatty() else 20}
    try:
        papermill.execute_notebook(str(notebook), str(output), parameters, cwd=str(ROOT), kernel_name="python3", progress_bar=bar,
                                   extra_arguments=["--IPKernelApp.log_level=40"])     # errors only
    except PapermillExecutionError as error:
        raise RuntimeError(f"{Path(notebook).name} stopped in cell {error.cell_index}: {error.ename}: {error.evalue} "
                           f"(traceback in {output})") from None


def fingerprint(notebook, parameters):
    """sha256 of everything that an executed notebook depends on: itself, lib, the pins, its parameters and the stored runs."""
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode())
    code = [path for path in sorted((ROOT / "lib").glob("*.py")) if path.name not in ("report.py", "pages.py", "readme.py")]
    reference = [path for name in ("reference/*.csv", "bench/projectors.csv") for path in sorted((ROOT / "results").glob(name))]
    for path in [Path(notebook), *code, ROOT / "requirements.txt", *reference]:
        digest.update(path.read_bytes())
    later = ("  umap.csv", "  transfer-")[:1 if b"studies.transferred" in Path(notebook).read_bytes() else 2]
    for profile in [*studies.COMMITTED, parameters.get("profile", "quick")]:
        for path in runs.paths(profile):
            sums = (path / "SHA256SUMS").read_text().splitlines() if (path / "SHA256SUMS").is_file() else ["missing"]
            sums = [line for line in sums if not any(name in line for name in later)]
            digest.update(f"{path.name}\0{sums}".encode())                 # later: made from the others by the first who looks
    return digest.hexdigest()


def executed(notebook, output, parameters):
    """The executed copy at `output`, made unless it is there and nothing that it depends on has changed. True if it was made."""
    stamp = Path(output).with_suffix(".sha256")
    if Path(output).is_file() and stamp.is_file() and stamp.read_text() == fingerprint(notebook, parameters):
        return False
    stamp.unlink(missing_ok=True)
    execute(notebook, output, **parameters)
    stamp.write_text(fingerprint(notebook, parameters))                    # afterwards: it may have trained what was missing
    return True


# ---- what the numbers say ----

def table(*profiles, store=runs.STORE, data=None, archs=None, own=()):
    """runs.table of the runs that the profiles plan today (`data` instead of their data set, `archs` beside their encoders, and
    configurations of the reader's `own`); what else lies there, such as runs of a learning rate since given up, would count a seed
    twice."""
    t = runs.table(*profiles, store=store)
    def names(study):
        return {(p, runs.folder(c, p).name) for p in profiles for given in ([data] if data else [None, *studies.profile(p).copies])
                for some in ([None, archs] if archs else [None]) for c in study(p, given, some)}
    if t.empty:
        return t
    planned = names(studies.plan) | {(p, runs.folder(c, p).name) for p in profiles for c in own}
    standard = names(studies.encoders)
    pairs = list(zip(t.profile, t.run))
    t = t.assign(arm=["trained" if pair in standard else "other" for pair in pairs])       # claims.baseline asks for it
    return t[[pair in planned for pair in pairs]].reset_index(drop=True)


def ledger(t, profiles):
    """lib.claims.ledger of each profile that has runs in the tidy table, one below the other; else its columns alone."""
    parts = [claims.ledger(t, profile) for profile in profiles if len(t) and (t.profile == profile).any()]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=claims.COLUMNS)


def write_claims(rows, path):
    """The ledger as CSV, six significant digits; the file is touched only where its text changes, and not made without runs."""
    if rows.empty:
        return
    text = rows.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


# ---- the command ----

def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m lib.report", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="quick", help=f"one of {', '.join(studies.PROFILES)}")
    parser.add_argument("--no-train", action="store_true", help="draw what is stored and train nothing")
    parser.add_argument("--jobs", type=positive, default=min(2, cpu_count()), help="trainings side by side")
    parser.add_argument("-p", dest="parameters", action="append", default=[], metavar="name=value",
                        help="a parameter of the notebooks, for instance archs=[resnet18]; may be repeated")
    parser.add_argument("--readme", action="store_true", help="only refresh README.md, results/README.md, figure.svg and claims.csv")
    args = parser.parse_args(argv)
    try:
        (refresh if args.readme else report)(args)
    except (ValueError, TypeError, OSError, RuntimeError) as error:        # BrokenRun is a RuntimeError
        if os.environ.get("TRACEBACK"):
            raise
        sys.exit(f"error: {error}")


def refresh(args):
    """`make readme`: README's tables, results/README.md, results/figure.svg and results/claims.csv from the committed runs."""
    t = table(*studies.COMMITTED)
    rows = ledger(t, studies.COMMITTED)
    if len(t):                                                             # the front page shows it then, and only then
        figure(t, t.profile.iloc[0], ROOT / "results" / "figure.svg")
    write_claims(rows, ROOT / "results" / "claims.csv")
    path = ROOT / "README.md"
    path.write_text(readme.refreshed(path.read_text(), t, rows))
    (ROOT / "results" / "README.md").write_text(readme.page(t, rows))


def report(args):
    """`make report`: train what the profile lacks, execute the notebooks that have changed, draw the pages, print the ledger."""
    started = time.time()
    profile, notebooks = args.profile, sorted(NOTEBOOKS.glob("*.ipynb"))
    check_name("profile", profile, studies.PROFILES)
    unclear = [p for p in args.parameters if "=" not in p]
    if unclear:
        raise ValueError(f"-p {unclear[0]}: write it as name=value")
    parameters = {name.strip(): studies.value(given.strip()) for name, given in (p.split("=", 1) for p in args.parameters)}
    if "profile" in parameters:
        raise ValueError("the profile is given by --profile (make report PROFILE=...), not as a parameter")
    if isinstance(parameters.get("archs"), str):
        parameters["archs"] = [arch.strip() for arch in parameters["archs"].split(",") if arch.strip()]
    check_parameters(notebooks, parameters)

    data, archs = parameters.get("data") or None, parameters.get("archs") or None
    planned = studies.plan(profile, data, archs)                           # an unknown encoder ends here
    if set(studies.chosen(profile, archs)) == {models.LARGE}:              # the paper's recipes are for small encoders
        notebooks = [notebook for notebook in notebooks if not notebook.stem.startswith("08_")]
    failed = None
    if args.no_train or parameters.get("train") is False:
        parameters["train"] = False
        notebooks = notebooks if any(c.epochs and runs.folder(c, profile).exists() for c in planned) else []
    else:
        print(f"1/3 training what profile {profile} lacks", flush=True)
        try:
            studies.main(["--profile", profile, "--jobs", str(args.jobs), *(["--data", data] if data else []),
                          *(["--archs", ",".join(archs)] if archs else [])])
        except studies.Failed as stop:                                     # the others are drawn
            if not any(c.epochs and runs.folder(c, profile).exists() for c in planned):
                raise
            failed, parameters["train"] = stop.code, False
            print(failed, file=sys.stderr, flush=True)

    print("2/3 executing the notebooks", flush=True)
    drawn = [REPORT / "notebooks" / notebook.name for notebook in notebooks]
    made = Parallel(n_jobs=args.jobs, prefer="threads", return_as="generator")(     # each waits for a kernel of its own
        delayed(executed)(notebook, output, {"profile": profile} | own_parameters(notebook, parameters))
        for notebook, output in zip(notebooks, drawn))
    for notebook, anew in zip(notebooks, made):
        print(f"    {notebook.stem}: {'executed' if anew else 'unchanged'}, {time.time() - started:.0f} s after the start", flush=True)

    print("3/3 drawing the pages", flush=True)
    mine = profile if data or profile not in studies.COMMITTED else None   # other data are the reader's, also under our profile
    others = [p for p in studies.COMMITTED if p != mine]
    write_claims(ledger(table(*studies.COMMITTED), studies.COMMITTED), ROOT / "results" / "claims.csv")
    own = [c for name, study in studies.SWEEPS.items() if parameters.get(name) for c in study(profile, data, archs, parameters[name])]
    asked = table(profile, data=data, archs=archs)       # with encoders that the profile itself has not
    rest = table(*[p for p in others if p != profile])
    rows = ledger(pd.concat([rest, asked], ignore_index=True), [*others, *([mine] if mine else [])])
    t = pd.concat([rest, table(profile, data=data, archs=archs, own=own)], ignore_index=True)     # values of one's own are not judged
    t = t.copy()                                                           # in one piece, or pandas warns of its fragments
    if mine:
        write_claims(rows[rows.profile == mine], ROOT / "results" / "mine" / "claims.csv")
    note = "".join(f"{sentence}\n" for sentence in pending(asked, profile, data, archs))
    index = build(t, rows, [*others, *([mine] if mine else [])], mine, drawn, note=note if mine else "")
    print(f"\n{terminal(rows)}\n\n{note}{index}  ({time.time() - started:.0f} s)")
    if failed:
        sys.exit(failed)


def own_parameters(notebook, parameters):
    """Those of `parameters` that this notebook has."""
    import papermill
    known = papermill.inspect_notebook(str(notebook))
    return {name: given for name, given in parameters.items() if name in known}


if __name__ == "__main__":
    main()
