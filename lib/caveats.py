"""What to bear in mind beside verdicts: sentences told from the numbers of the runs, for notebooks, report and READMEs.

lib.claims judges; nothing here changes a verdict. A sentence is there only where its numbers call for it.
"""
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from lib import claims, models
from lib.metrics import PER_CLASS, chance_homogeneity
from lib.models import LARGE, SMALL

REFERENCE = Path(__file__).resolve().parents[1] / "results" / "reference"
MUCH = 0.2          # of the purity to compare at, if FINEST clusters a class have it by chance alone
HEADROOM = 0.02     # below the same encoder trained with labels: less room than that, and accuracy cannot tell what a remedy does
ACCURACIES = {"knn_test": "kNN", "linear_test": "linear probe", "instdisc_dsd_top1_test": "pretext task"}
PRETEXT = {"instdisc_dsd_top1_test": "top-1 of an original against its view", "instdisc_dsd_top5_test": "top-5",
           "instdisc_sdsd_top1_test": "top-1 of view against view", "instdisc_sdsd_top5_test": "top-5"}


def told(table, profile, names=None):
    """What a reader of the verdicts on one profile must know, as sentences told from the numbers of its runs. names: of the claims that
    are shown, all of them if None."""
    t = table[table.profile == profile] if len(table) else table
    if not len(t) or claims.baseline(t).empty or "knn_test" not in t:             # evaluated on val alone
        return []
    names = set(claims.BY_NAME if names is None else names)
    rows = claims.ledger(t, profile)
    rows = rows[rows.claim.str.partition("/")[0].isin(names)]
    found = _of_observations(t, profile) if names & set(claims.OBSERVATIONS) else []
    found += _of_images(t, rows, profile) + _of_chance(t, rows, profile)
    return found + _of_remedies(t, profile, [r for r in claims.REMEDIES if names & {f"{r.name}_helps", f"{r.name}_gathers"}])


def limits(table, profile, repeats=False):
    """Of `told` those without which no single number of a profile should be read: raw pixels that do better, a large reference that is
    not the best, a teacher that is worse than its students, and one that the rules do not name; of a profile that `repeats` another, where
    all that is said already, the last alone."""
    t = table[table.profile == profile] if len(table) else table
    arms = claims.baseline(t) if len(t) else t
    if not len(arms) or "knn_test" not in t:
        return []
    other = _other_teacher(t, arms, profile)
    return other if repeats else (_below_pixels(t, arms, profile) + _of_the_reference(arms, profile) + _worse_teacher(t, arms, profile)
                                  + other)


def by_chance(rows, named=True):
    """How many intervals of remedies on single encoders exclude 0, how many would by chance alone, and how many stand after a correction
    for their number (`standing`), as a sentence; "" without any. rows: of one profile; named: whether those that stand are named."""
    stands = standing(rows)
    each = [row for row in rows.itertuples() if row.claim in stands]
    excluding = sum(row.low > 0 or row.high < 0 for row in each)
    if not each:
        return ""
    kept = [f"{row.verdict}, {claims.BY_NAME[name].statement} ("
            f"{'; '.join(filter(None, (f'{models.ENCODERS[arch].label} {claims.effect(row)[0]}', claims.reading(row))))})"
            for row in each for name, _, arch in [row.claim.partition("/")] if stands[row.claim]]
    stand = (f"; {len(kept) or 'none'} of them stand{'s' * (len(kept) < 2)} after a correction for their number (Benjamini-Hochberg, 5 %)"
             f"{': ' * bool(kept and named)}{'; '.join(kept * named)}")
    return (f"Of {len(each)} intervals of remedies on single encoders {excluding or 'none'} exclude{'s' * (excluding < 2)} 0, where about "
            f"{0.05 * len(each):.1g} would by chance alone{stand if excluding else ''}.")


def power(rows):
    """From what gain on each small encoder could have been shown of the paper's remedies together, with a teacher or, where that was not
    tried, without, as a list of at most one sentence. rows: of one profile."""
    for name, which in (("improved_helps", "four remedies"), ("improved_no_teacher_helps", "three remedies without a teacher")):
        found = rows[rows.claim.isin([f"{name}/{arch}" for arch in SMALL]) & rows.low.notna()]
        if n := len(found):
            least = ", ".join(f"{claims.detectable(100 * (row.high - row.low) / 2, row.n - 1):.1f} points on "
                              f"{models.ENCODERS[row.claim.partition('/')[2]].label}" for row in found.itertuples())
            refuted = [f"{1 - 0.975 ** k:.0%}" for k in (n, 2 * n)]
            return [f"On {found.profile.iloc[0]}, seeds are few: a gain by the paper's {which} would be shown four times in five only from "
                    f"{least}. On the other side, one encoder that contradicts refutes: were every effect exactly at its bar, by chance "
                    f"alone in {refuted[0]} of claims on {n} encoder{'s' * (n > 1)}, {refuted[1]} where two measures decide."]
    return []


