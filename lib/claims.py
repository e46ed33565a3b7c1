"""The ledger: each claim of the paper, our operational test of it, the effect with its 95 % interval, and the verdict.

A verdict follows from an interval by the rule written here. The rules were committed before the runs that they judge (a test
compares the order of the commits). Intervals cover seeds (and images, where said), never data sets.
"""
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from lib import models

MARGIN = 0.03       # "no overfitting": accuracies within three points of each other
CEILING = 0.98      # both sides above: the pretext task cannot tell memory from skill
COLUMNS = ["claim", "profile", "statement", "source", "test", "effect", "low", "high", "n", "verdict", "runs"]
SUPPORTED, CONTRADICTED, UNDECIDED, NOT_TESTED = "supported", "contradicted", "undecided", "not tested"


def interval(values, image_variance=0.0):
    """Mean and 95 % t interval of n values, one per seed: (mean, low, high); nan bounds for n < 2.

    image_variance: variance of the mean that every seed shares because the same images are measured. Its half-width, normal since
    thousands of images stand behind it, and the seeds' t half-width add in squares.
    """
    values = np.asarray(values, float)
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return mean, np.nan, np.nan
    half = np.hypot(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n), stats.norm.ppf(0.975) * np.sqrt(image_variance))
    return mean, mean - half, mean + half


def detectable(values):
    """The smallest mean effect that these n seeds could have detected (95 % two-sided test, power 80 %); nan for n < 2."""
    values = np.asarray(values, float)
    n = len(values)
    if n < 2:
        return np.nan
    return float((stats.t.ppf(0.975, n - 1) + stats.t.ppf(0.8, n - 1)) * values.std(ddof=1) / np.sqrt(n))


def above(low, high, bar=0.0):
    """supported when the whole interval lies above `bar`, contradicted when it lies below, else undecided."""
    return SUPPORTED if low > bar else CONTRADICTED if high < bar else UNDECIDED


def within(low, high, margin=MARGIN):
    """Two one-sided tests: supported inside (-margin, margin), contradicted wholly outside, else undecided."""
    return SUPPORTED if -margin < low and high < margin else CONTRADICTED if low > margin or high < -margin else UNDECIDED


def together(verdicts):
    """A claim about all encoders: every one must support it; one that contradicts refutes it."""
    verdicts = list(verdicts)
    if NOT_TESTED in verdicts or not verdicts:
        return NOT_TESTED if CONTRADICTED not in verdicts else CONTRADICTED
    return CONTRADICTED if CONTRADICTED in verdicts else SUPPORTED if set(verdicts) == {SUPPORTED} else UNDECIDED


def equivalence(train, test, images):
    """"No overfitting" of one encoder: accuracies (n seeds) on `images` training and as many held-out images.

    Returns (effect, low, high, verdict) of train minus held-out. The interval holds the seeds' error and the images': p(1 - p)/N
    on each side. Both sides above CEILING are undecided: a task that everybody solves cannot show overfitting.
    """
    train, test = np.asarray(train, float), np.asarray(test, float)
    noise = sum(float(p.mean() * (1 - p.mean())) / images for p in (train, test))
    effect, low, high = interval(train - test, noise)
    ceiling = min(train.mean(), test.mean()) > CEILING
    return effect, low, high, UNDECIDED if ceiling else within(low, high)


@dataclass(frozen=True)
class Claim:
    name: str
    statement: str
    source: str
    rule: str          # the operational test and how its interval becomes a verdict, fixed before the runs


