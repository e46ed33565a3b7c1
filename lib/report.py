"""The report: notebooks executed in batch, the ledger of claims, and pages that open without a network.

    python -m lib.report --profile quick            train what is missing, execute the notebooks, build results/report/index.html
    python -m lib.report --profile textures --no-train    draw committed results alone
    python -m lib.report --readme                   refresh README.md's tables, results/figure.svg and results/claims.csv

lib.pages draws the pages, lib.summary says in words what the numbers say.
"""
import argparse
import hashlib
import json
import os
import re
import sys
import time
from difflib import get_close_matches
from pathlib import Path

import pandas as pd
from joblib import Parallel, cpu_count, delayed

from lib import check_name, claims, models, positive, runs, studies
from lib.pages import FIGURE, REPORT, build, figure
from lib.summary import (
    ALONE,
    IN_GRID,
    LEGEND,
    MARK,
    MARKS,
    WORDS,
    agreement,
    answers,
    bear_in_mind,
    caption,
    grid,
    headline,
    nutshell,
    of_what,
    overall,
    partly,
    pending,
    said,
    short,
    terminal,
    whose,
)

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
    code = [path for path in sorted((ROOT / "lib").glob("*.py")) if path.name not in ("report.py", "pages.py")]
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


# ---- README ----

def markdown(rows):
    """A frame of text as a Markdown table."""
    def line(cells):
        return "| " + " | ".join(str(c).replace("|", "\\|") or "–" for c in cells) + " |"
    return "\n".join([line(rows.columns), "|" + " --- |" * len(rows.columns), *[line(row) for row in rows.values]])


def readme_results(t):
    """The README's result section from the committed runs: the paper's questions answered, the figure, each profile's headline table, then
    folded what is decided, what to bear in mind and every verdict."""
    profiles = [p for p in studies.COMMITTED if len(t) and (t.profile == p).any()]
    if not profiles:
        return "No committed profile has runs yet: every claim is *not tested*."
    everything = ledger(t, profiles)
    rows = overall(everything)
    tested = set(everything[everything.verdict != claims.NOT_TESTED].claim.str.split("/").str[0])
    verdicts = pd.DataFrame([{"claim": f"{c.statement} ({c.source})"} | {
        r.profile: f"**{r.verdict}** {whose(everything, r)}{said(r)}{agreement(everything, r)}{partly(everything, r)}".strip()
        for r in rows[rows.claim == c.name].itertuples()} for c in claims.CLAIMS if c.name in tested])
    lacking = (f"{len(claims.CLAIMS) - len(tested)} of {len(claims.CLAIMS)} claims are *not tested* on any encoder yet, for want of runs "
               "that the rule admits.") if len(tested) < len(claims.CLAIMS) else ""
    brief = [f"**{nutshell(everything, p)}**\n\nThe paper's questions, answered on `{p}`{of_what(t, p)} unless an answer names "
             "other seeds:\n\n"
             + "\n".join(f"- **{question}** *{answer}* {why}" for question, answer, why in asked)
             + f"\n\n{markdown(grid(everything, p))}\n\n{MARKS}; {IN_GRID}." for p in profiles if (asked := answers(t, everything, p))]
    decisions = []
    for p in profiles:
        counts, chance, decided, alone = short(everything, p)
        lines = "".join(f"\n- {MARK[v]} **{v}** {words}" for v, words in decided)
        decisions.append(f"**`{p}` in short**, {counts} {chance}".strip() + ("\n" + lines if lines else ""))
        decisions.append(f"{ALONE}\n" + "".join(f"\n- {words}" for words in alone) if alone else "")
    caveats = "\n".join(f"- {sentence}" for sentence in bear_in_mind(t, everything, profiles))
    tables = [f"`{p}`: {caption(t, p)}\n\n{markdown(headline(t, p))}" for p in profiles]
    drawn = (f"![{FIGURE}](results/figure.svg)\n\n"
             f"The committed runs of `{profiles[0]}`: each dot is a seed, each bar a 95 % interval; no bar where a run's number is "
             "only a bound.")
    folded = "\n\n".join(f"<details>\n<summary>{summary}</summary>\n\n{block}\n\n</details>" for summary, block in {
        "What is decided": "\n\n".join(part for part in decisions if part), "To bear in mind": caveats,
        "Every claim's verdict and interval": f"{LEGEND}\n\n{markdown(verdicts)}" if tested else "",
        "Words": "\n".join(f"- **{word}**: {meaning}" for word, meaning in WORDS.items())}.items() if block)
    return "\n\n".join(part for part in (*brief, drawn, *tables, folded, lacking) if part)


