"""One function per figure: tidy table in, matplotlib Axes out. And the house style, and the tables that stand beside figures.

A tidy table has a row per run, as `lib.runs.table` gives it, with the column `arm` from `arms` (a history: a row per run and
epoch). An encoder has one colour and one marker everywhere. Every seed is drawn: a dot, or a thin line; means are thick, bars are
95 % intervals over seeds, dotted is chance, dashed and grey the paper's value. A function whose runs are missing draws a sentence
that says so. Fractions come in, percent stands on the axes.
"""
import itertools
import re
from dataclasses import fields
from html import escape

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lib import caveats, claims, models
from lib.summary import rule_html

WIDTH = 7.0         # inches: 672 px in the report
# Okabe and Ito's colours, told apart by colour-blind readers; the large reference is black, raw pixels are grey
PALETTE = ("#D55E00", "#CC79A7", "#009E73", "#E69F00", "#0072B2", "#000000", "#8C8C8C", "#56B4E9", "#A6761D")
SHAPES = ("o", "D", "^", "s", "v", "P", "X", "<", ">")
CLASSES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#D55E00", "#B7A800", "#882255", "#9B9B9B",
           "#7A5CC9", "#7B4B23")
PIXELS = {"color": "0.6", "linestyle": "-.", "linewidth": 1.4, "zorder": 0}
CHANCE = {"color": "0.45", "linestyle": ":", "linewidth": 1.4}
CYCLIC = ("orientation", "phase", "hue")
UNITS = {"orientation": "fraction of the symmetry angle", "frequency": "periods an image", "polarity": "sign"}     # of what textures vary
ARMS = ("trained", "untrained", "supervised", "pixels")
ARM_LABELS = {"supervised": "supervised, same recipe"}      # so a lower bound of the ceiling, not the ceiling
SHARED = {"temperature": "temperature 0.1", "augmentation": "stronger augmentation", "projector": "wide projector",
          "initialization": "SEED start"}               # lib.claims.REMEDIES -> as lib.studies.change has it
NEIGHBOURS = (1, 3, 5, 9, 15, 25, 41, 61, 81, 101)


def style():
    """The house style, for the whole session; figures become SVG where a notebook shows them."""
    sns.set_theme(context="paper", style="ticks", rc={
        "figure.constrained_layout.use": True, "figure.dpi": 100, "savefig.dpi": 150, "svg.hashsalt": "lib", "axes.spines.top": False,
        "axes.spines.right": False, "axes.grid": True, "grid.color": "0.92", "axes.titlelocation": "left", "axes.titlesize": 9.5,
        "axes.labelsize": 9, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5, "legend.fontsize": 8.5, "legend.frameon": False})
    pd.set_option("display.max_colwidth", None, "display.max_rows", None)  # tables are for reading
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats
        set_matplotlib_formats("svg")
    except (ImportError, AttributeError):      # outside a notebook there is nothing to set
        pass


def plain(text):
    """Text that matplotlib draws as it stands: a dollar of a class's or a folder's name begins no formula."""
    return str(text).replace("$", r"\$")


def colour(arch):
    """The fixed colour of an encoder: its place in lib.models.ENCODERS."""
    return PALETTE[list(models.ENCODERS).index(arch) % len(PALETTE)]


def class_colours(count):
    return CLASSES if count <= len(CLASSES) else sns.husl_palette(count)


def marker(arch):
    return SHAPES[list(models.ENCODERS).index(arch) % len(SHAPES)]


def label(arch):
    return models.ENCODERS[arch].label


def present(table):
    """The encoders of a table, in the order of lib.models.ENCODERS."""
    return [arch for arch in models.ENCODERS if len(table) and arch in set(table.arch)]


def arms(table):
    """The table with a column `arm`: trained (MoCo v2 at full width), untrained, supervised, width (other widths), pixels."""
    narrow = np.where(table.epochs == 0, "untrained width", "width")
    arm = np.where(table.width != 1, narrow, np.where(table.epochs == 0, "untrained",
                   np.where(table.method == "supervised", "supervised", "trained")))
    return table.assign(arm=np.where(table.arch == "pixels", "pixels", arm))


# ---- tables ----

def matched(table, reference=models.LARGE):
    """The table with a column `completeness_matched`: completeness at the homogeneity that the reference's trained runs of the
    same profile have, on average, with two clusters a class (claims.completeness_at); nan where a profile lacks the reference and
    for a run whose curve does not hold that homogeneity. reference=None: an encoder's own baseline on the same data. And with a column
    `homogeneity_fine`, at claims.FINEST clusters a class."""
    parts = []
    for _, part in table.groupby(["profile", *([] if reference else ["data", "arch"])], sort=False):
        pure = claims.matched_purity(part[(part.arm == "trained") & (part.arch == (reference or part.arch))])
        known = not np.isnan(pure)
        side = claims.outside(part, pure) if known else np.zeros(len(part))
        parts.append(part.assign(completeness_matched=claims.completeness_at(part, pure) if known else np.nan, completeness_side=side,
                                 completeness_bound=np.where(side, claims.completeness_at(part, pure, nearest=True), np.nan)
                                 if known else np.nan, homogeneity_fine=claims.local_purity(part)))
    return pd.concat(parts)


def shown(values, scale=100, digits=1, sign=""):
    """Mean and 95 % interval over seeds as text: `81.2 [80.1, 82.3]`; the mean alone for one seed, of two both: `81.2 (80.6, 81.8)`.
    sign="+": of differences, `+1.2 [−0.1, +2.5]`."""
    def number(value):
        return f"{round(scale * value, digits) + 0.0:{sign}.{digits}f}".replace("-", "−")        # + 0.0: never -0.0
    mean, low, high = claims.interval(values)
    if len(values) == 2:                                                   # an interval of one degree of freedom says nothing
        return f"{number(mean)} ({', '.join(map(number, sorted(values)))})"
    return number(mean) + ("" if np.isnan(low) else f" [{number(low)}, {number(high)}]")


def held(values, scale=100, digits=1):
    """`shown`, but where only some runs have the number how many do: a mean of these would be one of a selection."""
    some = values.notna().sum()
    return "" if not some else shown(values, scale, digits) if some == len(values) else f"– ({some} of {len(values)} runs)"


def summary(table, columns, scale=100, digits=1):
    """Mean [95 % interval] per profile, encoder and arm: columns is heading -> column; scale 100 shows fractions in percent.

    A trained encoder whose kNN (val) is not above its untrained self's is marked "not learned".
    """
    rows = []
    for profile, arm in itertools.product(table.profile.unique(), ARMS):
        part = table[(table.profile == profile) & (table.arm == arm)]
        for arch in present(part):
            t = part[part.arch == arch]
            before = table[(table.profile == profile) & (table.arm == "untrained") & (table.arch == arch)]
            failed = arm == "trained" and len(before) and not claims.learned(t, before)
            name = "trained, not learned" if failed else ARM_LABELS.get(arm, arm)
            rows.append({"profile": profile, "encoder": label(arch), "arm": name, "seeds": len(t)}
                        | {heading: held(t[c], scale, digits) if c in t else "" for heading, c in columns.items()})
    return pd.DataFrame(rows, columns=["profile", "encoder", "arm", "seeds", *columns]).set_index(["profile", "encoder", "arm"])


