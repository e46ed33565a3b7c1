"""The ledger: each claim of the paper, our operational test of it, the effect with its 95 % interval, and the verdict.

A verdict follows from an interval by the rule written here. The rules were committed before the runs that they judge (a test
compares the order of the commits). Intervals cover seeds (and images, where said), never data sets. One contradiction among five
encoders refutes, at an uncorrected 2.5 % each: were every effect exactly at its bar, up to 12 % of such claims would be refuted by
chance (22 % where two measures decide).
"""
import re
from dataclasses import dataclass, field, fields
from numbers import Real

import numpy as np
import pandas as pd
from scipy import stats

from lib import check_name, models
from lib.metrics import PER_CLASS
from lib.train import PretrainConfig

MARGIN = 0.03       # "no overfitting": accuracies within three points of each other
PURITY_MARGIN = 0.03  # "locally as pure": homogeneity at FINEST clusters a class at most this much below the reference's
FINEST = PER_CLASS[-1]  # clusters a class at which local purity is compared
MATCHED = 2         # clusters a class at which the reference's homogeneity is the one that completeness is compared at
CEILING = 0.98      # both sides above: the pretext task cannot tell memory from skill
UNITS = {"points": 100, "points per doubling of width": 100, "distance²": 1, "closeness": 1,
         "of uniformity": 1}   # unit of an effect -> its factor
NOT_LEARNED, NOT_SOLVED = "not learned", "the task is not learned well enough to overfit"
BOUND = "overstated, since some curve ends before the purity to compare at"
LEAST = "understated, since some curve ends before the purity to compare at"
MIXED = "over- or understated, since curves end before the purity to compare at"
FORCED = ", so undecided"   # whatever its interval says
COLUMNS = ["claim", "profile", "statement", "source", "test", "effect", "low", "high", "n", "verdict", "runs",
           "data",     # what it was measured on, which may be a variant of the profile's data set (Remedy.elsewhere)
           "purer"]    # of a remedy that is to relieve over-clustering: local purity, the arm's minus the other's, a fraction
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


def clauses(rule):
    """A rule of decision as a list of sentences: its parts between semicolons, but for those in brackets and those that say where."""
    return [f"{part[0].upper()}{part[1:]}." for part in re.split(r"; (?!on |[^()]*\))", rule)]


def detectable(half, df):
    """The smallest mean effect that a 95 % t interval of this half-width shows to be above 0 four times in five; nan where df is."""
    return float(half * (1 + stats.t.ppf(0.8, df) / stats.t.ppf(0.975, df)))


def freedom(row):
    """Degrees of freedom of a ledger row's interval, for `detectable`; nan where no smallest effect is to be given.

    That is without an interval, where closeness is the claim (no_overfitting, or homogeneity shown for over_clustered), and where it is
    not for want of seeds that nothing is decided. Welch's are not in the ledger: inf, which gives the largest, hence cautious, effect.
    """
    name = row.claim.split("/")[0]
    if _measure(row).removesuffix(FORCED) in (BOUND, MIXED) or NOT_LEARNED in _measure(row):
        return np.nan
    if row.n < 2 or np.isnan(row.low) or name == "no_overfitting" or row.test.endswith(_shown("homogeneity")):
        return np.nan
    paired = name in ("pretext_learned", *LENGTH) or any(name.startswith(f"{remedy.name}_") for remedy in REMEDIES)
    return row.n - 1 if paired else row.n - 2 if name == "size_not_architecture" else np.inf


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
    """A row of the ledger before it is judged."""

    name: str
    statement: str
    source: str
    rule: str          # the operational test and how its interval becomes a verdict, fixed before the runs
    unit: str = "points"  # of the effect, a key of UNITS
    notebook: str = "02_over_clustering"   # where it is shown


# What a run's recipe is not: its encoder, seed and method, what is chosen per encoder, and how rather than what is computed.
NO_RECIPE = {"arch", "width", "seed", "method", "teacher", "teacher_tau", "epochs", "lr", "weight_decay", "precision", "channels_last",
             "compile", "evaluation"}
# what the runs of one arm share; epochs are counted with those of a start
RECIPE = [*(f.name for f in fields(PretrainConfig) if f.name not in NO_RECIPE), "all_epochs"]


@dataclass(frozen=True)
class Remedy:
    """An arm that departs from the baseline of the same encoder in `changes` (fields of the table) and in nothing else."""

    name: str
    statement: str
    source: str
    arm: str           # what it is, in words
    changes: dict | None
    encoders: tuple    # those on which it is judged
    notebook: str
    elsewhere: dict = field(default_factory=dict)   # data set -> the variant of it on which it is judged instead
    because: str = ""  # what that variant has, as a clause after its name

    def __post_init__(self):
        """Raises ValueError where the ledger would look for the arm among runs that it does not take for arms."""
        for name in self.changes or {}:
            check_name(f"changes of the remedy {self.name!r}", name, [name for name in RECIPE if name != "all_epochs"])
        if self.elsewhere and not self.because:
            raise ValueError(f"because of the remedy {self.name!r} is empty; allowed: what {[*self.elsewhere.values()]} has")


