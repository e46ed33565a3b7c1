"""What the ledger says, in words: verdicts with their numbers, what is decided, and the paper's questions answered from the runs.

Report, README and terminal say it in these words; the numbers and verdicts are lib.claims'.
"""
import html
import re
import textwrap

import numpy as np
import pandas as pd

from lib import caveats, claims, models, probe, runs, studies, textures

MARK = {claims.SUPPORTED: "✓", claims.CONTRADICTED: "✗", claims.UNDECIDED: "?", claims.NOT_TESTED: "–"}
DECISIONS = (claims.SUPPORTED, claims.CONTRADICTED, claims.UNDECIDED)
MARKS = ", ".join(f"{MARK[v]} {v}" for v in DECISIONS)
LABEL = {arch: encoder.label for arch, encoder in models.ENCODERS.items()}
LEAD = {claims.SUPPORTED: "Yes, all five.", claims.CONTRADICTED: "Not all five.", claims.UNDECIDED: "Undecided.",
        claims.NOT_TESTED: "Not tested."}
GRID = {"pretext_learned": "training raises pretext accuracy", "no_overfitting": "without overfitting",
        "over_clustered_paper": "over-clusters, by the paper's pair of measures",
        "over_clustered_centred": "by the same pair, features centred",
        "over_clustered": "by clusters counted directly", "improved_helps": "gains by the paper's four remedies",
        "improved_no_teacher_helps": "gains by the three without a teacher"}
HARDLY = ", task hardly learned"
FEW = 3                        # encoders of which a row of the grid has at least so many
CROWDED = {"over_clustered_paper": "by the paper's pair of measures", "over_clustered_centred": "by the same pair on centred features",
           "over_clustered": "by clusters counted directly"}               # whether encoders over-cluster
IN_PAPER = "the paper's own gains by the four, on ImageNet"
IN_GRID = ("effects ± half of their 95 % interval over seeds (of overfitting, over images too), in points, of the pair of measures in "
           "distance² or, marked u, in uniformity; after an arrow the same on new seeds, where it was repeated")
AGAINST = {          # claim, or remedy on top of twice the epochs -> what is set against what, in the table of time against remedies
    "longer_helps": "the baseline for twice the epochs, against once",
    "improved_no_teacher_helps": "the three remedies without a teacher, against the baseline",
    "improved_no_teacher_beats_longer": "the three, against twice its epochs",
    "improved_no_teacher": "the three for twice the epochs, against the baseline for twice",
    "improved_helps": "the paper's four remedies, against the baseline",
    "improved_beats_longer": "the four, against twice its epochs",
    "improved": "the four for twice the epochs, against the baseline for twice"}
IN_AGAINST = ("points of linear accuracy, 95 % intervals over seeds, not corrected for their number; remedies at the baseline's learning "
              "rate and number of epochs, but for those \"for twice the epochs\". After an arrow: new seeds. Without ✓, ✗ or ?: these "
              "runs had been seen before the rule was written, or no rule asks for it")
RIVAL = ("The remedies, or a longer training? The paper's improved models have 200 epochs (most of these perhaps in the middle of a "
         "schedule of 800) and 800, its baselines 200 alone:")
DOTS = "each mark is a seed, each bar a 95 % interval; no bar where a run's number is only a bound"
FACTORS = {"polarity": "which of light and dark is pattern and which ground"}      # of textures, in words
SUPERVISED = "supervised, same recipe"    # as plots.ARM_LABELS, which is not imported where no figure is drawn
KIND = {"textures": "drawn grey patterns of 32 pixels, whose factors are known", "cifar10": "photographs of 32 pixels, CIFAR-10",
        "cifar10_jpeg": "photographs of 32 pixels, a JPEG copy of CIFAR-10"}
