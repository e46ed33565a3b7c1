import dataclasses
import json
import math
import re
import subprocess
import sys
import types

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from lib import claims, metrics, models, runs, studies
from lib.claims import CONTRADICTED, NOT_TESTED, SUPPORTED, UNDECIDED
from lib.train import PretrainConfig

ALL = [claim.name for claim in claims.CLAIMS]
REMEDY = {f"{r.name}_{measure}": r for r in claims.REMEDIES for measure in ("helps", "gathers", "gathers_paper")}
ENCODERS_OF = {name: REMEDY[name].encoders if name in REMEDY else claims.REMEDIED if name in claims.LENGTH else models.SMALL
               for name in ALL if name != "size_not_architecture"}
SEEDS, WIDTHS = 3, (0.25, 0.5, 1.0, 2.0)
NOISE = np.array([-1.0, 0.0, 1.0])


# --- made-up tables: a world in which every claim holds, and how to change it -----------------------------------------

TRAINED = dict(  # encoder -> mean over seeds; `over` holds what a small encoder has beside the reference
    small=dict(instdisc_dsd_top1_train=0.500, instdisc_dsd_top1_test=0.497, knn_val=0.70, linear_test=0.75, intra_class_d_test=1.2,
               uniformity_d_test=-3.3, intra_class_d_test_centred=1.3, uniformity_d_test_centred=-3.4, completeness=0.45, purity=0.60),
    large=dict(instdisc_dsd_top1_train=0.700, instdisc_dsd_top1_test=0.697, knn_val=0.80, linear_test=0.85, intra_class_d_test=0.9,
               uniformity_d_test=-2.8, intra_class_d_test_centred=1.0, uniformity_d_test_centred=-3.0, completeness=0.60, purity=0.60))
UNTRAINED = dict(TRAINED["small"], instdisc_dsd_top1_train=0.10, instdisc_dsd_top1_test=0.10, knn_val=0.30, completeness=0.2, purity=0.2)


def row(arch, seed, epochs, width, values, jitter):
    """A run of the tidy table. k-means curves: purity rises with k and completeness falls, from (purity, completeness) at k = C."""
    config = studies.TEXTURES.__dict__ | {"arch": arch, "seed": seed, "epochs": epochs, "all_epochs": epochs, "width": width}
    values = dict(values)
    completeness, purity = values.pop("completeness"), values.pop("purity")
    curve = {}
    for step, k in enumerate((12, 24, 48, 96, 192)):
        curve |= {f"homogeneity_k{k}": purity + 0.08 * step + 0.001 * jitter,
                  f"completeness_k{k}": completeness - 0.05 * step + 0.004 * jitter}
    metrics = {name: value + 0.001 * jitter for name, value in values.items()}
    return {"profile": "made", "run": f"{arch}-w{width}-{epochs}ep-seed{seed}", "definition": 1, **config, "classes": 12,
            "instances_train": 5000, "instances_test": 5000, "images_test": 5000, **metrics, **curve}


def remedies(n=SEEDS, **changes):
    """The runs of every remedy: linear accuracy and completeness gain, intra-class distance shrinks; linear=...: otherwise."""
    rows = []
    for i, remedy in enumerate(claims.REMEDIES):
        same = [other for other in claims.REMEDIES[:i] if remedy.changes and other.changes == remedy.changes]    # our recipe may be one
        for arch in [arch for arch in remedy.encoders if not any(arch in other.encoders for other in same)]:
            for seed in range(n):
                values = TRAINED["small"] | {"linear_test": 0.78, "completeness": 0.50, "intra_class_d_test": 1.1} | changes
                data = {"data": remedy.elsewhere.get("textures", "textures")}
                departs = remedy.changes or {"queue": 64}
                arm = row(arch, seed, 10, 1.0, values, NOISE[(seed + 1) % 3]) | {"start": "random"} | data | departs
                rows.append(arm | {"run": f"{arm['run']}-{remedy.name}"})
    return pd.DataFrame(rows)


def world(n=SEEDS, **changes):
    """changes: arch -> {metric: value} of its trained runs; `untrained`: of every untrained one; "width 2.0": of ResNet-18's there."""
    rows = []
    for arch in (*models.SMALL, models.LARGE):
        trained = TRAINED["large" if arch == models.LARGE else "small"] | changes.get(arch, {})
        for seed in range(n):
            rows.append(row(arch, seed, 10, 1.0, trained, NOISE[seed % 3]))
            rows.append(row(arch, seed, 0, 1.0, UNTRAINED | changes.get("untrained", {}), NOISE[(seed + 1) % 3]))
    slope = changes.get("slope", 0.05)
    for width in WIDTHS:
        if width != 1.0:
            values = TRAINED["small"] | {"completeness": 0.45 + slope * math.log2(width)} | changes.get(f"width {width}", {})
            rows += [row("resnet18", seed, 10, width, values, NOISE[seed % 3]) for seed in range(n)]
            rows += [row("resnet18", seed, 0, width, UNTRAINED, NOISE[(seed + 1) % 3]) for seed in range(n)]
    return pd.DataFrame(rows)


def verdicts(table):
    ledger = claims.ledger(table, "made")
    return dict(zip(ledger.claim, ledger.verdict, strict=True))


def verdict(name, arch="mobilenet_v3_small", **changes):
    """Verdicts of the claim for one encoder and for all, after a change to that encoder's trained runs."""
    found = verdicts(world(**changes))
    return found[f"{name}/{arch}"], found[name]


# --- statistics -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_the_interval_is_the_t_interval(n):
    values = np.random.default_rng(n).normal(1, 2, n)
    mean, low, high = claims.interval(values)
    expected = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert (low, high) == pytest.approx(expected) and mean == pytest.approx(values.mean())


def test_one_seed_has_no_interval_and_decides_nothing():
    mean, low, high = claims.interval([0.4])
    assert mean == 0.4 and math.isnan(low) and math.isnan(high)
    assert claims.above(low, high) == claims.within(low, high) == UNDECIDED


