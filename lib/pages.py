"""The report's pages: the index, the ledger, the runs and the executed notebooks, laid out by Sphinx (MyST-NB, theme furo).

What they say is lib.summary's, what one explores on them lib.explore's, their style lib/pages.css. This module is also the Sphinx extension
that turns LaTeX into MathML, so that no page loads a script for its mathematics.
"""
import html
import json
import math
import re
import shutil
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from lib import claims, data, explore, models, runs, schedule, studies, summary
from lib.changes import changes
from lib.explore import html_table, text
from lib.summary import MARK

REPORT = runs.ROOT / "results" / "report"
FIGURE = ("Rows of intervals per encoder: kNN accuracy trained and untrained, pretext accuracy on train minus held-out, completeness at "
          "equal purity")
QUESTION = ("Can small networks learn by contrastive self-supervision without a large teacher, and what stops them? Shi et al. "
            "([AAAI 2022](https://arxiv.org/abs/2107.14762)) answer that they complete the pretext task without overfitting but "
            "over-cluster: they split every class into small pure groups instead of gathering it.")
STUDY = ("This study trains the paper's five small encoders and a large reference with MoCo v2, measures both observations, and "
         "ends each claim in a verdict that follows from a 95 % interval by a rule fixed before the runs; where its code was made "
         "stricter afterwards, \"What changed, and why\" says so.")
STYLE = (Path(__file__).with_suffix(".css")).read_text()


# ---- parts of pages, as HTML ----

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
        told = (summary.agreement(rows, row), summary.whose(rows, row)) if row else ()
        return verdict_cell(row, summary.of_encoders(rows, c.name, p), *told)
    body = [[f'{stated(c, pages)}<br><span class="quiet">{text(c.source)}</span>', *[cell(c, p) for p in profiles]] for c in asked]
    return html_table(["Claim", *heads(profiles, mine)], body, "Effect and 95 % interval over n seeds (of two arms, the smaller n). "
                      f"{summary.LEAST}, and nothing is corrected for their number (what a correction would leave stands under \"Verdicts\""
                      f" of the index). {summary.MARKS}.")


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
                   f"{summary.rule_html(c)}{parts}</details>")
    if lacking := [c for c in claims.CLAIMS if c.name not in tested]:
        terms = "".join(f"<dt>{text(c.statement)} <code>{text(c.name)}</code></dt><dd>{summary.rule_html(c)}</dd>" for c in lacking)
        out.append(f"<details><summary>{MARK[claims.NOT_TESTED]} Not tested, for want of runs that the rule admits: {len(lacking)} further "
                   f"claims</summary>"
                   f"<p>Their rules stand already, before the runs.</p><dl>{terms}</dl></details>")
    return "\n".join(out)


def nutshell_html(t, rows, profiles):
    """In a few sentences, as a list."""
    brief = "".join(f"<li>{text(sentence)}</li>" for profile in summary.complete(t, profiles)
                    for sentence in summary.nutshell(t, rows, profile))
    return f"<ul>{brief}</ul>" if brief else ""


def questions_html(t, rows, profiles):
    """The paper's questions with their answers, each of which unfolds to what it rests on; encoders' verdicts; remedies against time."""
    out = []
    for profile in summary.complete(t, profiles):
        asked = "".join(f"<details{'' if why else ' class=bare'}><summary>{text(question)}<br><b>{text(answer)}</b></summary>"
                        + (f"<p>{text(why)}</p>" if why else "") + "</details>"
                        for question, answer, why in summary.answers(t, rows, profile))
        out.append(f"<p>Answered on <code>{text(profile)}</code> unless an answer names another profile or new seeds; each unfolds to "
                   f'what it rests on.</p><div class="asked">{asked}</div>')
    for profile, each in summary.grids(rows, profiles).items():
        body = [[text(words), *map(_numbers, cells)] for words, *cells in each.values]
        caption = f"Each encoder's verdict on {profile}, {summary.IN_GRID}. {summary.MARKS}."
        out.append(html_table([text(c) for c in each], body, caption))
    if len(compared := summary.against(t, rows[rows.profile.isin(profiles)])):
        body = [[text(words), *map(_numbers, cells)] for words, *cells in compared.values]
        out.append(f"<p>{text(summary.RIVAL)}</p>"
                   + html_table([text(c) for c in compared], body, f"Remedies against time: {summary.IN_AGAINST}. {summary.MARKS}."))
    return "".join(out)