WORDS = {
    "profile": "a data set, a schedule and seeds: a column of the verdicts",
    "arm": "runs that differ in their seeds alone: an encoder's baseline, or its baseline with a change",
    "the paper's four, the paper's three": "temperature 0.1, stronger augmentation, a wide projector and a start by SEED; the same without "
                                           "that start, hence without a teacher",
    "as a whole": "a claim about several encoders is supported if every one supports it, and contradicted if any one does; intervals are "
                  "not corrected for their number",
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
LEAST = ("Of a claim about several encoders one is shown with its interval: of those that have the verdict on the whole, the one with the "
         "least favourable effect; one that contradicts refutes; n: seeds, of two groups the fewer")
LEGEND = f"{LEAST}. {MARKS}. The rules: [claims.csv](claims.csv), column `test`."


def rule_html(claim):
    """A claim's rule of decision, clause by clause, as HTML."""
    return f"<ul>{''.join(f'<li>{html.escape(clause)}</li>' for clause in claims.clauses(claim.rule))}</ul>"


def of_encoders(rows, claim, profile):
    """[(label, row)] of the encoders for which a claim was tested in a profile; "beside" those that do not count for it as a whole."""
    found = rows[rows.claim.str.startswith(f"{claim}/") & (rows.profile == profile) & (rows.verdict != claims.NOT_TESTED)]
    return [(LABEL[row.claim.split("/")[1]] + ("" if is_judged(row) else ", beside"), row) for row in found.itertuples()]


def is_judged(row):
    """Does this row of an encoder count for its claim as a whole?"""
    name, _, arch = row.claim.partition("/")
    return arch in claims.ENCODERS_OF.get(name, models.SMALL)


def counting(rows, claim, profile):
    """`of_encoders` without those that do not count for the claim as a whole."""
    return [(label, row) for label, row in of_encoders(rows, claim, profile) if is_judged(row)]


def agreement(rows, row):
    """Of the encoders behind the verdict `row` on a claim as a whole: each one's verdict and effect, or the only one's name; "" without
    them."""
    parts = counting(rows, row.claim, row.profile) if row.verdict != claims.NOT_TESTED else []
    if len(parts) < 2:
        planned = claims.ENCODERS_OF.get(row.claim, models.SMALL)
        return f" ({parts[0][0]}, 1 of {len(planned)} encoders tested; one that contradicts refutes)" if parts else ""
    unit = {claims.unit_of(r) for _, r in parts}
    def number(r):
        found = claims.effect(r)[0]
        return found.split()[0] if found and len(unit) == 1 else found or "no number"
    if any(claims.effect(r)[0] for _, r in parts):
        each = (f"{MARK[r.verdict]}\u00a0{label} {number(r)}" for label, r in parts)
        return f" ({', '.join(each)})"
    return " (" + " ".join(f"{n} {MARK[v]}" for v in DECISIONS if (n := sum(r.verdict == v for _, r in parts))) + ")"


def whose(rows, row):
    """Whose number the verdict `row` on a claim as a whole shows: an encoder's label and a space; "" where it is nobody's or only one's."""
    parts = counting(rows, row.claim, row.profile)
    same = [label for label, r in parts if (r.effect, r.n, r.verdict) == (row.effect, row.n, row.verdict)]
    return f"{same[0]} " if same and len(parts) > 1 else ""


def partly(rows, row):
    """Of a claim that is not tested as a whole, the verdicts on encoders; "" without any."""
    parts = of_encoders(rows, row.claim, row.profile) if row.verdict == claims.NOT_TESTED else []
    parts = [f"{label}: **{r.verdict}** {said(r)}".strip() for label, r in parts]
    return f"as a whole; {'; '.join(parts)}" if parts else ""


def said(row):
    """A verdict's number, interval and seeds, and what it reads as."""
    if row.verdict == claims.NOT_TESTED:
        return ""
    if np.isnan(row.effect):
        return claims.UNREACHED
    seeds = "one seed" if row.n == 1 else f"n = {row.n}"
    return "; ".join(filter(None, (" ".join(claims.effect(row)).strip(), seeds, claims.reading(row))))


def overall(rows):
    """The rows of a ledger that judge a claim as a whole."""
    return rows[~rows.claim.str.contains("/", regex=False)]


def terminal(rows):
    """The ledger as lines of text: each claim of a profile, its encoders where only some were tested, and in one line what has no runs."""
    lines = []
    for profile, part in overall(rows).groupby("profile", sort=False):
        lines.append(f"\n{profile}")
        lacking = []
        for row in part.itertuples():
            tested = [(row.claim, row)]
            if row.verdict == claims.NOT_TESTED:
                parts = of_encoders(rows, row.claim, profile)
                if not parts:
                    lacking.append(row.claim)
                    continue
                lines.append(f"  {MARK[row.verdict]} not tested   {row.claim:<24} as a whole, which needs every encoder; of them:")
                tested = [(f"  {label}", r) for label, r in parts]
            for label, r in tested:
                effect = " ".join(claims.effect(r)).strip() or "no number"
                lines.append(f"  {MARK[r.verdict]} {r.verdict:<13}{label:<24} {effect}, n = {r.n}")
        if lacking:
            said = f"{MARK[claims.NOT_TESTED]} not tested, for want of runs that the rule admits: {', '.join(lacking)}"
            lines += textwrap.wrap(said, 110, initial_indent="  ", subsequent_indent=" " * 17)
    return "\n".join(lines).strip("\n") or "no runs yet: every claim is not tested"


def deciding(rows, row):
    """Of a claim that is decided as a whole: the encoders that decide it, with numbers, those that support what others contradict, and how
    many of them were tested."""
    parts = counting(rows, row.claim, row.profile)
    on = [f"{label} ({said(r)})" for label, r in parts if r.verdict == row.verdict]
    if not on or row.verdict == claims.SUPPORTED:
        return said(row) + agreement(rows, row)
    others = [label for label, r in parts if r.verdict == claims.SUPPORTED]
    planned = claims.ENCODERS_OF.get(row.claim, models.SMALL)
    return ", ".join(on) + (f"; but supported on {', '.join(others)}" if others else "") + (
        f"; {len(parts)} of {len(planned)} encoders tested" if len(parts) < len(planned) else "")


def short(rows, profile):
    """What was found in a profile: (how many claims have which verdict; what of it may be chance; [(verdict, text)] of the claims that are
    decided as a whole; [text] of those that are not, but supported on single encoders)."""
    rows = rows[rows.profile == profile]
    whole, alone = overall(rows), []
    decided = [(row.verdict, f"{row.statement}: {deciding(rows, row)}") for row in whole.itertuples()
               if row.verdict in (claims.SUPPORTED, claims.CONTRADICTED)]
    for row in whole[whole.verdict.isin([claims.UNDECIDED, claims.NOT_TESTED])].itertuples():
        each = [f"{label} ({said(r)})" for label, r in counting(rows, row.claim, profile) if r.verdict == claims.SUPPORTED]
        alone += [f"{row.statement}: {', '.join(each)}"] if each else []
    some = sum(bool(counting(rows, claim, profile)) for claim in whole.claim[whole.verdict == claims.NOT_TESTED])
    counts = ", ".join(f"{n} {v}" for v in MARK if (n := (whole.verdict == v).sum())) + (
        f" ({some} of these on some encoders, but not on all that the claim names)" if some else "")
    return f"{len(whole)} claims as a whole: {counts}.", caveats.by_chance(rows), decided, alone


ALONE = "Supported on single encoders, not as a whole:"


def repetition(rows, profile):
    """The rows of a profile's repetition on seeds of its own, where both are on the same data; none otherwise."""
    again = rows[rows.profile.isin([name for name, p in studies.PROFILES.items() if p.repeats == profile])]
    return again if {*again.data} <= {"", *rows.data[rows.profile == profile]} else again.iloc[:0]


def nutshell(t, rows, profile):
    """What a profile says of the paper's own claims, and how it fared on new seeds, as a list of sentences; [] without a claim of the paper
    that is decided or undecided as a whole. t: the tidy table, rows: the ledger, of all profiles."""
    own = t[t.profile == profile]
    whole = overall(rows[(rows.profile == profile) & rows.source.str.startswith("paper")])
    n, yes, no, open_ = (len(whole), *((whole.verdict == v).sum() for v in DECISIONS))
    if not yes + no + open_:
        return []
    fate = repeated(rows, profile)
    stands, verdicts = caveats.standing(rows[rows.profile == profile]), dict(rows.loc[rows.profile == profile, ["claim", "verdict"]].values)
    left = whole.source.str.contains("not adopted").sum()

    def told(row):
        """A claim, what the paper's code and raw pixels say of it, whether its verdicts survive a correction, and new seeds."""
        those, mark = fate[fate.claim == row.statement], MARK[row.verdict]
        onward, still = those[those["first"].str.startswith(mark)], those.again.str.startswith(mark).any()
        speaks = row.source.partition("; ")[2].replace("its code's figures", "the paper's own plotted numbers")
        more = [speaks] if speaks.startswith("the paper's own") else []
        more += _under_raw_pixels(own) if row.claim == "pretext_learned" else []
        kin = [stand for claim, stand in stands.items() if claim.startswith(f"{row.claim}/") and verdicts[claim] == row.verdict]
        more += ["does not survive a correction for the number of intervals"] if kin and not any(kin) else []
        more += [f"on new seeds: {', '.join(f'{r.encoder} {r.became}' for r in onward.itertuples())}"
                 + ("" if still else f", hence not {row.verdict} there")] if len(onward) else []
        more += ["not repeated"] if len(fate) and not len(onward) else []
        return f"“{row.statement}”" + (f" ({'; '.join(more)})" if more else "")
    aside = f" ({left} of them on what it tried and did not adopt)" if left else ""
    found = [f"Of {n} claims drawn from the paper{aside}, each made a test of ours, "
             f"{yes or 'none'} {'is' if yes < 2 else 'are'} supported on {profile}, {no or 'none'} "
             f"contradicted, and {open_ or 'none'} undecided, which says neither"
             + (f"; {n - yes - no - open_} not tested" if n > yes + no + open_ else "")
             + ". A claim is supported if every small encoder that it names supports it, and contradicted if one contradicts it."]
    found += [f"{verdict.capitalize()}: {'; '.join(map(told, those.itertuples()))}."
              for verdict in (claims.SUPPORTED, claims.CONTRADICTED) if len(those := whole[whole.verdict == verdict])]
    held = [f"{_kept_on(both)} ({p})" for p in (profile, *(p for p, *_ in _elsewhere(rows, profile)))
            if kept(both := repeated(rows, p))[1]]
    found += [f"Of verdicts on single encoders that were tried again on new seeds, these hold: {', '.join(held)}."] if held else []
    found += [words for p, kind, again in _elsewhere(rows, profile)
              if (words := _of_the_three(t[t.profile == p], rows[rows.profile == p], again, f"{kind} ({p})"))]
    less = []
    for images, again in ((profile, repetition(rows, profile)), *((p, part) for p, _, part in _elsewhere(rows, profile))):
        less += [f"{few} on {_listed(on)} ({images})" for claim, few in (
            ("improved_no_teacher_beats_longer", "the three remedies without a teacher"),
            ("improved_beats_longer", "the paper's four (with another teacher there)"))
            if (on := [label for label, _ in _on(again, claim, claims.CONTRADICTED)])]
    return [*found, *([f"On new seeds twice the epochs of the baseline gain more than remedies at the usual number: more than "
                       f"{', '.join(less)}. That cannot explain the paper's gains at 200 epochs; its improved models of 800 have no "
                       "baseline of their length. In schedules as short as ours an encoder is far from done."
                       + _on_top(own)] if less else [])]


def _under_raw_pixels(t):
    """That raw pixels do better at the pretext task than any small encoder, as a list of at most one clause. t: the runs of a profile."""
    arms, raw = claims.baseline(t), t[t.arch == "pixels"].instdisc_dsd_top1_test.mean()
    best = arms[arms.arch.isin(models.SMALL)].groupby("arch").instdisc_dsd_top1_test.mean().max()
    return [f"below raw pixels: the best small encoder has {best:.1%}, raw pixels {raw:.1%}"] if raw > best else []


def _on_top(t):
    """What remedies add to twice the epochs, in a sentence; "" without pairs of seeds. t: the runs of a profile."""
    each = [f"{LABEL[arch]} {_points(more)}" for arch, _, added in _twice_as_long(t, claims.baseline(t))
            if len(more := added["improved_no_teacher"]) > 1]
    return (f" On the seeds before ({t.profile.iloc[0]}) the three without a teacher add, on top of twice the epochs, in points of linear "
            f"accuracy, {'; '.join(each)} (no rule asked for it).") if each else ""


def _kept_on(both):
    """How many verdicts hold on each encoder, of a table as `repeated`: "1 of 4 on MobileNetV3-Small and 4 of 5 on ResNet-18"."""
    counts = {label: kept(part) for label, part in both.groupby("encoder", sort=False)}
    return _listed(f"{held} of {decided} on {label}" for label, (held, decided) in counts.items() if decided)


def _of_the_three(t, rows, again, where):
    """What the three remedies without a teacher do on each encoder of a profile, in a sentence; "" where none was tested. t: its
    runs; rows, again: the ledger's rows of the profile and of its repetition."""
    claim, stands = "improved_no_teacher_helps", caveats.standing(rows)
    falls = " (a verdict that does not survive a correction for the number of intervals)"
    yes, no = ([label + ("" if stands.get(row.claim, True) else falls) for label, row in _on(rows, claim, verdict)]
               for verdict in (claims.SUPPORTED, claims.CONTRADICTED))
    open_ = [label for label, _ in _on(rows, claim, claims.UNDECIDED)]
    new = [label for label, _ in _on(again, claim, claims.CONTRADICTED) if label in open_]
    if not yes + no + open_:
        return ""
    effects = [row.effect for verdict in DECISIONS for _, row in _on(rows, claim, verdict)]
    mean = f" On average over seeds all {len(effects)} lose, by {-100 * max(effects):.1f} to {-100 * min(effects):.1f} points." \
        if len(effects) > 1 and max(effects) < 0 else ""
    knn = claims.baseline(t).groupby("arch").knn_test.mean()
    low = [LABEL[a] for a in models.SMALL if a in knn and knn[a] < t.knn_test[t.arch == "pixels"].mean()]
    floor = f" By kNN raw pixels do better than the baseline of {_listed(low)}." if low else ""
    lowered, rest = [*no, *(f"{label} (there on new seeds)" for label in new)], [label for label in open_ if label not in new]
    return (f"On {where} the three remedies without a teacher are shown to raise the linear probe of "
            f"{_listed(yes) if yes else f'none of {len(no + open_)} encoders' if len(no + open_) > 1 else 'no encoder'}"
            + (f", and to lower that of {_listed(lowered)}" if lowered else "") + (f"; undecided on {_listed(rest)}" if rest else "")
            + f".{mean}{floor}")


def against(t, rows):
    """Remedies against a longer training: a row of text for each comparison of AGAINST, a column for each encoder and repeated profile.
    Empty where no length was judged. t: the tidy table (lib.report.table); rows: the ledger."""
    found = {}
    for first in _repeated_profiles():
        again = repetition(rows, first)
        if _each(again, "longer_helps"):
            for arch in claims.REMEDIED:
                both = {words: (_seen(t, rows, first, claim, arch), _marked(again, f"{claim}/{arch}")) for claim, words in AGAINST.items()}
                cells = {words: f"{before} {f'→ {after}' if after else ''}".strip() for words, (before, after) in both.items()}
                found |= {f"{LABEL[arch]}, {first}{_kind(again)}": cells} if any(cells.values()) else {}
    found = pd.DataFrame(found)
    return found[(found != "").any(axis=1)].rename_axis("linear accuracy").reset_index()


def _marked(rows, claim):
    """A claim's mark, effect and interval in one profile's rows; "" where it has no interval."""
    row = next((row for row in rows[(rows.claim == claim) & rows.low.notna()].itertuples()), None)
    return f"{MARK[row.verdict]} {' '.join(claims.effect(row)).replace(' points', '')}" if row else ""


def _seen(t, rows, profile, claim, arch):
    """What `against` shows of a profile's own seeds: of claims on length and of remedies on top of it, which have no verdict there, the
    numbers alone."""
    own = t[t.profile == profile]
    if claim in claims.ARMS:
        arms = claims.baseline(own)
        gains = next((more[claim] for _, _, more in _twice_as_long(own, arms[arms.arch == arch])), ())
    elif claim in claims.LENGTH:
        each = claims.arms_of_length(own, claims.baseline(own), arch)
        _, arm, other = claims.LENGTH[claim]
        gains = (each[arm].linear_test - each[other].linear_test).dropna()
    else:
        return _marked(rows[rows.profile == profile], f"{claim}/{arch}")
    return _points(gains).removesuffix(f", {len(gains)} seeds") if len(gains) else ""


def _repeated_profiles():
    return dict.fromkeys(p.repeats for p in studies.PROFILES.values() if p.repeats)


def _kind(rows):
    """What the images of a profile's rows of the ledger are, " (photographs)"; "" where there are no words for them."""
    return next((f" ({KIND[data].partition(' of ')[0]})" for data in rows.data if data in KIND), "")


def _elsewhere(rows, profile):
    """[(profile, what its images are, the ledger's rows of its repetition)] of the other profiles that were repeated, to be told beside one
    that was repeated itself."""
    found = []
    for other in [p for p in _repeated_profiles() if p != profile and len(repetition(rows, profile))]:
        again = repetition(rows, other)
        if len(again):
            found.append((other, _kind(again)[2:-1] or other, again))
    return found


def _each(rows, claim):
    """Effect, interval and verdict of a claim on each encoder of one profile's rows, in words; "" without any."""
    return ", ".join(f"{' '.join(claims.effect(r))} on {name} ({r.verdict})" for p in rows.profile.unique()
                     for name, r in of_encoders(rows, claim, p))


def grids(rows, profiles):
    """{profile: `grid`} of those that repeat no other and show some."""
    found = {p: grid(rows, p) for p in profiles if not studies.profile(p).repeats}
    return {p: each for p, each in found.items() if len(each)}


def grid(rows, profile):
    """The main claims on each small encoder of a profile, a text each: mark, effect and half of its interval (of the pair of measures in
    distance² or, marked u, in uniformity, else in points), and the same on new seeds where it has an interval there; a row per claim that
    was tested on three encoders or more and has a number, "–" where it was not. Last the paper's gains."""
    again = {row.claim: row for row in repetition(rows, profile).itertuples() if not np.isnan(row.low)}

    def cell(row):
        seen = [row, *([again[row.claim]] if row.claim in again else [])]
        told = " → ".join(f"{MARK[r.verdict]} {claims.effect(r)[0].partition(' ')[0] or 'no number'} {claims.margin(r)}".rstrip()
                          + f"{' u' if claims.unit_of(r) == 'of uniformity' else ''}" for r in seen)
        return told + (HARDLY if any(claims.NOT_SOLVED in claims.reading(r) for r in seen) else "")
    tested = {r.claim: r for r in rows[(rows.profile == profile) & (rows.verdict != claims.NOT_TESTED)].itertuples()}
    found = {GRID[claim]: {LABEL[arch]: cell(tested[f"{claim}/{arch}"]) for arch in models.SMALL if f"{claim}/{arch}" in tested}
             for claim in GRID}
    found = {words: each for words, each in found.items()
             if len(each) >= FEW and not all("no number" in told for told in each.values())}
    found = {words + HARDLY if all(told.endswith(HARDLY) for told in each.values()) else words: each for words, each in found.items()}
    found = {words: {arch: told.removesuffix(HARDLY) if words.endswith(HARDLY) else told for arch, told in each.items()}
             for words, each in found.items()}                              # once, in the row's head
    if GRID["improved_helps"] in found:
        paper = pd.read_csv(runs.ROOT / "results" / "reference" / "paper_headline.csv").set_index("model")
        gains = (paper.improved_200_percent - paper.baseline_200_percent)[[*models.SMALL]]
        found[IN_PAPER] = {LABEL[arch]: f"{gain:+.1f}".replace("-", "−") for arch, gain in gains.items()}
    shown = [LABEL[arch] for arch in models.SMALL if any(LABEL[arch] in each for each in found.values())]
    return pd.DataFrame(found, index=shown).T.fillna("–").rename_axis("encoder").reset_index() if found else pd.DataFrame()


def complete(t, profiles):
    """The first of the profiles with runs of all five small encoders and the reference, as a list of at most one: its `answers` are told,
    which say what the others have to say on photographs. t: the tidy table (lib.report.table)."""
    def trained(profile):
        own = t[t.profile == profile]
        return {*claims.baseline(own).arch} if len(own) else set()
    return [profile for profile in profiles if {*models.SMALL, models.LARGE} <= trained(profile)][:1]


def answers(t, rows, profile):
    """The paper's questions and what the runs of a profile that is `complete` answer, [(question, answer in a few words, why)], told from
    the numbers; [] of another. t: the tidy table (lib.report.table); rows: the ledger."""
    if not complete(t, [profile]):
        return []
    own, mine = t[t.profile == profile], rows[rows.profile == profile]
    arms = claims.baseline(own)
    labels = own[(own.method == "supervised") & (own.epochs > 0) & (own.width == 1) & (own.data == arms.data.iloc[0])]
    onward = _fates(rows, profile)
    return [*_of_learning(own, arms, labels), *_of_pretext(own, arms, mine, onward), *_of_clusters(own, arms, mine),
            *_of_factors(own, arms, labels), *_of_remedies(arms, mine, onward),
            *_of_length(own, arms, mine, onward, repetition(rows, profile)), *_of_photographs(t, rows, profile), *_of_again(rows, profile)]


def _of_learning(t, arms, labels):
    """Has each learned (claims.learned), and does the linear probe come near that of training with labels?"""
    before = t[(t.epochs == 0) & (t.width == 1) & (t.data == arms.data.iloc[0])]
    better = [a for a in models.SMALL if claims.learned(arms[arms.arch == a], before[before.arch == a])]
    linear, taught = arms.groupby("arch").linear_test.mean(), labels.groupby("arch").linear_test.mean()
    lacks = (taught - linear)[[a for a in models.SMALL if a in taught]]
    near = [f"{LABEL[a]} ({linear[a]:.1%})" for a in lacks.index if lacks[a] < caveats.HEADROOM]
    far = [f"{LABEL[a]} ({linear[a]:.1%}, {100 * lacks[a]:.0f} points less)" for a in lacks.index if lacks[a] >= caveats.HEADROOM]
    within = f"{100 * caveats.HEADROOM:g} points of the same encoder trained with labels"
    count = "All five" if len(better) == len(models.SMALL) else f"{len(better)} of five"
    return [("Do small encoders learn without a teacher?",
             f"{count} do, by kNN accuracy over the untrained; within {within}: "
             f"{_listed(LABEL[a] for a in lacks.index if lacks[a] < caveats.HEADROOM) or 'none'}{_above_pixels(t, arms)}.",
             f"Linear accuracy comes to within {within} on "
             f"{', '.join(near) or 'none'}, and does not on {', '.join(far) or 'none'}. The large {LABEL[models.LARGE]} reaches "
             f"{linear[models.LARGE]:.1%}."
             + ("" if np.isnan(raw := t[t.arch == "pixels"].knn_test.mean()) else f" Raw pixels have a kNN accuracy of {raw:.1%}."))]


def _above_pixels(t, arms):
    """"; shown to be better than raw pixels: ..." of the small encoders whose 95 % interval of kNN accuracy lies above that of raw pixels;
    "" without these."""
    raw = t[t.arch == "pixels"].knn_test.mean()
    high = [LABEL[a] for a in models.SMALL if len(own := arms.knn_test[arms.arch == a]) and claims.interval(own)[1] > raw]
    return "" if np.isnan(raw) else f"; shown to be better than raw pixels: {_listed(high) or 'none'}"


def _of_pretext(t, arms, rows, onward):
    """Observation (i). onward: {(statement, encoder): what became of that verdict on new seeds, in words}."""
    best, pixels = arms.groupby("arch").instdisc_dsd_top1_test.mean()[[*models.SMALL]].max(), t[t.arch == "pixels"].instdisc_dsd_top1_test
    hardly = _hardly(rows, "no_overfitting")
    return [("Does training make them better at the pretext task?", _lead(rows, "pretext_learned", onward),
             f"Held-out accuracy in it rises on {_count(rows, 'pretext_learned')}; the best has {best:.1%}"
             + (f", raw pixels {pixels.mean():.1%}." if pixels.notna().any() else ".")),
            ("And without overfitting?", "Too little of the task is learned to tell, on every encoder."
             if len(hardly) == len(models.SMALL) else _lead(rows, "no_overfitting", onward),
             f"Too little of the task is learned to tell on {_listed(hardly)}." if hardly else "")]


def _apart_before(t, arms):
    """The small encoders that are apart from the reference by the paper's pair of measures before any training, by the claim's rule but
    that they have learned. t: the runs of a profile, arms: its baseline."""
    before = claims.agreeing(t[(t.epochs == 0) & (t.width == 1)], arms, claims.SETTING)
    large = before[before.arch == models.LARGE]
    pairs = {a: claims.papers_pair(before[before.arch == a], large) for a in models.SMALL if len(large) and (before.arch == a).any()}
    return [LABEL[a] for a, pair in pairs.items()
            if claims.together(claims.above(low, high, bar) for _, low, high, bar in pair.values()) == claims.SUPPORTED]


def _of_clusters(t, arms, rows):
    """Observation (ii)."""
    apart = {name for name, _ in _on(rows, "over_clustered_paper", claims.SUPPORTED)} & {*_apart_before(t, arms)}
    large, knn = arms[arms.arch == models.LARGE], arms.groupby("arch").knn_test.mean()
    pure = claims.matched_purity(large)
    lost = not np.isnan(pure) and claims.outside(large, pure).any()
    untold = lost and not _on(rows, "over_clustered", claims.CONTRADICTED)
    better = [LABEL[a] for a in models.SMALL if knn[a] > knn[models.LARGE]]
    verdict = LEAD[_whole(rows, "over_clustered")].rstrip(".")
    why = ([f"Clusters can show none, since the curves of some runs of {LABEL[models.LARGE]} do not hold the purity to compare at."]
           if lost else []) + ([f"{LABEL[models.LARGE]}, which they are held against, learned less than {', '.join(better)}."]
                               if better else [])
    return [("Do they over-cluster?", f"{verdict}: {CROWDED['over_clustered_paper']} "
             f"{_count(rows, 'over_clustered_paper')} do{f' ({len(apart)} of these even before training)' if apart else ''}, "
             f"{CROWDED['over_clustered_centred']} {_count(rows, 'over_clustered_centred')}, {CROWDED['over_clustered']} "
             f"{'it cannot be told' if untold else _count(rows, 'over_clustered')}.", " ".join(why))]


def _of_factors(t, arms, labels):
    """Which known factor of the images the clusters within classes go with; [] where none is known."""
    factors = [c for c in arms if c.startswith("ami_") and arms[c].notna().all()]
    if not factors:
        return []
    means = arms.groupby("arch")[factors].mean()
    most = means.mean().idxmax()
    name = most.removeprefix("ami_")
    after = "".join(f"; the next factor, {c.removeprefix('ami_')}, {means[c][[*models.SMALL]].min():.2f} to "
                    f"{means[c][[*models.SMALL]].max():.2f} on the five" for c in means.mean().drop(most).nlargest(1).index)
    small, taught = means[most][[*models.SMALL]], labels.groupby("arch")[most].mean()
    before = t[(t.epochs == 0) & (t.width == 1) & (t.data == arms.data.iloc[0]) & t.arch.isin(models.SMALL)].groupby("arch")[most].mean()
    hidden = len(textures.INVISIBLE.get(name, ())) if arms.data.iloc[0] == "textures" else 0
    where = f", in the {len(textures.FAMILIES) - hidden} of {len(textures.FAMILIES)} classes that show it" if hidden else ""
    others = [f"{words} {found.min():.2f} to {found.max():.2f}" for words, found in (("untrained", before), ("trained with labels", taught))
              if found.notna().any()]
    return [("What do the groups inside a class follow?", f"Mostly {name}{f' ({FACTORS[name]})' if name in FACTORS else ''}{where}.",
             "It is a factor of the images that is not their class. Each class is dealt into as many clusters as a factor has levels, "
             "whether it has groups or not. Adjusted mutual information of these with it: "
             f"{small.min():.2f} to {small.max():.2f} on the five, {means[most][models.LARGE]:.2f} on {LABEL[models.LARGE]}"
             f"{after}{''.join(f'; {other}' for other in others)}.")]


def _of_remedies(arms, rows, onward):
    """Figure 1, with a teacher and without. onward: {(statement, encoder): what became of that verdict on new seeds, in words}."""
    linear, found = arms.groupby("arch").linear_test.mean(), []
    teacher = arms[arms.arch == models.LARGE].sort_values("seed").linear_test.iloc[0]
    outdone = [LABEL[a] for a in models.SMALL if linear[a] > teacher]
    limits = (f" SEED's teacher reaches {teacher:.1%}, less than the baselines of {', '.join(outdone)}." if outdone else "") + (
        " The images are grey, so stronger colours have next to nothing to act on." if "grey" in KIND.get(arms.data.iloc[0], "") else "")
    for claim, question, more in (
            ("improved_helps", "Do the paper's four remedies together (temperature, augmentation, projector, SEED start) help?", limits),
            ("improved_no_teacher_helps", "And without the distilled start?", "")):
        if _whole(rows, claim) != claims.NOT_TESTED:
            each = [", ".join(f"{name} ({_gain(name, r, onward)})" for name, r in _on(rows, claim, v) if not np.isnan(r.low))
                    for v in DECISIONS]
            alone = ", ".join(f"{name} ({_gain(name, r, onward)})" for name, r in counting(rows, claim, rows.profile.iloc[0])
                              if np.isnan(r.low))
            found.append((question, _lead(rows, claim, onward),
                          f"The interval of the gain in linear accuracy lies above 0 on {each[0] or 'none'}"
                          + "".join(f", {words} {names}" for words, names in zip(("below on", "includes it on"), each[1:]) if names)
                          + f"{f'; one seed, hence no interval, on {alone}' if alone else ''}.{more}"))
    return found


def _of_length(t, arms, rows, onward, again):
    """Twice the epochs of the baseline: as far as they were trained, and what the repetition (again: the ledger's rows of it) says by rules
    of before it."""
    usual = {name: f" (the four remedies at the usual length {_gain(name, r, onward)})"
             for name, r in of_encoders(rows, "improved_helps", rows.profile.iloc[0])}
    longer = _twice_as_long(t, arms)
    each = "; ".join(f"{LABEL[a]} {_points(gain)}{usual.get(LABEL[a], '')}"
                     + (f", to which {' and '.join(adds)}" if (adds := [
                         f"{few} add {_points(more[name])}" for name, few in (
                             ("improved_no_teacher", "the three without a teacher"), ("improved", "the four")) if len(more[name])]) else "")
                     for a, gain, more in longer)
    seen = f"Twice the epochs of the baseline gain, in points of linear accuracy: {each}."
    if judged := _of_longer(again, seen=f" On the seeds before, without a rule: {seen[0].lower()}{seen[1:]}" if longer else ""):
        return judged
    verdicts = {arch: claims.above(*claims.interval(gain)[1:]) for arch, gain, _ in longer}
    which = _by_verdict({v: [LABEL[a] for a in verdicts if verdicts[a] == v] for v in DECISIONS})
    return [("Do twice the epochs help?", sentence(f"{which}; no verdict, for it had no rule beforehand"), seen)] if longer else []


def _of_photographs(t, rows, profile):
    """The same questions on photographs, as far as committed profiles have encoders for them, beside a profile on other images. t: the
    tidy table, rows: the ledger, of all profiles."""
    def photographs(p):
        return any("photographs" in KIND.get(data, "") for data in t.data[t.profile == p])
    found, others = [], [p for p in studies.COMMITTED if not studies.profile(p).repeats and photographs(p)]
    for p in others if not photographs(profile) else []:
        own, mine, onward = t[t.profile == p], rows[rows.profile == p], _fates(rows, p)
        own = own[own.data == claims.baseline(own).data.iloc[0]] if len(claims.baseline(own)) else own[:0]
        where = "on photographs" + (f" ({p})" if len(others) > 1 else "")
        found += _of_learning_at_all(own, p, where) if len(own) else []
        again = repetition(rows, p)
        for question, measures in ((f"Does training make them better at the pretext task {where}?", {"pretext_learned": ""}),
                                   (f"And without overfitting {where}?", {"no_overfitting": ""}),
                                   (f"Do they over-cluster {where}?", CROWDED),
                                   (f"Do the three remedies without a teacher help {where}?", {"improved_no_teacher_helps": ""})):
            lead, why = [], []
            for claim, words in measures.items():
                hardly, before = _hardly(mine, claim), _apart_before(own, claims.baseline(own)) if claim == "over_clustered_paper" else []
                named = {v: [_onward(name, r, onward) + " (untrained, too)" * (name in before and v == claims.SUPPORTED)
                             for name, r in _on(mine, claim, v) if name not in hardly] for v in DECISIONS}
                little = f"too little is learned to tell on {_listed(hardly)}" if hardly else ""
                told = "; ".join(filter(None, (_by_verdict(named), little)))
                lead += [sentence(f"{words}{': ' * bool(words)}{told}")] if told else []
                why += [f"on {p}{', ' * bool(words)}{words}: {_each(mine, claim)}"] if told else []
                why += [f"on new seeds: {_each(again, claim)}"] if told and any(_on(again, claim, v) for v in DECISIONS) else []
            found += [(question, " ".join(lead), sentence("; ".join(why)))] if lead else []
    return found


def _of_learning_at_all(t, profile, where):
    """Which encoders have learned (claims.learned), of those with an untrained self, and which do better than raw pixels. t: the runs of
    a profile on one data set; where: on what images, in words."""
    arms, before, raw = claims.baseline(t), t[(t.epochs == 0) & (t.width == 1)], t[t.arch == "pixels"].knn_test.mean()
    each = {a: (arms[arms.arch == a], before[before.arch == a]) for a in models.SMALL
            if set(arms.seed[arms.arch == a]) & set(before.seed[before.arch == a])}
    if not each:
        return []
    yes = [LABEL[a] for a, of_both in each.items() if claims.learned(*of_both)]
    no = [LABEL[a] for a in each if LABEL[a] not in yes]
    both = [f"{LABEL[a]} {untrained.knn_test.mean():.1%} and {trained.knn_test.mean():.1%}" for a, (trained, untrained) in each.items()]
    lead = f"{_listed(yes) or 'None'} {'does' if len(yes) < 2 else 'do'}, by kNN accuracy over the untrained"
    lead += (f"; not shown on {_listed(no)}" if no and yes else "") + _above_pixels(t, arms[arms.arch.isin(each)])
    return [(f"Do they learn {where}?", f"{lead}.",
             f"On {profile}, kNN accuracy untrained and trained: {', '.join(both)}"
             + ("." if np.isnan(raw) else f"; raw pixels {raw:.1%}."))]


def _by_verdict(names):
    """{verdict: names} as text: "yes on A and B; no on C"."""
    return "; ".join(f"{lead} on {_listed(names[v])}" for v, lead in zip(DECISIONS, ("yes", "no", "undecided")) if names.get(v))


def _whole(rows, claim):
    """The verdict on a claim as a whole, of one profile's rows."""
    return next(iter(rows.verdict[rows.claim == claim]), claims.NOT_TESTED)


def _on(rows, claim, verdict):
    """[(label, row)] of the encoders on which a claim has that verdict, of one profile's rows."""
    return [(name, r) for p in rows.profile.unique() for name, r in counting(rows, claim, p) if r.verdict == verdict]


def _hardly(rows, claim):
    """The labels of the encoders that have learned too little of the pretext task for a verdict on a claim, of one profile's rows."""
    return [name for v in DECISIONS for name, r in _on(rows, claim, v) if claims.NOT_SOLVED in claims.reading(r)]


def _gain(name, row, onward):
    """An encoder's effect, and what became of its verdict on new seeds."""
    return ", ".join(filter(None, (claims.effect(row)[0], onward.get((row.statement, name)))))


def _count(rows, claim):
    yes, no = (len(_on(rows, claim, verdict)) for verdict in (claims.SUPPORTED, claims.CONTRADICTED))
    return f"{yes} of five" + (f" (contradicted on {no})" if no else "")


def _lead(rows, claim, onward=None):
    """The verdict on a claim as a whole in a few words, and on which encoders it is decided; of those whose verdict does not hold on other
    seeds that too (onward: as _of_remedies has it)."""
    verdict = _whole(rows, claim)
    yes, no = ([_onward(*each, onward or {}) for each in _on(rows, claim, v)] for v in (claims.SUPPORTED, claims.CONTRADICTED))
    if verdict == claims.NOT_TESTED or verdict == claims.SUPPORTED and {*yes} <= {*LABEL.values()}:
        return LEAD[verdict]
    if not yes + no:
        return "Undecided on every encoder."
    yes, no = _listed(yes), _listed(no)
    parts = [f"yes on {yes}" if yes else "shown on none", *([f"no on {no}"] if no else [])]
    some = " as a whole" * (verdict == claims.UNDECIDED)
    return f"{LEAD[verdict].rstrip('.')}{some}: {', '.join(parts)}."


def _onward(name, row, onward):
    """An encoder's name, and what became of its verdict on new seeds where it does not hold there."""
    became = onward.get((row.statement, name), ONWARD[HELD])
    return name if became == ONWARD[HELD] else f"{name} ({became})"


def _listed(names):
    """Names as text: "A, B and C"."""
    *rest, last = [*names] or [""]
    return f"{', '.join(rest)} and {last}" if rest else last


SEEDED = {claims.BY_NAME[name].statement for r in claims.REMEDIES if (r.changes or {}).get("start") == "seed"      # claims on SEED starts
          for name in (f"{r.name}_{measure}" for measure in ("helps", "gathers", "gathers_paper")) if name in claims.BY_NAME}
HELD, GONE, TURNED, NEW, OPEN = "holds", "undecided now", "the opposite now", "decided now", "undecided in both"
ONWARD = {HELD: "on new seeds too", GONE: "on new seeds undecided", TURNED: "on new seeds the reverse"}


def _fates(rows, profile):
    """{(statement, encoder): what became of that verdict on new seeds, in words}, as far as it was decided in one of the two."""
    decided = {MARK[verdict]: f"on new seeds {verdict}" for verdict in DECISIONS}
    return {(r.claim, r.encoder): ONWARD.get(r.became, decided[r.again[0]]) for r in repeated(rows, profile).itertuples()
            if r.became != OPEN}


def kept(both):
    """(how many verdicts of `repeated` hold, how many had been decided)."""
    return (both.became == HELD).sum(), both.became.isin([HELD, GONE, TURNED]).sum()


def repeated(rows, profile):
    """Verdicts on single encoders that have an interval both in a profile and in its repetition, whose seeds nobody had seen, a row each:
    the repetition, claim, encoder, verdict and effect first and again, and what became of it. rows: the ledger."""
    def keyed(some):
        return {row.claim: row for row in some[some.claim.str.contains("/", regex=False) & some.low.notna()].itertuples()}
    first, again, found = keyed(rows[rows.profile == profile]), keyed(repetition(rows, profile)), []
    for claim in [c for c in first if c in again]:
        before, after = first[claim], again[claim]
        decided = [row.verdict in (claims.SUPPORTED, claims.CONTRADICTED) for row in (before, after)]
        same = HELD if before.verdict == after.verdict else TURNED
        became = {(True, True): same, (True, False): GONE, (False, True): NEW, (False, False): OPEN}[*decided]
        name, _, arch = claim.partition("/")
        found.append([after.profile, claims.BY_NAME[name].statement, LABEL[arch],
                      *(f"{MARK[row.verdict]} {' '.join(claims.effect(row))}, n = {row.n}" for row in (before, after)), became])
    return pd.DataFrame(found, columns=["profile", "claim", "encoder", "first", "again", "became"])


def _of_longer(again, where="", seen=""):
    """What a repetition says of longer training, by rules of before it. again: the ledger's rows of the repetition; where: on what other
    images, seen: what seeds before it say, in words."""
    asked = {"longer_helps": f"Do twice the epochs help{where}?",
             "improved_no_teacher_beats_longer": f"Do the three remedies without a teacher gain more than twice the epochs do{where}?",
             "improved_beats_longer": f"Do the paper's four remedies gain more than twice the epochs do{where}?"}
    found = []
    for claim, question in asked.items():
        if each := _each(again, claim):
            lead = _by_verdict({v: [name for name, _ in _on(again, claim, v)] for v in DECISIONS})
            found.append((question, sentence(lead or "not tested"),
                          f"On {again.profile.iloc[0]}, by rules of before the runs, on seeds that nobody had seen, in linear accuracy: "
                          f"{each}.{seen if claim == 'longer_helps' else ''}"))
    return found


def _of_again(rows, profile):
    """What repetitions say, [(question, answer, why)]: those of other profiles of longer training, and all of the verdicts of before. rows:
    the ledger."""
    found = [each for _, kind, again in _elsewhere(rows, profile) for each in _of_longer(again, f" on {kind}")]
    for p, where in ((profile, ""), *((other, f" on {kind}") for other, kind, _ in _elsewhere(rows, profile))):
        both = repeated(rows, p)
        held, decided = kept(both)
        counts = [f"{held} of {decided} do{f' ({_kept_on(both)})' if both.encoder.nunique() > 1 else ''}"] if decided else []
        counts += [f"{n} {words}" for words in (GONE, TURNED) if (n := (both.became == words).sum())]
        counts += [f"{'beside them ' * bool(decided)}{n} decided only there"] if (n := (both.became == NEW).sum()) else []
        fates = {TURNED: "Turned into their opposite", GONE: "Undecided now", NEW: "Decided only there", HELD: "Held"}
        which = "".join(f" {words}: {'; '.join(f'{r.first[0]} → {r.again[0]} {r.claim} ({r.encoder})' for r in those.itertuples())}."
                        for became, words in fates.items() if len(those := both[both.became == became]))
        if counts:
            found.append((f"Do the verdicts{where} hold on new seeds?", f"{'; '.join(counts)}.",
                          f"Of the verdicts on single encoders that were repeated, on seeds of their own, {decided or 'none'} had been "
                          f"decided.{which} What holds is less likely to be luck of the seeds; the images are the same, and several "
                          "verdicts rest on the same runs." + (
                              " Arms with a start by SEED have another teacher there, too: what became of them may be its doing."
                              if both.claim.isin(SEEDED).any() else "")))
    return found


def _twice_as_long(t, arms):
    """[(encoder, gains of linear accuracy of the baseline for twice the epochs over that for once, {remedies together: theirs on top of
    that})], seed by seed."""
    together, found = {r.name: r.changes for r in claims.REMEDIES if r.name in claims.ARMS}, []
    for arch in arms.arch.unique():
        each = claims.arms_of_length(t, arms, arch)
        once, twice = each["once"], each["longer"]
        if len(gain := (twice.linear_test - once.linear_test).dropna()):
            found.append((arch, gain, {
                name: (claims.departing(t[t.arch == arch], twice, changes).set_index("seed").linear_test - twice.linear_test).dropna()
                for name, changes in together.items()}))
    return found


def sentence(words):
    return f"{words[0].upper()}{words[1:]}."


def _points(gains):
    """Mean gain in points, with its 95 % interval and the number of seeds."""
    mean, low, high = (round(100 * value, 1) + 0.0 for value in claims.interval(gains))     # + 0.0: never -0.0
    shown = f"{mean:+.1f}" + (f" [{low:+.1f}, {high:+.1f}], {len(gains)} seeds" if len(gains) > 1 else ", 1 seed")
    return shown.replace("-", "−")


# ---- the numbers of a profile, and what to bear in mind ----

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
    seen = observed(t[t.profile == profile])
    first = seen.iloc[0]
    return (f"{first.images_train:,.0f} training and {first.images_test:,.0f} held-out images of {first.classes:.0f} classes, "
            f"{seen.epochs.max():.0f} epochs. Percent on the held-out images, mean ± half the 95 % interval over seeds; chance is "
            f"{100 / first.classes:.1f} with equal classes, in the pretext task {100 / first.instances_test:.2f}. Supervised by the same "
            "recipe: linear probe, one seed, a lower bound of the ceiling. Paper: its linear probe on ImageNet after 200 epochs, another "
            "task.")


def headline(t, profile):
    """One row of text per encoder of a profile: seeds, accuracies in percent on held-out images, mean ± half the 95 % interval.

    Linear: probe on frozen h. Supervised: the same probe on the encoder trained with labels by the same recipe. Pretext:
    instance-discrimination top-1 (original against view). All on the baseline arm at full width. Paper: linear top-1 of its
    baseline on ImageNet, another task.
    """
    paper = pd.read_csv(runs.ROOT / "results" / "reference" / "paper_headline.csv").set_index("model").baseline_200_percent
    t = observed(t[(t.profile == profile) & (t.width == 1)])
    arms, rows = claims.baseline(t), []
    for arch in models.ENCODERS:
        own = t[t.arch == arch]
        if not len(own):
            continue
        before, after = own[own.epochs == 0], arms[arms.arch == arch]
        shown = before if arch == "pixels" else after
        labels = own[(own.method == "supervised") & (own.epochs > 0)]
        rows.append({"encoder": LABEL[arch], "seeds": str(len(after)) if len(after) else "",
                     "kNN untrained": percent(before.knn_test), "kNN trained": percent(after.knn_test),
                     "linear probe": percent(shown.linear_test), SUPERVISED: percent(labels.linear_test),
                     "pretext, train": percent(shown.instdisc_dsd_top1_train),
                     "pretext, held out": percent(shown.instdisc_dsd_top1_test),
                     "paper": f"{paper[arch]:.1f}" if arch in paper else ""})
    return pd.DataFrame(rows)


def protocol(t, profile):
    """How the numbers of `headline` came about, in words: {"Pretraining": ..., "Choices": ..., "Evaluation": ..., "Compute": ...}; {}
    without a baseline. t: the tidy table."""
    own = t[t.profile == profile]
    arms = claims.baseline(own).sort_values("arch", key=lambda a: a.map([*models.ENCODERS].index), kind="stable")
    if arms.empty:
        return {}
    c, first = studies.base(profile, arms.arch.iloc[0], arms.data.iloc[0]), arms.iloc[0]
    negatives = f"a queue of {c.queue:,}" + (" and the other keys of the batch" if c.batch_keys else "")
    rates = studies.search_note(profile, [studies.base(profile, a, first.data) for a in arms.arch.unique()]).replace("\n", "; ")
    trained, steps = own[own.epochs > 0], c.epochs * int(first.images_train // c.batch_size)
    precisions = "; ".join(f"{precision} on {_listed(LABEL[a] for a in part.arch.unique())}"
                           for precision, part in arms.groupby("precision", sort=False))
    return {
        "Pretraining": f"MoCo v2, {'both views' if c.symmetric else 'one view'} as query, {negatives} as negatives, temperature {c.tau:g}, "
                       f"momentum {c.m:g}, projector {c.projector} to {c.dim} dimensions, stem {c.stem}, BatchNorm in {c.bn_splits} "
                       f"group{'s' * (c.bn_splits > 1)}, {c.optimizer}, cosine schedule, batches of {c.batch_size}, {c.epochs} epochs: "
                       f"{steps:,} steps, {2 * steps * c.batch_size:,} views; {precisions}.",
        "Choices": f"{rates}; nothing on held-out images.",
        "Evaluation": "the last checkpoint's h of original images, from the query encoder, its BatchNorm statistics re-estimated on "
                      f"{probe.CALIBRATION:,} training images. kNN: cosine, k = {probe.KNN_K}, votes weighted by exp(s / {probe.KNN_T:g}). "
                      f"Linear probe: standardised h, {probe.PROBE_EPOCHS} epochs, its learning rate chosen on val. Pretext task: each of "
                      f"{first.instances_test:,.0f} held-out originals against one view of each.",
        "Compute": f"{trained.seconds.sum() / 3600:.1f} hours of training in {len(trained):,} run{'s' * (len(trained) != 1)} on "
                   f"{_listed(trained.device.unique())}; searches, starts and the last evaluation not counted."}


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
    return pd.read_csv(runs.ROOT / "results" / "reference" / "cifar10_anchors.csv")


def check_on_photographs(t):
    """Does ResNet-18 by the settings of the MoCo authors' CIFAR-10 notebook reach their kNN (`studies.anchors`)? The check of the whole
    pipeline, as a list of one sentence; none where the table holds no run on CIFAR-10."""
    if not len(t) or not t.data.isin(WITHIN).any():
        return []
    said, missed, lacking, theirs = [], False, [], published()
    theirs = theirs[theirs.source.str.startswith("MoCo authors") & (theirs.epochs == studies.profile("cifar10").long)]
    for known in theirs.itertuples():
        views, ours = f"{known.knn_percent:g} % with {'both views as queries' if known.query_views == 2 else 'one view as query'}", []
        for name, points in WITHIN.items():
            names = [runs.folder(c, "cifar10").name for c in studies.anchors("cifar10", name)
                     if (c.projector, 1 + c.symmetric) == ("linear", known.query_views)]
            for knn in t[(t.profile == "cifar10") & t.run.isin(names)].get("knn_projection_test", pd.Series(dtype=float)).dropna():
                near = round(100 * knn, 1) >= known.knn_percent - points
                missed |= not near
                ours.append(f"{100 * knn:.1f} % on {name}, {'no more' if near else 'more'} than {points} point{'s' * (points > 1)} below "
                            f"{views}")
        said += ours
        lacking += [] if ours else [views]
    said += [f"no run yet beside {' and '.join(lacking)}"] if lacking else []
    return ["The check of the whole pipeline on photographs, ResNet-18 by the settings of the MoCo authors' CIFAR-10 notebook against "
            f"their kNN: {'; '.join(said)}." + (" It is not passed, so numbers on photographs are provisional." if missed else
                                                " It is outstanding: until it is passed, numbers on photographs are provisional."
                                                if lacking else "")]


def bear_in_mind(t, rows, profiles, mine=""):
    """What a reader of the verdicts must know, as sentences. mine: the profile whose missing runs are the reader's own affair."""
    told = [[*(pending(t, p) if p != mine else []), *caveats.power(rows[rows.profile == p]), *caveats.told(t, p),
             *caveats.of_mixing(rows[rows.profile == p])] for p in profiles]
    return [*(sentence for some in told for sentence in some), *check_on_photographs(t)]


def by_profile(sentences):
    """[(profile, its sentences)]: neighbours that begin with "On PROFILE, " together, without these words; under "" any other."""
    found = []
    for sentence in sentences:
        where, words = re.fullmatch(rf"(?:On ({'|'.join(studies.PROFILES)}), )?(.*)", sentence, re.DOTALL).groups("")
        if not found or found[-1][0] != where:
            found.append((where, []))
        found[-1][1].append(words[:1].upper() + words[1:])
    return found