def gains(table, column, bounds=None):
    """How each arm departs from its baseline in a number, seed by seed: a row per run that has a baseline, with the columns `gain` and
    `side`: 1 where that is an upper bound, -1 where it is a lower one, nan where it is of no side, else 0.

    An arm's baseline has the same profile, data set, encoder, width and seed, and arm "trained". bounds: as in `dots`.
    """
    same = ["profile", "data", "arch", "width", "seed"]
    value, side = bounds or (column, "side")
    if bounds and set(bounds) <= set(table):
        table = table.assign(**{column: table[column].fillna(table[value])})
    table = table if side in table else table.assign(side=0)
    arms, standard = (_runs(table, arm, column).reindex(columns=[*same, "change", column, side]) for arm in ("remedy", "trained"))
    both = arms.merge(standard[[*same, column, side]], on=same, suffixes=("", "_baseline"))
    mine, other = both[side], -both[f"{side}_baseline"]
    return both.assign(gain=both[column] - both[f"{column}_baseline"], side=np.where(mine * other < 0, np.nan, np.sign(mine + other)))


def from_to(table, column, change):
    """What the arm `change` makes of a number, in percent, over the seeds that it shares with the baseline, in words: an encoder's means of
    both and the difference [95 %] in points; "" without such runs."""
    won = gains(table, column)
    parts = [(arch, won[(won.change == change) & (won.arch == arch)]) for arch in present(won[won.change == change])]
    return "; ".join(f"{label(arch)} from {100 * part[f'{column}_baseline'].mean():.1f} to {100 * part[column].mean():.1f}, "
                     f"{shown(part.gain, sign='+')}" for arch, part in parts)


def shares(table, column):
    """Each of the paper's remedies' share in a number, seed by seed, per profile and encoder: columns remedy, way, seed, gain.

    way "added alone": the arm with it alone minus the baseline; "left out": the paper's four together minus the other three.
    """
    known, rows = {r.name: r for r in claims.REMEDIES}, []
    whole = known["improved"].changes
    for (profile, arch), part in table.dropna(subset=column).groupby(["profile", "arch"], sort=False):
        standard = claims.baseline(part)
        for name, words in SHARED.items() if len(standard) else ():
            remedy = known[name].changes
            others = {field: value for field, value in whole.items() if field not in remedy}
            for way, more, fewer in (("added alone", remedy, {}), ("left out", whole, others)):
                a, b = (claims.departing(part, standard, changes)[["seed", column]] for changes in (more, fewer))
                both = a.merge(b, on="seed", suffixes=("", "_without"))
                rows.append(both[["seed"]].assign(profile=profile, arch=arch, remedy=words, way=way,
                                                  gain=both[column] - both[f"{column}_without"]))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=["seed", "profile", "arch", "remedy", "way", "gain"])


def counted(table):
    """Runs per profile, data set, encoder and arm: what the comparison rests on."""
    arms = np.where(table.arm == "trained", "baseline", np.where(table.arm == "remedy", table.change, table.arm))
    return table.assign(arm=arms, encoder=table.arch.map(label)).pivot_table(
        index=["profile", "data", "arm"], columns="encoder", values="run", aggfunc="count", fill_value=0, sort=False)


ABLATION = {"linear probe": "linear_test", "kNN": "knn_test", "pretext, held out": "instdisc_dsd_top1_test",
            "completeness": "completeness_matched", "local purity": "homogeneity_fine"}


def ablation(table, columns=ABLATION, gain="linear_test", costs=None):
    """Mean [95 % interval] of each arm per profile and encoder, the baseline first, in percent; the gain is over the
    baseline, in points, paired by seed, and where the baseline has more seeds its mean over these. columns: heading -> column, fractions;
    costs: the same, shown as medians without percent."""
    def cost(value):
        return "" if np.isnan(value) else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

    def gained(part, seeds):
        fewer = f", from {100 * part[f'{gain}_baseline'].mean():.1f}" if len(part) < seeds else ""
        return shown(part.gain, sign="+") + fewer
    rows, won = [], gains(table, gain)
    table = table[table.arm.isin(["trained", "remedy"])]
    for (profile, data), part in table.groupby(["profile", "data"], sort=False):
        for arch in present(part):
            standard = part[(part.arch == arch) & (part.arm == "trained")]
            for change in ["", *dict.fromkeys(c for c in part.change if c)]:
                t = part[(part.arch == arch) & (part.change == change)]
                if len(t):
                    mine = won[(won.profile == profile) & (won.data == data) & (won.arch == arch) & (won.change == change)]
                    rows.append({"profile": profile, "data": data, "encoder": label(arch), "arm": change or "baseline", "seeds": len(t),
                                 "gain, points": gained(mine, len(standard)) if len(mine) else ""}
                                | {heading: cost(t[c].median()) for heading, c in (costs or {}).items()}
                                | {heading: held(t[c]) if c in t else "" for heading, c in columns.items()})
    out = pd.DataFrame(rows, columns=["profile", "data", "encoder", "arm", "seeds", "gain, points", *(costs or {}), *columns])
    several = (out.groupby("profile").data.nunique() > 1).any() or out.data.str.startswith("folder:").any()    # else the profile says it
    index = ["profile", "data", "encoder", "arm"] if several else ["profile", "encoder", "arm"]
    return out.drop(columns=[] if "data" in index else "data").set_index(index)


def beside_paper(tables, changes, paper):
    """What the arms `changes` gain, beside the paper's figure 1: linear accuracy in percent of the baseline and of the same encoder trained
    with labels, the gain of each arm in points, mean [95 % interval over seeds], with what it starts from where it has fewer seeds than
    the baseline; theirs on ImageNet. A column per small encoder, a row per number and where it is from. tables: {profile: table}; paper:
    results/reference/paper_headline.csv, by model."""
    standard, rows = paper.baseline_200_percent, {}
    for p, t in tables.items():
        won, seeds = gains(t, "linear_test"), t[t.arm == "trained"].groupby("arch").seed.nunique()
        for words, part, column, sign in (
                ("baseline", t[t.arm == "trained"], "linear_test", ""), ("with labels", t[t.arm == "supervised"], "linear_test", ""),
                *((f"gain: {c}", won[won.change == c], "gain", "+") for c in dict.fromkeys(won.change) if c in changes)):
            found = {arch: shown(own[column], sign=sign) + (
                f", {len(own)} seed{'s' * (len(own) > 1)}, from {100 * own.linear_test_baseline.mean():.1f}"
                if sign and len(own) < seeds[arch] else "") for arch, own in part.dropna(subset=column).groupby("arch")}
            rows |= {(p, words): pd.Series(found)} if found else {}
    rows[("paper", "baseline, 200 epochs")] = standard.map("{:.1f}".format)
    for name, words in (("improved_200_percent", "its remedies together, 200 epochs"), ("improved_800_percent", "the same, 800 epochs"),
                        ("seed_resnet50_teacher_percent", "SEED alone")):
        rows[("paper", f"gain: {words}")] = (paper[name] - standard).dropna().map("{:+.1f}".format).str.replace("-", "−")
    out = pd.DataFrame(rows)
    out = out.reindex([*models.SMALL, *(arch for arch in out.index if arch not in paper.index)]).rename(index=label).T.fillna("")
    return out.rename_axis(index=["from", "linear accuracy"])


