"""The report: notebooks executed in batch, the ledger of claims, and pages that open without a network.

    python -m lib.report --profile quick            train what is missing, execute the notebooks, build results/report/index.html
    python -m lib.report --profile textures --no-train    draw committed results alone
    python -m lib.report --readme                   refresh README.md's tables, results/figure.svg and results/claims.csv

Sphinx lays the pages out (MyST-NB, theme furo); this module is also the Sphinx extension that turns LaTeX into MathML, so that no
page loads a script for its mathematics.
"""
import argparse
import hashlib
import html
import json
import math
import os
import re
import shutil
import sys
import textwrap
import time
from difflib import get_close_matches
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from joblib import Parallel, cpu_count, delayed

from lib import check_name, claims, data, explore, models, positive, probe, runs, schedule, studies
from lib.changes import changes
from lib.explore import html_table, text
from lib.summary import (
    ALONE,
    IN_GRID,
    MARK,
    MARKS,
    agreement,
    answers,
    grid,
    of_encoders,
    overall,
    partly,
    rule_html,
    said,
    short,
    terminal,
    whose,
)

ROOT = runs.ROOT
NOTEBOOKS = ROOT / "notebooks"
REPORT = ROOT / "results" / "report"
SUPERVISED = "supervised, same recipe"    # as plots.ARM_LABELS, which is not imported where no figure is drawn
FIGURE = ("Rows of intervals per encoder: kNN accuracy trained and untrained, pretext accuracy on train minus held-out, completeness at "
          "equal purity")
QUESTION = ("Can small networks learn by contrastive self-supervision without a large teacher, and what stops them? Shi et al. "
            "([AAAI 2022](https://arxiv.org/abs/2107.14762)) answer that they complete the pretext task without overfitting but "
            "over-cluster: they split every class into small pure groups instead of gathering it.")
STUDY = ("This study trains the paper's five small encoders and a large reference with MoCo v2, measures both observations, and "
         "ends each claim in a verdict that follows from a 95 % interval by a rule fixed before the runs; where its code was made "
         "stricter afterwards, \"What changed, and why\" says so.")
KIND = {"textures": "drawn grey patterns of 32 pixels, whose factors are known", "cifar10": "photographs of 32 pixels (CIFAR-10)",
        "cifar10_jpeg": "photographs of 32 pixels (a JPEG copy of CIFAR-10)"}
WORDS = {
    "profile": "a data set, a schedule and seeds: a column of the verdicts",
    "arm": "runs that differ in their seeds alone: an encoder's baseline, or its baseline with a change",
    "the paper's four, the paper's three": "temperature 0.1, stronger augmentation, a wide projector and a start by SEED; the same without "
                                           "that start, hence without a teacher",
    "as a whole": "a claim about all encoders is supported by all of them, and contradicted by one, whose interval nothing corrects",
    "textures:tint=0.5": "the same patterns, each with a hue that says nothing of its class: a shortcut, built in",
    "pretext task": "instance discrimination: is an image nearer to its own view than to every other image? D-SD: originals, each against "
                    "its view and the other originals; SD-SD: views against views. Chance is one over the number of images",
    "kNN, linear probe": "accuracy on held-out images of the nearest neighbours' classes, and of a linear classifier on frozen features",
    "purity (homogeneity), completeness": "of k-means clusters: whether a cluster holds one class, whether a class lies in one cluster; 1 "
                                          "is best. To over-cluster is to be as pure as the large encoder, and less complete",
    "at equal purity": "an encoder is compared at the purity that the large one has with two clusters a class, a remedy at that of its own "
                       "baseline",
    "intra-class distance², uniformity": "mean squared distance of two images of a class, features of unit length; logarithm of the mean "
                                         "of exp(−2 distance²) over pairs of images, the lower the more evenly spread; closeness is "
                                         "minus the former",
    "supported, contradicted, undecided": "the 95 % interval over seeds lies wholly on the claim's side, wholly on the other, or neither; "
                                          "undecided too where the rule asks for more, such as an encoder that has learned",
    "SEED": "distillation without labels: a small encoder learns a large one's similarities; a start by SEED has a teacher"}

LEAST = ("Of a claim about all encoders that one is shown, with its interval, which has the verdict of all and of those the least effect; "
         "one that contradicts refutes")
LEGEND = f"{LEAST}. {MARKS}. The rules: [results/claims.csv](results/claims.csv), column `test`."


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
    code = [path for path in sorted((ROOT / "lib").glob("*.py")) if path.name != "report.py"]
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


def percent(values):
    """Mean in percent, with half the 95 % interval over seeds where there are two or more: "66.3 ± 1.2", at most "± > 50"."""
    values = np.asarray(values, float)
    if not len(values):
        return ""
    mean, low, high = claims.interval(values)
    half = 50 * (high - low)
    return f"{100 * mean:.1f}" + ("" if np.isnan(half) else f" ± {half:.1f}" if half <= 50 else " ± > 50")


def observed(t):
    """Of one profile's runs those that the observations rest on: the baseline at full width, untrained and supervised, on its data."""
    arms = claims.baseline(t)
    if arms.empty:
        return t
    return t[(t.data == arms.data.iloc[0]) & ((t.epochs == 0) | (t.method == "supervised") | t.run.isin(arms.run))]


def caption(t, profile):
    """What stands in `headline`, in words: how many images, what chance would give, what the last columns are."""
    first = observed(t[t.profile == profile]).iloc[0]
    return (f"{first.images_train:,.0f} training and {first.images_test:,.0f} held-out images of {first.classes:.0f} classes. Percent on "
            f"the latter, mean ± half the 95 % interval over seeds; chance is {100 / first.classes:.1f} with equal classes, in the "
            f"pretext task {100 / first.instances_test:.2f}. Supervised by the same recipe: linear probe, one seed, a lower bound of the "
            "ceiling. Paper: ImageNet, 200 epochs.")