def standing(rows):
    """{claim/encoder: whether it stands after a correction for their number} of the remedies' intervals on single encoders (Benjamini-
    Hochberg, 5 %, from t tests on the pairs of seeds). rows: of one profile."""
    remedies = {f"{r.name}_{measure}": r for r in claims.REMEDIES for measure in ("helps", "gathers", "gathers_paper")}
    each = [row for row in rows.itertuples() if "/" in row.claim and not np.isnan(row.low)
            and row.claim.split("/")[1] in getattr(remedies.get(row.claim.split("/")[0]), "encoders", ())]
    p = [2 * stats.t.sf(abs(row.effect) * 2 * stats.t.ppf(0.975, row.n - 1) / max(row.high - row.low, 1e-12), row.n - 1) for row in each]
    return {row.claim: q <= 0.05 for row, q in zip(each, stats.false_discovery_control(p))} if each else {}


def of_mixing(rows):
    """How far completeness at equal purity tells anything of remedies that local purity and accuracy do not: a list of at most one
    sentence, of their correlations over the arms and encoders of a profile's rows, where the first is above a half."""
    each = rows[rows.claim.str.contains("_gathers/", regex=False) & rows.effect.notna() & rows.purer.notna()]
    helps = rows[rows.claim.str.contains("_helps/", regex=False)].set_index("claim").effect
    accuracy = each.claim.str.replace("_gathers/", "_helps/", regex=False).map(helps)
    purity = each.effect.corr(each.purer) if len(each) > 5 else 0.0
    return [f"On {each.profile.iloc[0]}, over {len(each)} pairs of an arm and an encoder, the gain of completeness at equal purity goes "
            f"with that of local purity (correlation {purity:+.2f}) and of linear accuracy ({each.effect.corr(accuracy):+.2f}): it is "
            "hardly another measure than these; where it rises classes may only be mixed less.".replace("-", "−")] if purity > 0.5 else []


def _torn(arms, before, archs):
    """{encoder: mean gains over its untrained self, paired by seed, in the measures of PRETEXT} where these do not agree in sign."""
    found = {}
    for arch in archs:
        pairs = arms[arms.arch == arch].merge(before[before.arch == arch], on="seed", suffixes=("", "_untrained"))
        gains = [(pairs[c] - pairs[f"{c}_untrained"]).mean() for c in PRETEXT if c in pairs]
        if len(pairs) and min(gains) < 0 < max(gains):
            found[arch] = gains
    return found


def _of_images(t, rows, profile):
    """Which decided verdicts on accuracies would be undecided if intervals held the images' error, too. rows: of the ledger."""
    doubtful = []
    for row in rows.itertuples():
        name, _, arch = row.claim.partition("/")
        measure, images = (("instdisc_dsd_top1_test", "instances_test") if name == "pretext_learned" else
                           ("linear_test", "images_test") if name.endswith("_helps") or name in claims.LENGTH else ("", ""))
        if measure and arch and not np.isnan(row.low) and row.verdict in (claims.SUPPORTED, claims.CONTRADICTED):
            own = t[t.run.isin(row.runs.split())]
            p = own[measure].mean()                                        # p (1 - p) is concave: twice that of the mean is the most
            half = np.hypot((row.high - row.low) / 2, stats.norm.ppf(0.975) * np.sqrt(2 * p * (1 - p) / own[images].iloc[0]))
            if claims.above(row.effect - half, row.effect + half) == claims.UNDECIDED:
                doubtful.append(f"{row.statement} ({models.ENCODERS[arch].label})")
    return [f"On {profile}, intervals of accuracies cover seeds alone, and every seed is measured on the same images. With the images' "
            "error as of two sides that err on each image independently (an upper bound, for they share the images), these would be "
            f"undecided: {'; '.join(doubtful)}."] if doubtful else []