REMEDIED = ("mobilenet_v3_small", "resnet18")   # where remedies are tried one at a time
COOLER, STRONGER, WIDER = {"tau": 0.1}, {"jitter": (0.8, 0.8, 0.8, 0.4), "grayscale_p": 0.5}, {"projector": "wide"}
OURS = {}           # a recipe of our own, {field: value}, that its search chose (studies.our_recipe); {}: nothing helped
REMEDIES = [
    Remedy("temperature", "A lower temperature helps small models", "paper, remedy: temperature", "temperature 0.1", COOLER, REMEDIED,
           "03_temperature"),
    Remedy("negatives", "Fewer negatives help small models", "paper, remedy: negatives; not adopted there",
           "the shortest queue that every seed was trained with, the arm without any aside", None, REMEDIED, "04_negatives"),
    Remedy("augmentation", "Stronger augmentation helps small models", "paper, remedy: augmentation",
           "colour jitter (0.8, 0.8, 0.8, 0.4) and greyscale 0.5; on textures, which are grey, judged on textures:tint=0.5", STRONGER,
           REMEDIED, "05_augmentation", {"textures": "textures:tint=0.5"},
           "where each image has a hue that says nothing of its class: a shortcut, built in, that the remedy takes away"),
    Remedy("projector", "A wider projector helps small models", "paper, remedy: projector", "the wide projector", WIDER, REMEDIED,
           "07_projector"),
    Remedy("initialization", "A start that SEED distilled helps small models", "paper, remedy: initialization",
           "a start distilled by SEED from the reference, given one teacher, its seed 0", {"start": "seed"}, REMEDIED, "06_initialization"),
    Remedy("initialization_no_teacher", "A start that no teacher distilled helps small models", "ours, on the paper's title",
           "a start from a training of the same encoder by the baseline, a few epochs long and with a seed of its own",
           {"start": "self"}, REMEDIED, "06_initialization"),
    Remedy("improved", "The remedies together improve all five small models", "paper, fig. 1",
           "the paper's four remedies together (temperature, augmentation, projector, SEED start), given one teacher",
           COOLER | STRONGER | WIDER | {"start": "seed"}, models.SMALL, "08_improved_baselines"),
    Remedy("improved_no_teacher", "The remedies together improve all five small models without any distilled start",
           "ours, on the paper's title", "the paper's remedies together, from a random start (temperature, augmentation, projector)",
           COOLER | STRONGER | WIDER, models.SMALL, "08_improved_baselines"),
]
if OURS:
    REMEDIES.append(Remedy("ours", "A recipe of our own, without a teacher, improves all five small models", "ours",
                           "our recipe, chosen on val with seeds that the study does not use", OURS, models.SMALL, "08_improved_baselines"))