def headline(t, profile):
    """One row of text per encoder of a profile: seeds, accuracies in percent on held-out images, mean ± half the 95 % interval.

    Linear: probe on frozen h. Supervised: the same probe on the encoder trained with labels by the same recipe. Pretext:
    instance-discrimination top-1 (original against view). All on the baseline arm at full width. Paper: linear top-1 of its
    baseline on ImageNet, another task.
    """
    paper = pd.read_csv(ROOT / "results" / "reference" / "paper_headline.csv").set_index("model").baseline_200_percent
    t = observed(t[(t.profile == profile) & (t.width == 1)]) if len(t) else t
    arms, rows = claims.baseline(t) if len(t) else t, []
    for arch in models.ENCODERS:
        own = t[t.arch == arch] if len(t) else t
        if not len(own):
            continue
        before, after = own[own.epochs == 0], arms[arms.arch == arch]
        shown = before if arch == "pixels" else after
        labels = own[(own.method == "supervised") & (own.epochs > 0)]
        rows.append({"encoder": models.ENCODERS[arch].label, "seeds": str(len(after)) if len(after) else "",
                     "kNN untrained": percent(before.knn_test), "kNN trained": percent(after.knn_test),
                     "linear probe": percent(shown.linear_test), SUPERVISED: percent(labels.linear_test),
                     "paper, linear": f"{paper[arch]:.1f}" if arch in paper else "",
                     "pretext, train": percent(shown.instdisc_dsd_top1_train),
                     "pretext, held out": percent(shown.instdisc_dsd_top1_test)})
    return pd.DataFrame(rows)


# ---- pages ----

def number(effect):
    """An effect on one line; without one, why."""
    return f'<span class="number">{text(effect)}</span>' if effect else f'<span class="quiet">{claims.UNREACHED}</span>'


def behind(row):
    """The runs that a verdict rests on, folded, with links to their pages; "" without any."""
    links = "".join(f'<li><a href="runs/{row.profile}/{run}.html">{text(run)}</a></li>' for run in row.runs.split())
    return f"<details><summary>{len(row.runs.split())} runs</summary><ul>{links}</ul></details>" if links else ""


def verdict_cell(row, parts=(), counts="", label=""):
    """Verdict, effect, interval, n and runs of one ledger row (None: nothing was run), as HTML; parts: of_encoders, if only some were
    tested; counts: `agreement`; label: `whose`."""
    if row is None or row.verdict == claims.NOT_TESTED:
        each = [f'<div><span class="verdict {r.verdict.replace(" ", "-")}">{MARK[r.verdict]}</span> '
                f'{text(label)}: {number(claims.effect(r)[0])}{behind(r)}</div>' for label, r in parts]
        return f'<span class="verdict not-tested">{MARK[claims.NOT_TESTED]} not tested</span>{" as a whole" if each else ""}{"".join(each)}'
    effect, bounds = claims.effect(row)
    least = claims.smallest_detectable(row)
    parts = [f'<span class="verdict {row.verdict.replace(" ", "-")}">{MARK[row.verdict]} {text(row.verdict)}</span>',
             f'<span class="quiet">{text(claims.reading(row))}</span>' if effect and claims.reading(row) else "",
             text(label) + number(effect), number(bounds) if bounds else "",
             f'<span class="quiet">n = {row.n}{f", smallest detectable {least}" if least else "" if bounds else ", no interval"}</span>',
             f'<span class="quiet">{text(counts.strip(" ()"))}</span>' if counts else ""]
    return "<br>".join(part for part in parts if part) + behind(row)


def stated(claim, pages):
    """A claim's statement as HTML, with a link to its notebook where that is shown."""
    return f'<a href="{claim.notebook}.html">{text(claim.statement)}</a>' if claim.notebook in pages else text(claim.statement)


def at(rows, claim, profile):
    """The row of a ledger; None where there is none."""
    return next(rows[(rows.claim == claim) & (rows.profile == profile)].itertuples(), None)


def whole_html(rows, profiles, mine, asked, pages):
    """The verdicts on the claims `asked`, as a table: one row a claim, one column a profile. pages: notebooks that it links to."""
    def cell(c, p):
        row = at(rows, c.name, p)
        return verdict_cell(row, of_encoders(rows, c.name, p), *((agreement(rows, row), whose(rows, row)) if row else ()))
    body = [[f'{stated(c, pages)}<br><span class="quiet">{text(c.source)}</span>', *[cell(c, p) for p in profiles]] for c in asked]
    return html_table(["Claim", *heads(profiles, mine)], body, "Effect and 95 % interval over n seeds (of two arms, the smaller n). "
                      f"{LEAST}, and nothing is corrected for their number (what a correction would leave stands under \"In short\" of the "
                      f"index). {MARKS}.")


def heads(profiles, mine):
    """Heads of columns."""
    return [f"<code>{text(p)}</code>{'<br>your run' if p == mine else ''}" for p in profiles]


def ledger_html(rows, profiles, mine, pages):
    """The verdicts on the claims that some profile tests; below, folded, every encoder's, the rule, and what no profile tests. pages:
    notebooks shown."""
    tested = set(rows[rows.verdict != claims.NOT_TESTED].claim.str.split("/").str[0]) or set(claims.BY_NAME)
    out = [whole_html(rows, profiles, mine, [c for c in claims.CLAIMS if c.name in tested], pages)]
    for c in [c for c in claims.CLAIMS if c.name in tested]:
        names = list(dict.fromkeys(rows[rows.claim.str.startswith(c.name + "/")].claim))
        parts = [[text(models.ENCODERS[n.split("/")[1]].label if n.split("/")[1] in models.ENCODERS else n),
                 *[verdict_cell(at(rows, n, p)) for p in profiles]] for n in names]
        parts = html_table(["Encoder", *heads(profiles, mine)], parts, f"{c.statement}: each encoder") if parts else ""
        out.append(f"<details><summary><code>{text(c.name)}</code>: the test{' and each encoder' if parts else ''}</summary>"
                   f"{rule_html(c)}{parts}</details>")
    if lacking := [c for c in claims.CLAIMS if c.name not in tested]:
        terms = "".join(f"<dt>{text(c.statement)} <code>{text(c.name)}</code></dt><dd>{rule_html(c)}</dd>" for c in lacking)
        out.append(f"<details><summary>{MARK[claims.NOT_TESTED]} Not tested, for want of runs: {len(lacking)} further claims</summary>"
                   f"<p>Their rules stand already, before the runs.</p><dl>{terms}</dl></details>")
    return "\n".join(out)