def _numbers(told):
    """A number with its interval, and after an arrow another, each on a line that does not break; the words behind them may."""
    numbers = told.removesuffix(summary.HARDLY)
    first, arrow, again = numbers.partition("→")
    lines = "<br>".join(f'<span class="number">{text(part)}</span>' for part in (first, arrow + again) if part)
    return (lines or "–") + text(told[len(numbers):])


def decided_html(rows, profiles):
    """How many claims are decided on each profile, unfolded to which."""
    out = []
    for profile in profiles:
        counts, chance, decided, alone = summary.short(rows, profile)
        lines = [f'<li><span class="verdict {v}">{MARK[v]} {v}</span> {text(words)}</li>' for v, words in decided]
        lines = (f"<ul>{''.join(lines)}</ul>" if lines else "") + (
            f"<p>{summary.ALONE}</p><ul>{''.join(f'<li>{text(words)}</li>' for words in alone)}</ul>" if alone else "") + (
            f"<p>{text(chance)}</p>" if chance else "")
        head = f"<code>{text(profile)}</code>, {text(counts)}"
        out.append(f"<details><summary>{head}</summary>{lines}</details>" if lines else f"<p>{head}</p>")
    return "".join(out)


def trained_html(t, profiles):
    """What each profile trained on, and for how long, beside the paper."""
    items = []
    for profile in profiles:
        arms = claims.baseline(t[t.profile == profile])
        if len(arms):
            one, seeds = arms.iloc[0], sorted({*map(int, arms.groupby("arch").seed.nunique())})
            which = f"{' to '.join(map(str, dict.fromkeys([seeds[0], seeds[-1]])))} seed{'s' * (seeds[-1] > 1)} each"
            items.append(f"<li><code>{text(profile)}</code>: {one.images_train:,.0f} {text(summary.KIND.get(one.data, 'images'))}, "
                         f"{one.classes:.0f} classes, {one.epochs} epochs in batches of {one.batch_size}; "
                         f"{arms.arch.nunique()} encoder{'s' * (arms.arch.nunique() > 1)}, {which}</li>")
    return f"<ul>{''.join(items)}<li>the paper: photographs of ImageNet, 200 epochs</li></ul>"


def words_html():
    return ("<details><summary>What the words mean</summary><dl>"
            + "".join(f"<dt>{text(word)}</dt><dd>{text(meaning)}</dd>" for word, meaning in summary.WORDS.items()) + "</dl></details>")


def headline_html(t, profile):
    rows = summary.headline(t, profile)
    first = summary.observed(t[t.profile == profile]).iloc[0]
    name = profile if first.data == profile else f"{profile} ({first.data})"
    body = [[f'<span class="number">{text(c) or "–"}</span>' for c in row] for row in rows.values]
    return html_table([text(c) for c in rows], body, f"{name}: {summary.caption(t, profile)}")