def readme_speed(folder=None):
    """The README's section on speed, from the tables of `make bench` in results/bench: a column per encoder."""
    folder = folder or ROOT / "results" / "bench"
    found = {name: pd.read_csv(folder / f"{name}.csv", dtype={"commit": str}).set_index("arch")
             for name in ("steps", "rivals", "limits", "parts") if (folder / f"{name}.csv").is_file()}
    if "steps" not in found:
        return "`make bench` measures it on your machine; our own tables are outstanding."
    steps, lacking = found["steps"], [name for name in ("rivals", "limits") if name not in found]

    def ratios(table, name, form):
        return {a: f"{row[name]:{form}} ({row[f'{name}_least']:{form}} to {row[f'{name}_most']:{form}})" for a, row in table.iterrows()}

    rows = {"whole training step, images/s": {a: f"{row.whole_step_images_per_second:,.0f}" for a, row in steps.iterrows()},
            f"share of the bare model step's rate (goal {steps.goal.iloc[0]:.0%})": ratios(steps, "ratio", ".0%")}
    if "limits" in found:
        rows["bare step, share of this machine's limit (its rate of one large product or copy)"] = {
            a: f"{share:.0%}" for a, share in found["limits"].share_of_limit.items()}
    if "parts" in found:
        each = {a: part[part.share.notna()].nlargest(3, "share") for a, part in found["parts"].groupby(level=0)}
        rows["its three longest parts: share of the time, how many times as long as their own limit"] = {
            a: ", ".join(f"{r.part} {r.share:.0%}, {r.times_its_limit:.1f} times" for r in part.itertuples()) for a, part in each.items()}
    rivals = {name: part for name, part in found["rivals"].groupby("pipeline", sort=False)} if "rivals" in found else {}
    for name, part in rivals.items():
        if name.startswith("ours") or "bare" in name:                      # those have other steps or no data
            continue
        goal = f" (goal {part.goal.iloc[0]:g})" if part.goal.iloc[0] > 0 else ""
        rows[f"ours, times as fast as: {name}{goal}"] = ratios(part, "ours_is_times_as_fast", ".1f")
        if "goal_with_the_same" in part and (goal := part.goal_with_the_same.iloc[0]) > 0:         # not on a GPU
            rows[f"the same with torchvision's layers on both sides (goal {goal:g})"] = ratios(part, "with_the_same_layers", ".1f")
        if (bare := rivals.get(f"{name}, bare step")) is not None:
            most = part.ours_is_times_as_fast / bare.ours_is_times_as_fast
            rows[f"{name} on a constant batch, times as fast as {name}: the most that a pipeline could give"] = {
                a: f"{value:.1f}" for a, value in most.items()}
    drawn = pd.DataFrame([{"measured": what} | {models.ENCODERS[a].label: told.get(a, "") for a in steps.index}
                          for what, told in rows.items()])
    where = dict.fromkeys(f"{r.device}, {r.cores} cores, torch {r.torch}, at {r.commit[:7]}" for r in (t.iloc[0] for t in found.values()))
    return (f"{markdown(drawn)}\n\nA range in brackets: the least and the most of the rounds, before it their median. Measured by "
            f"`make bench` on {'; '.join(where)}; in turns, so that other load on the machine moves ratios less than rates. Tables, "
            "each with the commit that it was measured at, in "
            f"[results/bench](results/bench): {', '.join(sorted(path.stem for path in folder.glob('*.csv')))}"
            + (f"; outstanding: {' and '.join(lacking)}." if lacking else "."))


BETWEEN = re.compile(r"(<!-- (results|speed): python -m lib.report --readme -->\n).*?(\n<!-- end of \2 -->)", re.DOTALL)


def refreshed(readme, t):
    """README text with what stands between each pair of markers drawn anew."""
    return BETWEEN.sub(lambda m: m[1] + (readme_results(t) if m[2] == "results" else readme_speed()) + m[3], readme)


# ---- the command ----

def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m lib.report", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="quick", help=f"one of {', '.join(studies.PROFILES)}")
    parser.add_argument("--no-train", action="store_true", help="draw what is stored and train nothing")
    parser.add_argument("--jobs", type=positive, default=min(2, cpu_count()), help="trainings side by side")
    parser.add_argument("-p", dest="parameters", action="append", default=[], metavar="name=value",
                        help="a parameter of the notebooks, for instance archs=[resnet18]; may be repeated")
    parser.add_argument("--readme", action="store_true", help="only refresh README.md, results/figure.svg and results/claims.csv")
    args = parser.parse_args(argv)
    try:
        (readme if args.readme else report)(args)
    except (ValueError, TypeError, OSError, RuntimeError) as error:        # BrokenRun is a RuntimeError
        if os.environ.get("TRACEBACK"):
            raise
        sys.exit(f"error: {error}")


def readme(args):
    """`make readme`: README's tables, results/figure.svg and results/claims.csv from the committed runs."""
    t = table(*studies.COMMITTED)
    if len(t):                                                             # readme_results shows it then, and only then
        figure(t, t.profile.iloc[0], ROOT / "results" / "figure.svg")
    write_claims(ledger(t, studies.COMMITTED), ROOT / "results" / "claims.csv")
    path = ROOT / "README.md"
    path.write_text(refreshed(path.read_text(), t))


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
        print(f"    {notebook.stem}: {'executed' if anew else 'unchanged'}, {time.time() - started:.0f} s", flush=True)

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