def _listed(means, archs):
    """Encoders with their accuracies, in words."""
    return ", ".join(f"{models.ENCODERS[arch].label} {means[arch]:.1%}" for arch in archs)


def _of_observations(t, profile):
    arms, found = claims.baseline(t), []
    means = arms.groupby("arch")[[*ACCURACIES]].mean()
    labels = {arch: models.ENCODERS[arch].label for arch in means.index}
    lacking = [models.ENCODERS[arch].label for arch in (*SMALL, LARGE) if arch not in labels]
    if lacking:
        one = [labels[arch] for arch, count in arms.arch.value_counts(sort=False).items() if count == 1]
        found.append(f"On {profile}, no runs of {', '.join(lacking)}: it says nothing of all five encoders"
                     + (" nor of small against large" if LARGE not in labels else "")
                     + (f"; {', '.join(one)}: one seed, so no interval" if one else "")
                     + f". {arms.images_train.iloc[0]:,.0f} images, {arms.epochs.iloc[0]} epochs: what needs more of either cannot show.")
    found += _below_pixels(t, arms, profile)
    before = claims.agreeing(t[(t.epochs == 0) & (t.width == 1)], arms, claims.SETTING)
    if torn := _torn(arms, before, [arch for arch in SMALL if arch in labels]):
        points = {labels[arch]: ", ".join(f"{round(100 * gain, 1) + 0.0:+.1f}" for gain in gains) for arch, gains in torn.items()}
        found.append(f"On {profile}, whether training helps with the pretext task depends on the measure. Trained minus untrained in "
                     f"points, for {', '.join(PRETEXT.values())}: "
                     + "; ".join(f"{name} {gains}" for name, gains in points.items()).replace(" -", " −")
                     + ". The first is the one that the verdict is on.")
    return found + _of_the_reference(arms, profile) + _of_the_pair(arms, profile) + _of_purity(t, arms, profile, means.index)


def _below_pixels(t, arms, profile):
    """Where raw pixels do better: than every encoder in the pretext task, and than some in the accuracies."""
    raw, means = t[t.arch == "pixels"], arms.groupby("arch")[[*ACCURACIES]].mean()
    best, found = means.instdisc_dsd_top1_test, []
    every = raw.instdisc_dsd_top1_test.mean() > best.max()
    if every:
        views = "instdisc_sdsd_top1_test"                                  # of two views, as the loss compares
        most = arms.groupby("arch")[views].mean().max()
        found.append(f"On {profile}, raw pixels find the view of an original image among {int(arms.instances_test.iloc[0]):,} more often "
                     f"than the baseline of any encoder: {raw.instdisc_dsd_top1_test.mean():.1%}, the best encoder {best.max():.1%}. From "
                     f"view to view they do so {raw[views].mean():.1%} of the time, the best encoder {most:.1%}. "
                     + ("Neither says much about observation (i), whose verdicts rest on the former." if raw[views].mean() > most else
                        "So the former, on which verdicts on observation (i) rest, says little about it."))
    below = [f"{ACCURACIES[c]} {raw[c].mean():.1%} against {_listed(means[c], worse)}" for c in ACCURACIES if not (every and c == best.name)
             if (worse := [arch for arch in models.ENCODERS if arch in means.index and means[c][arch] < raw[c].mean()])]
    return found + ([f"On {profile}, raw pixels do better than trained encoders: {'; '.join(below)}. What is said of these encoders, and "
                     "of remedies on them, is said below that floor."] if below else [])


def _of_the_reference(arms, profile):
    """Which small encoders are better than the large one."""
    knn = arms.groupby("arch").knn_test.mean()
    better = [arch for arch in SMALL if arch in knn and LARGE in knn and knn[arch] > knn[LARGE]]
    return [f"On {profile}, the large reference is not the best: {models.ENCODERS[LARGE].label} has a kNN accuracy of "
            f"{knn[LARGE]:.1%}, {_listed(knn, better)}. \"Small against large\" compares with a large encoder that learned less in "
            "these epochs."] if better else []


