"""What to bear in mind: that each sentence is there where its numbers call for it, and nowhere else."""
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import homogeneity_completeness_v_measure
from test_claims import TRAINED, A, with_remedies, world

from lib import caveats, claims, models
from lib.claims import SUPPORTED


def test_chance_is_taken_from_purity_and_in_proportion_from_completeness():
    """Clusters dealt half at random, of few images and of so many that chance gives nothing."""
    def dealt(n):
        rng, labels = np.random.default_rng(0), np.arange(n) % 12
        clusters = np.where(rng.random(n) < 0.5, labels * 16 + rng.integers(0, 16, n), rng.integers(0, 192, n))
        return homogeneity_completeness_v_measure(labels, clusters)[:2]
    (h, c), (pure, whole) = dealt(4800), dealt(2_400_000)
    [row] = caveats.without_chance(pd.DataFrame([{"classes": 12, "images_test": 4800, "homogeneity_k192": h,
                                                 "completeness_k192": c}])).itertuples()
    assert h - pure > 0.05 and c - whole > 0.025
    assert row.homogeneity_k192 == pytest.approx(pure, abs=0.03) and row.completeness_k192 == pytest.approx(whole, abs=0.015)


def level():
    """The world with the same linear accuracy for each seed of an encoder, so that nothing goes with it."""
    table = world().assign(arm="trained", knn_test=0.5)
    return table.assign(linear_test=table.groupby(["arch", "epochs"]).linear_test.transform("mean").round(6))


def test_caveats_are_told_from_the_numbers():
    table = level()
    assert all(caveats.told(t, "made") == [] for t in (table, table[:0], table.drop(columns="knn_test")))
    weak = table.assign(knn_test=table.knn_test.where(table.arch != "resnet50", 0.1))
    assert "large reference is not the best: ResNet-50 has a kNN accuracy of 10.0%" in caveats.told(weak, "made")[0]
    torn = table.assign(instdisc_dsd_top5_test=0.5, instdisc_sdsd_top1_test=0.4, instdisc_sdsd_top5_test=0.3)
    torn.loc[(torn.arch == A) & (torn.epochs > 0), ["instdisc_dsd_top5_test", "instdisc_sdsd_top1_test"]] = [0.45, 0.42]
    raw = torn[torn.epochs == 0].head(1).assign(arch="pixels", instdisc_dsd_top1_test=1.0, instdisc_sdsd_top1_test=0.2)
    found = caveats.told(pd.concat([torn, raw]), "made")
    assert "raw pixels find the view" in found[0]
    assert "encoder: 100.0%, the best encoder 69.7%. From view to view they do so 20.0% of the time, the best encoder 42.0%. So" in found[0]
    higher = caveats.told(pd.concat([torn, raw.assign(instdisc_sdsd_top1_test=0.5)]), "made")[0]
    assert higher.endswith("42.0%. Neither says much about observation (i), whose verdicts rest on the former.")
    assert "depends on the measure" in found[1] and "MobileNetV3-Small +39.7, −5.0, +2.0, +0.0. The first" in found[1]
    tinted = torn[torn.epochs == 0].assign(data="textures:tint=0.5", instdisc_dsd_top5_test=0.0, instdisc_dsd_top1_test=0.9)
    *same, hue = caveats.told(pd.concat([torn, raw, tinted]), "made")
    assert same == found and caveats.told(pd.concat([table, tinted]), "made") == [hue]
    assert "\"Stronger augmentation helps small models\" is judged on textures:tint=0.5" in hue
    assert hue.endswith("Learning rates were chosen without it.")
    together = with_remedies().assign(knn_test=0.5)
    assert any("tried on textures itself, where this one has next to nothing to act on: it is one" in text
               for text in caveats.told(together, "made", ["augmentation_helps"]))
    small = table.assign(images_train=4992)[table.arch.isin([A, "resnet18"]) & ((table.arch == A) | (table.seed == 0))]
    assert caveats.told(small, "made") == [
        "On made, no runs of DeiT-Ti, EfficientNet-B0, MobileNetV3-Large, ResNet-50: it says nothing of all five encoders nor of small "
        "against large; ResNet-18: one seed, so no interval. 4,992 images, 10 epochs: what needs more of either cannot show."]
    curves = [c for c in table if c.startswith("homogeneity")]
    table.loc[table.run == f"{A}-w1.0-10ep-seed0", curves] = 0.01
    table.loc[table.run.isin([f"{A}-w1.0-10ep-seed1", "deit_tiny-w1.0-10ep-seed2"]), curves] = 0.9
    assert caveats.told(table, "made") == [
        "On made, clusters are compared at equal purity, a homogeneity of 0.68, through which every run's curve would have to "
        "pass. Those that do not are never so pure (1 of 3 runs of MobileNetV3-Small); always purer (1 of 3 runs of DeiT-Ti, 1 of 3 "
        "runs of MobileNetV3-Small)."]
    table.loc[table.run == "resnet18-w1.0-10ep-seed0", curves] = 0.01
    assert caveats.told(table, "made")[0].endswith("\"Smaller models over-cluster because they are small\" can no longer be decided.")
    table.loc[table.run == "resnet50-w1.0-10ep-seed0", curves] = 0.01
    said = "ResNet-50 itself, \"Small models over-cluster: their clusters are pure but split the classes\" can be contradicted, by local"
    assert said in caveats.told(table, "made")[0]