LEARNED = ("(kNN (val) minus the untrained encoder's, paired by seed: 95 % interval above 0; with one seed the difference itself)")
EACH = "; all five encoders: one that contradicts refutes"
CLAIMS = [
    Claim("pretext_learned", "Training raises small models' accuracy in the pretext task on held-out images",
          "paper, observation (i): they complete it despite their limited capacity",
          "held-out instance-discrimination top-1 (D-SD, official candidates), trained minus untrained encoder, paired by seed; "
          f"supported if the 95 % interval lies above 0, contradicted if below{EACH}", notebook="01_pretext_fitting"),
    Claim("no_overfitting", "Small models complete the pretext task without overfitting", "paper, observation (i)",
          "instance-discrimination top-1 (D-SD), train minus held-out, equally many images of each class; supported if the 95 % "
          f"interval (seeds and images) lies within {100 * MARGIN:g} points of 0, contradicted if wholly outside; undecided unless "
          "held-out top-1 is well above the untrained encoder's (the 95 % interval of the gain, paired by seed, above "
          f"{100 * MARGIN:g} points) and at least {200 * MARGIN:g} % on average; undecided too if both sides exceed "
          f"{100 * CEILING:g} % on average{EACH}", notebook="01_pretext_fitting"),
    Claim("over_clustered_paper", "Small models over-cluster: larger intra-class distance and lower uniformity than the large model",
          "paper, observation (ii); the measures that its code plots",
          "raw features of held-out originals; intra-class alignment minus the reference's, and the reference's uniformity minus the "
          "encoder's: supported if both 95 % intervals (Welch) lie above 0, contradicted if either lies below; undecided unless "
          f"encoder and reference have learned {LEARNED}; effect shown: the first of the two that by itself gives their joint "
          f"verdict{EACH}", "distance²"),
    Claim("over_clustered_centred",
          "Small models over-cluster by the same measures after centring, which takes away what non-negative features share",
          "ours, on observation (ii)", "as over_clustered_paper on features minus their mean over train", "distance²"),
    Claim("over_clustered", "Small models over-cluster: their clusters are pure but split the classes", "paper, observation (ii)",
          f"k-means of held-out h against the classes, 1 to {FINEST} clusters a class. (1) Completeness at the purity (homogeneity) "
          f"that the reference has on average with {MATCHED} clusters a class, interpolated along each run's curve where it first "
          "gets there, reference minus encoder: supported if the 95 % interval (Welch) lies above 0, contradicted if below, undecided "
          "if that purity is outside the curve of any of their runs. "
          f"(2) Local purity, homogeneity at {FINEST} clusters a class, encoder minus reference: supported if the 95 % interval "
          f"(Welch) lies above -{PURITY_MARGIN:g} (not inferior), contradicted if below it (class-mixing, not over-clustering). "
          "Supported if both are, contradicted if either is; undecided unless encoder and reference have learned "
          f"{LEARNED}; effect shown: the first of the two that by itself gives their joint verdict{EACH}"),
    Claim("size_not_architecture", "Smaller models over-cluster because they are small", "ours, on observation (ii)",
          "ResNet-18 at widths 0.25, 0.5, 1 and 2 (at least three of them), with the learning rate that was chosen at width 1: slope "
          "over log2(width), one point a run, of completeness as in over_clustered (1); supported if the 95 % interval lies above 0, "
          "contradicted if below, undecided if that purity is outside the curve of any run or unless the reference and ResNet-18 at "
          f"every width have learned {LEARNED}", "points per doubling of width"),
]
AGAINST = ("minus {} of the same encoder, learning rate, weight decay and number of epochs (those spent on a start counted), paired by "
           "seed; supported if the 95 % interval lies above 0, contradicted if below")
for _r in REMEDIES:
    _other = "the baseline" if _r.changes else "the longest such queue"
    _arm = f"{_r.arm} ({', '.join(f'{name} = {value}' for name, value in _r.changes.items())})" if _r.changes else \
        f"{_r.arm} (older keys are also staler: it is both that is judged)"
    _where = "; all five encoders" if _r.encoders == models.SMALL else "; MobileNetV3-Small and ResNet-18"
    _each = f"{_where}: one that contradicts refutes"
    CLAIMS.append(Claim(f"{_r.name}_helps", _r.statement, _r.source, f"{_arm}: linear-probe accuracy on held-out images (the probe's "
                        f"learning rate chosen on val), {AGAINST.format(_other)}{_each}", notebook=_r.notebook))
    _relieved = re.sub(r"(help|improve)(s?) (all five )?small models", r"relieve\2 over-clustering of \3small models", _r.statement)
    CLAIMS.append(Claim(f"{_r.name}_gathers", f"{_relieved} (completeness at equal purity rises)",
                        f"{_r.source}; relief of over-clustering",
                        f"{_arm}: completeness at the purity (homogeneity) that the latter has on average with {MATCHED} clusters a class, "
                        f"{AGAINST.format(_other)}; where a run's curve does not hold that purity its nearest end counts, which "
                        f"understates the difference; undecided unless both have learned {LEARNED}{_each}", notebook=_r.notebook))
CLAIMS.append(Claim("improved_gathers_paper",
                    "The remedies together lower the distance within classes, the paper's measure of over-clustering",
                    "paper, fig. 1 and observation (ii); its code's figures speak against it on four of five",
                    "the paper's four remedies together: intra-class alignment of raw features of held-out originals, the baseline's minus "
                    "this arm's, otherwise as improved_helps; an association: no cause is claimed; all five encoders: one that contradicts "
                    "refutes", "closeness", "08_improved_baselines"))
# Twice the epochs are the rival of any remedy. Seeds below UNSEEN had been looked at when these rules were written.
UNSEEN = 5
LENGTH = {          # claim -> (statement, the arm, what it is set against), arms as in arms_of_length
    "longer_helps": ("Twice the epochs help small models", "longer", "once"),
    "improved_beats_longer": ("The remedies together gain small models more than twice the epochs do", "improved", "longer"),
    "improved_no_teacher_beats_longer": (
        "The remedies together without any distilled start gain small models more than twice the epochs do", "improved_no_teacher",
        "longer")}
ARMS = {"once": "the baseline", "longer": "the baseline for twice the epochs"} | {
    r.name: f"{r.arm}, at the baseline's number of epochs (those spent on a start counted)"
    for r in REMEDIES if r.name in ("improved", "improved_no_teacher")}