def verdicts(ledger, *names):
    """Rows of the ledger (claims.ledger) as a reader wants them, for the claims `names`: claims.effect, claims.smallest_detectable."""
    rows = []
    for row in ledger.itertuples():
        name, _, arch = row.claim.partition("/")
        if name not in names:
            continue
        rows.append({"profile": row.profile, "claim": name, "encoder": label(arch) if arch else "all together",
                     "effect [95 %]": " ".join(claims.effect(row)).strip(), "seeds": row.n, "verdict": row.verdict,
                     "reads as": claims.reading(row), "smallest detectable": claims.smallest_detectable(row)})
    rows = sorted(rows, key=lambda row: names.index(row["claim"]))
    table = pd.DataFrame(rows).set_index(["profile", "claim", "encoder"])
    return table if table["reads as"].any() else table.drop(columns="reads as")


def judged(tables, *names):
    """(the verdicts that rest on runs, a sentence on each claim that has none and on what they rest on) for the claims `names`.

    tables: {profile: table}.
    """
    rows = verdicts(pd.concat([claims.ledger(t, p) for p, t in tables.items()], ignore_index=True), *names)
    lacking = {}
    for (p, claim), part in rows[rows.verdict == claims.NOT_TESTED].groupby(["profile", "claim"], sort=False):
        lacking.setdefault((p, ", ".join(part.index.unique("encoder"))), []).append(claim)
    sentences = [f"{p}, {', '.join(those)}: not tested, for want of runs or images that the rule asks for: {encoders}"
                 for (p, encoders), those in lacking.items()]
    sentences += [sentence for p, t in tables.items() for sentence in caveats.told(t, p, names)]
    return rows[rows.verdict != claims.NOT_TESTED], sentences


def rules(*names):
    """The claims `names`, each with its rule of decision folded in, as a notebook shows them."""
    from IPython.display import HTML
    return HTML("".join(f"<details><summary>The rule for <b>{escape(claim.statement)}</b> (<code>{claim.name}</code>)</summary>"
                        f"{rule_html(claim)}</details>" for claim in [claims.BY_NAME[name] for name in names]))


def departures(arms):
    """Where the recipe of `arms` departs from the paper's baseline, which is PretrainConfig's defaults; learning rates aside."""
    rows = {}
    for f in fields(arms[0]):
        here = {}
        for c in arms:
            here.setdefault(getattr(c, f.name), {})[label(c.arch)] = None
        if f.name not in ("arch", "seed", "lr") and set(here) != {f.default}:
            each = "; ".join(f"{value} ({', '.join(names)})" for value, names in here.items())
            rows[f.name] = {"paper": f.default, "here": next(iter(here)) if len(here) == 1 else each}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["paper", "here"], dtype=object)


def provenance(table):
    """Where the runs of a table were made: how many, by which commits, in how many hours, per profile and machine."""
    made = table.assign(commit=table.commit.fillna("unknown").str[:7]).groupby(["profile", "device"], sort=False)
    return made.agg(runs=("run", "count"), commits=("commit", lambda c: ", ".join(sorted(set(c)))),
                    hours=("seconds", lambda s: round(s.sum() / 3600, 2)))


# ---- what figures share ----

def _axes(ax, height=3.0, width=WIDTH):
    return plt.subplots(figsize=(width, height))[1] if ax is None else ax


def _grid(n, columns, height, **kwargs):
    rows = -(-n // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, rows * height), squeeze=False, **kwargs)
    for ax in axes.flat[n:]:
        ax.set_axis_off()
    return figure, axes


def _missing(ax, sentence):
    """An Axes that holds a sentence instead of a figure."""
    ax = _axes(ax, height=0.5)
    ax.set_axis_off()
    ax.text(0, 0.5, sentence, transform=ax.transAxes, va="center", style="italic")
    return ax


def _runs(table, arm, *columns):
    """The rows of an arm for which every column has a value; none where a column does not exist."""
    if not len(table) or not set(columns) <= set(table):
        return table.iloc[:0].assign(arm="") if "arm" not in table else table.iloc[:0]
    return table[table.arm == arm].dropna(subset=list(columns))


def _lines(part, x, y, ax, linestyle="-", **kwargs):
    """One encoder's curves: a thin line per run, their mean thick."""
    arch = part.arch.iloc[0]
    for _, run in part.groupby("run"):
        ax.plot(run[x], run[y], color=colour(arch), linewidth=0.7, alpha=0.4, linestyle=linestyle)
    mean = part.groupby(x)[y].mean()
    ax.plot(mean.index, mean, color=colour(arch), linewidth=1.8, linestyle=linestyle, marker=marker(arch), markersize=4, **kwargs)


def _beside(ax, handles=None):
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5))


def _percent(axis, column="knn"):
    """Percent on an axis of accuracies; other numbers stay as they are."""
    if column.startswith(("knn", "nn", "best_nn", "linear", "instdisc")):
        axis.set_major_formatter(PercentFormatter(1))


def _row(ax, values, y, arch, filled=True, interval=None, shape="o"):
    """Seeds as dots and, of several, their mean with its 95 % interval (mean, low, high), at height y."""
    mean, low, high = interval or claims.interval(values)
    face = colour(arch) if filled else "white"
    ax.plot(values, y + np.linspace(-0.16, 0.16, len(values) + 2)[1:-1], linestyle="", marker=shape, markersize=4, alpha=0.6,
            markerfacecolor=face, markeredgecolor=colour(arch))
    if not np.isnan(low):
        ax.plot([low, high], [y, y], color=colour(arch), linewidth=1.6)
    if len(values) > 1:
        ax.plot([mean], [y], marker="|", markersize=13, markeredgewidth=2.2, color=colour(arch))


UNSOLVED = "x"     # marker of a run that learned too little of the pretext task to overfit it


def _rows(ax, archs):
    ax.set_yticks(range(len(archs)), [label(arch) for arch in archs])
    ax.set_ylim(len(archs) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)