def short_html(t, rows, profiles):
    out = []
    for profile in profiles:
        asked = "".join(f"<dt>{text(question)}</dt><dd><b>{text(answer)}</b> {text(why)}</dd>"
                        for question, answer, why in answers(t, rows, profile))
        if asked:
            each = grid(rows, profile)
            body = [[f'<span class="number">{text(c)}</span>' if i else text(c) for i, c in enumerate(row)] for row in each.values]
            out.append(f"<p>The paper's questions, answered on <code>{text(profile)}</code>:</p><dl>{asked}</dl>"
                       + html_table([text(c) for c in each], body, f"Each encoder's verdict, {IN_GRID}. {MARKS}."))
    for profile in profiles:
        counts, chance, decided, alone = short(rows, profile)
        lines = [f'<li><span class="verdict {v}">{MARK[v]} {v}</span> {text(words)}</li>' for v, words in decided]
        lines = (f"<ul>{''.join(lines)}</ul>" if lines else "") + (
            f"<p>{ALONE}</p><ul>{''.join(f'<li>{text(words)}</li>' for words in alone)}</ul>" if alone else "") + (
            f"<p>{text(chance)}</p>" if chance else "")
        out.append(f"<p><code>{text(profile)}</code>, {text(counts)}</p>"
                   + (f"<details><summary>What is decided on <code>{text(profile)}</code></summary>{lines}</details>" if lines else ""))
    return "".join(out)


def of_what(t, profile):
    """What a profile's images are, in brackets; "" for data that have no words."""
    data = claims.baseline(t[t.profile == profile]).data
    return f" ({KIND[data.iloc[0]]})" if len(data) and data.iloc[0] in KIND else ""


def pending(t, profile, data=None, archs=None):
    """What a profile plans and a table of runs, perhaps an empty one, has not yet, as a list of at most one sentence."""
    return studies.pending(t.run[t.profile == profile] if len(t) else (), profile, data, archs)


WITHIN = {"cifar10": 1, "cifar10_jpeg": 2}     # points below the MoCo authors' kNN at which it counts as reached; the copy is lossy


def published():
    """What others report on CIFAR-10, a row each (results/reference)."""
    return pd.read_csv(ROOT / "results" / "reference" / "cifar10_anchors.csv")


def check_on_photographs(t):
    """Does ResNet-18 by the settings of the MoCo authors' CIFAR-10 notebook reach their kNN (`studies.anchors`)? The check of the whole
    pipeline, as a list of one sentence; none where the table holds no run on CIFAR-10."""
    if not len(t) or not t.data.isin(WITHIN).any():
        return []
    said, passed, theirs = [], True, published()
    theirs = theirs[theirs.source.str.startswith("MoCo authors") & (theirs.epochs == studies.profile("cifar10").long)]
    for known in theirs.itertuples():
        views, ours = f"{known.knn_percent:g} % with {'both views as queries' if known.query_views == 2 else 'one view as query'}", []
        for name, points in WITHIN.items():
            names = [runs.folder(c, "cifar10").name for c in studies.anchors("cifar10", name)
                     if (c.projector, 1 + c.symmetric) == ("linear", known.query_views)]
            for knn in t[(t.profile == "cifar10") & t.run.isin(names)].get("knn_projection_test", pd.Series(dtype=float)).dropna():
                near = round(100 * knn, 1) >= known.knn_percent - points
                passed &= near
                ours.append(f"{100 * knn:.1f} % on {name}, {'no more' if near else 'more'} than {points} point{'s' * (points > 1)} below "
                            f"{views}")
        passed &= bool(ours)
        said += ours or [f"outstanding: {views}"]
    return ["The check of the whole pipeline on photographs, ResNet-18 by the settings of the MoCo authors' CIFAR-10 notebook against "
            f"their kNN: {'; '.join(said)}." + ("" if passed else " Until it is reached, numbers on photographs are provisional.")]


def bear_in_mind(t, rows, profiles, mine=""):
    """What a reader of the verdicts must know, as sentences. mine: the profile whose missing runs are the reader's own affair."""
    told = [[*(pending(t, p) if p != mine else []), *claims.caveats(t, p), *claims.of_mixing(rows[rows.profile == p])] for p in profiles]
    return [*(sentence for some in told for sentence in some), *check_on_photographs(t)]


def trained_html(t, profiles):
    """What each profile trained on, and for how long, beside the paper."""
    items = []
    for profile in profiles:
        arms = claims.baseline(t[t.profile == profile])
        if len(arms):
            one = arms.iloc[0]
            items.append(f"<li><code>{text(profile)}</code>: {one.images_train:,.0f} {text(KIND.get(one.data, 'images'))}, "
                         f"{one.classes:.0f} classes, {one.epochs} epochs in batches of {one.batch_size}</li>")
    return f"<ul>{''.join(items)}<li>the paper: photographs of ImageNet, 200 epochs</li></ul>"


def words_html():
    return ("<details><summary>What the words mean</summary><dl>"
            + "".join(f"<dt>{text(word)}</dt><dd>{text(meaning)}</dd>" for word, meaning in WORDS.items()) + "</dl></details>")


def headline_html(t, profile):
    rows = headline(t, profile)
    first = observed(t[t.profile == profile]).iloc[0]
    name = profile if first.data == profile else f"{profile} ({first.data})"
    body = [[f'<span class="number">{text(c) or "–"}</span>' for c in row] for row in rows.values]
    return html_table([text(c) for c in rows], body, f"{name}: {caption(t, profile)}")