for _name, (_statement, _arm, _other) in LENGTH.items():
    CLAIMS.append(Claim(_name, _statement, "ours: in fig. 1 improved models have 200 and 800 epochs, baselines 200 alone",
                        f"{ARMS[_arm]}: linear-probe accuracy on held-out images (the probe's learning rate chosen on val), minus "
                        f"{ARMS[_other]} of the same encoder, learning rate and weight decay, paired by seed, on seeds {UNSEEN} and above "
                        "alone, since runs of the others had been seen when this rule was written; supported if the 95 % interval lies "
                        "above 0, contradicted if below; MobileNetV3-Small and ResNet-18: one that contradicts refutes",
                        notebook="08_improved_baselines"))
BY_NAME = {claim.name: claim for claim in CLAIMS}
ENCODERS_OF = {f"{r.name}_{measure}": r.encoders for r in REMEDIES for measure in ("helps", "gathers", "gathers_paper")} | dict.fromkeys(
    LENGTH, REMEDIED)
OBSERVATIONS = ("pretext_learned", "no_overfitting", "over_clustered_paper", "over_clustered_centred", "over_clustered")


def completeness_at(rows, homogeneity, nearest=False):
    """Completeness of each run (row of the tidy table) at a given homogeneity, interpolated along its k-means curve.

    At one k, completeness is homogeneity times nearly a constant, H(classes) / H(clusters), so encoders are compared at equal purity: one
    that splits classes needs more clusters to be as pure. Where a curve comes by that purity more than once, the fewest clusters count.
    nan for a run that is purer with one cluster a class already, or never so pure; with nearest the value at that end of its curve. As
    completeness mostly falls where purity rises, this is taken for a lower bound of the former and an upper one of the latter. (Where the
    finest clusters are more complete than fewer, that is by chance, as far as seen: lib.caveats.without_chance.) Returns (n,) array.
    """
    return np.array([value if nearest or not end else np.nan for value, end in (_on_curve(row, homogeneity) for _, row in rows.iterrows())])


def _on_curve(row, homogeneity):
    """(completeness of a run at this homogeneity, 0) or (that at its curve's nearest end, -1 where it is a lower bound since the curve
    begins purer, 1 where it is an upper one since the curve ends less pure)."""
    names = [f"k{row.classes * f:.0f}" for f in PER_CLASS]
    curve = [(row[f"homogeneity_{k}"], row[f"completeness_{k}"]) for k in names if not np.isnan(row.get(f"homogeneity_{k}", np.nan))]
    reached = next((i for i, (pure, _) in enumerate(curve) if pure >= homogeneity - 1e-9), None)   # the mean of equals is rounded
    if reached is None:
        return curve[-1][1], 1
    if reached == 0 and curve[0][0] > homogeneity + 1e-9:
        return curve[0][1], -1
    return np.interp(homogeneity, *zip(*curve[max(0, reached - 1):reached + 1])), 0


def outside(rows, homogeneity):
    """On which side of its curve each run has this homogeneity: -1 the curve begins purer, 1 it ends less pure, 0 it holds it. (n,)"""
    return np.array([_on_curve(row, homogeneity)[1] for _, row in rows.iterrows()])


def matched_purity(rows):
    """The homogeneity that these runs have on average with MATCHED clusters a class; nan without one."""
    column = f"homogeneity_k{MATCHED * int(rows.classes.iloc[0])}" if len(rows) else ""
    return rows[column].mean() if column in rows else np.nan


def local_purity(rows):
    """Local purity: homogeneity at FINEST clusters a class, nan where the images were too few for so many."""
    return rows.get(f"homogeneity_k{FINEST * int(rows.classes.iloc[0])}", pd.Series(np.nan, rows.index))