def dots(table, column, xlabel, ax=None, title="", chance=None, percent=True, bounds=None):
    """One number per run, a row per encoder: filled dots are trained runs, hollow ones untrained; raw pixels, where the table has them,
    are a line. bounds: two columns, a bound for runs that lack the number, and 1 where it is an upper, -1 where it is a lower one; these
    are triangles that point to where the number lies, and their encoder gets no mean, which would be that of a selection."""
    trained, before, raw = (_runs(table, arm, column) for arm in ("trained", "untrained", "pixels"))
    value, side = bounds or (column, column)
    bounded = _runs(table, "trained", value).iloc[:None if bounds else 0]
    archs = present(pd.concat([trained, bounded]))
    if not archs:
        return _missing(ax, f"{title}: no trained runs with {column}.")
    ax = _axes(ax, height=0.9 + 0.36 * len(archs))
    ends = {1: ("<", "at most"), -1: (">", "at least")}
    for y, arch in enumerate(archs):
        if arch in set(before.arch):
            _row(ax, before[before.arch == arch][column], y, arch, filled=False)
        some = bounded[bounded.arch == arch]
        _row(ax, trained[trained.arch == arch][column], y, arch, interval=(np.nan,) * 3 if len(some) else None)
        for end, (shape, _) in ends.items():
            if len(at := some[some[side] == end][value]):
                ax.plot(at, np.full(len(at), y), linestyle="", marker=shape, markersize=6, color=colour(arch))
    _rows(ax, archs)
    every = table[table.arm == "trained"].groupby("arch").size()
    ax.set_yticks(range(len(archs)), [label(arch) + (f"\n{n} of {every[arch]} runs" if n < every[arch] else "")
                                      for arch in archs for n in [((trained.arch == arch).sum() + (bounded.arch == arch).sum())]])
    handles = [Line2D([], [], linestyle="", marker="o", color="0.3", label="trained"),
               Line2D([], [], linestyle="", marker="o", color="0.3", markerfacecolor="white", label="untrained")][:1 + bool(len(before))]
    handles += [Line2D([], [], linestyle="", marker=shape, color="0.3", label=words) for end, (shape, words) in ends.items()
                if (bounded[side] == end).any()]
    if chance is not None:
        ax.axvline(chance, **CHANCE)
        handles.append(Line2D([], [], **CHANCE, label="chance"))
    if len(raw):
        ax.axvline(raw[column].mean(), **PIXELS)
        handles.append(Line2D([], [], **PIXELS, label="raw pixels"))
    if percent:
        _percent(ax.xaxis)
    ax.set(xlabel=xlabel, title=title)
    _beside(ax, handles)
    return ax


def over_encoders(table, column, form=".1%"):
    """The range over encoders of their means in a number, for each arm: "trained 0.4% to 4.5%, pixels 7.2%"."""
    parts = []
    for arm in ARMS:
        means = _runs(table, arm, column).groupby("arch")[column].mean()
        if len(means):
            ends = dict.fromkeys(re.sub(r"^-(?=0[.0]*%?$)", "", f"{end:{form}}").replace("-", "−") for end in (means.min(), means.max()))
            parts.append(f"{ARM_LABELS.get(arm, arm)} {' to '.join(ends)}")
    return ", ".join(parts)


# ---- 01: the pretext task ----

def views(rows, names, ax=None):
    """Tiles: one column per image, one row per version of it. rows: {name: (n, 3, S, S) float}, each image scaled to its range."""
    n, side = len(names), next(iter(rows.values())).shape[-1]
    ax = _axes(ax, height=WIDTH / n * len(rows) + 1.0)
    canvas = np.ones((len(rows) * (side + 2), n * (side + 2), 3))
    for r, images in enumerate(rows.values()):
        for c, image in enumerate(np.asarray(images)):
            low, high = image.min(), image.max()
            tile = ((image - low) / (high - low + 1e-6)).transpose(1, 2, 0)
            canvas[r * (side + 2):r * (side + 2) + side, c * (side + 2):c * (side + 2) + side] = tile
    ax.imshow(canvas, interpolation="nearest")
    ax.set_xticks([c * (side + 2) + side / 2 for c in range(n)], [*map(plain, names)], rotation=45, ha="left", rotation_mode="anchor")
    ax.set_yticks([r * (side + 2) + side / 2 for r in range(len(rows))], list(rows))
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.grid(False)
    sns.despine(ax=ax, left=True, bottom=True)
    return ax


def loss(history, candidates, ax=None, title=""):
    """InfoNCE over the epochs, mean of each epoch; chance is the logarithm of the number of candidates (K + 1 in MoCo)."""
    history = history.dropna(subset=["loss"]) if "loss" in history else history.iloc[:0]
    if history.empty:
        return _missing(ax, f"{title}: no trained runs.")
    ax = _axes(ax)
    for arch in present(history):
        _lines(history[history.arch == arch], "epoch", "loss", ax, label=label(arch))
    ax.axhline(np.log(candidates), **CHANCE, label=f"chance, log({candidates})")
    ax.set(xlabel="epoch", ylabel="InfoNCE (nats)", title=title)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _beside(ax)
    return ax


def instance_discrimination(history, images, title=""):
    """Top-1 over the epochs, a panel per encoder: solid on train, dashed held out, on `images` images a side; (rows, 3) Axes.

    Epoch 0 is the untrained encoder; chance is 1/images.
    """
    history = history.dropna(subset=["instdisc_train", "instdisc_test"]) if "instdisc_test" in history else history.iloc[:0]
    archs = present(history)
    if not archs:
        return np.array([[_missing(None, f"{title}: no trained runs.")]])
    figure, axes = _grid(len(archs), 3, 2.1, sharex=True, sharey=True)
    for ax, arch in zip(axes.flat, archs):
        part = history[history.arch == arch]
        _lines(part, "epoch", "instdisc_train", ax)
        _lines(part, "epoch", "instdisc_test", ax, linestyle=(0, (3, 1.5)))
        ax.axhline(1 / images, **CHANCE)
        ax.set_title(label(arch), color=colour(arch))
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        ax.tick_params(labelbottom=True)
        _percent(ax.yaxis)
    axes[0, 0].set_ylim(bottom=0)
    figure.supylabel(f"top-1 among {images} images", fontsize=9)
    handles = [Line2D([], [], color="0.2", label="train"), Line2D([], [], color="0.2", linestyle=(0, (3, 1.5)), label="held out"),
               Line2D([], [], **CHANCE, label=f"chance, 1/{images}")]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    figure.suptitle(title, fontsize=9.5, x=0.01, ha="left")
    return axes


def generalisation_gap(table, ax=None, title=""):
    """Top-1 on train minus held-out in points, a row per encoder with its held-out top-1, with claims.equivalence's interval and its margin
    shaded. Crosses: the task is not learned well enough to overfit (claims.solved), so that the two are close whatever holds."""
    columns = "instdisc_dsd_top1_train", "instdisc_dsd_top1_test"
    trained = _runs(table, "trained", *columns)
    archs = present(trained)
    if not archs:
        return _missing(ax, f"{title}: no trained runs.")
    ax = _axes(ax, height=1.0 + 0.36 * len(archs))
    margin = 100 * claims.MARGIN
    ax.axvspan(-margin, margin, color="0.93", zorder=0, label=f"as good as\nequal: ±{margin:g} points")
    ax.axvline(0, color="0.6", linewidth=0.8)
    before = _runs(table, "untrained", columns[1])
    for y, arch in enumerate(archs):
        mine = trained[trained.arch == arch]
        train, test = (mine[c].to_numpy() for c in columns)
        effect, low, high, _ = claims.equivalence(train, test, mine.instances_test.iloc[0])
        solved = claims.solved(mine, before[before.arch == arch])[0] if arch in set(before.arch) else False
        _row(ax, 100 * (train - test), y, arch, interval=(100 * effect, 100 * low, 100 * high), shape="o" if solved else UNSOLVED)
    _rows(ax, archs)
    ax.set_yticks(range(len(archs)), [f"{label(arch)}, {trained[trained.arch == arch][columns[1]].mean():.1%}" for arch in archs])
    ax.plot([], [], linestyle="", marker=UNSOLVED, markersize=4, color="0.3", label="task not learned\nwell enough to tell")
    wide = max(2 * margin, *(abs(x) * 1.05 for x in ax.get_xlim()))
    ax.set(xlabel="top-1, train minus held-out, points; beside a name: held out", title=title, xlim=(-wide, wide))
    _beside(ax)
    return ax