def protocol_html(t, profile):
    """How the numbers of `headline` came about, folded: pretraining, evaluation, and what each encoder costs."""
    arms = claims.baseline(t[t.profile == profile]).sort_values("arch", key=lambda a: a.map([*models.ENCODERS].index), kind="stable")
    if arms.empty:
        return ""
    first, told = arms.iloc[0], summary.protocol(t, profile)
    c = studies.base(profile, first.arch, first.data)
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
            for r in summary.published().itertuples()]
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

    def code(name):                                                        # may break after an underscore
        return f"<code>{text(name).replace('_', '_<wbr>')}</code>"

    def turned(before, after):
        if before == after:
            return "no"
        return "yes" if before and after else "first tested" if after else "no longer tested"

    body, seen = [], set()
    for row in changed.itertuples():
        name, _, arch = row.claim.partition("/")
        c, encoder = claims.BY_NAME.get(name), models.ENCODERS[arch].label if arch in models.ENCODERS else arch or "all together"
        head, again = f"{text(row.date)} <code>{row.commit[:7]}</code>", row.commit in seen
        seen.add(row.commit)
        body.append([(f"<details><summary>{head}</summary>{text(row.subject)}</details>" if again else f"{head}<br>{text(row.subject)}",
                      f"{row.date} {len(changed) - len(body):06}"),
                     f"{stated(c, pages) if c else ''}<br>{code(name)}", code(row.profile), text(encoder),
                     told(row.before, row.claim), told(row.after, row.claim),
                     turned(told(row.before, row.claim)[1], told(row.after, row.claim)[1])])
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
    arm = "untrained" if not c.epochs else summary.SUPERVISED if c.method == "supervised" else studies.change(c, profile) or "baseline"
    usual = {studies.profile(profile).base.data, *studies.profile(profile).copies}
    return arm + (f", width {c.width:g}" if c.width != 1 else "") + (f", on {c.data}" if c.data not in usual else "")


# ---- whole pages ----

def points_html(sentences):
    """What to bear in mind, as a list, within it a list of each profile's (`by_profile`)."""
    def items(some):
        return "".join(f"<li>{text(words)}</li>" for words in some)
    return "<ul>" + "".join(f"<li>On <code>{text(profile)}</code>:<ul>{items(some)}</ul></li>" if profile else items(some)
                            for profile, some in summary.by_profile(sentences)) + "</ul>"


def index_page(t, rows, profiles, mine, pages, note="", drawn=""):
    """index.md: Markdown headings for the navigation, tables as raw HTML. mine: the reader's own profile; note: what is not drawn; drawn:
    the profile of the figure, if there is one."""
    def raw(block):
        return f"```{{raw}} html\n{block}\n```\n" if block else ""
    parts = ["# Small contrastive models without a teacher\n", QUESTION + "\n", STUDY + "\n"]
    if mine:
        parts.append(f"The profile `{mine}` was run on this machine, with few seeds; the other columns are the study's committed runs.\n")
    lacking = [p for p in profiles if not len(t) or not (t.profile == p).any()]
    profiles = [p for p in profiles if p not in lacking]
    notes, check = summary.bear_in_mind(t, rows, profiles, mine), summary.check_on_photographs(t)
    parts += [raw(trained_html(t, profiles)), raw(words_html()), "## In short\n", raw(nutshell_html(t, rows, profiles))] if profiles else []
    parts += [raw(f"<p>{text(note)}</p>")] if note else []
    if lacking:
        parts.append(f"Not tested, because no runs are stored: {', '.join(f'`{p}`' for p in lacking)}.\n")
    if drawn:
        parts.append(raw(f'<p><img class="headline" src="_static/figure.svg" alt="{text(FIGURE)}"></p><p class="quiet">The committed runs '
                         f'of {text(drawn)}: {text(summary.DOTS)}.</p>'))
    if asked := questions_html(t, rows, profiles):
        parts += ["## The paper's questions\n", raw(asked)]
    parts += ["## Results\n"] if profiles else []
    parts += [*[raw(headline_html(t, p) + protocol_html(t, p)) for p in profiles], raw(published_html()) if check else ""]
    parts += ["## Verdicts\n", raw(decided_html(rows, profiles)), raw(ledger_html(rows, profiles, mine, pages)),
              raw('<p>To sort and to filter: <a href="ledger.html">every verdict</a>, <a href="runs.html">every run</a>, '
                  '<a href="changes.html">what each commit changed</a>.</p>')]
    parts += ["## To bear in mind\n", raw(points_html(notes))] if notes else []
    parts += ["## Encoders\n", raw(encoders_html()), "## Runs and machines\n", raw(machines_html(t)),
              *(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(names) + "\n```\n"
                for caption, names in (("Notebooks", pages), ("To explore", ["ledger", "runs", "changes", "take_away"])))]
    return "\n".join(parts)