def test_a_caveat_tells_where_chance_is_much_of_the_purity_compared_at_and_which_verdicts_it_changes():
    made = with_remedies().assign(knn_test=0.5, arm="trained")
    made.loc[made.epochs == 0, "arm"] = "untrained"
    homogeneity = [c for c in made if c.startswith("homogeneity")]

    def told(t, names=("temperature_gathers",)):
        return [text for text in caveats.told(t, "made", names) if "corrected for chance" in text]
    impure = made.assign(**{c: made[c] - 0.4 for c in homogeneity})
    assert told(made) == [] and told(impure, ["temperature_helps", "pretext_learned"]) == []
    [same] = told(impure)
    assert "a purity of 0.010 with 2 clusters a class and of 0.097 with 16, and the purity compared at is 0.28. Who" in same
    assert same.endswith("taken away no verdict on an encoder differs.")
    arm, lucky = impure.run.str.endswith("-temperature") & (impure.arch == A), impure.copy()
    for k, pure, whole in ((12, 0.20, 0.60), (24, 0.24, 0.58), (48, 0.26, 0.57), (96, 0.28, 0.56), (192, 0.30, 0.555)):
        lucky.loc[arm, [f"homogeneity_k{k}", f"completeness_k{k}"]] = [pure, whole]
    assert told(lucky)[0].endswith("taken away these verdicts on single encoders differ: A lower temperature relieves over-clustering of "
                                   "small models (completeness at equal purity rises), MobileNetV3-Small: undecided, not supported.")
    other = made.assign(**{c: made[c] - 0.4 * (made.arch == "deit_tiny") for c in homogeneity})      # not tried with a lower temperature
    assert told(other) == [] and len(told(other, ["improved_gathers"])) == 1
    coarse = impure.drop(columns=["homogeneity_k192", "completeness_k192"])
    assert told(coarse) == []                                               # with 8 clusters a class chance gives half of that


@pytest.mark.parametrize("name, measure, images", [("pretext_learned", "instdisc_dsd_top1_test", "instances_test"),
                                                   ("temperature_helps", "linear_test", "images_test")])