# ---- 02: over-clustering ----

def _cloud(points, ax, norm):
    """Seeds small in the encoder's colour; means as markers, edge in that colour, face by accuracy, area by parameters."""
    for arch in present(points):
        t = points[points.arch == arch]
        x, y = (claims.interval(t[c]) for c in ("uniformity", "intra_class"))
        if len(t) > 1:
            ax.plot(t.uniformity, t.intra_class, linestyle="", marker=".", color=colour(arch), alpha=0.6)
            ax.plot(x[1:], [y[0]] * 2, [x[0]] * 2, y[1:], color=colour(arch), linewidth=1)
        ax.scatter([x[0]], [y[0]], s=25 + 9 * t.parameters.iloc[0] / 1e6, c=[t.accuracy.mean()], cmap="viridis", norm=norm,
                   marker=marker(arch), edgecolors=colour(arch), linewidths=1.6, zorder=3)


def papers_pair(paper):
    """The paper's encoders by its pair of measures as a table of text. paper: results/reference/paper_over_clustering.csv."""
    numbers = {"linear_percent": ("linear, %", 1), "intra_class": ("intra-class distance²", 2), "uniformity": ("uniformity", 2)}
    out = pd.DataFrame({"encoder": paper.model.map(label), "recipe": paper.recipe} | {
        words: ["not available" if np.isnan(v) else f"{v:.{digits}f}".replace("-", "−") for v in paper[column]]
        for column, (words, digits) in numbers.items()} | {"source": paper.source})
    return out.set_index(["encoder", "recipe"])


def over_clustering(table, paper, parameters, title=""):
    """Intra-class alignment against uniformity: ours raw and centred, untrained and trained, (2, 2) Axes; with `paper` (not None) a row
    above them: the paper's encoders and the legend.

    The further up and left, the more over-clustered in the paper's sense. paper: results/reference/paper_over_clustering.csv.
    parameters: {encoder: number}. Colour is linear accuracy in the paper and kNN accuracy in ours.
    """
    ours = table.assign(parameters=table.arch.map(parameters), accuracy=table.get("knn_test"))
    panels = {}
    for tag, arm in itertools.product(("", "_centred"), ("untrained", "trained")):
        columns = {f"uniformity_d_test{tag}": "uniformity", f"intra_class_d_test{tag}": "intra_class"}
        name = f"ours, {arm}, {'centred' if tag else 'raw'}"
        panels[name] = _runs(ours, arm, *columns).rename(columns=columns).dropna(subset=["parameters"])
    seen = pd.concat(list(panels.values()))
    figure, axes = _grid(4 if paper is None else 6, 2, 2.5)
    own, shown = axes[-2:], seen
    if paper is not None:
        theirs = paper.rename(columns={"model": "arch"}).dropna(subset=["intra_class"])
        theirs = theirs.assign(accuracy=theirs.linear_percent / 100, parameters=theirs.arch.map(parameters))
        _papers_cloud(figure, axes[0, 0], theirs)
        shown = pd.concat([theirs, seen])
    norm = plt.Normalize(seen.accuracy.min(), seen.accuracy.max()) if len(seen) else plt.Normalize()
    for ax, (name, points) in zip(own.flat, panels.items()):
        _cloud(points, ax, norm)
        ax.set_title(name)
        if points.empty:
            ax.text(0.5, 0.5, "no runs", transform=ax.transAxes, ha="center", style="italic")
    figure.colorbar(plt.cm.ScalarMappable(norm, "viridis"), ax=own, format=PercentFormatter(1, 0), location="bottom",
                    label="ours: kNN, k = 20, held out", shrink=0.5, aspect=30)
    for ax in [axes[0, 0], *own.flat]:
        ax.set(xlabel="uniformity (lower: more even)", ylabel="intra-class distance²")
        ax.margins(0.15)
        ax.xaxis.set_major_locator(MaxNLocator(5))
    for pair in own:                                                       # what training did is seen from one panel to the other
        sides = np.array([[*ax.get_xlim(), *ax.get_ylim()] for ax in pair])
        for ax in pair:
            ax.set(xlim=(sides[:, 0].min(), sides[:, 1].max()), ylim=(sides[:, 2].min(), sides[:, 3].max()))
    handles = [Line2D([], [], linestyle="", marker=marker(arch), markerfacecolor="white", markeredgecolor=colour(arch),
                      markeredgewidth=1.6, label=label(arch)) for arch in present(shown)]
    if paper is None:
        figure.legend(handles=handles, loc="outside lower center", ncols=3, title="area: parameters; face: accuracy")
    else:
        axes[0, 1].set_axis_off()
        axes[0, 1].legend(handles=handles, loc="center left", title="area: parameters; face: accuracy")
    figure.suptitle(title, fontsize=9.5, x=0.01, ha="left")
    return axes


def _papers_cloud(figure, ax, theirs):
    """The paper's encoders by its pair of measures, each joined with its improved self."""
    norm = plt.Normalize(theirs.accuracy.min(), theirs.accuracy.max())
    for arch in present(theirs):
        both = theirs[theirs.arch == arch]
        ax.plot(both.uniformity, both.intra_class, color=colour(arch), linewidth=1)
        improved = both[both.recipe == "improved"]
        ax.plot(improved.uniformity, improved.intra_class, linestyle="", marker="x", color=colour(arch), markersize=5)
    _cloud(theirs[theirs.recipe == "baseline"], ax, norm)
    ax.set_title("paper, ImageNet (cross: improved recipe)")
    figure.colorbar(plt.cm.ScalarMappable(norm, "viridis"), ax=ax, format=PercentFormatter(1, 0), label="paper: linear top-1", aspect=25)


def accuracy_over_k(table, ax=None, title=""):
    """Held-out accuracy of unweighted Euclidean nearest neighbours over k; solid trained, dashed untrained; chance 1/C."""
    ks = [k for k in NEIGHBOURS if f"nn{k}_test" in table and table[f"nn{k}_test"].notna().any()]
    if not ks or not len(_runs(table, "trained", *(f"nn{k}_test" for k in ks))):
        return _missing(ax, f"{title}: no trained runs.")
    ax = _axes(ax, 3.2)
    for arm, linestyle in (("trained", "-"), ("untrained", (0, (3, 1.5)))):
        part = _runs(table, arm, *(f"nn{k}_test" for k in ks))
        long = pd.concat([part[["arch", "run"]].assign(k=k, accuracy=part[f"nn{k}_test"]) for k in ks])
        for arch in present(long):
            _lines(long[long.arch == arch], "k", "accuracy", ax, linestyle, label=label(arch) if arm == "trained" else None)
    ax.axhline(1 / table.classes.iloc[0], **CHANCE, label="chance")
    ax.plot([], [], color="0.2", linestyle=(0, (3, 1.5)), label="untrained")
    ax.set_xscale("log")
    ax.set_xticks(ks, [k if k != 81 else "" for k in ks])                  # 81 and 101 would touch
    ax.minorticks_off()
    ax.set(xlabel="neighbours k", ylabel="accuracy, held out", title=title, ylim=(0, None))
    _percent(ax.yaxis)
    _beside(ax)
    return ax