def protocol_html(t, profile):
    """How the numbers of `headline` came about, folded: pretraining, evaluation, and what each encoder costs."""
    arms = claims.baseline(t[t.profile == profile])
    if arms.empty:
        return ""
    c, first = studies.base(profile, arms.arch.iloc[0], arms.data.iloc[0]), arms.iloc[0]
    negatives = f"a queue of {c.queue:,}" + (" and the other keys of the batch" if c.batch_keys else "")
    told = {
        "Pretraining": f"MoCo v2, {'both views' if c.symmetric else 'one view'} as query, {negatives} as negatives, temperature {c.tau:g}, "
                       f"momentum {c.m:g}, projector {c.projector} to {c.dim} dimensions, stem {c.stem}, BatchNorm in {c.bn_splits} "
                       f"group{'s' * (c.bn_splits > 1)}, {c.optimizer}, cosine schedule, batches of {c.batch_size}, {c.epochs} epochs: "
                       f"{2 * c.epochs * first.images_train:,.0f} views.",
        "Choices": f"{studies.search_note(profile, [studies.base(profile, a, first.data) for a in arms.arch.unique()])}; nothing on "
                   "held-out images.",
        "Evaluation": "the last checkpoint's h of original images, from the query encoder, its BatchNorm statistics re-estimated on "
                      f"{probe.CALIBRATION:,} training images. kNN: cosine, k = {probe.KNN_K}, votes weighted by exp(s / {probe.KNN_T:g}). "
                      f"Linear probe: standardised h, {probe.PROBE_EPOCHS} epochs, its learning rate chosen on val. Pretext task: each of "
                      f"{first.instances_test:,.0f} held-out originals against one view of each."}
    side = (schedule.extent(first.data) or data.EXTENTS.get(first.data, (224, 0)))[0]
    costs = models.table(side, c.stem).set_index("name")
    made = arms.assign(rate=arms.images_train * arms.epochs / arms.seconds).groupby("arch", sort=False)
    body = [[text(models.ENCODERS[arch].label), *([f"{costs.backbone_parameters[arch] / 1e6:.2f} M",
             f"{costs.multiply_adds[arch] / 1e6:,.0f} M"] if arch in costs.index else ["–", "–"]),
             text(", ".join(part.precision.unique())), f"{part.rate.max():,.0f}", text(", ".join(part.device.unique()))]
            for arch, part in made]
    table = html_table(["Encoder", "Parameters", f"Multiply-adds at {side} px", "Precision", "Images a second", "On"], body,
                       "Without a head. Images a second of the fastest seed's whole training, with what ran beside it.")
    return (f"<details><summary>Protocol and cost on <code>{text(profile)}</code></summary><dl>"
            + "".join(f"<dt>{what}</dt><dd>{text(words)}</dd>" for what, words in told.items()) + f"</dl>{table}</details>")


def published_html():
    """What others report on CIFAR-10, as a table."""
    head = ["Source", "Encoder", "Epochs", "Views as queries", "kNN", "Linear probe", "How"]
    body = [[text(r.source), text(models.ENCODERS[r.model].label), f"{r.epochs}", *("–" if math.isnan(value) else f"{value:g}"
             for value in (r.query_views, r.knn_percent, r.linear_percent)), text(r.protocol)]
            for r in published().itertuples()]
    return html_table(head, body, "What others report on CIFAR-10, in percent (results/reference); ours keeps a tenth of the training "
                      "images to choose with.")


def encoders_html():
    def millions(count):
        return f"{count / 1e6:.2f} M"
    rows = [[text(r.label), millions(r.parameters), millions(r.paper_parameters), millions(r.backbone_parameters), str(r.dim),
             f"{r.multiply_adds / 1e6:,.0f} M", text(r.differences)] for r in models.table().itertuples()]
    head = ["Encoder", "Parameters", "Official code", "Without head", "D", "Multiply-adds", "Differences from the official code"]
    return html_table(head, rows, "The encoders at 224 px with a 1000-way head; D is the dimension of the representation.", "wide")


def machines_html(t):
    if t.empty:
        return "<p>No runs yet.</p>"
    rows = [[f"<code>{text(profile)}</code>", text(device), str(len(part)), f"{part.seconds.sum() / 60:,.0f} min",
             " ".join(f"<code>{text(str(c)[:10])}</code>" for c in dict.fromkeys(part.commit))]
            for (profile, device), part in t.groupby(["profile", "device"], sort=False)]
    return html_table(["Profile", "Machine", "Runs", "Training", "Commit"], rows,
                      "Where the runs were made, without the search for learning rates. Intervals cover seeds, not machines or data sets.")


def verdicts_html(rows, pages):
    """The ledger whole, a row per claim, encoder and profile: to sort and to filter."""
    body = []
    for row in rows.iloc[np.argsort(rows.claim.str.contains("/", regex=False), kind="stable")].itertuples():     # as a whole first
        name, _, arch = row.claim.partition("/")
        c, (shown, bounds), nothing = claims.BY_NAME[name], claims.effect(row), row.verdict == claims.NOT_TESTED
        least = claims.smallest_detectable(row)
        encoder = models.ENCODERS[arch].label if arch in models.ENCODERS else arch or "all together"
        body.append([(f'{stated(c, pages)}<br><code>{text(name)}</code>', name),
                     (f'<span class="verdict {row.verdict.replace(" ", "-")}">{MARK[row.verdict]} {text(row.verdict)}</span>', row.verdict),
                     text(encoder), f"<code>{text(row.profile)}</code>",
                     ("<br>".join(filter(None, (f'<span class="number">{text(shown)}</span>' if shown else "",
                                                f'<span class="number quiet">{text(bounds)}</span>' if bounds else "",
                                                f'<span class="quiet">smallest detectable {least}</span>' if least else "",
                                                f'<span class="quiet">{text(claims.reading(row))}</span>'))),
                      "" if np.isnan(row.effect) else f"{row.effect:.6g}"),
                     str(row.n), "" if nothing else behind(row)])
    return html_table(["Claim", "Verdict", "Encoder", "Profile", "Effect, 95 % interval", "n", "Runs"], body,
                      f"{len(body)} verdicts. A head sorts (effects as fractions, whatever their unit), its menu filters; a claim leads to "
                      "its notebook, a run to its page.",
                      name="ledger", listed=(0, 1, 2, 3))