def welch(a, b):
    """Mean of a minus mean of b with a 95 % interval, unequal variances: (effect, low, high); nan bounds where n < 2."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    effect = float(a.mean() - b.mean())
    if min(len(a), len(b)) < 2:
        return effect, np.nan, np.nan
    low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    return effect, float(low), float(high)


def papers_pair(a, reference, tag=""):
    """The paper's pair of measures, of an encoder's runs against the reference's: {measure: (effect, low, high, bar)}, above the bar where
    classes are wider and features more evenly spread. tag: "" for raw features, "_centred"."""
    wider = welch(a[f"intra_class_d_test{tag}"], reference[f"intra_class_d_test{tag}"])
    return {"intra-class alignment": (*wider, 0.0),
            "uniformity": (*welch(reference[f"uniformity_d_test{tag}"], a[f"uniformity_d_test{tag}"]), 0.0)}


def _shown(measure):
    return f". Shown: {measure}" if measure else ""


def _measure(row):
    return row.test.rpartition("Shown: ")[2]


UNREACHED = "no number: the curve of some run does not hold the purity to compare at"


def effect(row):
    """(effect, interval) of a ledger row in readable units: ("+12.3 points", "[+10.1, +14.5]"); empty where there is none."""
    unit = unit_of(row)
    if np.isnan(row.effect):
        return "", ""
    def signed(value):
        return f"{round(value * UNITS[unit], _digits(unit)) + 0.0:+.{_digits(unit)}f}".replace("-", "−")    # + 0.0: never -0.0
    return f"{signed(row.effect)} {unit}", "" if np.isnan(row.low) else f"[{signed(row.low)}, {signed(row.high)}]"


def margin(row):
    """Half of a ledger row's interval, "± 2.1", in the unit of `effect`; "" without an interval."""
    unit = unit_of(row)
    return "" if np.isnan(row.low) else f"± {(row.high - row.low) / 2 * UNITS[unit]:.{_digits(unit)}f}"


def _digits(unit):
    return 1 if UNITS[unit] > 1 else 3


def smallest_detectable(row):
    """For an undecided row: the smallest effect that its seeds could have shown (two-sided 95 %, power 80 %), from the interval, in the
    effect's unit; "" for another, or where closeness is the claim."""
    least, unit = detectable((row.high - row.low) / 2, freedom(row)), unit_of(row)
    return "" if row.verdict != UNDECIDED or np.isnan(least) else f"{least * UNITS[unit]:.{_digits(unit)}f}"


def unit_of(row):
    """The unit of a ledger row's effect, a key of UNITS; of two measures that of the one shown."""
    return "of uniformity" if _measure(row).startswith("uniformity") else BY_NAME[row.claim.partition("/")[0]].unit


def reading(row):
    """A verdict in words, from a row of the ledger: what the clusters of an encoder are (over_clustered), why nothing follows from the
    number, on which variant of the data set a remedy was judged, and whether its clusters mix classes less or more, which completeness at
    equal purity does not tell from gathering (who mixes classes needs more clusters to be pure, too); "" where there is nothing to say, or
    without runs."""
    if row.verdict == NOT_TESTED:
        return ""
    said = [_clustering(row)]
    if row.claim.partition("/")[0].endswith("_gathers") and abs(row.purer) > PURITY_MARGIN:
        less, points = "less" if row.purer > 0 else "more", f"local purity {100 * row.purer:+.0f} points".replace("-", "−")
        said.append(f"classes are mixed {less} ({points}), which may be all of it" if row.purer * row.effect > 0
                    else f"though classes are mixed {less} ({points})")
    if row.data in {variant for r in REMEDIES for variant in r.elsewhere.values()}:
        said.append(f"on {row.data}")
    return "; ".join(filter(None, said))


def _clustering(row):
    name, shown = row.claim.partition("/")[0], _measure(row)
    if shown in (NOT_SOLVED, NOT_LEARNED) or shown.removesuffix(FORCED) in (BOUND, LEAST, MIXED):
        return shown
    if name != "over_clustered":
        return ""
    if NOT_LEARNED in shown:
        return shown.partition(", ")[2]
    if row.verdict == CONTRADICTED:
        return "mixes classes" if shown == "homogeneity" else "gathers its classes more"
    if row.verdict == SUPPORTED:
        return "over-clusters"
    return "no purity that the curves of all their runs hold" if np.isnan(row.effect) else "cannot be told apart"


def _row(claim, profile, arch, effect, low, high, n, verdict, runs, shown="", data="", purer=np.nan):
    c = BY_NAME[claim]
    return dict(zip(COLUMNS, [f"{claim}/{arch}" if arch else claim, profile, c.statement, c.source, c.rule + _shown(shown), effect, low,
                              high, n, verdict, " ".join(runs), data, purer], strict=True))


def learned(trained, untrained):
    """Has this encoder learned? kNN (val) minus its untrained self's, paired by seed: 95 % interval above 0; one seed: the difference."""
    gain = trained[["seed", "knn_val"]].merge(untrained[["seed", "knn_val"]], on="seed", suffixes=("", "_untrained"))
    if gain.empty:
        return False
    mean, low, _ = interval(gain.knn_val - gain.knn_val_untrained)
    return bool((mean if len(gain) == 1 else low) > 0)


def solved(trained, untrained):
    """Has this encoder learned the pretext task well enough to overfit (the rule no_overfitting)? And over how many seeds is that known."""
    paired = trained.merge(untrained, on="seed", suffixes=("", "_untrained"))
    mean, low, _ = interval(paired.instdisc_dsd_top1_test - paired.instdisc_dsd_top1_test_untrained)
    sure = low if len(paired) > 1 else mean                                # one pair has no interval, hence decides nothing
    return bool(sure > MARGIN and trained.instdisc_dsd_top1_test.mean() >= 2 * MARGIN), len(paired)