def readable(notebook, name, verdicts=""):
    """An executed notebook as a page: its verdicts at the top (HTML), code folded, each figure in a cell of its own, which describes it by
    its title and the prose before it, progress bars gone, its origin said."""
    from nbformat.v4 import new_code_cell
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
            if cells and cells[-1]["cell_type"] == "code" and not cells[-1]["outputs"]:      # one fold, not several in a row
                cell["source"] = f"{cells.pop()['source']}\n\n{cell['source']}"
            parts = [[]]
            for o in cell["outputs"]:
                parts += [[]] if drawing(o) and any(map(drawing, parts[-1])) else []
                parts[-1].append(o)
            for i, outputs in enumerate(parts):
                part = cell if not i else new_code_cell("# a further figure")     # a cell without source would be left out
                svg = "".join(map(drawing, outputs))
                alt = f"{titled(svg)}{prose}"[:300] or f"figure of {name}"
                lines = svg and "<image" not in svg                        # no photographs, whose dark side is not theirs
                part["outputs"], part["metadata"]["mystnb"] = outputs, {"image": {"alt": alt} | ({"classes": "lines"} if lines else {})}
                part["metadata"]["tags"] = [*part["metadata"].get("tags", []), "remove-input" if i else "hide-input"]
                cells.append(part)
            continue
        cells.append(cell)
    notebook["cells"] = cells
    return notebook


def drawing(output):
    """The SVG of a cell's output, "" where it is none."""
    return "".join(output.get("data", {}).get("image/svg+xml", ""))


def titled(svg):
    """A figure's own title, which begins with its profile, as a sentence; "" without one. Matplotlib leaves each text as a comment."""
    found = re.search(rf"<!-- ((?:{'|'.join(studies.PROFILES)})\b.*?) -->", svg)
    return f"{found[1].rstrip('.')}. " if found else ""


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
            for svg in filter(None, map(drawing, cell.get("outputs", []))):
                path = folder / f"{name}-{len(links) + 1}.svg"
                path.write_text(svg)
                words = textwrap.shorten(cell["metadata"]["mystnb"]["image"]["alt"], 120, placeholder=" …")
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


def figure(t, profile, path):
    """The study in one figure, from a profile's runs: does it learn, does it overfit, does it over-cluster? Written to `path`."""
    from matplotlib.figure import Figure

    from lib import plots
    plots.style()
    t = plots.arms(summary.observed(t[t.profile == profile]))
    panels = Figure(figsize=(plots.WIDTH, 7), layout="constrained").subplots(3)
    plots.dots(t, "knn_test", "kNN accuracy, held out", panels[0], "Does it learn?", chance=1 / t.classes.iloc[0])
    plots.generalisation_gap(t, panels[1], "Does it overfit the pretext task?")
    t = plots.matched(t)
    plots.dots(t[t.arm == "trained"], "completeness_matched",
               "completeness at ResNet-50's purity with two clusters a class (lower: more split, or more mixed)", panels[2],
               "Does it split the classes?", percent=False, bounds=("completeness_bound", "completeness_side"))
    panels[0].figure.savefig(path, metadata={"Date": None})


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
    links = '<p><a href="_static/figure.svg">figure.svg</a>: the study in one figure</p>' if pictured else ""
    links += take_away(drawn, [run for run, _ in found], extra)
    (source / "take_away.md").write_text("# Figures and tables to take away\n\n```{raw} html\n<p>Figures as SVG; as CSV each profile's "
                                         f"runs, epochs and UMAPs, from which all but images and the paper's own figures "
                                         f"(<code>results/reference</code>) are drawn.</p>{links}\n```\n")
    title = "Small contrastive models without a teacher"
    settings = {
        "project": title, "html_title": title, "extensions": ["myst_nb", "lib.pages"], "html_theme": "furo",
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