def _of_the_pair(arms, profile):
    """How accuracy goes with the paper's pair of measures, where both say "over-clustered" of the better encoders, or of the better runs of
    an encoder, by some features; told of all."""
    each, wrong, columns = [], False, [c for c in arms if c.startswith(("intra_class_d_test", "uniformity_d_test"))] + ["linear_test"]
    means, within = arms.groupby("arch")[columns].mean(), arms[columns] - arms.groupby("arch")[columns].transform("mean")
    for where, t, n in ((f"over the means of {len(means)} encoders", means, len(means)),
                        (f"over {len(arms)} runs about the mean of their encoder", within, len(arms) - len(means) + 1)):
        for tag, words in (("", "raw"), ("_centred", "centred")):
            if f"uniformity_d_test{tag}" in t:
                apart, even = (_correlation(t[f"{c}_d_test{tag}"], t.linear_test, n) for c in ("intra_class", "uniformity"))
                wrong |= apart[1] > 0 > even[2]
                each += [] if np.isnan([*apart, *even]).any() else [f"{words} features, {where}: "
                         + " and ".join(f"{r:+.2f} [{low:+.2f}, {high:+.2f}]" for r, low, high in (apart, even))]
    paper = pd.read_csv(REFERENCE / "paper_over_clustering.csv").query("recipe == 'baseline'")
    theirs = " and ".join(f"{paper[c].corr(paper.linear_percent):+.2f}" for c in ("intra_class", "uniformity"))
    return [f"On {profile}, to be \"over-clustered\" by the paper's pair of measures, a larger distance within classes and a lower "
            "uniformity, does not mean \"worse\": by some features the better encoders or runs are so by both. Correlations with "
            f"linear accuracy: {'; '.join(each)}; in the paper's own numbers, over {len(paper)} encoders: {theirs}."
            .replace(" -", " −").replace("[-", "[−")] if wrong else []


def _correlation(x, y, n):
    """Pearson's correlation with a 95 % interval (Fisher's) for n independent values; nan bounds for n < 4."""
    r = float(np.corrcoef(x, y)[0, 1]) if min(np.ptp(x), np.ptp(y)) > 1e-9 else np.nan
    half = stats.norm.ppf(0.975) / np.sqrt(n - 3) if n > 3 else np.nan
    with np.errstate(divide="ignore"):
        return r, *np.tanh(np.arctanh(r) + np.array([-half, half]))


def _of_purity(t, arms, profile, archs):
    """Which runs' k-means curves do not hold the purity at which completeness is compared."""
    pure = claims.matched_purity(arms[arms.arch == LARGE])
    if np.isnan(pure):
        return []
    sides = {arch: claims.outside(arms[arms.arch == arch], pure) for arch in archs}
    ends = ((1, "never so pure"), (-1, "always purer"))
    lacking = [f"{words} ({', '.join(each)})" for end, words in ends if (each := [
        f"{(side == end).sum()} of {len(side)} runs of {models.ENCODERS[arch].label}" for arch, side in sides.items() if end in side])]
    if not lacking:
        return []
    clusters, size = (claims.BY_NAME[name].statement for name in ("over_clustered", "size_not_architecture"))
    final = f" As these include runs of {models.ENCODERS[LARGE].label} itself, \"{clusters}\" can be contradicted, by local purity, " \
            "but no longer supported, whatever is trained further." if sides[LARGE].any() else ""
    wide = claims.widths(t, arms)
    final += f" Nor does every run of ResNet-18 at its widths: \"{size}\" can no longer be decided." \
        if wide.width.nunique() > 2 and claims.outside(wide, pure).any() else ""
    return [f"On {profile}, clusters are compared at equal purity, a homogeneity of {pure:.2f}, through which every run's curve would have "
            f"to pass. Those that do not are {'; '.join(lacking)}.{final}"]


def without_chance(table):
    """The table with the homogeneity of each k-means curve less what chance gives (metrics.chance_homogeneity), and completeness in
    proportion, since both are the mutual information over an entropy."""
    found = {}
    for column in table.filter(regex=r"^homogeneity_k\d+$"):
        k, other = int(column.rpartition("k")[2]), column.replace("homogeneity", "completeness")
        sizes = zip(table.images_test, table.classes)
        luck = pd.Series([np.nan if np.isnan(n) else chance_homogeneity(int(n), int(c), k) for n, c in sizes], table.index)
        found |= {column: table[column] - luck, other: table[other] * (1 - luck / table[column])}
    return table.assign(**found)