def test_a_caveat_names_the_verdicts_on_accuracies_that_the_images_error_would_leave_undecided(name, measure, images):
    made = with_remedies().assign(knn_test=0.5)
    mine = made.arch == A
    baseline, untrained = (made.run.str.fullmatch(f"{A}-w1.0-{epochs}ep-seed.") for epochs in (10, 0))
    before, after = (untrained, baseline) if name == "pretext_learned" else (baseline, mine & made.run.str.endswith("-temperature"))
    for gain, few in ((0.02, True), (0.30, False)):
        t = made.sort_values("seed")
        t.loc[before, measure], t.loc[after, measure] = [0.401, 0.400, 0.399], [0.401 + gain, 0.402 + gain, 0.399 + gain]
        t[images] = 500                                                     # half the interval: 0.06
        row = next(claims.ledger(t, "made").query(f"claim == '{name}/{A}'").itertuples())
        assert row.verdict == SUPPORTED
        found = [text for text in caveats.told(t, "made", [name]) if "images' error" in text]
        assert ([text.count(f"{row.statement} (MobileNetV3-Small)") for text in found] == [1]) == few
        half = stats.norm.ppf(0.975) * np.sqrt(sum(p * (1 - p) for p in (0.4, 0.4007 + gain)) / 500)
        assert (row.effect - np.hypot(half, row.effect - row.low) < 0) == few


def test_a_caveat_names_who_is_below_raw_pixels_and_whom_the_measures_mistake():
    table = level()
    raw = table[table.epochs == 0].head(1).assign(arch="pixels", knn_test=0.4, linear_test=0.2, instdisc_dsd_top1_test=0.1)
    assert caveats.told(pd.concat([table, raw]), "made") == []
    trained = (table.arch == A) & (table.epochs > 0)
    worse = table.assign(knn_test=table.knn_test.where(~trained, 0.3), linear_test=table.linear_test.where(~trained, 0.1))
    assert caveats.told(pd.concat([worse, raw]), "made", ["pretext_learned"]) == [
        "On made, raw pixels do better than trained encoders: kNN 40.0% against MobileNetV3-Small 30.0%; linear probe 20.0% against "
        "MobileNetV3-Small 10.0%. What is said of these encoders, and of remedies on them, is said below that floor."]
    better = (table.arch == "deit_tiny") & (table.epochs > 0)
    table.loc[table.arch == "resnet50", ["linear_test", "uniformity_d_test", "intra_class_d_test"]] = [0.4, -2.0, 0.5]
    table = table.assign(intra_class_d_test_centred=1.0, uniformity_d_test_centred=-1.0)             # these go with nothing
    apart = table.assign(linear_test=table.linear_test.mask(better, 0.99), uniformity_d_test=table.uniformity_d_test.mask(better, -3.9),
                         intra_class_d_test=table.intra_class_d_test.mask(better, 1.9))
    found = caveats.told(apart, "made", ["over_clustered_paper"])
    assert len(found) == 1 and "the better encoders or runs are so by both" in found[0]
    assert "with linear accuracy: raw features, over the means of 6 encoders: +0.9" in found[0] and " and −0.9" in found[0]
    assert "nan" not in found[0] and "18 runs" not in found[0]                # about its mean each encoder is the same here
    scattered = apart.assign(linear_test=apart.linear_test + 0.001 * apart.seed, uniformity_d_test=apart.uniformity_d_test
                             + 0.001 * (apart.seed == 1), intra_class_d_test=apart.intra_class_d_test + 0.001 * (apart.seed == 2))
    assert "; raw features, over 18 runs about the mean of their encoder: +" in caveats.told(scattered, "made", ["over_clustered_paper"])[0]
    paper = pd.read_csv(caveats.REFERENCE / "paper_over_clustering.csv").set_index("recipe").loc["baseline"]
    wanted = (np.corrcoef(paper[c], paper.linear_percent)[0, 1] for c in ("intra_class", "uniformity"))
    assert found[0].endswith("numbers, over 6 encoders: {:+.2f} and {:+.2f}.".format(*wanted).replace("-", "−"))
    for column, low in (("intra_class_d_test", 0.1), ("uniformity_d_test", -1.0)):                     # one of the two is no pair
        assert caveats.told(apart.assign(**{column: apart[column].mask(better, low)}), "made", ["over_clustered_paper"]) == []