def clusters(table, title="", reference=models.LARGE):
    """k-means of held-out h against the classes: homogeneity and completeness over clusters a class, and one against the other.

    The vertical line is the reference's homogeneity at two clusters a class, where claims.completeness_at compares. Three Axes.
    """
    found = [f for f in claims.PER_CLASS if len(table) and (name := f"homogeneity_k{int(table.classes.iloc[0]) * f}") in table
             and table[name].notna().any()]
    names = {f: [f"{n}_k{int(table.classes.iloc[0]) * f}" for n in ("homogeneity", "completeness")] for f in found}
    trained = _runs(table, "trained", *sum(names.values(), []))
    if trained.empty or not found:
        return np.array([_missing(None, f"{title}: no trained runs.")])
    long = pd.concat([trained[["arch", "run"]].assign(f=f, homogeneity=trained[a], completeness=trained[b]) for f, (a, b) in names.items()])
    figure, axes = _grid(3, 3, 2.9)
    figure.get_layout_engine().set(wspace=0.06)
    axes = axes[0]
    for arch in present(long):
        part = long[long.arch == arch]
        _lines(part, "f", "homogeneity", axes[0])
        _lines(part, "f", "completeness", axes[1])
        for _, run in part.groupby("run"):
            axes[2].plot(run.homogeneity, run.completeness, color=colour(arch), linewidth=0.7, alpha=0.4)
        mean = part.groupby("f")[["homogeneity", "completeness"]].mean()
        axes[2].plot(mean.homogeneity, mean.completeness, color=colour(arch), linewidth=1.8, marker=marker(arch), markersize=4,
                     label=label(arch))
    large = long[(long.arch == reference) & (long.f == claims.MATCHED)]
    if len(large):
        axes[2].axvline(large.homogeneity.mean(), color="0.45", linewidth=1)
    for ax, name in zip(axes, ("homogeneity", "completeness")):
        ax.set_xscale("log", base=2)
        ax.set_xticks(found, found)
        ax.minorticks_off()
        ax.set(xlabel="clusters a class", ylabel=f"{name} (0 to 1)")
    axes[2].set(xlabel="homogeneity", ylabel="completeness")
    figure.legend(*axes[2].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(title, fontsize=9.5, x=0.01, ha="left")
    return axes


def factors(table, ax=None, title=""):
    """Which factor the clusters inside a class follow: AMI per encoder and factor, and sub-clusters a class at the right edge."""
    columns = [c for c in table if c.startswith("ami_") and table[c].notna().any()]
    found = [(arm, arch, part[part.arch == arch]) for arm in ("trained", "supervised", "untrained", "pixels")
             for part in [_runs(table, arm, *columns)] for arch in present(part)]
    if not columns or not found:
        return _missing(ax, f"{title}: no factors, or fewer than 200 held-out images a class.")
    ax = _axes(ax, height=1.3 + 0.24 * len(found))
    values = np.array([[part[c].mean() for c in columns] for _, _, part in found]).round(2) + 0.0     # never -0.00
    sns.heatmap(values, ax=ax, cmap="rocket_r", vmin=0, vmax=max(0.3, values.max()), annot=True, fmt=".2f", annot_kws={"size": 8},
                linewidths=0.5, cbar_kws={"label": "adjusted mutual information", "pad": 0.03})
    for y, (_, _, part) in enumerate(found):
        ax.text(len(columns) + 0.5, y + 0.5, f"{part.sub_clusters.mean():.1f}", ha="center", va="center", fontsize=8.5)
    starts = [y for y in range(1, len(found)) if found[y][0] != found[y - 1][0]]
    ax.hlines(starts, -0.02, len(columns), color="0.2", linewidth=1.2)
    ax.set_xlim(0, len(columns) + 1)
    names = [*(c.removeprefix("ami_") for c in columns), "sub-clusters"]
    ax.set_xticks(np.arange(len(names)) + 0.5, names, rotation=30, ha="left", rotation_mode="anchor")
    names = [label(arch) + ("" if arm == "pixels" else f", {ARM_LABELS.get(arm, arm)}") for arm, arch, _ in found]
    ax.set_yticks(np.arange(len(names)) + 0.5, names, rotation=0)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.grid(False)
    ax.set_title(title)
    return ax


def most_followed(table):
    """The factor that the clusters of trained encoders follow most, and the range of its AMI over encoders for each arm, as a sentence; ""
    without factors."""
    columns = [c for c in table if c.startswith("ami_") and table[c].notna().any()]
    trained = _runs(table, "trained", *columns)
    if not columns or trained.empty:
        return ""
    most = trained.groupby("arch")[columns].mean().mean().idxmax()
    return f"most followed when trained: {most.removeprefix('ami_')}; AMI {over_encoders(table, most, '.2f')}"


def umaps(found, classes, factors=None, title=""):
    """UMAP, a row per encoder: coloured by class, then by each factor. found: {name: lib.runs.umap}; factors: {name: (N,) values}.

    It illustrates and proves nothing: distances between islands mean little. Returns (encoders, 1 + factors) Axes.
    """
    if not found:
        return np.array([[_missing(None, f"{title}: no coordinates and no embeddings are stored.")]])
    factors = factors or {}
    columns = 1 + len(factors)
    figure, axes = _grid(len(found) * columns, columns, 1.75 if factors else 3.4)
    palette = class_colours(len(classes))
    for row, (name, points) in enumerate(found.items()):
        line = axes[row]
        line[0].set_ylabel(name)
        dot = {"s": 3, "linewidths": 0, "rasterized": True}
        line[0].scatter(points.x, points.y, c=[palette[i] for i in points.label], **dot)
        for column, (factor, values) in enumerate(factors.items(), 1):
            values = np.asarray(values)[points["index"]]
            two = len(np.unique(values[np.isfinite(values)])) == 2
            cmap = plt.matplotlib.colors.ListedColormap([CLASSES[0], CLASSES[1]]) if two else \
                sns.color_palette("husl", as_cmap=True) if factor in CYCLIC else plt.get_cmap("viridis")
            cmap = cmap.with_extremes(bad="0.85")                         # classes in which the factor does not show
            drawn = line[column].scatter(points.x, points.y, c=values, cmap=cmap, plotnonfinite=True, **dot)
            if row == len(found) - 1:
                bar = figure.colorbar(drawn, ax=axes[:, column], location="bottom", aspect=14, shrink=0.9)
                ticks = np.linspace(np.nanmin(values), np.nanmax(values), 3)
                bar.set_ticks(ticks[::2] if two else ticks, labels=[f"{t:.1f}" for t in (ticks[::2] if two else ticks)])
                bar.set_label(UNITS.get(factor, factor), fontsize=8)
                bar.outline.set_visible(False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        sns.despine(ax=ax, left=True, bottom=True)
    for ax, name in zip(axes[0], ["class", *factors]):
        ax.set_title(f"by {name}")
    handles = [Line2D([], [], linestyle="", marker="o", markersize=4, color=palette[i], label=name) for i, name in
               enumerate(map(plain, classes))]
    if len(classes) <= 20:
        figure.legend(handles=handles, loc="outside lower center", ncols=4, handletextpad=0.2, columnspacing=1)
    figure.suptitle(title, fontsize=9.5, x=0.01, ha="left")
    return axes


def over_epochs(history, columns, title=""):
    """Numbers of the monitor over the epochs, a panel each. columns: column -> label of the axis; fractions. Returns Axes."""
    history = history.dropna(subset=list(columns)) if set(columns) <= set(history) else history.iloc[:0]
    if history.empty:
        return np.array([_missing(None, f"{title}: no trained runs.")])
    figure, axes = _grid(len(columns), len(columns), 2.9)
    axes = axes[0]
    for ax, (column, name) in zip(axes, columns.items()):
        for arch in present(history):
            _lines(history[history.arch == arch], "epoch", column, ax, label=label(arch))
        ax.set(xlabel="epoch", ylabel=name)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        _percent(ax.yaxis, column)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(title, fontsize=9.5, x=0.01, ha="left")
    return axes


def widths(table, columns, title="", arch="resnet18", reference=models.LARGE):
    """One encoder at several widths: every run a dot, mean and 95 % interval; grey line: the large reference. A panel per column.

    columns: column -> label of the axis. A panel says how many runs have no such number; where some have none, there is no mean. Returns
    Axes.
    """
    runs = pd.concat([_runs(table, arm) for arm in ("width", "trained")])
    runs = runs.reindex(columns=runs.columns.union(list(columns)))
    part, large = runs[runs.arch == arch], runs[(runs.arch == reference) & (runs.arm == "trained")]
    if part.empty or part.width.nunique() < 2:
        return np.array([_missing(None, f"{title}: {label(arch)} was trained at one width only.")])
    figure, axes = _grid(len(columns), len(columns), 2.7)
    axes = axes[0]
    for ax, (column, name) in zip(axes, columns.items()):
        have = part.dropna(subset=column)
        if len(have) < len(part):
            ax.text(0.5, 1.02, f"not defined for {len(part) - len(have)} of {len(part)} runs", transform=ax.transAxes, ha="center",
                    va="bottom", fontsize=7.5, color="0.35")
        ax.plot(have.width, have[column], linestyle="", marker="o", markersize=4, alpha=0.6, color=colour(arch))
        whole = part.groupby("width")[column].filter(lambda values: values.notna().all()).index
        for width, values in part.loc[whole].groupby("width")[column]:
            mean, low, high = claims.interval(values)
            ax.plot([width], [mean], marker="_", markersize=13, markeredgewidth=2.2, color=colour(arch))
            ax.plot([width, width], [low, high], color=colour(arch), linewidth=1.4)
        mean = part.loc[whole].groupby("width")[column].mean()
        ax.plot(mean.index, mean, color=colour(arch), linewidth=1.2, label=label(arch))
        if len(large) and large[column].notna().all():
            ax.axhline(large[column].mean(), color=colour(reference), linewidth=1, label=label(reference))
        ax.set_xscale("log", base=2)
        ax.set_xticks(sorted(part.width.unique()), [f"{w:g}" for w in sorted(part.width.unique())])
        ax.minorticks_off()
        ax.set(xlabel="width (× channels)", ylabel=name)
        _percent(ax.yaxis, column)
        if ax.get_ylim()[1] > 1 >= have[column].max() and column != "intra_class_d_test":
            ax.set_ylim(top=1)                                             # an interval may pass the end of the scale
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(title, fontsize=9.5, x=0.01, ha="left")
    return axes


def sweep(table, x, columns, title="", xlabel=None, baseline=None, by=None):
    """Numbers over the values of one setting, a panel each: every run a dot, bars 95 % intervals, lines through the means of the seeds
    that all values have, else a value with more seeds than its neighbours would stand out by them.

    x: column of the setting; where it is not a number, values stand side by side. columns: column -> label of the axis. baseline: its
    value, a dotted line. by: a column of at most two values, the first drawn solid and the second dashed. Returns Axes.
    """
    part = pd.concat([_runs(table, arm) for arm in ("trained", "remedy")])
    values = sorted(part[x].unique()) if len(part) else []
    if len(values) < 2:
        return np.array([_missing(None, f"{title}: fewer than two values of {x} were trained.")])
    number = pd.api.types.is_numeric_dtype(part[x])
    place = dict(zip(values, values)) if number else {value: i for i, value in enumerate(values)}
    across, kinds = 2 if len(columns) > 1 else 1, [None] if by is None else [*dict.fromkeys(part[by])]
    figure, axes = _grid(len(columns), across, 2.35)
    for ax, (column, name) in zip(axes.flat, columns.items()):
        for arch, kind in itertools.product(present(part), kinds):
            mine = part[(part.arch == arch) & (True if by is None else part[by] == kind)].dropna(subset=column)
            if mine.empty:
                continue
            ax.plot([place[v] for v in mine[x]], mine[column], linestyle="", marker="o", markersize=3.5, alpha=0.5, color=colour(arch))
            count = mine.groupby("seed")[x].nunique()
            shared = mine[mine.seed.isin(count.index[count == mine[x].nunique()])]
            means = (mine if shared.empty else shared).groupby(x)[column].mean()
            ax.plot([place[v] for v in means.index], means, color=colour(arch), marker=marker(arch), markersize=4, linewidth=1.4,
                    linestyle="-" if kind == kinds[0] else (0, (3, 1.5)), label=label(arch) + (f", {kind}" if len(kinds) > 1 else ""))
            for value, found in mine.groupby(x)[column]:
                _, low, high = claims.interval(found)
                if len(found) > 2:                                         # two seeds give an interval as wide as the figure
                    ax.plot([place[value]] * 2, [low, high], color=colour(arch), linewidth=1.2)
        if baseline is not None:
            ax.axvline(place.get(baseline, baseline), **CHANCE)
        positive = [value for value in values if value > 0] if number else []
        if positive and max(values) / min(positive) > 8:
            ax.set_xscale("symlog", base=2, linthresh=min(positive)) if min(values) <= 0 else ax.set_xscale("log", base=2)
        ax.set_xticks([place[v] for v in values], [f"{v:g}" if number else v for v in values])
        ax.minorticks_off()
        ax.set(xlabel=xlabel or x, ylabel=name)
        _percent(ax.yaxis, column)
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=3 if len(kinds) == 1 else 2)
    figure.suptitle(title, fontsize=9.5, x=0.01, ha="left")
    return axes


def _groups(ax, rows, whole=None):
    """Rows of dots (name, encoder, values, filled), one below the other; neighbours of one name share it. Bars from three seeds on: two
    give an interval as wide as the figure. whole: of which rows these are all the values, so that they have a mean; of all, if None."""
    for y, (_, arch, values, filled) in enumerate(rows):
        values = np.asarray(values)
        alone = (values.mean() if whole is None or whole[y] else np.nan, np.nan, np.nan)
        _row(ax, values, y, arch, filled, None if len(values) > 2 and (whole is None or whole[y]) else alone)
    firsts = [y for y, row in enumerate(rows) if y == 0 or rows[y - 1][0] != row[0]]
    ax.set_yticks(firsts, [rows[y][0] for y in firsts])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    for y in firsts[1:]:
        ax.axhline(y - 0.5, color="0.9", linewidth=0.8)
    ax.grid(axis="y", visible=False)


def _encoders(table):
    return [Line2D([], [], linestyle="", marker="o", markersize=4, color=colour(a), label=label(a)) for a in present(table)]


def papers_gains(paper):
    """What the paper's remedies gain together at equal epochs, and SEED alone where it is known: {change: {encoder: points}}, as `changes`
    draws them. paper: results/reference/paper_headline.csv, by model."""
    names = {"the paper's four": "improved_200_percent", "SEED alone": "seed_resnet50_teacher_percent"}
    return {change: (paper[name] - paper.baseline_200_percent).dropna().to_dict() for change, name in names.items()}


def changes(table, column, xlabel, ax=None, title="", scale=100, bounds=None, paper=None):
    """What each arm gains over its baseline in one number, paired by seed: a row per change and encoder; dots are seeds, bars 95 %
    intervals from three seeds on. scale: 100 shows fractions as points. bounds: as in `dots`; a cross is a bound on neither side. paper:
    {change: {encoder: its gain in the figure's unit}}, drawn as dashes."""
    won = gains(table, column, bounds)
    if won.empty:
        return _missing(ax, f"{title}: no arm beside the baseline is stored that has this number.")
    parts = [(change, arch, part[part.arch == arch]) for change in dict.fromkeys(won.change)
             for part in [won[won.change == change]] for arch in present(part)]
    ax = _axes(ax, height=0.9 + 0.23 * len(parts))
    _groups(ax, [(change, arch, scale * part[part.side == 0].gain, True) for change, arch, part in parts],
            whole=[(part.side == 0).all() for _, _, part in parts])
    used, shapes = set(), {1: ("<", "at most"), -1: (">", "at least"), np.nan: ("x", "unknown side")}
    for y, (_, arch, part) in enumerate(parts):
        for side, (shape, words) in shapes.items():
            at = scale * part[part.side.isna() if np.isnan(side) else part.side == side].gain
            if len(at):
                ax.plot(at, np.full(len(at), y), linestyle="", marker=shape, markersize=5, color=colour(arch))
                used.add((shape, words))
    known = {y: paper[change][arch] for y, (change, arch, _) in enumerate(parts) if arch in (paper or {}).get(change, {})}
    ax.vlines([*known.values()], [y - 0.42 for y in known], [y + 0.42 for y in known], color="0.35", linestyle=(0, (2, 1)), linewidth=1.4)
    _signed(ax, pd.concat([won.gain * scale, pd.Series(known, dtype=float)]), xlabel, title)
    handles = [*_encoders(won), *(Line2D([], [], linestyle="", marker=shape, color="0.3", label=words) for shape, words in sorted(used))]
    _beside(ax, handles + [Line2D([], [], color="0.35", linestyle=(0, (2, 1)), label="the paper's,\non ImageNet")] * bool(known))
    return ax


def _signed(ax, values, xlabel, title):
    """An axis of gains around 0 that every dot is on; an interval that is much longer leaves it. Logarithmic beyond ±1 where some gains are
    above 10, since a gain of half a point on one encoder stands beside twenty on another."""
    ax.axvline(0, color="0.3", linewidth=1)
    dots, lines = values.abs().max(), np.abs([x for line in ax.lines for x in line.get_xdata() if np.isfinite(x)]).max(initial=0)
    seen = min(lines, 2.5 * dots) * 1.1 + 1e-9
    if dots > 10:
        ax.set_xscale("symlog", linthresh=1, linscale=0.6)
        ticks = (-30, -5, -1, 0, 1, 5, 30) if seen > 30 else (-10, -3, -1, 0, 1, 3, 10)     # 10 and 30 would touch
        ax.set_xticks(ticks, [f"{tick}".replace("-", "−") for tick in ticks])
        ax.minorticks_off()
        xlabel, seen = xlabel + " (logarithmic beyond ±1)", 1.3 * seen
    ax.set_xlim(-seen, seen)
    ax.set(xlabel=xlabel, title=title)


def share(table, column, xlabel, ax=None, title="", scale=100):
    """`shares` as a figure: filled, what a remedy gains when it is added to the baseline alone; hollow, what the paper's four lose when it
    is left out of them. A row per remedy, way and encoder; dots are seeds, bars 95 % intervals from three seeds on."""
    won = shares(table, column)
    won = won[won.arch.isin(won[won.way == "added alone"].arch)]           # elsewhere only the start is left out
    if won.empty:
        return _missing(ax, f"{title}: no remedy alone, nor one left out, is among these runs.")
    rows = [(remedy, arch, scale * part[(part.arch == arch) & (part.way == way)].gain, way == "added alone")
            for remedy in dict.fromkeys(won.remedy) for part in [won[won.remedy == remedy]]
            for way in dict.fromkeys(part.way) for arch in present(part[part.way == way])]
    ax = _axes(ax, height=0.9 + 0.23 * len(rows))
    _groups(ax, rows)
    _signed(ax, won.gain * scale, xlabel, title)
    _beside(ax, [*_encoders(won), Line2D([], [], linestyle="", marker="o", markersize=4, color="0.3", label="added alone"),
                 Line2D([], [], linestyle="", marker="o", markersize=4, color="0.3", markerfacecolor="white", label="left out")])
    return ax


def transfers(table, target, title=""):
    """What encoders are worth on another data set, by arm: a panel for the linear probe on frozen h, one for fine-tuning of all weights.

    table: lib.studies.transferred's, a row per run with `linear_{target}` and `fine_tuned_{target}`. Returns Axes.
    """
    columns = {f"linear_{target}": f"{target}: linear probe", f"fine_tuned_{target}": f"{target}: fine-tuned"}
    if not len(table) or not set(columns) <= set(table):
        return np.array([_missing(None, f"{title}: no transfer to {target} is stored.")])
    names = np.where(table.arm == "trained", "baseline", np.where(table.arm == "remedy", table.change, table.arm.replace(ARM_LABELS)))
    order = [name for name in ("untrained", "baseline", *dict.fromkeys(table.change), ARM_LABELS["supervised"]) if name in set(names)]
    rows = [(name, arch, part[part.arch == arch]) for name in order for part in [table[names == name]] for arch in present(part)]
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 1.1 + 0.23 * len(rows)), sharey=True)
    for ax, (column, heading) in zip(axes, columns.items()):
        _groups(ax, [(name, arch, part[column], True) for name, arch, part in rows])
        ax.set_xlabel(f"{heading}, held out")
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.set_xlim(right=min(ax.get_xlim()[1], 1.01))
    figure.legend(handles=_encoders(table), loc="outside lower center", ncols=3)
    figure.suptitle(title, fontsize=9.5, x=0.01, ha="left")
    return axes