CLAIMS = [
    Claim("pretext_learned", "Small models complete the pretext task despite their limited capacity", "paper, observation (i)",
          "held-out instance-discrimination top-1 (D-SD, official candidates), trained minus untrained encoder, paired by seed; "
          "supported if the 95 % interval lies above 0, contradicted if below; all five encoders"),
    Claim("no_overfitting", "Small models complete the pretext task without overfitting", "paper, observation (i)",
          "instance-discrimination top-1 (D-SD), train minus held-out, equally many images of each class; supported if the 95 % "
          "interval (seeds and images) lies within 3 points of 0, contradicted if wholly outside; undecided if pretext_learned is "
          "not supported for the encoder or both sides exceed 98 %; all five encoders"),
    Claim("over_clustered_paper", "Small models over-cluster: larger intra-class distance and lower uniformity than the large model",
          "paper, observation (ii); fig. 1's measures",
          "raw features of held-out originals; intra-class alignment minus the reference's and the reference's uniformity minus the "
          "encoder's, both 95 % intervals above 0 (Welch); effect shown: intra-class; contradicted if either lies below 0; "
          "undecided for an encoder that has not learned; all five encoders"),
    Claim("over_clustered_centred", "The same after centring, which removes the confound of non-negative features",
          "ours, on observation (ii)",
          "as over_clustered_paper on features minus their mean over train"),
    Claim("over_clustered", "Small models over-cluster: their clusters are pure but split the classes", "paper, observation (ii)",
          "k-means of held-out h against the classes, 1 to 16 clusters a class. Completeness at the purity (homogeneity) that the "
          "reference has with one cluster a class, reference minus encoder: 95 % interval (Welch) above 0; and locally as pure: "
          "homogeneity at 16 clusters a class not shown to be below the reference's. Contradicted if completeness is shown to be "
          "higher, or local purity lower (class-mixing, not over-clustering); undecided for an encoder that has not learned; all "
          "five encoders"),
    Claim("size_not_architecture", "Smaller models over-cluster because they are small", "ours, on observation (ii)",
          "ResNet-18 at widths 0.25, 0.5, 1 and 2: slope over log2(width), one point a run, of completeness as in over_clustered; "
          "supported if the 95 % interval lies above 0, contradicted if below"),
]
BY_NAME = {claim.name: claim for claim in CLAIMS}
FINEST = 16      # clusters a class at which local purity is compared


def completeness_at(rows, homogeneity):
    """Completeness of each run (row of the tidy table) at a given homogeneity, interpolated along its k-means curve.

    At one k, completeness is homogeneity times a constant, so encoders are compared at equal purity: one that splits classes needs
    more clusters to be as pure. Beyond the ends of a curve the end counts. Returns (n,) array.
    """
    out = []
    for _, row in rows.iterrows():
        ks = [k for k in row.classes * np.array([1, 2, 4, 8, 16]) if f"homogeneity_k{k:.0f}" in row]
        curve = sorted((row[f"homogeneity_k{k:.0f}"], row[f"completeness_k{k:.0f}"]) for k in ks)
        out.append(np.interp(homogeneity, *zip(*curve)))
    return np.array(out)


def welch(a, b):
    """Mean of a minus mean of b with a 95 % interval, unequal variances: (effect, low, high); nan bounds where n < 2."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    effect = float(a.mean() - b.mean())
    if min(len(a), len(b)) < 2:
        return effect, np.nan, np.nan
    low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    return effect, float(low), float(high)


def _row(claim, profile, arch, effect, low, high, n, verdict, runs):
    c = BY_NAME[claim]
    return dict(zip(COLUMNS, [f"{claim}/{arch}" if arch else claim, profile, c.statement, c.source, c.rule, effect, low, high, n,
                              verdict, " ".join(runs)]))


def learned(trained, untrained):
    """Has this encoder learned? Its kNN (val) over its untrained self's, mean over seeds."""
    return bool(len(trained) and len(untrained) and trained.knn_val.mean() > untrained.knn_val.mean())