def test_a_correlation_and_its_interval_are_scipys():
    x, y = np.random.default_rng(0).normal(size=(2, 9))
    found = stats.pearsonr(x, y)
    assert caveats._correlation(x, y, 9) == pytest.approx((found.statistic, *found.confidence_interval(0.95)))
    assert np.isnan(caveats._correlation(x[:3], y[:3], 3)[1:]).all() and np.isnan(caveats._correlation(x, y * 0, 9)).all()
    assert caveats._correlation(x, y, 5)[1] < caveats._correlation(x, y, 9)[1]     # fewer that are independent


def test_how_many_intervals_exclude_0_by_chance_and_after_a_correction_for_their_number():
    def row(claim, values):
        effect, low, high = claims.interval(values)
        return {"claim": claim, "effect": effect, "low": low, "high": high, "n": len(values), "test": "", "data": "textures", "purer": 0.25,
                "verdict": claims.above(low, high)}
    sure, chance = [0.10, 0.1001, 0.0999, 0.1], [0.02, 0.03, 0.005, 0.03]
    null = [row(f"{r.name}_helps/{arch}", [0.1, -0.1, 0.05, -0.06]) for r in claims.REMEDIES[:5] for arch in ("resnet18", A)]
    nothing = "Of 10 intervals of remedies on single encoders none excludes 0, where about 0.5 would by chance alone."
    assert caveats.by_chance(pd.DataFrame(null)) == nothing
    assert caveats.by_chance(pd.DataFrame([row("no_overfitting/resnet18", sure)])) == ""
    assert caveats.by_chance(pd.DataFrame([*null, row("temperature_gathers/deit_tiny", sure)])) == nothing         # not judged on it
    few = pd.DataFrame([*null, row("temperature_gathers/resnet18", chance)])
    assert stats.ttest_1samp(chance, 0).pvalue < 0.05
    assert "Of 11 intervals of remedies on single encoders 1 excludes 0, where about 0.6 would" in caveats.by_chance(few)
    assert "none of them stands after" in caveats.by_chance(few)
    kept = caveats.by_chance(pd.concat([few, pd.DataFrame([row("temperature_gathers/" + A, sure)])]))
    assert "5 %): supported, A lower temperature" in kept
    assert "; 1 of them stands after" in kept and kept.endswith("relieves over-clustering of small models "
        "(completeness at equal purity rises) (MobileNetV3-Small +10.0 points; "
        "classes are mixed less (local purity +25 points), which may be all of it).")


def test_a_caveat_tells_where_a_remedy_has_no_room_and_whom_the_teacher_cannot_teach():
    table = level()
    ceiling = table[(table.epochs > 0) & (table.seed == 0) & (table.arch == A)].assign(method="supervised", arm="supervised",
                                                                                       linear_test=TRAINED["small"]["linear_test"] + 0.01)
    both = pd.concat([table, ceiling])
    shown = table[(table.arch == A) & (table.epochs > 0)].linear_test.mean()
    assert (f"within 2 points of the same encoder trained with labels (linear probe: {models.ENCODERS[A].label} {shown:.1%}, with labels "
            f"{ceiling.linear_test.mean():.1%}): whatever") in caveats.told(both, "made", ["projector_helps"])[0]
    assert caveats.told(both.assign(linear_test=both.linear_test.where(both.method != "supervised", 0.99)), "made") == []
    assert caveats.told(both, "made", claims.OBSERVATIONS) == []         # a notebook hears of what it shows
    weak = table.assign(linear_test=table.linear_test.mask((table.arch == "resnet50") & (table.epochs > 0) & (table.seed == 0), 0.5))
    assert caveats.told(weak, "made", ["initialization_helps"]) == []    # nobody has it as a teacher
    weak = pd.concat([weak, weak[(weak.arch == A) & (weak.epochs > 0)].assign(start="seed")])
    assert "SEED's teacher (ResNet-50, seed 0: linear probe 50.0%) is worse" in caveats.told(weak, "made", ["initialization_helps"])[0]
    again = caveats.told(weak.assign(seed=weak.seed + 5), "made", ["initialization_helps"])
    assert "SEED's teacher (ResNet-50, seed 5: linear probe 50.0%) is worse" in again[0]
    assert again[1].startswith("On made, SEED's teacher is ResNet-50 of seed 5; the rules, written before, name its seed 0. Arms with a")
    assert caveats.told(weak, "made", ["initialization_no_teacher_helps"]) == []
    raw = weak[weak.epochs == 0].iloc[[0]].assign(arch="pixels", knn_test=0.1, linear_test=0.97, instdisc_dsd_top1_test=0.0)
    [floor, worse, teacher] = caveats.limits(pd.concat([weak.assign(seed=weak.seed + 5), raw]), "made")   # each is a caveat, too
    assert worse == again[0] and caveats.limits(pd.concat([weak.assign(seed=weak.seed + 5), raw]), "made", repeats=True) == [teacher]
    assert floor.startswith("On made, raw pixels do better than trained encoders: linear probe 97.0% against ") and teacher == again[1]
    assert {floor, teacher} <= {*caveats.told(pd.concat([weak.assign(seed=weak.seed + 5), raw]), "made")}
    assert caveats.limits(table, "made") == caveats.limits(weak, "none") == caveats.limits(weak[weak.epochs == 0], "made") == []