def ledger(table, profile, architectures=models.SMALL, reference=models.LARGE):
    """Rows of every claim, one per encoder and one for all together, from the tidy table of one profile's runs (runs.table). Another
    encoder that has runs gets rows of its own, which do not count for all together.

    The reference counts as learned by the same rule as an encoder, against its own untrained self; it need not have a better kNN than
    the encoder that is judged. Of two measures, the row shows the one that decided; the row for all together shows the encoder with
    the least favourable effect among those with its verdict. `test` ends with the measure's name.
    """
    t = table[table.profile == profile] if len(table) else pd.DataFrame()
    if len(t) and t.definition.nunique() > 1:
        raise ValueError(f"profile {profile}: runs of definitions {sorted(t.definition.unique().tolist())} in one table; "
                         "train the old ones anew")
    rows, empty = [], pd.DataFrame(columns=["arch", "seed", "width", "knn_val", "run"])
    arms = baseline(t) if len(t) else empty
    every = agreeing(t[t.epochs == 0], arms, SETTING) if len(t) else empty
    before = every[every.width == 1]
    large = arms[arms.arch == reference]
    grown = learned(large, before[before.arch == reference])               # an unlearned reference is no reference
    for arch in (*architectures, *_besides(arms, (*architectures, reference))):
        a, u = arms[arms.arch == arch].sort_values("seed"), before[before.arch == arch].sort_values("seed")
        if not set(a.seed) & set(u.seed):
            rows += [_row(c, profile, arch, np.nan, np.nan, np.nan, 0, NOT_TESTED, []) for c in OBSERVATIONS]
            continue
        paired = a.merge(u, on="seed", suffixes=("", "_untrained"))
        runs, data = [*a.run, *u.run], a.data.iloc[0]
        gain = interval(paired.instdisc_dsd_top1_test - paired.instdisc_dsd_top1_test_untrained)
        rows.append(_row("pretext_learned", profile, arch, *gain, len(paired), above(*gain[1:]), runs, data=data))
        *effect, verdict = equivalence(a.instdisc_dsd_top1_train, a.instdisc_dsd_top1_test, a.instances_test.iloc[0])
        able, pairs = solved(a, u)                                         # else nothing was learned that could overfit
        rows.append(_row("no_overfitting", profile, arch, *effect, len(a), verdict if able and pairs > 1 else UNDECIDED, runs,
                         "" if able else NOT_SOLVED, data))
        fine, pure = f"homogeneity_k{FINEST * int(a.classes.iloc[0])}", matched_purity(large)
        both = pd.concat([a, large])
        for name, tag in (("over_clustered_paper", ""), ("over_clustered_centred", "_centred"), ("over_clustered", None)):
            if large.empty or tag is None and (fine not in both or both[fine].isna().any()):    # too few images for so many clusters
                rows.append(_row(name, profile, arch, np.nan, np.nan, np.nan, 0, NOT_TESTED, []))
                continue
            if tag is None:
                measures = {"completeness": (*welch(completeness_at(large, pure), completeness_at(a, pure)), 0.0),
                            "homogeneity": (*welch(a[fine], large[fine]), -PURITY_MARGIN)}
            else:
                measures = papers_pair(a, large, tag)
            found = {measure: above(low, high, bar) for measure, (_, low, high, bar) in measures.items()}
            verdict = together(found.values())
            shown = next(measure for measure in found if found[measure] == verdict)
            lacking = NOT_LEARNED if not learned(a, u) else f"{NOT_LEARNED} (the reference)" if not grown else ""
            rows.append(_row(name, profile, arch, *measures[shown][:3], min(len(a), len(large)), UNDECIDED if lacking else verdict,
                             [*runs, *large.run], f"{shown}, {lacking}" if lacking else shown, data))
    rows += _remedies(t, profile, arms, before, architectures, reference) + _of_length(t, profile, arms)
    for name in [c for c in BY_NAME if c != "size_not_architecture"]:
        asked = [f"{name}/{arch}" for arch in architectures if arch in ENCODERS_OF.get(name, architectures)]
        parts = [r for r in rows if r["claim"] in asked]
        tested, verdict = [r for r in parts if r["verdict"] != NOT_TESTED], together(r["verdict"] for r in parts)
        size = (lambda r: r["effect"]) if name != "no_overfitting" else lambda r: -abs(r["effect"])
        least = min([r for r in tested if r["verdict"] == verdict] or tested, key=lambda r: (np.isnan(r["effect"]), size(r)), default=None)
        row = _row(name, profile, "", *([least[c] for c in ("effect", "low", "high")] if least else [np.nan] * 3),
                   least["n"] if least else 0, verdict, dict.fromkeys(run for r in tested for run in r["runs"].split()))
        rows.append(row | ({c: least[c] for c in ("test", "data", "purer")} if least else {}))
    rows.append(_size(t, profile, arms, large, every, grown))
    return pd.DataFrame(rows, columns=COLUMNS)