def _of_chance(t, rows, profile):
    """How much of the purity to compare at chance alone would give, where that is much, and which verdicts change without it. rows: of the
    ledger."""
    arms = claims.baseline(t)
    mine = rows[rows.claim.str.contains("^over_clustered/|_gathers/") & (rows.verdict != claims.NOT_TESTED)]
    compared = {LARGE if claim.startswith("over") else claim.partition("/")[2] for claim in mine.claim}
    pure = [pure for arch in compared if not np.isnan(pure := claims.matched_purity(arms[arms.arch == arch]))]
    if not pure:
        return []
    images, classes = (int(arms[c].iloc[0]) for c in ("images_test", "classes"))
    finest = max(n for n in PER_CLASS if arms.get(f"homogeneity_k{n * classes}", pd.Series()).notna().any())
    few, many = (chance_homogeneity(images, classes, n * classes) for n in (claims.MATCHED, finest))
    if many < MUCH * min(pure):
        return []
    after = claims.ledger(without_chance(t), profile).set_index("claim").verdict
    changes = [f"{row.statement}, {models.ENCODERS[row.claim.partition('/')[2]].label}: {after[row.claim]}, not {row.verdict}"
               for row in mine.itertuples() if after[row.claim] != row.verdict]
    purities = " to ".join(dict.fromkeys(f"{purity:.2f}" for purity in (min(pure), max(pure))))
    return [f"On {profile}, purity and completeness are not corrected for chance: images dealt to clusters at random give a purity of "
            f"{few:.3f} with {claims.MATCHED} clusters a class and of {many:.3f} with {finest}, and the purity compared at is {purities}. "
            "Who needs more clusters is flattered by that. With chance taken away "
            + (f"these verdicts on single encoders differ: {'; '.join(changes)}." if changes else "no verdict on an encoder differs.")]


def _of_remedies(t, profile, remedies):
    arms, found = claims.baseline(t), []
    linear = arms.groupby("arch").linear_test.mean()
    labels = t[(t.method == "supervised") & (t.epochs > 0) & (t.width == 1) & (t.data == arms.data.iloc[0])]
    labels = labels.groupby("arch").linear_test.mean()
    near = [arch for arch in linear.index if arch in labels and linear[arch] > labels[arch] - HEADROOM]
    if near and any(set(near) & set(r.encoders) for r in remedies):
        each = ", ".join(f"{models.ENCODERS[arch].label} {linear[arch]:.1%}, with labels {labels[arch]:.1%}" for arch in near)
        found.append(f"On {profile}, the baseline is within {100 * HEADROOM:g} points of the same encoder trained with labels (linear "
                     f"probe: {each}): whatever a remedy does, accuracy can hardly show it there.")
    for r in remedies:
        other = r.elsewhere.get(arms.data.iloc[0])
        if other and (t.data == other).any():
            joint = [o for o in claims.REMEDIES if o is not r and r.changes.items() <= (o.changes or {}).items()
                     and any(len(claims.departing(t[t.arch == arch], arms[arms.arch == arch], o.changes)) for arch in linear.index)]
            found.append(f"On {profile}, the claim \"{r.statement}\" is judged on {other}, {r.because}. Learning rates were chosen without "
                         "it." + (f" The remedies together are tried on {arms.data.iloc[0]} itself, where this one has next to nothing to "
                                  "act on: it is one remedy less, in effect." if joint else ""))
    seeded = any((r.changes or {}).get("start") == "seed" for r in remedies)
    return found + (_worse_teacher(t, arms, profile) + _other_teacher(t, arms, profile) if seeded else [])


def _teacher(t, arms):
    """The runs that could be SEED's teacher, the first seed first; empty where nothing starts by SEED."""
    return arms[(arms.arch == LARGE) & (t.start == "seed").any()].sort_values("seed")


def _worse_teacher(t, arms, profile):
    """Whose baseline is better than SEED's teacher."""
    linear = arms.groupby("arch").linear_test.mean()
    return [f"On {profile}, SEED's teacher ({models.ENCODERS[LARGE].label}, seed {first.seed}: linear probe {first.linear_test:.1%}) "
            f"is worse than the baselines of {_listed(linear, above_it)}. In the paper it is better than every student."
            for first in _teacher(t, arms)[:1].itertuples()
            if (above_it := [arch for arch in linear.index if arch != LARGE and linear[arch] > first.linear_test])]


def _other_teacher(t, arms, profile):
    """Where SEED's teacher is not the one that the rules name."""
    return [f"On {profile}, SEED's teacher is {models.ENCODERS[LARGE].label} of seed {first.seed}; the rules, written before, name its "
            "seed 0. Arms with a start by SEED thus differ from those before in the teacher as well as in seeds, and no interval covers "
            "teachers." for first in _teacher(t, arms)[:1].itertuples() if first.seed > 0]