def test_it_is_said_where_completeness_of_the_remedies_goes_with_local_purity():
    names = [f"{r.name}_{{}}/{arch}" for r in claims.REMEDIES[:4] for arch in ("resnet18", A)]
    gain, purer, linear = np.random.default_rng(0).normal(size=(3, 8))
    def rows(purer):
        return pd.DataFrame([{"claim": name.format(m), "profile": "made", "effect": e, "purer": p} for name, g, p, h in
                             zip(names, gain, purer, linear) for m, e, p in (("gathers", g, p), ("helps", h, np.nan))])
    same = gain + 0.3 * purer
    assert caveats.of_mixing(rows(-same)) == caveats.of_mixing(rows(same)[:10]) == caveats.of_mixing(rows(same)[:0]) == []
    (told,) = caveats.of_mixing(rows(same))
    wanted = (f"{np.corrcoef(gain, other)[0, 1]:+.2f}".replace("-", "−") for other in (same, linear))
    assert "over 8 pairs of an arm" in told and "local purity (correlation {}) and of linear accuracy ({})".format(*wanted) in told


def test_from_what_gain_the_seeds_could_have_shown_the_remedies():
    row = {"profile": "made", "effect": 0.0, "n": 5}
    rows = pd.DataFrame([row | {"claim": f"improved_helps/{arch}", "low": -half, "high": half}
                         for arch, half in ((A, 0.10), ("resnet18", 0.01), ("resnet50", 0.3), ("deit_tiny", np.nan))])
    least = [half * (1 + stats.t.ppf(0.8, 4) / stats.t.ppf(0.975, 4)) for half in (10, 1)]
    [told] = caveats.power(rows)
    assert "by the paper's four remedies would be shown" in told
    assert "from {:.1f} points on MobileNetV3-Small, {:.1f} points on ResNet-18. On the other".format(*least) in told
    assert "in 5% of claims on 2 encoders, 10% where" in told
    alone = rows[1:2].assign(claim="improved_no_teacher_helps/resnet18")
    assert "by the paper's three remedies without a teacher would" in caveats.power(alone)[0] and "1 encoder, 5%" in caveats.power(alone)[0]
    draws = np.random.default_rng(0).normal(least[0], 10 * np.sqrt(5) / stats.t.ppf(0.975, 4), size=(4000, 5))
    low = draws.mean(1) - stats.t.ppf(0.975, 4) * draws.std(1, ddof=1) / np.sqrt(5)
    assert 0.7 < (low > 0).mean() < 0.9                                    # four times in five, about
    assert caveats.power(rows[2:]) == caveats.power(rows[:0]) == []