def ledger(table, profile, architectures=models.SMALL, reference=models.LARGE):
    """Rows of every claim, one per encoder and one for all together, from the tidy table of one profile's runs (runs.table)."""
    t = table[table.profile == profile] if len(table) else pd.DataFrame()
    if len(t) and t.definition.nunique() > 1:
        raise ValueError(f"profile {profile}: runs of definitions {sorted(t.definition.unique().tolist())} in one table; "
                         "train the old ones anew")
    rows, empty = [], pd.DataFrame(columns=["arch", "seed"])
    arms = baseline(t) if len(t) else empty
    before = _same(t[(t.epochs == 0) & (t.width == 1)], arms, ["data", "limit", "stem", "standardize"]) if len(t) else empty
    large = arms[arms.arch == reference]
    grown = learned(large, before[before.arch == reference])               # an unlearned reference is no reference
    for arch in architectures:
        a, u = arms[arms.arch == arch].sort_values("seed"), before[before.arch == arch].sort_values("seed")
        if a.empty or u.empty:
            rows += [_row(c, profile, arch, np.nan, np.nan, np.nan, 0, NOT_TESTED, []) for c in BY_NAME if c != "size_not_architecture"]
            continue
        paired = a.merge(u, on="seed", suffixes=("", "_untrained"))
        runs = [*a.run, *u.run]
        gain = interval(paired.instdisc_dsd_top1_test - paired.instdisc_dsd_top1_test_untrained)
        solved = above(*gain[1:])
        rows.append(_row("pretext_learned", profile, arch, *gain, len(paired), solved, runs))
        *effect, verdict = equivalence(a.instdisc_dsd_top1_train, a.instdisc_dsd_top1_test, a.instances_test.iloc[0])
        rows.append(_row("no_overfitting", profile, arch, *effect, len(a), verdict if solved == SUPPORTED else UNDECIDED, runs))
        coarse, fine = (f"homogeneity_k{f * int(a.classes.iloc[0])}" for f in (1, FINEST))
        if large.empty or fine not in t or pd.concat([a[fine], large[fine]]).isna().any():   # too few images for so many clusters
            rows += [_row(c, profile, arch, np.nan, np.nan, np.nan, 0, NOT_TESTED, [])
                     for c in ("over_clustered_paper", "over_clustered_centred", "over_clustered")]
            continue
        pure = large[coarse].mean()
        pairs = {"over_clustered_paper": [(x.intra_class_d_test, -x.uniformity_d_test) for x in (a, large)],
                 "over_clustered_centred": [(x.intra_class_d_test_centred, -x.uniformity_d_test_centred) for x in (a, large)],
                 "over_clustered": [(-completeness_at(x, pure), x[fine]) for x in (a, large)]}
        for name, ((small_first, small_second), (large_first, large_second)) in pairs.items():
            effect, other = welch(small_first, large_first), welch(small_second, large_second)
            both = [above(*effect[1:]), above(*other[1:])]
            if name == "over_clustered" and both[1] == UNDECIDED and not np.isnan(other[1]):
                both[1] = SUPPORTED                                        # locally as pure: not shown to be less
            verdict = together(both) if grown and learned(a, u) else UNDECIDED
            rows.append(_row(name, profile, arch, *effect, min(len(a), len(large)), verdict, [*runs, *large.run]))
    for name in [c for c in BY_NAME if c != "size_not_architecture"]:
        parts = [r for r in rows if r["claim"].startswith(name + "/")]
        tested = [r for r in parts if r["verdict"] != NOT_TESTED]
        least = min(tested, key=lambda r: r["effect"] if name != "no_overfitting" else -abs(r["effect"]), default=None)
        rows.append(_row(name, profile, "", *([least[c] for c in ("effect", "low", "high")] if least else [np.nan] * 3),
                         min((r["n"] for r in tested), default=0), together(r["verdict"] for r in parts),
                         dict.fromkeys(run for r in tested for run in r["runs"].split())))
    rows.append(_size(t, profile, large))
    return pd.DataFrame(rows, columns=COLUMNS)


def _key(t, columns):
    """One text a row; elementwise, since astype(str) leaves a missing `limit` missing, which equals nothing."""
    return t[columns].map(str).agg("|".join, axis=1)


def _same(t, like, columns):
    """The rows of t that agree with the first row of `like` in these columns."""
    return t[_key(t, columns) == _key(like, columns).iloc[0]] if len(t) and len(like) else t


RECIPE = ["data", "limit", "stem", "tau", "queue", "m", "projector", "projector_bn", "symmetric", "epochs", "batch_size",
          "crop_min", "jitter", "jitter_p", "grayscale_p", "blur_p", "standardize"]


def baseline(t):
    """The baseline arm: MoCo v2 at full width and the profile's most frequent recipe."""
    t = t[(t.method == "moco") & (t.width == 1) & (t.epochs > 0) & (t.evaluation == "full")]
    if t.empty:
        return t
    key = _key(t, RECIPE)
    return t[key == key.mode().iloc[0]]


def _size(t, profile, large):
    wide = t
    if len(t):
        wide = _same(t[(t.arch == "resnet18") & (t.method == "moco") & (t.epochs > 0) & (t.evaluation == "full")], large, RECIPE)
    if not len(wide) or wide.width.nunique() < 3 or large.empty or f"homogeneity_k{int(large.classes.iloc[0])}" not in wide:
        return _row("size_not_architecture", profile, "", np.nan, np.nan, np.nan, 0, NOT_TESTED, [])
    pure = large[f"homogeneity_k{int(large.classes.iloc[0])}"].mean()
    fit = stats.linregress(np.log2(wide.width), completeness_at(wide, pure))
    half = stats.t.ppf(0.975, len(wide) - 2) * fit.stderr
    low, high = fit.slope - half, fit.slope + half
    return _row("size_not_architecture", profile, "", fit.slope, low, high, len(wide), above(low, high), [*wide.run, *large.run])