def changes_html(changed, pages):
    """What each commit changed in the ledger: to sort and to filter. changed: of `lib.changes`."""
    def told(values, claim):
        if values is None and claim.split("/")[0] not in claims.BY_NAME:
            return "no claim", ""
        if values is None or values["verdict"] == claims.NOT_TESTED:
            return "not tested", ""
        row = SimpleNamespace(claim=claim, **values)
        shown = f'{MARK[row.verdict]} {text(row.verdict)}<br>'
        if claim.split("/")[0] in claims.BY_NAME:                          # in its unit, which a claim that is gone has no more
            return shown + "<br>".join([*(number(part) for part in claims.effect(row) if part), f"n = {row.n:.0f}"]), row.verdict
        return shown + ("" if np.isnan(row.effect) else f"{row.effect:+.3g}"), row.verdict

    body = []
    for row in changed.itertuples():
        name, _, arch = row.claim.partition("/")
        c, encoder = claims.BY_NAME.get(name), models.ENCODERS[arch].label if arch in models.ENCODERS else arch or "all together"
        body.append([(f"{text(row.date)} <code>{row.commit[:7]}</code><br>{text(row.subject)}",
                      f"{row.date} {len(changed) - len(body):06}"),
                     f"{stated(c, pages) if c else ''}<br><code>{text(name)}</code>", f"<code>{text(row.profile)}</code>", text(encoder),
                     told(row.before, row.claim), told(row.after, row.claim),
                     "yes" if told(row.before, row.claim)[1] != told(row.after, row.claim)[1] else "no"])
    if not body:
        return "<p>Git's history of <code>results/claims.csv</code> tells it; it is not here: clone the repository whole.</p>"
    return html_table(["Commit, and why", "Claim", "Profile", "Encoder", "Before", "After", "Verdict turned"], body,
                      f"{len(body)} changes of a verdict or its effect in results/claims.csv, the newest first, with the commit that made "
                      "it; n is of seeds, whose number was fixed beforehand. A claim without runs is not tested.", name="changes",
                      listed=(1, 2, 3, 6))


def runs_html(found):
    """Every run that the report rests on, each with a page of its own. found: [(Run, what it changes, in words)]."""
    def accuracy(run, name):
        return (f"{100 * run.metrics[name]:.1f}", f"{run.metrics[name]:.6g}") if run.metrics.get(name) is not None else ("", "")
    body = [[(f'<a href="runs/{run.path.parent.name}/{run.name}.html" title="{text(run.name)}">{text(what)}</a>', what),
             text(models.ENCODERS[run.config.arch].label), str(run.config.seed), f"<code>{text(run.path.parent.name)}</code>",
             str(run.config.all_epochs), *(accuracy(run, name) for name in ("knn_test", "linear_test", "instdisc_dsd_top1_test")),
             (f"{run.provenance['train_seconds'] / 60:.1f}", f"{run.provenance['train_seconds']:.6g}")] for run, what in found]
    return html_table(["Arm", "Encoder", "Seed", "Profile", "Epochs", "kNN, %", "Linear, %", "Pretext, %", "Minutes"], body,
                      f"{len(body)} runs, each with a page of its own. Accuracies on held-out images; minutes of training.", name="runs",
                      listed=(0, 1, 3))


def arm_of(run):
    """What a run changes of its profile's baseline, in words."""
    c, profile = run.config, run.path.parent.name
    arm = "untrained" if not c.epochs else SUPERVISED if c.method == "supervised" else studies.change(c, profile) or "baseline"
    usual = {studies.profile(profile).base.data, *studies.profile(profile).copies}
    return arm + (f", width {c.width:g}" if c.width != 1 else "") + (f", on {c.data}" if c.data not in usual else "")