def _besides(arms, known):
    """Encoders with runs that are none of `known`, in the order of lib.models.ENCODERS."""
    return [arch for arch in models.ENCODERS if arch in set(arms.arch) - {*known}]


def _key(t, columns):
    """One text a row, of the columns that there are: 1 and 1.0 are one value, a missing `limit` equals another."""
    def plain(value):
        if isinstance(value, (tuple, list)):
            return tuple(map(plain, value))
        return float(value) if isinstance(value, Real) and not isinstance(value, (bool, np.bool_)) else value
    values = zip(*(t[c] for c in columns if c in t), strict=True)
    return pd.Series(["|".join(str(plain(value)) for value in row) for row in values], index=t.index, dtype=object)


def agreeing(t, like, columns):
    """The rows of t that agree with the first row of `like` in these columns."""
    return t[_key(t, columns) == _key(like, columns).iloc[0]] if len(t) and len(like) else t


SETTING = ["data", "limit", "stem", "standardize"]     # what an untrained encoder shares with the trained


def _candidates(t):
    return t[(t.method == "moco") & (t.width == 1) & (t.epochs > 0) & (t.evaluation == "full")]


def baseline(t):
    """The baseline arm: MoCo v2 at full width and the profile's most frequent recipe.

    Tables see no lib.studies: where they have a column `arm` (lib.studies.compared, lib.report.table), its "trained" runs are meant, on
    the data set itself rather than a variant with a longer name (textures:tint=0.5). Else the recipe is told by its number, and so are
    an encoder's learning rate and weight decay, which is right as long as every encoder and seed has the baseline and other arms have
    fewer runs.
    """
    t = _candidates(t)
    if "arm" in t and len(t):
        t = t[t.arm == "trained"]
        t = t[t.data == min(t.data, key=len, default="")]
    if t.empty:
        return t
    t = t[(key := _key(t, RECIPE)) == key.mode().iloc[0]]
    return t[(rates := _key(t, ["lr", "weight_decay"])) == rates.groupby(t.arch).transform(lambda found: found.mode().iloc[0])]


def departing(t, b, changes):
    """The runs of t that depart from the baseline's runs b in `changes` (field -> value) and in nothing else."""
    same = agreeing(_candidates(t), b, [*(c for c in RECIPE if c not in changes), "lr", "weight_decay"])
    if not set(changes) <= set(same):
        return same.iloc[:0]
    return agreeing(same, pd.DataFrame([changes]), list(changes)) if changes else same


def _remedies(t, profile, arms, before, architectures, reference):
    """Rows of every remedy on every encoder that it is judged on, and on others that were trained with it: its arm against the baseline,
    seed by seed."""
    rows = []
    for remedy in REMEDIES:
        judged = [a for a in architectures if a in remedy.encoders]
        for arch in (*judged, *_besides(arms, (*judged, reference))):
            a = b = arms[arms.arch == arch]
            u = before[before.arch == arch]
            other = remedy.elsewhere.get(b.data.iloc[0]) if len(b) else None
            if other:
                there = t[(t.arch == arch) & (t.data == other) & (t.width == 1)]
                b = agreeing(_candidates(there), b.assign(data=other), [*RECIPE, "lr", "weight_decay"])
                u = there[there.epochs == 0]
            if len(b):
                mine = t[t.arch == arch]
                if remedy.changes:
                    a = departing(mine, b, remedy.changes)
                else:
                    same = agreeing(_candidates(mine), b, [*(c for c in RECIPE if c != "queue"), "lr", "weight_decay"])
                    trained = same[same.queue > 0].groupby("queue").seed.nunique()
                    known = trained.index[trained >= b.seed.nunique()]
                    a, b = same[same.queue == known.min()], same[same.queue == known.max()]
            seeds = sorted(set(a.seed) & set(b.seed)) if set(a.run) != set(b.run) else []
            a, b = (x[x.seed.isin(seeds)].sort_values("seed") for x in (a, b))
            if not seeds and arch not in judged:
                continue
            for measure in ("helps", "gathers", "gathers_paper") if remedy.name == "improved" else ("helps", "gathers"):
                claim = f"{remedy.name}_{measure}"
                if not seeds or measure == "gathers" and np.isnan(matched_purity(b)):
                    rows.append(_row(claim, profile, arch, np.nan, np.nan, np.nan, 0, NOT_TESTED, []))
                    continue
                effect, low, high = interval(_gain(measure, a, b))
                able = measure != "gathers" or learned(a, u) and learned(b, u)
                ends = _ends(a, b, effect) if measure == "gathers" else []
                beyond, verdict = 1 in ends, above(low, high) if able else UNDECIDED
                said = NOT_LEARNED if not able else MIXED if beyond and -1 in ends else BOUND if beyond else LEAST if -1 in ends else ""
                if beyond and verdict != UNDECIDED:
                    said, verdict = said + FORCED, UNDECIDED
                rows.append(_row(claim, profile, arch, effect, low, high, len(seeds), verdict,
                                 [*a.run, *b.run, *(u.run if measure == "gathers" else [])], said,
                                 b.data.iloc[0], local_purity(a).mean() - local_purity(b).mean() if measure == "gathers" else np.nan))
    return rows