def test_a_true_mean_is_covered_as_often_as_the_interval_says():
    draws = np.random.default_rng(0).normal(0.2, 0.1, (2000, 3))
    covered = [low < 0.2 < high for _, low, high in map(claims.interval, draws)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_detectable_is_the_effect_found_four_times_in_five():
    """Approximate (the central t): simulated at n = 5 the power is 0.8 within a few points."""
    generator = np.random.default_rng(0)
    effect = claims.detectable(stats.t.ppf(0.975, 4) / math.sqrt(5), 4)        # the half-width where the deviation is 1
    found = [claims.interval(generator.normal(effect, 1, 5))[1] > 0 for _ in range(3000)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.06)
    assert effect == pytest.approx((stats.t.ppf(0.975, 4) + stats.t.ppf(0.8, 4)) / math.sqrt(5))
    assert claims.detectable(2, 4) == pytest.approx(2 * claims.detectable(1, 4)) and math.isnan(claims.detectable(1, math.nan))
    assert claims.detectable(1, math.inf) == pytest.approx(1 + stats.norm.ppf(0.8) / stats.norm.ppf(0.975))


def test_a_smallest_effect_is_given_with_the_rows_own_degrees_of_freedom_and_never_where_closeness_is_the_claim():
    rows = claims.ledger(world(resnet18={"purity": 0.565}), "made").set_index("claim", drop=False)
    freedom = {row.claim: claims.freedom(row) for row in rows.itertuples()}
    assert freedom["pretext_learned/resnet18"] == SEEDS - 1 and freedom["size_not_architecture"] == len(WIDTHS) * SEEDS - 2
    assert freedom["over_clustered_paper/resnet18"] == freedom["over_clustered/deit_tiny"] == math.inf
    assert math.isnan(freedom["no_overfitting"]) and math.isnan(freedom["no_overfitting/resnet18"])
    assert rows.test["over_clustered/resnet18"].endswith("Shown: homogeneity") and math.isnan(freedom["over_clustered/resnet18"])
    one = claims.ledger(world(n=1), "made")
    assert all(math.isnan(claims.freedom(row)) for row in one.itertuples() if row.claim != "size_not_architecture")


def test_welch_is_scipys_and_keeps_the_sign():
    a, b = np.random.default_rng(0).normal(1, 1, 5), np.random.default_rng(1).normal(0, 3, 3)
    effect, low, high = claims.welch(a, b)
    assert effect == pytest.approx(a.mean() - b.mean()) and low < effect < high
    variance = a.var(ddof=1) / 5, b.var(ddof=1) / 3
    freedom = sum(variance) ** 2 / (variance[0] ** 2 / 4 + variance[1] ** 2 / 2)
    assert high - effect == pytest.approx(stats.t.ppf(0.975, freedom) * math.sqrt(sum(variance)))
    assert claims.welch(b, a)[0] == pytest.approx(-effect)
    assert math.isnan(claims.welch(a, b[:1])[1])


@pytest.mark.parametrize("low, high, expected", [(0.01, 0.2, SUPPORTED), (-0.2, -0.01, CONTRADICTED), (-0.1, 0.1, UNDECIDED),
                                                 (0.0, 0.1, UNDECIDED), (math.nan, math.nan, UNDECIDED)])
def test_above_reads_the_whole_interval(low, high, expected):
    assert claims.above(low, high) == expected
    assert claims.above(low + 5, high + 5, bar=5) == expected


@pytest.mark.parametrize("low, high, expected", [
    (-0.02, 0.02, SUPPORTED), (0.01, 0.029, SUPPORTED), (-0.04, 0.01, UNDECIDED), (0.02, 0.05, UNDECIDED), (-0.1, 0.1, UNDECIDED),
    (0.031, 0.05, CONTRADICTED), (-0.05, -0.031, CONTRADICTED), (-0.02, 0.03, UNDECIDED), (math.nan, math.nan, UNDECIDED)])
def test_within_is_two_one_sided_tests(low, high, expected):
    assert claims.within(low, high) == expected


S, C, U, N = SUPPORTED, CONTRADICTED, UNDECIDED, NOT_TESTED


@pytest.mark.parametrize("parts, expected", [
    ([S], S), ([S, S, S], S), ([S, U], U), ([U], U), ([U, U], U), ([S, S, C], C), ([C], C), ([U, C], C), ([], N), ([N], N), ([S, N], N),
    ([U, N], N), ([C, N], C), ([N, S, C, U], C)])
def test_together_needs_every_encoder_and_one_contradiction_refutes(parts, expected):
    assert claims.together(parts) == claims.together(iter(parts)) == claims.together(parts[::-1]) == expected


# --- equivalence ------------------------------------------------------------------------------------------------------

def test_equivalence_in_closed_form():
    """Three seeds, differences 1, 2 and 3 points; the images' noise is p(1 - p)/N on each side."""
    train, test = np.array([0.51, 0.52, 0.53]), np.array([0.50, 0.50, 0.50])
    effect, low, high, verdict = claims.equivalence(train, test, 5000)
    seeds, images = stats.t.ppf(0.975, 2) * 0.01 / math.sqrt(3), stats.norm.ppf(0.975) * math.sqrt((0.52 * 0.48 + 0.5 * 0.5) / 5000)
    assert effect == pytest.approx(0.02)
    assert (low, high) == pytest.approx((0.02 - math.hypot(seeds, images), 0.02 + math.hypot(seeds, images)))
    assert verdict == UNDECIDED


def test_three_seeds_can_support_equivalence_wherever_the_accuracy_lies():
    """Were the images' noise multiplied by t(2) = 4.3, no three seeds could: 4.3 points at 35 %, beyond the margin."""
    for accuracy in (0.05, 0.35, 0.5, 0.9):
        same = accuracy + np.array([-0.001, 0.0, 0.001])
        assert claims.equivalence(same, same, 5000)[3] == SUPPORTED


@pytest.mark.parametrize("images", [256, 5000])
def test_an_overfitted_encoder_fails_the_equivalence_test(images):
    assert claims.equivalence([0.90, 0.91, 0.92], [0.40, 0.41, 0.39], images)[3] == CONTRADICTED
    assert claims.equivalence([0.40, 0.41, 0.39], [0.90, 0.91, 0.92], images)[3] == CONTRADICTED       # nor the other way round


def test_an_encoder_trained_on_many_images_passes_and_few_images_leave_it_open():
    train, test = [0.502, 0.504, 0.500, 0.503, 0.501], [0.501, 0.502, 0.500, 0.502, 0.500]
    assert claims.equivalence(train, test, 5000)[3] == SUPPORTED
    assert claims.equivalence(train, test, 256)[3] == UNDECIDED


def test_the_verdict_turns_when_the_difference_crosses_the_margin():
    test = np.array([0.100, 0.101, 0.099, 0.100, 0.100])
    found = [claims.equivalence(test + gap, test, 5000)[3] for gap in (0.0, 0.005, 0.03, 0.06, 0.1)]
    assert found == [SUPPORTED, SUPPORTED, UNDECIDED, CONTRADICTED, CONTRADICTED]


def test_a_task_that_everybody_solves_decides_nothing():
    assert claims.equivalence([0.995, 0.994, 0.996], [0.994, 0.995, 0.996], 5000)[3] == UNDECIDED
    assert claims.equivalence([0.975, 0.974, 0.976], [0.974, 0.975, 0.976], 5000)[3] == SUPPORTED
    assert claims.equivalence([0.999, 0.999, 0.999], [0.900, 0.901, 0.899], 5000)[3] == CONTRADICTED    # one side only


# --- completeness at equal purity -------------------------------------------------------------------------------------

def test_completeness_is_interpolated_along_the_curve_and_unknown_beyond_its_ends():
    curve = pd.DataFrame([{"classes": 12, "homogeneity_k12": 0.4, "completeness_k12": 0.5, "homogeneity_k24": 0.6,
                           "completeness_k24": 0.3, "homogeneity_k48": 0.8, "completeness_k48": 0.2}])
    for purity, expected in [(0.4, 0.5), (0.5, 0.4), (0.6, 0.3), (0.7, 0.25), (0.8, 0.2), (0.1, math.nan), (0.99, math.nan)]:
        assert claims.completeness_at(curve, purity) == pytest.approx([expected], nan_ok=True)
    other = curve.assign(completeness_k12=0.7)
    assert claims.completeness_at(pd.concat([curve, other]), 0.5) == pytest.approx([0.4, 0.5])
    finer = pd.concat([curve, other.assign(homogeneity_k96=0.9, completeness_k96=0.1)])              # the first lacks k = 96
    assert claims.completeness_at(finer, 0.9) == pytest.approx([math.nan, 0.1], nan_ok=True)


def test_where_a_curve_reaches_a_purity_twice_the_fewest_clusters_count():
    curve = pd.DataFrame([{"classes": 12, "homogeneity_k12": 1 - 1e-15, "completeness_k12": 0.9, "homogeneity_k24": 1.0,
                           "completeness_k24": 0.6, "homogeneity_k48": 1.0, "completeness_k48": 0.5}])
    assert claims.completeness_at(curve, 1.0) == pytest.approx([0.9])
    dented = curve.assign(homogeneity_k12=0.5, homogeneity_k24=0.8, homogeneity_k48=0.7, homogeneity_k96=0.9, completeness_k96=0.1)
    assert claims.completeness_at(dented, 0.75) == pytest.approx([0.65])


def test_the_purity_compared_at_is_the_references_mean_with_two_clusters_a_class():
    large = world().query("arch == 'resnet50' and epochs > 0")
    assert claims.matched_purity(large) == pytest.approx(0.68) == large.homogeneity_k24.mean()
    assert math.isnan(claims.matched_purity(large.iloc[:0])) and math.isnan(claims.matched_purity(large.drop(columns="homogeneity_k24")))


# --- every claim, every verdict ---------------------------------------------------------------------------------------

def test_in_the_made_up_world_every_claim_is_supported():
    found = verdicts(repeated())
    assert found == dict.fromkeys([*ALL, *(f"{name}/{arch}" for name, archs in ENCODERS_OF.items() for arch in archs)], SUPPORTED)


def test_without_runs_nothing_is_tested():
    for table in (pd.DataFrame(), world().assign(profile="other")):
        ledger = claims.ledger(table, "made")
        assert set(ledger.verdict) == {NOT_TESTED} and set(ALL) <= set(ledger.claim) and (ledger.n == 0).all()
        assert ledger.effect.isna().all()


@pytest.mark.parametrize("missing", ["trained", "untrained"])
def test_a_claim_about_all_five_is_not_tested_while_one_encoder_is_missing(missing):
    table = world()
    gone = (table.arch == "deit_tiny") & ((table.epochs == 0) == (missing == "untrained"))
    found = verdicts(table[~gone])
    for name in claims.OBSERVATIONS:
        assert found[f"{name}/deit_tiny"] == found[name] == NOT_TESTED
        assert found[f"{name}/resnet18"] != NOT_TESTED


def test_without_the_reference_over_clustering_is_not_tested():
    found = verdicts(world().query("arch != 'resnet50' or epochs == 0"))
    for name in ("over_clustered_paper", "over_clustered_centred", "over_clustered", "size_not_architecture"):
        assert found[name] == NOT_TESTED
    assert found["pretext_learned"] == SUPPORTED


def test_one_seed_leaves_everything_undecided():
    found = verdicts(world(n=1))
    assert {found[name] for name in claims.OBSERVATIONS} == {UNDECIDED} and found["size_not_architecture"] == SUPPORTED   # four points


A = "mobilenet_v3_small"


@pytest.mark.parametrize("accuracy, expected", [(0.40, SUPPORTED), (0.1005, UNDECIDED), (0.05, CONTRADICTED)])
def test_pretext_learned_is_the_gain_over_the_untrained_encoder(accuracy, expected):
    one, everyone = verdict("pretext_learned", **{A: {"instdisc_dsd_top1_test": accuracy, "instdisc_dsd_top1_train": accuracy}})
    assert one == everyone == expected


@pytest.mark.parametrize("train, test, expected", [
    (0.500, 0.500, SUPPORTED), (0.500, 0.465, UNDECIDED), (0.60, 0.40, CONTRADICTED), (0.40, 0.60, CONTRADICTED),
    (0.99, 0.99, UNDECIDED)])
def test_no_overfitting_is_equivalence_of_train_and_held_out(train, test, expected):
    one, everyone = verdict("no_overfitting", **{A: {"instdisc_dsd_top1_train": train, "instdisc_dsd_top1_test": test}})
    assert one == everyone == expected


def test_no_overfitting_is_undecided_for_an_encoder_that_did_not_learn_the_task():
    one, _ = verdict("no_overfitting", **{A: {"instdisc_dsd_top1_train": 0.9, "instdisc_dsd_top1_test": 0.1}})
    assert one == UNDECIDED


@pytest.mark.parametrize("before, after, expected", [
    (0.10, 0.12, UNDECIDED), (0.10, 0.131, UNDECIDED), (0.10, 0.14, SUPPORTED), (0.0, 0.055, UNDECIDED), (0.0, 0.065, SUPPORTED)])
def test_no_overfitting_asks_for_held_out_accuracy_well_above_the_untrained_encoders(before, after, expected):
    """More than three points above it, and six percent at least: nobody overfits what nobody learns."""
    table = world(**{A: {"instdisc_dsd_top1_train": after, "instdisc_dsd_top1_test": after},
                     "untrained": {"instdisc_dsd_top1_test": before}})
    found = verdicts(table)
    assert found[f"no_overfitting/{A}"] == expected and found[f"pretext_learned/{A}"] == SUPPORTED


def test_no_overfitting_is_shown_with_the_encoder_that_differs_most():
    ledger = claims.ledger(world(resnet18={"instdisc_dsd_top1_train": 0.9}), "made").set_index("claim")
    assert ledger.loc["no_overfitting", "effect"] == pytest.approx(0.9 - 0.497)
    assert ledger.loc["no_overfitting", "verdict"] == CONTRADICTED
    fewer = world(resnet18={"instdisc_dsd_top1_train": 0.9})
    fewer = fewer[(fewer.arch != "mobilenet_v3_small") | (fewer.seed < 2)]
    assert claims.ledger(fewer, "made").set_index("claim").loc["no_overfitting", "n"] == ledger.loc["no_overfitting/resnet18", "n"] > 2


@pytest.mark.parametrize("name, tag", [("over_clustered_paper", ""), ("over_clustered_centred", "_centred")])
@pytest.mark.parametrize("intra, uniformity, expected", [
    (1.2, -3.5, SUPPORTED), (1.2, "same", UNDECIDED), ("same", -3.5, UNDECIDED), (0.5, -3.5, CONTRADICTED), (1.2, -2.0, CONTRADICTED)])
def test_over_clustering_as_the_paper_measures_it_needs_both_of_its_measures(name, tag, intra, uniformity, expected):
    large = TRAINED["large"]
    change = {f"intra_class_d_test{tag}": large[f"intra_class_d_test{tag}"] if intra == "same" else intra,
              f"uniformity_d_test{tag}": large[f"uniformity_d_test{tag}"] if uniformity == "same" else uniformity}
    assert verdict(name, **{A: change}) == (expected, expected)


@pytest.mark.parametrize("completeness, purity, expected", [
    (0.45, 0.60, SUPPORTED),         # pure and split: over-clustered
    (0.45, 0.67, SUPPORTED),         # purer still
    (0.45, 0.75, UNDECIDED),         # purer with one cluster a class than the reference with two: its curve does not go there
    (0.45, 0.58, SUPPORTED),         # two points less pure: within the margin
    (0.45, 0.57, UNDECIDED),         # three: at the margin
    (0.60, 0.60, UNDECIDED),         # like the reference
    (0.75, 0.60, CONTRADICTED),      # classes better gathered
    (0.45, 0.55, CONTRADICTED),      # less pure where clusters are many: class-mixing
    (0.45, 0.30, CONTRADICTED)])     # never as pure as the reference with two clusters a class
def test_over_clustering_by_clusters_is_told_from_gathering_and_mixing(completeness, purity, expected):
    assert verdict("over_clustered", **{A: {"completeness": completeness, "purity": purity}}) == (expected, expected)


@pytest.mark.parametrize("change, verdict, measure, effect", [
    ({}, SUPPORTED, "completeness", 0.15), ({"purity": 0.30}, CONTRADICTED, "homogeneity", -0.30),
    ({"purity": 0.57}, UNDECIDED, "homogeneity", -0.03), ({"completeness": 0.75}, CONTRADICTED, "completeness", -0.15)])
def test_the_row_shows_the_measure_that_decided(change, verdict, measure, effect):
    rows = claims.ledger(world(**{A: change}), "made").set_index("claim")
    for claim in (f"over_clustered/{A}", "over_clustered"):
        assert rows.loc[claim, "verdict"] == verdict and rows.loc[claim, "test"].endswith(f". Shown: {measure}")
        assert rows.loc[claim, "effect"] == pytest.approx(effect, abs=0.03 if measure == "completeness" else 1e-6)
        assert rows.loc[claim, "low"] < rows.loc[claim, "effect"] < rows.loc[claim, "high"]


def test_of_the_papers_measures_a_contradicting_second_is_shown():
    rows = claims.ledger(world(**{A: {"uniformity_d_test": -2.0}}), "made").set_index("claim")
    found = rows.loc["over_clustered_paper"]
    assert found.verdict == CONTRADICTED and found.test.endswith("Shown: uniformity") and found.high < 0
    assert found.effect == pytest.approx(-2.8 + 2.0)
    assert rows.loc["over_clustered_paper/resnet18", "test"].endswith("Shown: intra-class alignment")


# --- the same from embeddings whose structure is planted ---------------------------------------------------------------

def planted(kind, seed, spread=0.1):
    """640 images of 4 classes at 12 places: h (640, 16) and labels. Every fifth image lies where another class does, a little aside.

    gathered: a class has one place. split: three, all 12 as far from each other. mixed: the places have nothing to do with classes.
    """
    generator, image = torch.Generator().manual_seed(seed), torch.arange(640)
    labels = image % 4
    place = {"gathered": 3 * labels, "split": image % 12, "mixed": torch.randint(12, (640,), generator=generator)}[kind]
    place = torch.where(image % 20 < 4, (place + 3) % 12, place)
    aside = torch.eye(4)[labels] * 0.4 * (kind != "mixed") + spread * torch.randn(640, 4, generator=generator)
    return torch.cat([torch.eye(12)[place], aside], dim=1), labels


def with_structure(small, large, seeds=4):
    """A made-up table whose k-means curves are measured on planted embeddings, one encoder beside the reference."""
    table = world(n=seeds)
    table = table[table.arch.isin([A, models.LARGE])].drop(columns=[c for c in table if c.startswith(("homogeneity", "completeness"))])
    curves = []
    for r in table.itertuples():
        start = 0 if r.arch == models.LARGE else 100                               # no two encoders share their noise
        rows = metrics.cluster_structure(*planted(large if r.arch == models.LARGE else small, start + r.seed), [4, 8, 16, 32, 64])
        curves.append({f"{name}_k{row['k']}": row[name] for row in rows for name in ("homogeneity", "completeness")})
    return table.assign(classes=4).join(pd.DataFrame(curves, index=table.index))


@pytest.mark.parametrize("small, large, expected, measure", [
    ("split", "gathered", SUPPORTED, "completeness"), ("mixed", "gathered", CONTRADICTED, "homogeneity"),
    ("gathered", "gathered", UNDECIDED, "completeness"), ("split", "split", UNDECIDED, "completeness"),
    ("gathered", "split", CONTRADICTED, "completeness")])
def test_the_rule_tells_planted_sub_clusters_from_mixed_and_gathered_classes(small, large, expected, measure):
    rows = claims.ledger(with_structure(small, large), "made", architectures=[A]).set_index("claim")
    assert rows.loc["over_clustered", "verdict"] == rows.loc[f"over_clustered/{A}", "verdict"] == expected
    assert rows.loc["over_clustered", "test"].endswith(f"Shown: {measure}")
    named = {(SUPPORTED, "completeness"): "over-clusters", (CONTRADICTED, "homogeneity"): "mixes classes",
             (CONTRADICTED, "completeness"): "gathers its classes more", (UNDECIDED, "completeness"): "cannot be told apart"}
    assert claims.reading(rows.reset_index().set_index("claim", drop=False).loc["over_clustered"]) == named[expected, measure]


@pytest.mark.parametrize("name", ["over_clustered_paper", "over_clustered_centred", "over_clustered"])
def test_nothing_is_said_of_the_clusters_of_an_encoder_that_has_not_learned(name):
    assert verdict(name, **{A: {"knn_val": 0.29}}) == (UNDECIDED, UNDECIDED)
    assert verdict(name, **{A: {"knn_val": 0.31}})[0] == SUPPORTED
    for changes, said in (({A: {"knn_val": 0.29}}, "not learned"), ({"resnet50": {"knn_val": 0.2}}, "not learned (the reference)")):
        rows = claims.ledger(world(**changes), "made", architectures=[A])
        assert [claims.reading(row) for row in rows[rows.claim == name].itertuples()] == [said if name == "over_clustered" else ""]


def test_an_equality_where_nothing_was_learned_says_so():
    rows = claims.ledger(world(**{A: {"instdisc_dsd_top1_test": 0.01, "instdisc_dsd_top1_train": 0.01}}), "made", architectures=[A])
    row = next(rows[rows.claim == f"no_overfitting/{A}"].itertuples())
    assert row.verdict == UNDECIDED and claims.reading(row) == "the task is not learned well enough to overfit"
    row = next(claims.ledger(world(), "made", architectures=[A]).query("claim == 'no_overfitting'").itertuples())
    assert row.verdict == SUPPORTED and claims.reading(row) == ""


@pytest.mark.parametrize("top1, said", [(0.497, ""), (0.01, "the task is not learned well enough to overfit")])
def test_one_seed_is_undecided_for_want_of_an_interval_not_of_learning(top1, said):
    table = world(1, **{A: {"instdisc_dsd_top1_test": top1, "instdisc_dsd_top1_train": top1}})
    row = next(claims.ledger(table, "made", architectures=[A]).query(f"claim == 'no_overfitting/{A}'").itertuples())
    assert row.verdict == UNDECIDED and claims.reading(row) == said


def test_one_untrained_seed_beside_several_trained_ones_decides_no_equality():
    table = world()
    cut = table[(table.arch != A) | (table.epochs > 0) | (table.seed == 0)]
    assert verdicts(table)[f"no_overfitting/{A}"] == SUPPORTED and verdicts(cut)[f"no_overfitting/{A}"] == UNDECIDED


def test_without_a_pair_of_seeds_an_encoder_is_not_tested():
    table = world()
    apart = table[(table.arch != A) | ((table.epochs > 0) == (table.seed > 0))]
    assert {verdicts(apart)[f"{name}/{A}"] for name in claims.OBSERVATIONS} == {NOT_TESTED}


def test_the_unit_is_that_of_the_measure_which_decided():
    for changes, unit in (({}, "distance²"), ({A: {"uniformity_d_test": -2.0}}, "of uniformity")):
        rows = claims.ledger(world(**changes), "made", architectures=[A]).set_index("claim", drop=False)
        assert [claims.unit_of(rows.loc[name]) for name in (f"over_clustered_paper/{A}", "over_clustered_paper")] == [unit, unit]
    assert claims.unit_of(rows.loc["pretext_learned"]) == "points"


def test_a_remedy_judged_on_a_variant_says_so_and_whether_its_clusters_mix_classes_less():
    made = with_remedies()
    fine = f"homogeneity_k{12 * claims.FINEST}"
    rows = {row.claim: row for row in claims.ledger(made, "made").itertuples()}
    assert rows[f"augmentation_helps/{A}"].data == "textures:tint=0.5" and rows[f"projector_helps/{A}"].data == "textures"
    assert claims.reading(rows[f"augmentation_helps/{A}"]) == "on textures:tint=0.5" != claims.reading(rows[f"projector_helps/{A}"]) == ""
    made.loc[made.run.str.endswith("-projector") & (made.arch == A), fine] += 0.2
    row = next(claims.ledger(made, "made").query(f"claim == 'projector_gathers/{A}'").itertuples())
    assert row.purer == pytest.approx(0.2, abs=0.02) and row.effect * row.purer > 0
    assert claims.reading(row) == "classes are mixed less (local purity +20 points), which may be all of it"
    assert claims.reading(row._replace(effect=-row.effect)) == "though classes are mixed less (local purity +20 points)"


@pytest.mark.parametrize("name", ["over_clustered_paper", "over_clustered_centred", "over_clustered"])
def test_a_reference_that_has_not_learned_is_no_reference(name):
    assert verdict(name) == (SUPPORTED, SUPPORTED)
    assert verdict(name, resnet50={"knn_val": 0.2}) == (UNDECIDED, UNDECIDED)


def test_learned_is_the_paired_interval_above_zero_or_the_one_difference():
    before = pd.DataFrame({"seed": [0, 1, 2], "knn_val": [0.30, 0.40, 0.50]})
    after = before.assign(knn_val=before.knn_val + [0.01, 0.011, 0.012])
    assert claims.learned(after, before) and claims.learned(after.iloc[::-1], before)                # paired, in any order
    assert not claims.learned(before.assign(knn_val=[0.31, 0.40, 0.60]), before)                     # above 0 on average only
    assert claims.learned(after[:1], before) and not claims.learned(before[:1], before)
    assert not claims.learned(after, before[:0]) and not claims.learned(after[:1], before[1:])


@pytest.mark.parametrize("slope, expected", [(0.05, SUPPORTED), (0.0, UNDECIDED), (-0.05, CONTRADICTED)])
def test_size_or_architecture_is_the_slope_over_width(slope, expected):
    table = world(slope=slope)
    ledger = claims.ledger(table, "made").set_index("claim")
    found = ledger.loc["size_not_architecture"]
    assert found.verdict == expected and found.n == 4 * SEEDS
    wide = table[(table.arch == "resnet18") & (table.epochs > 0)]
    pure = table[(table.arch == models.LARGE) & (table.epochs > 0)].homogeneity_k24.mean()
    assert found.effect == pytest.approx(np.polyfit(np.log2(wide.width), claims.completeness_at(wide, pure), 1)[0])
    assert found.low < found.effect < found.high


@pytest.mark.parametrize("change", [{"resnet50": {"knn_val": 0.2}}, {"width 0.25": {"knn_val": 0.301}}, {"resnet18": {"knn_val": 0.2}},
                                    {"width 2.0": {"purity": 0.3}}])
def test_size_is_undecided_unless_everything_has_learned_and_reaches_the_purity(change):
    assert verdicts(world(**change))["size_not_architecture"] == UNDECIDED


def test_size_is_undecided_without_the_untrained_encoder_of_every_width():
    table = world()
    assert verdicts(table[(table.epochs > 0) | (table.width != 0.5)])["size_not_architecture"] == UNDECIDED


def test_size_leaves_out_other_learning_rates():
    table = world()
    other = table[(table.arch == "resnet18") & (table.epochs > 0)].assign(lr=0.123, arm="trained", homogeneity_k12=0.9)
    other["run"] += "-other"
    both = pd.concat([table.assign(arm="trained"), other.assign(arm="other")], ignore_index=True)
    assert claims.ledger(both, "made").query("claim == 'size_not_architecture'").n.item() == 4 * SEEDS


def test_two_widths_are_no_sweep():
    table = world()
    assert verdicts(table[table.width.isin([0.25, 1.0])])["size_not_architecture"] == NOT_TESTED


# --- remedies ---------------------------------------------------------------------------------------------------------

def with_remedies(n=SEEDS, **changes):
    plain = world(n).assign(start="random")
    tinted = plain[plain.arch.isin(claims.REMEDIED) & (plain.width == 1)].assign(data="textures:tint=0.5")
    return pd.concat([plain, tinted.assign(run=tinted.run + "-tint"), remedies(n, **changes)], ignore_index=True)


def repeated(n=SEEDS, longer=0.77, first_seed=claims.UNSEEN, **changes):
    """With the baseline for twice the epochs too, whose linear probe is `longer`, all on seeds from `first_seed`."""
    twice = [row(arch, seed, 20, 1.0, TRAINED["small"] | {"linear_test": longer}, NOISE[(seed + 2) % 3]) | {"start": "random"}
             for arch in claims.REMEDIED for seed in range(n)]
    table = pd.concat([with_remedies(n, **changes), pd.DataFrame(twice)], ignore_index=True)
    return table.assign(seed=table.seed + first_seed)


@pytest.mark.parametrize("longer, expected", [
    (0.77, (SUPPORTED, SUPPORTED)), (0.7505, (UNDECIDED, SUPPORTED)), (0.7795, (SUPPORTED, UNDECIDED)), (0.74, (CONTRADICTED, SUPPORTED)),
    (0.80, (SUPPORTED, CONTRADICTED))])
def test_twice_the_epochs_are_set_against_once_and_against_the_remedies_seed_by_seed(longer, expected):
    table = repeated(longer=longer)
    rows = claims.ledger(table, "made").set_index("claim")
    for arch in claims.REMEDIED:
        for name, verdict in zip(claims.LENGTH, (*expected, expected[1]), strict=True):
            row = rows.loc[f"{name}/{arch}"]
            assert (row.verdict, row.n, rows.verdict[name]) == (verdict, SEEDS, verdict) and claims.freedom(
                claims.ledger(table, "made").query("claim == @row.name").iloc[0]) == SEEDS - 1
        mine = table[(table.arch == arch) & (table.epochs > 0) & (table.data == "textures") & (table.width == 1)].sort_values("seed")
        twice = mine[mine.epochs == 20].linear_test.values
        four = mine[mine.run.str.endswith("-improved")].linear_test.values
        assert rows.loc[f"improved_beats_longer/{arch}", ["effect", "low", "high"]].tolist() == pytest.approx(claims.interval(four - twice))
        assert len(set(rows.runs[f"improved_beats_longer/{arch}"].split())) == 2 * SEEDS


def test_the_claims_on_length_are_not_judged_on_seeds_that_had_been_seen():
    seen = verdicts(repeated(first_seed=0))
    assert {seen[name] for name in claims.LENGTH} == {NOT_TESTED} and seen["improved_helps"] == SUPPORTED
    rows = claims.ledger(repeated(n=6, first_seed=0), "made").set_index("claim")
    assert rows.n[f"longer_helps/{A}"] == 1 and rows.verdict[f"longer_helps/{A}"] == UNDECIDED and rows.n["improved_helps"] == 6
    assert claims.UNSEEN == studies.profile("textures_again").first_seed > max(max(studies.seeds("textures", a)) for a in models.SMALL)
    lacking = repeated()
    rows = claims.ledger(lacking[(lacking.epochs != 20) | (lacking.arch != A)], "made").set_index("claim")
    assert rows.verdict[f"longer_helps/{A}"] == rows.verdict["longer_helps"] == NOT_TESTED
    assert rows.verdict["longer_helps/resnet18"] == SUPPORTED


@pytest.mark.parametrize("change, expected", [({}, SUPPORTED), ({"linear_test": 0.7505}, UNDECIDED), ({"linear_test": 0.70}, CONTRADICTED)])
def test_a_remedy_helps_by_its_linear_probe_against_the_baseline_seed_by_seed(change, expected):
    table = with_remedies(**change)
    ledger = claims.ledger(table, "made").set_index("claim")
    for remedy in claims.REMEDIES:
        assert ledger.verdict[f"{remedy.name}_helps"] == expected and ledger.verdict[f"{remedy.name}_gathers"] == SUPPORTED
    mine = table[(table.arch == A) & (table.epochs > 0)].set_index("seed")
    differences = mine[mine.run.str.endswith("-temperature")].linear_test - mine[mine.run.str.endswith(tuple("012"))].linear_test
    row = ledger.loc[f"temperature_helps/{A}"]
    assert (row.effect, row.low, row.high) == pytest.approx(claims.interval(differences))
    assert row.n == SEEDS and claims.freedom(row.to_frame().T.rename_axis("claim").reset_index().iloc[0]) == SEEDS - 1


@pytest.mark.parametrize("change, expected", [({"completeness": 0.4505}, UNDECIDED), ({"completeness": 0.40}, CONTRADICTED),
                                              ({"knn_val": 0.2}, UNDECIDED)])
def test_a_remedy_gathers_by_completeness_at_the_baselines_purity_and_only_where_both_have_learned(change, expected):
    found = verdicts(with_remedies(**change))
    assert {found[f"{r.name}_gathers"] for r in claims.REMEDIES} == {expected}
    rows = claims.ledger(with_remedies(**change), "made")
    why = {claims.reading(row) for row in rows.itertuples() if row.claim.startswith("projector_gathers")}
    assert why == {claims.NOT_LEARNED if "knn_val" in change else ""}
    assert {found[f"{r.name}_helps"] for r in claims.REMEDIES} == {SUPPORTED}


def test_a_purity_that_a_curve_does_not_hold_counts_at_its_nearest_end_which_understates_the_difference():
    made = with_remedies()
    arms = made.run.str.endswith("-temperature") & (made.arch == A)
    whole = claims.ledger(made, "made").set_index("claim").effect[f"temperature_gathers/{A}"]
    cut = made.copy()
    cut.loc[arms, [f"{what}_k{k}" for what in ("homogeneity", "completeness") for k in (12, 24)]] = np.nan
    row = made[arms].iloc[0]
    assert claims.completeness_at(made[arms].iloc[:1], 0.99, nearest=True) == row.completeness_k192
    assert claims.completeness_at(made[arms].iloc[:1], 0.01, nearest=True) == row.completeness_k12
    assert np.isnan(claims.completeness_at(made[arms].iloc[:1], 0.99)).all()
    less = claims.ledger(cut, "made").set_index("claim").effect[f"temperature_gathers/{A}"]
    assert less < whole                                                     # purer with its fewest clusters: a lower bound


def test_curves_that_agree_are_a_difference_of_nothing_and_no_bound():
    made = with_remedies()
    curves = [c for c in made if c.startswith(("homogeneity", "completeness"))]
    arm, baseline = (made.run.str.endswith("-temperature") & (made.arch == A)), made.run.str.fullmatch(f"{A}-w1.0-10ep-seed.")
    made.loc[arm, curves] = made[baseline].sort_values("seed")[curves].values
    row = next(claims.ledger(made, "made").query(f"claim == 'temperature_gathers/{A}'").itertuples())
    assert row.effect == 0 and row.verdict == UNDECIDED and claims.reading(row) == ""


@pytest.mark.parametrize("mine, gain, expected", [
    (True, 0.0, UNDECIDED), (True, -0.15, CONTRADICTED), (False, 0.0, SUPPORTED), (False, -0.15, UNDECIDED)])
def test_an_end_that_makes_the_difference_larger_than_it_is_decides_nothing(mine, gain, expected):
    """The first seed of the baseline (mine) or of the arm is purer from its first cluster a class, so its completeness is a lower bound."""
    made = with_remedies()
    arm, first = made.run.str.endswith("-temperature") & (made.arch == A), made.run.str.contains("seed0")
    baseline = made.run.str.fullmatch(f"{A}-w1.0-10ep-seed.")
    homogeneity, completeness = ([c for c in made if c.startswith(what)] for what in ("homogeneity", "completeness"))
    made.loc[arm, completeness] += gain
    purer = first & (baseline if mine else arm)
    made.loc[purer, homogeneity] += 0.3
    made.loc[purer, completeness] -= 0.12 if mine else 0.05
    row = next(claims.ledger(made, "made").query(f"claim == 'temperature_gathers/{A}'").itertuples())
    mixed = f"classes are mixed {'more' if mine else 'less'} (local purity {'−' if mine else '+'}10 points)"
    mixed = f"{mixed}, which may be all of it" if row.effect * (-1 if mine else 1) > 0 else f"though {mixed}"
    assert row.verdict == expected
    assert claims.reading(row) == f"{claims.BOUND + claims.FORCED if expected == UNDECIDED else claims.LEAST}; {mixed}"
    assert np.isnan(claims.freedom(row)) == (expected == UNDECIDED)         # more seeds would not help
    one = claims.ledger(made[made.arch.ne("resnet18") | ~made.run.str.endswith("-temperature")], "made").set_index("claim", drop=False)
    whole = one.loc["temperature_gathers"]                                  # an encoder that contradicts refutes, whatever the others
    assert whole.verdict == (CONTRADICTED if expected == CONTRADICTED else NOT_TESTED)
    assert whole.test == row.test and claims.reading(whole) == (f"{claims.LEAST}; {mixed}" if expected == CONTRADICTED else "")
    assert row.low > 0 if gain == 0.0 else row.high < 0                     # so it is the bound that leaves it undecided


def test_ends_on_both_sides_bound_nothing_and_are_not_blamed_where_the_interval_decides_nothing_anyway():
    made = with_remedies()
    arm, baseline = made.run.str.endswith("-temperature") & (made.arch == A), made.run.str.fullmatch(f"{A}-w1.0-10ep-seed.")
    homogeneity, completeness = ([c for c in made if c.startswith(what)] for what in ("homogeneity", "completeness"))

    def reading(first, second):
        """Of the baseline, the first seed purer from the start and the second never so pure, by so much."""
        t = made.copy()
        t.loc[baseline & t.run.str.contains("seed0"), homogeneity] += first
        t.loc[baseline & t.run.str.contains("seed1"), homogeneity] -= second
        t.loc[baseline & t.run.str.contains("seed0"), completeness] -= 0.1
        t.loc[arm & t.run.str.contains("seed2"), completeness] -= 0.9          # the gains disagree
        row = next(claims.ledger(t, "made").query(f"claim == 'temperature_gathers/{A}'").itertuples())
        assert row.verdict == UNDECIDED and row.low < 0 < row.high
        return claims.reading(row).split(";")[0]
    assert reading(0.3, 0.9) == claims.MIXED and claims.FORCED not in claims.MIXED
    assert reading(0.3, 0.0) in (claims.BOUND, claims.LEAST)


@pytest.mark.parametrize("change, expected", [({"intra_class_d_test": 1.3}, CONTRADICTED), ({"intra_class_d_test": 1.2005}, UNDECIDED)])
def test_the_gains_are_set_against_the_papers_own_measure_of_over_clustering(change, expected):
    assert verdicts(with_remedies(**change))["improved_gathers_paper"] == expected


@pytest.mark.parametrize("other", [{"lr": 0.123}, {"weight_decay": 0.123}, {"all_epochs": 40}, {"blur_p": 0.0}, {"width": 0.5},
                                   {"data": "digits"}])
def test_an_arm_that_departs_in_anything_else_is_no_remedy(other):
    arms = remedies().assign(**other)
    found = verdicts(pd.concat([with_remedies().iloc[:-len(arms)], arms], ignore_index=True))
    assert {found[f"{r.name}_helps"] for r in claims.REMEDIES} == {NOT_TESTED}


def test_a_whole_number_among_a_remedys_changes_finds_its_runs():
    standard = claims.baseline(world())
    arms = standard.assign(crop_min=1.0, jitter=[(1.0, 0.0)] * len(standard))
    assert len(claims.departing(arms, standard.assign(crop_min=0.2, jitter=[(0.4, 0.4)] * len(standard)), {
        "crop_min": 1, "jitter": (1, 0)})) == len(standard) > 0


@pytest.mark.parametrize("name, value", [("method", "simclr"), ("lr", 1e-3), ("epochs", 8), ("all_epochs", 8), ("taus", 0.1)])
def test_a_remedy_that_the_ledger_would_never_find_is_refused(name, value):
    with pytest.raises(ValueError, match=f"changes of the remedy 'mine' = '{name}' is unknown"):
        claims.Remedy("mine", "", "", "", {name: value}, (A,), "03_temperature")
    assert claims.Remedy("mine", "", "", "", {"dim": 64}, (A,), "03_temperature")
    with pytest.raises(ValueError, match="because of the remedy 'mine' is empty"):
        claims.Remedy("mine", "", "", "", {"dim": 64}, (A,), "03_temperature", {"textures": "textures:tint=0.5"})


def test_a_recipe_is_every_field_but_those_that_are_named():
    names = {f.name for f in dataclasses.fields(PretrainConfig)}
    assert names - {*claims.RECIPE} == claims.NO_RECIPE and {*claims.RECIPE} - names == {"all_epochs"}
    assert {"start", "data", "limit", "stem", "tau", "queue", "batch_keys", "m", "projector", "projector_bn", "dim", "symmetric",
            "bn_splits", "batch_size", "optimizer", "warmup_epochs", "crop_min", "jitter", "jitter_p", "grayscale_p", "blur_p", "hide_p",
            "smoothing", "standardize"} <= {*claims.RECIPE}


def test_an_encoder_of_the_readers_own_has_rows_that_do_not_count_for_all_together():
    arms = world(deit_tiny={"instdisc_dsd_top1_test": 0.01}).assign(start="random")
    table = pd.concat([arms, remedies(linear_test=0.6)], ignore_index=True)
    found = claims.ledger(table, "made", architectures=[A]).set_index("claim").verdict
    assert found["pretext_learned/deit_tiny"] == CONTRADICTED and found["pretext_learned"] == found[f"pretext_learned/{A}"] == SUPPORTED
    assert found["improved_helps/deit_tiny"] == found["temperature_helps/resnet18"] == CONTRADICTED
    assert "temperature_helps/deit_tiny" not in found and f"pretext_learned/{models.LARGE}" not in found


def test_fewer_negatives_are_the_shortest_queue_against_the_longest():
    more = remedies(linear_test=0.70).query("run.str.endswith('-negatives')")
    none = more[more.seed < 2].assign(queue=0, run=more.run + "-0", linear_test=0.1)
    few = more[more.seed < 2].assign(queue=4096, run=more.run + "-4096", linear_test=0.1)      # not with every seed
    table = pd.concat([with_remedies(), more.assign(queue=512, run=more.run + "-512"), none, few], ignore_index=True)
    row = claims.ledger(table, "made").set_index("claim").loc[f"negatives_helps/{A}"]
    assert row.effect == pytest.approx(0.08) and all("-512" in run or run.endswith("-negatives") for run in row.runs.split())


def test_one_encoder_that_loses_refutes_a_remedy_for_all():
    table = with_remedies()
    table.loc[table.run.str.endswith("-improved") & (table.arch == "deit_tiny"), "linear_test"] -= 0.2
    found = verdicts(table)
    assert found["improved_helps"] == found["improved_helps/deit_tiny"] == CONTRADICTED
    assert found["improved_helps/resnet18"] == found["improved_no_teacher_helps"] == SUPPORTED


# --- what a table may hold besides ------------------------------------------------------------------------------------

def test_mixed_definitions_are_refused():
    table = world()
    table.loc[0, "definition"] = 2
    with pytest.raises(ValueError, match="definitions .1, 2."):
        claims.ledger(table, "made")


def test_runs_of_other_arms_change_no_verdict():
    """Other temperatures, augmentations, data sets, the ceiling, searches and other profiles may share the table."""
    table = world()
    def observed(t):
        found = claims.ledger(t, "made")
        return found[~found.claim.str.split("/").str[0].isin(REMEDY)].reset_index(drop=True)
    expected = observed(table)
    some = table[(table.epochs > 0) & (table.seed < 2)]
    others = [some.assign(**change, instdisc_dsd_top1_test=0.9, intra_class_d_test=0.1, completeness_k12=0.9, knn_val=0.01)
              for change in ({"tau": 0.05}, {"projector": "wide"}, {"optimizer": "sgd"}, {"bn_splits": 2},
                             {"dim": 64}, {"m": 0.9}, {"warmup_epochs": 1.0}, {"blur_p": 0.0},
                             {"jitter": [(0.8, 0.8, 0.8, 0.4)] * len(some)}, {"data": "digits"}, {"method": "supervised"},
                             {"evaluation": "val"}, {"profile": "quick"})]
    others.append(table[table.epochs == 0].assign(data="digits", instdisc_dsd_top1_test=0.9, knn_val=0.99))
    mixed = pd.concat([*others, table], ignore_index=True)
    pd.testing.assert_frame_equal(observed(mixed), expected)


def test_where_arms_are_named_the_trained_one_is_the_baseline_however_few_its_runs():
    table = with_remedies()
    table["arm"] = np.where(table.run.str.endswith(tuple("012")), "trained", "remedy")
    fewer = table[(table.arm == "remedy") | table.arch.isin(["mobilenet_v3_small", "resnet18"]) | (table.epochs == 0)]
    found = verdicts(fewer)
    assert found["temperature_helps"] == SUPPORTED and found["improved_helps/deit_tiny"] == NOT_TESTED
    assert set(claims.baseline(fewer).run) == set(fewer[(fewer.arm == "trained") & (fewer.epochs > 0) & (fewer.width == 1)].run)


def test_without_names_of_arms_three_runs_of_the_baselines_recipe_at_another_rate_are_not_the_baseline():
    table = with_remedies()
    some = claims.baseline(table)
    other = some[(some.arch == "mobilenet_v3_small") & (some.seed < 3)].assign(lr=6e-5, linear_test=0.99, completeness_k12=0.9)
    mixed = pd.concat([other.assign(run="other" + other.run), table], ignore_index=True)
    assert set(claims.baseline(mixed).run) == set(some.run)
    pd.testing.assert_frame_equal(claims.ledger(mixed, "made"), claims.ledger(table, "made"))


def test_the_order_of_rows_does_not_matter():
    table = world()
    first, other = (claims.ledger(t, "made").drop(columns="runs") for t in (table, table.sample(frac=1, random_state=0)))
    pd.testing.assert_frame_equal(first, other)


def test_too_few_images_for_the_finest_clusters_are_not_tested_rather_than_an_error():
    table = world().drop(columns=["homogeneity_k192", "completeness_k192", "homogeneity_k96", "completeness_k96"])
    found = verdicts(table)
    assert found["over_clustered"] == NOT_TESTED
    others = {"over_clustered", *REMEDY, *claims.LENGTH}
    assert {verdict for name, verdict in found.items() if name.split("/")[0] not in others} == {SUPPORTED}


def test_the_ledger_has_its_columns_and_names_its_runs():
    table = world()
    ledger = claims.ledger(table, "made")
    assert ledger.columns.tolist() == "claim profile statement source test effect low high n verdict runs data purer".split()
    assert ledger.claim.is_unique and set(ledger.verdict) <= {SUPPORTED, CONTRADICTED, UNDECIDED, NOT_TESTED}
    assert {SUPPORTED, CONTRADICTED, UNDECIDED, NOT_TESTED} == {"supported", "contradicted", "undecided", "not tested"}
    by = ledger.set_index("claim")
    assert set(by.loc["pretext_learned/resnet18", "runs"].split()) == set(
        table[(table.arch == "resnet18") & (table.width == 1)].run)
    assert set(" ".join(ledger.runs).split()) <= set(table.run)
    assert (by.n[[f"{name}/resnet18" for name in claims.OBSERVATIONS]] == SEEDS).all()
    for claim in claims.CLAIMS:
        assert by.loc[claim.name, ["statement", "source"]].tolist() == [claim.statement, claim.source]
        rule, _, shown = by.loc[claim.name, "test"].partition(". Shown: ")
        assert rule == claim.rule and bool(shown) == claim.name.startswith("over_clustered")


# --- rules before runs ------------------------------------------------------------------------------------------------

def git(*args):
    try:
        answer = subprocess.run(["git", "-C", str(runs.ROOT), *args], capture_output=True, text=True)
    except OSError:
        return None
    return answer.stdout if answer.returncode == 0 else None


def executed(source, name):
    """lib/claims.py as another text of it has it."""
    module = sys.modules["claims_then"] = types.ModuleType("claims_then")   # dataclasses look their module up
    try:
        exec(compile(source, name, "exec"), module.__dict__)
    finally:
        del sys.modules["claims_then"]
    return module


def rules_at(commit):
    """The rules in lib/claims.py as of a commit: name -> text."""
    return {claim.name: claim.rule for claim in executed(git("show", f"{commit}:lib/claims.py"), f"{commit}:lib/claims.py").CLAIMS}


@pytest.mark.parametrize("ours", [None, {}, {"tau": 0.05, "crop_min": 0.5}])
def test_our_recipe_is_judged_on_all_five_once_it_is_known_and_changes_no_other_rule(ours):
    source = (runs.ROOT / "lib" / "claims.py").read_text()
    found, without = (executed(re.sub(r"^OURS = .*$", f"OURS = {value!r}", source, flags=re.MULTILINE), "lib/claims.py")
                      for value in (ours, None))
    added = [claim for claim in found.CLAIMS if claim.name not in {c.name for c in without.CLAIMS}]
    assert [claim.name for claim in added] == (["ours_helps", "ours_gathers"] if ours else [])
    assert {c.name: c.rule for c in without.CLAIMS}.items() <= {c.name: c.rule for c in found.CLAIMS}.items()
    if ours:
        assert all("(tau = 0.05, crop_min = 0.5)" in claim.rule and "all five encoders" in claim.rule for claim in added)
        rows = [row(arch, seed, 10, 1.0, TRAINED["small"] | {"linear_test": 0.78}, NOISE[(seed + 1) % 3]) | ours
                for arch in models.SMALL for seed in range(SEEDS)]
        table = pd.concat([world(), pd.DataFrame(rows).assign(run=lambda t: t.run + "-ours")], ignore_index=True)
        verdicts = found.ledger(table, "made").set_index("claim").verdict
        assert verdicts["ours_helps"] == verdicts["ours_helps/deit_tiny"] == SUPPORTED and verdicts["ours_gathers"] == UNDECIDED
        assert verdicts["improved_helps"] == NOT_TESTED


def test_every_rule_was_committed_before_the_runs_that_it_judges():
    history = git("log", "--format=%H", "--reverse", "--", "lib/claims.py")
    if not history:
        pytest.skip("not in a git checkout: the order of commits is unknown")
    judged = {True: {}, False: {}, "longer": {}}         # of remedies? or of LENGTH -> committed, hence judged, runs by their commit
    observed = {p: set(studies.observations(p)) for p in studies.COMMITTED}
    for line in (git("ls-files", "results/runs") or "").splitlines():
        if line.endswith("/provenance.json"):
            config = json.loads((runs.ROOT / line).with_name("config.json").read_text())
            if config["evaluation"] == "full":                              # the search chooses; no claim reads it
                del config["definition"]
                remedy = PretrainConfig(**config) not in observed.get(line.split("/")[2], ())
                unseen = ["longer"] if claims.UNSEEN <= config["seed"] < studies.SEARCH_SEED else []
                for kind in [remedy, *unseen]:
                    judged[kind].setdefault(json.loads((runs.ROOT / line).read_text())["commit"], []).append(line)
    if not any(judged.values()):
        pytest.skip("no run that a claim judges is committed yet")
    first = {}
    for commit in history.split():
        for name, rule in rules_at(commit).items():
            first.setdefault((name, rule), commit)
    kinds = {c.name: "longer" if c.name in claims.LENGTH else c.name in REMEDY for c in claims.CLAIMS}
    for claim in [c for c in claims.CLAIMS if judged[kinds[c.name]]]:
        rule = first.get((claim.name, claim.rule))
        assert rule, f"the rule of {claim.name} is not committed as it stands, but runs that it judges are"
        for commit, files in judged[kinds[claim.name]].items():          # the baseline alone gives no remedy away
            assert git("merge-base", "--is-ancestor", rule, commit) is not None, \
                f"{claim.name}: its rule ({rule[:7]}) was committed after {files[0]} was trained ({commit[:7]})"


def test_where_an_arm_is_judged_is_part_of_its_sentence():
    first, *others = claims.clauses(claims.BY_NAME["augmentation_helps"].rule)
    assert "; on textures, which are grey, judged on textures:tint=0.5" in first and others[0].startswith("Supported if")