STYLE = """
@media (min-width: 72em) { .content { width: 54em; } }
@media (min-width: 92em) { .content:has(.explored) { width: 64em; } }
.verdict { font-weight: 600; white-space: nowrap; }
.supported { color: #1a7f37; } .contradicted { color: #b3261e; } .undecided { color: #7a5b00; } .not-tested { color: #666; }
@media screen and (prefers-color-scheme: dark) { body:not([data-theme="light"]) .supported { color: #56d364; }
  body:not([data-theme="light"]) .contradicted { color: #ff8a80; } body:not([data-theme="light"]) .undecided { color: #e3b341; }
  body:not([data-theme="light"]) .not-tested { color: #aaa; } }
@media screen { body[data-theme="dark"] .supported { color: #56d364; } body[data-theme="dark"] .contradicted { color: #ff8a80; }
  body[data-theme="dark"] .undecided { color: #e3b341; } body[data-theme="dark"] .not-tested { color: #aaa; } }
.number { white-space: nowrap; } .quiet { color: var(--color-foreground-secondary); font-size: 85%; }
.table-wrapper, .cell_output { overflow-x: auto; } .table-wrapper { margin: 1em 0; }
.table-wrapper table, table.dataframe { font-size: 0.8rem; border: 0; border-collapse: collapse; font-variant-numeric: tabular-nums; }
.table-wrapper caption { text-align: left; padding: 0.3em 0; max-width: calc(100vw - 3em); }
.table-wrapper th, .table-wrapper td, table.dataframe th, table.dataframe td { vertical-align: top; text-align: left !important;
  font-weight: normal; border: 0; border-bottom: 1px solid var(--color-background-border); padding: 0.25em 0.8em 0.25em 0; }
.table-wrapper thead th, table.dataframe thead th { font-weight: 600; }
.table-wrapper tbody th { min-width: 10em; } .wide td:last-child { min-width: 22em; }
.explored { font-size: 0.85rem; } .explored table { font-size: 0.75rem; } .explored tbody th { min-width: 12em; }
.explored ul { padding-left: 1em; }
#changes tbody th { min-width: 14em; } #changes .number { white-space: normal; }
div.dt-container { color: var(--color-foreground-primary); } .curves svg { max-width: 100%; height: auto; background: #fff; }
div.dt-layout-table { overflow-x: auto; }
@media (max-width: 40em) { .explored tbody th { min-width: 8em; } .table-wrapper tbody th { min-width: 7em; } }
@media print { div.dt-layout-row:not(.dt-layout-table), .umaps, .dtcc { display: none !important; }
  .table-wrapper, .cell_output, div.dt-layout-table { overflow: visible; } .explored { page: across; }
  .table-wrapper table, table.dataframe { font-size: 0.6rem; } .table-wrapper caption { max-width: none; }
  .table-wrapper tbody th, .explored tbody th, #changes tbody th { min-width: 0; } .wide td:last-child { min-width: 0; }
  .table-wrapper :is(th, td), table.dataframe :is(th, td) { padding-right: 0.5em; } .table-wrapper .number { white-space: normal; } }
@page across { size: A4 landscape; }
details { margin: 0.5em 0; } summary { cursor: pointer; }
div.cell div.highlight pre { font-size: 0.78rem; } div.cell_output pre { font-size: 0.78rem; white-space: pre-wrap; }
.headline { background: #fff; } .cell_output img { max-width: 100%; height: auto; background: #fff; }
@media screen and (prefers-color-scheme: dark) { body:not([data-theme="light"]) :is(.headline, img.lines, .curves svg) { filter: DARK; } }
@media screen { body[data-theme="dark"] :is(.headline, img.lines, .curves svg) { filter: DARK; } }
div.cell details.hide { margin: 0; border: 0; box-shadow: none; } div.cell details.hide > summary p.admonition-title { font-size: 0.8rem;
  margin: 0; padding: 0.2em 0; background: none; color: var(--color-foreground-secondary); }
div.cell details.hide > summary p.admonition-title::before { display: none; }
.math-display { overflow-x: auto; margin: 1em 0; text-align: center; }
""".replace("DARK", "invert(0.93) hue-rotate(180deg)")      # white figures dark, hues kept


def index_page(t, rows, profiles, mine, pages, note="", drawn=""):
    """index.md: Markdown headings for the navigation, tables as raw HTML. mine: the reader's own profile; note: what is not drawn; drawn:
    the profile of the figure, if there is one."""
    def raw(block):
        return f"```{{raw}} html\n{block}\n```\n"
    parts = ["# Small contrastive models without a teacher\n", QUESTION + "\n", STUDY + "\n"]
    if mine:
        parts.append(f"The profile `{mine}` was run on this machine, with few seeds; the other columns are the study's committed runs.\n")
    lacking = [p for p in profiles if not len(t) or not (t.profile == p).any()]
    profiles = [p for p in profiles if p not in lacking]
    notes, check = bear_in_mind(t, rows, profiles, mine), check_on_photographs(t)
    parts += [raw(trained_html(t, profiles)), raw(words_html()), "## In short\n", raw(short_html(t, rows, profiles))] if profiles else []
    parts += [raw(f"<p>{text(note)}</p>")] if note else []
    if lacking:
        parts.append(f"Not tested, because no runs are stored: {', '.join(f'`{p}`' for p in lacking)}.\n")
    parts += ["## Results\n"] if profiles else []
    if drawn:
        parts.append(raw(f'<p><img class="headline" src="_static/figure.svg" alt="{text(FIGURE)}"></p><p class="quiet">The committed runs '
                         f'of {text(drawn)}: each dot is a seed, each bar a 95 % interval.</p>'))
    parts += [*[raw(headline_html(t, p) + protocol_html(t, p)) for p in profiles], raw(published_html()) if check else ""]
    parts += ["## Verdicts\n", raw(ledger_html(rows, profiles, mine, pages)),
              raw('<p>To sort and to filter: <a href="ledger.html">every verdict</a>, <a href="runs.html">every run</a>, '
                  '<a href="changes.html">what each commit changed</a>.</p>')]
    parts += ["## To bear in mind\n", raw(f"<ul>{''.join(f'<li>{text(sentence)}</li>' for sentence in notes)}</ul>")] if notes else []
    parts += ["## Encoders\n", raw(encoders_html()), "## Runs and machines\n", raw(machines_html(t)),
              *(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(names) + "\n```\n"
                for caption, names in (("Notebooks", pages), ("To explore", ["ledger", "runs", "changes", "take_away"])))]
    return "\n".join(parts)