def arms_of_length(t, arms, arch):
    """{arm: its runs of an encoder, by seed}: the baseline once and for twice the epochs, and the remedies together at its length."""
    once = arms[arms.arch == arch]
    found = {"once": once}
    if len(once):
        changes = {r.name: r.changes for r in REMEDIES if r.name in ARMS}
        changes["longer"] = dict.fromkeys(("epochs", "all_epochs"), 2 * int(once.epochs.iloc[0]))
        found |= {name: departing(t[t.arch == arch], once, change) for name, change in changes.items()}
    return {name: found.get(name, once).set_index("seed", drop=False) for name in ARMS}


def _of_length(t, profile, arms):
    """Rows of LENGTH on each encoder of REMEDIED: one arm against another, seed by seed, of the seeds from UNSEEN."""
    rows = []
    for arch in REMEDIED:
        found = arms_of_length(t, arms[arms.seed >= UNSEEN], arch)
        for name, (_, arm, other) in LENGTH.items():
            seeds = sorted({*found[arm].seed} & {*found[other].seed} & {*found["once"].seed})
            if seeds:
                a, b = found[arm].loc[seeds], found[other].loc[seeds]
                effect, low, high = interval(a.linear_test.values - b.linear_test.values)
                rows.append(_row(name, profile, arch, effect, low, high, len(seeds), above(low, high), [*a.run, *b.run],
                                 data=a.data.iloc[0]))
            else:
                rows.append(_row(name, profile, arch, np.nan, np.nan, np.nan, 0, NOT_TESTED, []))
    return rows


def _ends(a, b, effect):
    """Where the end of a run's curve stands in for a completeness, how that changes the difference a - b: 1 makes it larger than it is, on
    the side that it is on, -1 smaller, 0 the curve holds the purity. The rule counts on ends that make it smaller; where one does not,
    nothing is decided."""
    pure = matched_purity(b)
    return np.sign(effect) * np.concatenate([outside(a, pure), -outside(b, pure)])     # outside: 1 is an upper bound, -1 a lower one


def _gain(measure, a, b):
    """What runs `a` have over runs `b` of the same seeds in a measure of the remedies, (n,)."""
    if measure == "helps":
        return a.linear_test.values - b.linear_test.values
    if measure == "gathers_paper":
        return b.intra_class_d_test.values - a.intra_class_d_test.values
    return completeness_at(a, matched_purity(b), nearest=True) - completeness_at(b, matched_purity(b), nearest=True)


def widths(t, arms):
    """The runs of ResNet-18 at every width by the baseline's recipe."""
    own = arms[arms.arch == "resnet18"]
    every = t[(t.arch == "resnet18") & (t.method == "moco") & (t.epochs > 0) & (t.evaluation == "full")] if len(t) else arms
    return agreeing(every, own, [*RECIPE, "lr", "weight_decay"]) if len(own) else own


def _size(t, profile, arms, large, untrained, grown):
    own, wide = arms[arms.arch == "resnet18"], widths(t, arms)
    pure = matched_purity(large)
    if own.empty or wide.width.nunique() < 3 or np.isnan(pure):
        return _row("size_not_architecture", profile, "", np.nan, np.nan, np.nan, 0, NOT_TESTED, [])
    before = untrained[(untrained.arch == "resnet18") & untrained.width.isin(wide.width)]
    solved = grown and all(learned(part, before[before.width == width]) for width, part in wide.groupby("width"))
    values, slope, half = completeness_at(wide, pure), np.nan, np.nan
    if not np.isnan(values).any():
        fit = stats.linregress(np.log2(wide.width), values)
        slope, half = fit.slope, stats.t.ppf(0.975, len(wide) - 2) * fit.stderr
    low, high = slope - half, slope + half
    return _row("size_not_architecture", profile, "", slope, low, high, len(wide), above(low, high) if solved else UNDECIDED,
                [*wide.run, *before.run, *large.run], data=own.data.iloc[0])