def readable(notebook, name, verdicts=""):
    """An executed notebook as a page: its verdicts at the top (HTML), code folded, figures described by the prose before them, progress
    bars gone, its origin said."""
    notebook["metadata"].pop("widgets", None)
    prose, cells = "", []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            stopped = re.sub(r"^(#+ .*\w)$", r"\1.", cell["source"], flags=re.MULTILINE)           # a heading is a sentence
            prose = " ".join(re.sub(r"[#*_`$\[\]<>|]|\(http\S+\)", "", stopped).split())
            if not any(earlier["cell_type"] == "markdown" for earlier in cells):
                given = ", ".join(f"{k} = {v!r}" for k, v in notebook["metadata"].get("papermill", {}).get("parameters", {}).items())
                cell["source"] += (f"\n\nExecuted with `{given.replace('`', '') or 'its own parameters'}`: "
                                   f"<a href=\"notebooks/{name}.ipynb\">{name}.ipynb</a> with its outputs.\n")
                cell["source"] += f"\n```{{raw}} html\n{verdicts}\n```\n" if verdicts else ""
        elif cell["cell_type"] == "code":
            cell["outputs"] = [o for o in cell["outputs"] if "application/vnd.jupyter.widget-view+json" not in o.get("data", {})
                               and (o["output_type"] != "stream" or o["text"].strip())
                               and not (o.get("name") == "stderr" and re.search(r"\r|it/s|TqdmWarning", o["text"]))]
            for o in cell["outputs"]:
                if "text/html" in o.get("data", {}):                       # an interval stays on one line
                    drawn = "".join(o["data"]["text/html"])
                    o["data"]["text/html"] = re.sub(r"([\[(][−+]?[\d.]+,) (?=[−+]?[\d.]+[\])])", "\\1\u00a0", drawn)
            figures = ["".join(o["data"]["image/svg+xml"]) for o in cell["outputs"] if "image/svg+xml" in o.get("data", {})]
            lines = figures and not any("<image" in svg for svg in figures)      # no photographs, whose dark side is not theirs
            cell["metadata"]["mystnb"] = {"image": {"alt": prose[:300] or f"figure of {name}"} | ({"classes": "lines"} if lines else {})}
            cell["metadata"]["tags"] = [*cell["metadata"].get("tags", []), "hide-input"]
            if cells and cells[-1]["cell_type"] == "code" and not cells[-1]["outputs"]:      # one fold, not several in a row
                cell["source"] = f"{cells.pop()['source']}\n\n{cell['source']}"
        cells.append(cell)
    notebook["cells"] = cells
    return notebook


def told(found):
    """studies.labelled of a profile's runs, completeness at the purity of the reference (`completeness_matched`) and of the encoder's own
    baseline (`completeness_matched_own`), and what transfer is stored (`linear_digits`, `fine_tuned_digits`)."""
    from lib import plots
    t = studies.labelled(found)
    own = plots.matched(t, None).set_index("run").completeness_matched
    worth = pd.DataFrame([{f"{kind}_{path.stem.removeprefix('transfer-')}": accuracy for path in sorted(run.path.glob("transfer-*.json"))
                           for kind, accuracy in json.loads(path.read_text()).items()} for run in found], index=[r.name for r in found])
    return plots.matched(t).assign(completeness_matched_own=lambda rows: rows.run.map(own)).merge(
        worth, how="left", left_on="run", right_index=True)


def take_away(executed, found, folder):
    """Every figure as SVG, and as CSV two tables a profile, a row per run and a row per epoch, in `folder`; returns links as HTML.
    executed: {name: notebook, as `readable` gives it}; found: [Run]; a third table holds what UMAPs are drawn from. Images are in none."""
    parts = []
    for name, notebook in executed.items():
        links = []
        for cell in notebook["cells"]:
            for svg in [o["data"]["image/svg+xml"] for o in cell.get("outputs", []) if "image/svg+xml" in o.get("data", {})]:
                path, drawn = folder / f"{name}-{len(links) + 1}.svg", "".join(svg)
                path.write_text(drawn)
                titled = re.search(rf"<!-- ((?:{'|'.join(studies.PROFILES)})\b.*?) -->", drawn)     # matplotlib's, of each text
                said = f"{titled[1].rstrip('.')}. " if titled else ""
                words = said + textwrap.shorten(cell["metadata"]["mystnb"]["image"]["alt"], 90, placeholder=" …")
                links.append(f'<li><a href="take/{path.name}">{path.name}</a>: {text(words)}</li>')
        parts.append(f'<h2><a href="{name}.html">{text(name)}</a></h2><ul>{"".join(links)}</ul>' if links else "")
    for profile in dict.fromkeys(run.path.parent.name for run in found):
        some = [run for run in found if run.path.parent.name == profile]
        umaps = [runs.umap(run).assign(run=run.name) for run in some if (run.path / "umap.csv").is_file()]
        tables = {"runs": told(some), "epochs": runs.histories(some)} | ({"points of UMAPs": pd.concat(umaps)} if umaps else {})
        for kind, frame in tables.items():
            path = folder / f"{profile}-{kind.split()[-1].lower()}.csv"
            frame.to_csv(path, index=False, lineterminator="\n")
            parts.append(f'<p><a href="take/{path.name}">{path.name}</a>: {len(frame):,} {kind} of <code>{text(profile)}</code></p>')
    return "".join(parts)


def run_pages(found, rows):
    """A page for each run, straight through the theme's template: (name, context, template) each."""
    rests = {}
    for row in rows.itertuples():
        for run in row.runs.split():
            rests.setdefault((row.profile, run), []).append(row.claim)
    draw = explore.curves()
    for run, what in found:
        profile = run.path.parent.name
        yield (f"runs/{profile}/{run.name}", {"title": f"{run.name}", "body": explore.run_page(
            run, what, rests.get((profile, run.name), []), draw(run) if run.config.epochs else "")}, "page.html")


def build(t, rows, profiles, mine, notebooks, report=REPORT, note="", store=runs.STORE):
    """Write the pages into `report`, around its folder `notebooks` of executed notebooks (their paths). store: of the runs in t. Returns
    index.html."""
    import nbformat
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils
    report = Path(report).resolve()
    aside, source = report / ".build", report / ".build" / "source"        # the pages of last time stay until the new ones stand
    shutil.rmtree(aside, ignore_errors=True)
    (source / "_static").mkdir(parents=True)
    (source / "_static" / "report.css").write_text(STYLE)
    shown = [path.stem for path in notebooks]
    pictured = next((p for p in profiles if len(t) and len(claims.baseline(t[t.profile == p]))), "")
    if pictured:
        figure(t, pictured, source / "_static" / "figure.svg")
    (source / "index.md").write_text(index_page(t, rows, profiles, mine, shown, note, pictured))
    found = [(run, arm_of(run)) for run in (runs.load(store / p / name) for p, name in zip(t.profile, t.run))] if len(t) else []
    for name, title, table in (("ledger", "Every verdict", verdicts_html(rows, shown)), ("runs", "Every run", runs_html(found)),
                               ("changes", "What changed, and why", changes_html(changes(), shown))):
        (source / f"{name}.md").write_text(f"# {title}\n\n```{{raw}} html\n{explore.library()}\n{table}\n```\n")
    def verdicts(name):
        own = [c for c in claims.CLAIMS if c.notebook == name]
        return whole_html(rows, [p for p in profiles if len(t) and (t.profile == p).any()], mine, own, ()) if own else ""
    drawn = {path.stem: readable(nbformat.read(path, 4), path.stem, verdicts(path.stem)) for path in notebooks}
    for path in notebooks:
        nbformat.write(drawn[path.stem], source / path.name)
    (extra := aside / "extra" / "take").mkdir(parents=True)
    links = take_away(drawn, [run for run, _ in found], extra)
    (source / "take_away.md").write_text("# Figures and tables to take away\n\n```{raw} html\n<p>Figures as SVG; as CSV each profile's "
                                         f"runs, epochs and UMAPs, from which all but images and the paper's own figures "
                                         f"(<code>results/reference</code>) are drawn.</p>{links}\n```\n")
    title = "Small contrastive models without a teacher"
    settings = {
        "project": title, "html_title": title, "extensions": ["myst_nb", "lib.report"], "html_theme": "furo",
        "html_static_path": [str(source / "_static")], "html_css_files": ["report.css"],
        "html_extra_path": [str(aside / "extra")], "html_math_renderer": "mathml",
        "html_show_sourcelink": False, "html_copy_source": False, "html_show_copyright": False, "html_show_search_summary": False,
        "html_domain_indices": False, "html_use_index": False, "html_theme_options": {"navigation_with_keys": True},
        "nb_execution_mode": "off", "nb_ipywidgets_js": {}, "nb_merge_streams": True,
        "nb_code_prompt_show": "Show the code", "nb_code_prompt_hide": "Hide the code",
        "myst_enable_extensions": ["dollarmath", "amsmath"], "suppress_warnings": ["mystnb.unknown_mime_type", "myst.header"]}
    with patch_docutils(), docutils_namespace():
        app = Sphinx(source, None, aside / "html", aside / "doctrees", "html", confoverrides=settings, status=None, freshenv=True)
        app.connect("html-collect-pages", lambda app: run_pages(found, rows))
        app.build(force_all=True)
    if app.statuscode:
        raise RuntimeError("the report's pages could not be built; the lines above say why")
    shutil.rmtree(aside / "html" / "_sources", ignore_errors=True)
    for old in report.iterdir():
        if old.name not in ("notebooks", ".build"):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    for new in (aside / "html").iterdir():
        if not new.name.startswith("."):
            new.rename(report / new.name)
    shutil.rmtree(aside)
    return report / "index.html"


# ---- Sphinx extension: LaTeX -> MathML ----

def mathml(latex, display):
    """LaTeX as MathML; as escaped LaTeX where the converter gives up."""
    from latex2mathml.converter import convert
    try:
        return convert(latex, display="block" if display else "inline")
    except Exception:  # the converter has no common base class
        return f"<code>{html.escape(latex)}</code>"


def _inline(self, node):
    from docutils import nodes
    self.body.append(mathml(node.astext(), display=False))
    raise nodes.SkipNode


def _block(self, node):
    from docutils import nodes
    self.body.append(f'<div class="math-display">{mathml(node.astext(), display=True)}</div>')
    raise nodes.SkipNode


def setup(app):
    """Sphinx calls this: registers the renderer that `html_math_renderer = "mathml"` names."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


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
    lacking = f"{len(claims.CLAIMS) - len(tested)} of {len(claims.CLAIMS)} claims are *not tested* on any encoder yet, for want of runs." \
        if len(tested) < len(claims.CLAIMS) else ""
    brief = [f"The paper's questions, answered on `{p}`{of_what(t, p)}:\n\n"
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
             f"The committed runs of `{profiles[0]}`: each dot is a seed, each bar a 95 % interval.")
    folded = "\n\n".join(f"<details>\n<summary>{summary}</summary>\n\n{block}\n\n</details>" for summary, block in {
        "What is decided": "\n\n".join(part for part in decisions if part), "To bear in mind": caveats,
        "Every claim's verdict and interval": f"{LEGEND}\n\n{markdown(verdicts)}" if tested else "",
        "Words": "\n".join(f"- **{word}**: {meaning}" for word, meaning in WORDS.items())}.items() if block)
    return "\n\n".join(part for part in (*brief, drawn, *tables, folded, lacking) if part)


def readme_speed(folder=None):
    """The README's section on speed, from the tables of `make bench` in results/bench: a column per encoder."""
    folder = folder or ROOT / "results" / "bench"
    found = {name: pd.read_csv(folder / f"{name}.csv", dtype={"commit": str}).set_index("arch")
             for name in ("steps", "rivals", "limits") if (folder / f"{name}.csv").is_file()}
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


def figure(t, profile, path):
    """The study in one figure, from a profile's runs: does it learn, does it overfit, does it over-cluster? Written to `path`."""
    from matplotlib.figure import Figure

    from lib import plots
    plots.style()
    t = plots.arms(observed(t[t.profile == profile]))
    panels = Figure(figsize=(plots.WIDTH, 7), layout="constrained").subplots(3)
    plots.dots(t, "knn_test", "kNN accuracy, held out", panels[0], "Does it learn?", chance=1 / t.classes.iloc[0])
    plots.generalisation_gap(t, panels[1], "Does it overfit the pretext task?")
    t = plots.matched(t)
    plots.dots(t[t.arm == "trained"], "completeness_matched", "completeness at ResNet-50's purity with two clusters a class", panels[2],
               "Does it split the classes?", percent=False, bounds=("completeness_bound", "completeness_side"))
    panels[0].figure.savefig(path, metadata={"Date": None})


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
