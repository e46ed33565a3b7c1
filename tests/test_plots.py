"""Figures from made-up tables: how much is drawn, in which colours and units, and what happens without runs."""
import html
import io
import re

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.colors import to_hex  # noqa: E402

from lib import claims, models, plots, runs, studies  # noqa: E402
from lib.train import PretrainConfig  # noqa: E402

ARCHS = [*models.SMALL, models.LARGE]
FACTORS = ("orientation", "frequency", "polarity")
EMPTY = pd.DataFrame({"arch": [], "arm": [], "profile": []})


@pytest.fixture(autouse=True)
def house_style():
    plots.style()
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def table():
    """Six encoders with three seeds, untrained and supervised, ResNet-18 at two more widths, raw pixels; deit_tiny learns nothing."""
    rng, rows = np.random.default_rng(0), []

    def row(arch, seed, epochs=10, method="moco", width=1.0):
        knn = 0.6 + 0.03 * ARCHS.index(arch) + 0.01 * rng.random() if arch in ARCHS else 0.3
        knn -= 0.2 * (epochs == 0) + 0.3 * (arch == "deit_tiny" and epochs > 0)
        numbers = {"knn_val": knn, "knn_test": knn, "instdisc_dsd_top1_train": knn / 2 + 0.01, "instdisc_dsd_top1_test": knn / 2,
                   "uniformity_d_test": -3 + knn, "intra_class_d_test": 1.2, "uniformity_d_test_centred": -3.2,
                   "intra_class_d_test_centred": 1.5, "sub_clusters": 3.0}
        numbers |= {f"nn{k}_test": knn - k / 1000 for k in plots.NEIGHBOURS} | {f"ami_{f}": 0.1 for f in FACTORS}
        numbers |= {f"homogeneity_k{12 * f}": min(1, knn * f ** 0.1) for f in claims.PER_CLASS}
        numbers |= {f"completeness_k{12 * f}": knn / f ** 0.3 for f in claims.PER_CLASS}
        rows.append({"profile": "textures", "arch": arch, "seed": seed, "epochs": epochs, "method": method, "width": width, "classes": 12,
                     "instances_test": 4992, "run": f"{arch}-{method}-{epochs}ep-w{width}-seed{seed}"} | numbers)
    for arch in ARCHS:
        for seed in range(3):
            row(arch, seed)
            row(arch, seed, epochs=0)
        row(arch, 0, method="supervised")
    for width in (0.25, 2.0):
        row("resnet18", 0, width=width)
    row("pixels", 0, epochs=0)
    return plots.arms(pd.DataFrame(rows))


@pytest.fixture(scope="module")
def history(table):
    trained = table[table.arm == "trained"]
    return pd.DataFrame([{"arch": r.arch, "run": r.run, "epoch": epoch, "loss": np.nan if epoch == 0 else 7 - epoch,
                          "instdisc_train": epoch / 10, "instdisc_test": epoch / 11, "knn_val": epoch / 10, "homogeneity": epoch / 20}
                         for r in trained.itertuples() for epoch in range(4)])


def lines_of(ax, arch):
    return [line for line in ax.lines if to_hex(line.get_color()) == to_hex(plots.colour(arch))]


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_each_encoder_has_a_colour_and_a_marker_of_its_own():
    assert len({plots.colour(arch) for arch in models.ENCODERS}) == len(models.ENCODERS)
    assert len({plots.marker(arch) for arch in models.ENCODERS}) == len(models.ENCODERS)


def test_an_encoder_keeps_its_colour_when_others_are_missing(history):
    alone = plots.loss(history[history.arch == "resnet18"], 2048)
    together = plots.loss(history, 2048)
    assert len(lines_of(alone, "resnet18")) == len(lines_of(together, "resnet18")) == 4      # three seeds and their mean


def test_arms_tell_trained_untrained_supervised_widths_and_pixels_apart(table):
    assert table.arm.value_counts().to_dict() == {"trained": 18, "untrained": 18, "supervised": 6, "width": 2, "pixels": 1}


def test_loss_draws_every_seed_the_mean_and_chance(history):
    ax = plots.loss(history, 2048, title="here")
    assert len(ax.lines) == 6 * (3 + 1) + 1
    assert ax.lines[-1].get_ydata()[0] == pytest.approx(np.log(2048))
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title("left")) == ("epoch", "InfoNCE (nats)", "here")
    assert legend_of(ax) == [models.ENCODERS[a].label for a in ARCHS] + ["chance, log(2048)"]


def test_the_thick_line_is_the_mean_of_the_seeds():
    history = pd.DataFrame({"arch": "resnet50", "run": ["a", "a", "b", "b"], "epoch": [1, 2, 1, 2], "loss": [6.0, 4.0, 4.0, 3.0]})
    mean = max(plots.loss(history, 16).lines[:-1], key=lambda line: line.get_linewidth())
    assert list(mean.get_ydata()) == [5.0, 3.5]


def test_instance_discrimination_has_a_panel_per_encoder_from_zero_up_to_all_that_is_drawn(history):
    axes = plots.instance_discrimination(history, 996)
    assert [ax.get_title("left") for ax in axes.flat] == [models.ENCODERS[a].label for a in ARCHS]
    assert all(len(ax.lines) == 2 * (3 + 1) + 1 for ax in axes.flat)
    low, high = axes[0, 0].get_ylim()
    assert low == 0 and high >= 0.3
    assert {line.get_ydata()[0] for ax in axes.flat for line in ax.lines if line.get_linestyle() == ":"} == {1 / 996}


def test_the_gap_is_drawn_in_points_with_the_interval_that_the_verdict_uses(table):
    ax = plots.generalisation_gap(table)
    t = table[(table.arm == "trained") & (table.arch == "resnet18")]
    _, low, high, _ = claims.equivalence(t.instdisc_dsd_top1_train, t.instdisc_dsd_top1_test, 4992)
    assert any(np.allclose(line.get_xdata(), [100 * low, 100 * high]) for line in lines_of(ax, "resnet18") if len(line.get_xdata()) == 2)
    accuracy = table[table.arm == "trained"].groupby("arch").instdisc_dsd_top1_test.mean()
    assert [label.get_text() for label in ax.get_yticklabels()] == [f"{models.ENCODERS[a].label}, {accuracy[a]:.1%}" for a in ARCHS]
    assert "points" in ax.get_xlabel() and "3 points" in legend_of(ax)[0] and "not learned" in legend_of(ax)[1]
    assert ax.get_xlim()[0] <= -3 and ax.get_xlim()[1] >= 3
    crosses = {to_hex(line.get_markeredgecolor()) for line in ax.lines if line.get_marker() == plots.UNSOLVED and len(line.get_xdata())}
    assert crosses == {to_hex(plots.colour("deit_tiny"))}                  # which has not learned the task


def test_dots_show_every_seed_untrained_hollow_chance_and_raw_pixels(table):
    ax = plots.dots(table, "instdisc_dsd_top1_train", "top-1", chance=1 / 4992)
    assert legend_of(ax) == ["trained", "untrained", "chance", "raw pixels"]
    hollow = [line for line in ax.lines if to_hex(line.get_markerfacecolor()) == "#ffffff"]
    assert len(hollow) == 6 and all(len(line.get_xdata()) == 3 for line in hollow)
    raw = table[table.arm == "pixels"].instdisc_dsd_top1_train.mean()
    assert sum(np.allclose(line.get_xdata(), raw) for line in ax.lines) == 1
    ax.figure.canvas.draw()
    assert all(label.get_text().endswith("%") for label in ax.get_xticklabels())


def test_views_tile_one_column_per_image_and_one_row_per_version():
    images = np.random.default_rng(0).random((5, 3, 8, 8))
    ax = plots.views({"image": images, "view 0": images}, list("abcde"))
    assert ax.images[0].get_array().shape == (2 * 10, 5 * 10, 3)
    assert [label.get_text() for label in ax.get_xticklabels()] == list("abcde")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["image", "view 0"]


def test_over_clustering_sets_the_papers_points_beside_ours(table):
    from lib.runs import ROOT
    paper = pd.read_csv(ROOT / "results" / "reference" / "paper_over_clustering.csv")
    axes = plots.over_clustering(table, paper, dict.fromkeys(ARCHS, 5e6))
    assert [len(ax.collections) for ax in axes.flat] == [6, 0, 6, 6, 6, 6]
    assert axes[0, 0].collections[-1].get_offsets()[0].tolist() == [-2.846, 0.9]             # ResNet-50, drawn last
    assert [ax.get_title("left") for ax in axes[1:].flat] == [f"ours, {arm}, {kind}" for kind in ("raw", "centred")
                                                              for arm in ("untrained", "trained")]
    assert all("uniformity" in ax.get_xlabel() for ax in (axes[0, 0], *axes[1:].flat)) and len(legend_of(axes[0, 1])) == 6
    again = plots.over_clustering(table, None, dict.fromkeys(ARCHS, 5e6))   # a second profile needs no second picture of the paper's
    assert again.shape == (2, 2) and len(again[0, 0].figure.legends[0].get_texts()) == 6
    for mine, first in zip(again.flat, axes[1:].flat, strict=True):
        assert mine.get_title("left") == first.get_title("left") and mine.get_xlim() == first.get_xlim()
        assert [c.get_offsets().tolist() for c in mine.collections] == [c.get_offsets().tolist() for c in first.collections]


def test_the_papers_gains_are_those_of_equal_epochs_where_it_has_them():
    from lib.runs import ROOT
    paper = pd.read_csv(ROOT / "results" / "reference" / "paper_headline.csv").set_index("model")
    found = plots.papers_gains(paper)
    assert found["the paper's four"] == pytest.approx({
        "mobilenet_v3_small": 14.5, "deit_tiny": 9.7, "efficientnet_b0": 9.1, "mobilenet_v3_large": 16.5, "resnet18": -1.3})
    assert found["SEED alone"] == pytest.approx({"efficientnet_b0": 19.2, "mobilenet_v3_large": 23.0})


def test_the_papers_pair_is_a_table_of_labels_and_rounded_numbers():
    from lib.runs import ROOT
    paper = pd.read_csv(ROOT / "results" / "reference" / "paper_over_clustering.csv")
    shown = plots.papers_pair(paper)
    first = paper.iloc[0]
    assert shown.loc[("MobileNetV3-Small", "baseline")].tolist() == ["26.8", "1.30", "−3.32", first.source] and len(shown) == len(paper)
    lacking = paper[["linear_percent", "intra_class", "uniformity"]].isna().sum().sum()
    assert (shown.drop(columns="source") == "not available").sum().sum() == lacking > 0


def test_accuracy_over_k_draws_trained_and_untrained_and_chance(table):
    ax = plots.accuracy_over_k(table)
    assert [ax.lines[-2].get_ydata()[0], len(ax.lines)] == [pytest.approx(1 / 12), 2 * 6 * (3 + 1) + 2]
    assert {"chance", "untrained"} < set(legend_of(ax))


def test_clusters_mark_the_references_purity_at_two_clusters_a_class(table):
    axes = plots.clusters(table)
    pure = table[(table.arm == "trained") & (table.arch == "resnet50")].homogeneity_k24.mean()
    assert len(axes) == 3 and axes[2].lines[-1].get_xdata()[0] == pytest.approx(pure)
    assert [len(ax.lines) for ax in axes] == [24, 24, 25]


def test_clusters_are_drawn_where_another_profile_has_more_of_them(table):
    other = table.assign(profile="few images", **{f"homogeneity_k{12 * claims.FINEST}": np.nan})
    axes = plots.clusters(pd.concat([table, other])[lambda t: t.profile == "few images"])
    assert len(axes) == 3 and axes[0].get_xticks().tolist() == list(claims.PER_CLASS[:-1])


def test_a_run_that_has_a_bound_alone_is_a_triangle_and_its_encoder_has_no_mean(table):
    curves = [f"homogeneity_k{12 * f}" for f in claims.PER_CLASS]
    cut, bounds = table.copy(), ("completeness_bound", "completeness_side")
    cut.loc[cut.run == "resnet18-moco-10ep-w1.0-seed0", curves] = 0.01
    cut.loc[cut.run == "deit_tiny-moco-10ep-w1.0-seed1", curves] = 0.99
    ax = plots.dots(plots.matched(cut), "completeness_matched", "x", percent=False, bounds=bounds)
    shapes = {arch: [line.get_marker() for line in lines_of(ax, arch)] for arch in ARCHS}
    assert shapes["resnet18"].count("<") == shapes["deit_tiny"].count(">") == 1 and {"at most", "at least"} < set(legend_of(ax))
    means = {arch: [line.get_xdata()[0] for line in lines_of(ax, arch) if line.get_marker() == "|"] for arch in ARCHS}
    assert np.isnan(means["resnet18"]).all() and not np.isnan(means["resnet50"]).any()


def test_a_gain_over_a_bound_is_a_bound_on_the_other_side_and_two_against_each_other_say_nothing():
    runs = [("trained", "", 0, 0.5, np.nan, 0), ("trained", "", 1, np.nan, 0.6, 1), ("trained", "", 2, 0.5, np.nan, 0),
            ("remedy", "more", 0, np.nan, 0.4, -1), ("remedy", "more", 1, np.nan, 0.9, 1), ("remedy", "more", 2, 0.7, np.nan, 0)]
    table = pd.DataFrame([{"profile": "p", "data": "d", "arch": "resnet18", "width": 1.0, "arm": arm, "change": change, "seed": seed,
                           "completeness_matched": value, "completeness_bound": bound, "completeness_side": side}
                          for arm, change, seed, value, bound, side in runs])
    bounds = ("completeness_bound", "completeness_side")
    found = plots.gains(table, "completeness_matched", bounds).set_index("seed")
    assert found.gain.round(6).to_dict() == {0: -0.1, 1: 0.3, 2: 0.2}
    assert found.side[0] == -1 and np.isnan(found.side[1]) and found.side[2] == 0
    whole = plots.gains(table, "completeness_matched")
    assert whole.seed.tolist() == [2] and whole.side.tolist() == [0]
    ax = plots.changes(table, "completeness_matched", "x", bounds=bounds)
    assert {"<", ">", "x"} & {line.get_marker() for line in ax.lines} == {">", "x"} and legend_of(ax)[1:] == ["at least", "unknown side"]


def test_completeness_is_matched_to_the_reference_of_the_same_profile(table):
    other = table[table.arch != "resnet50"].assign(profile="no reference")
    out = plots.matched(pd.concat([table, other], ignore_index=True))
    large = out[(out.profile == "textures") & (out.arm == "trained") & (out.arch == "resnet50")]
    assert large.completeness_matched.mean() == pytest.approx(large.completeness_k24.mean(), abs=0.02)
    assert out[out.profile == "no reference"].completeness_matched.isna().all() and len(out) == len(table) + len(other)


def test_factors_have_a_row_per_encoder_and_arm_and_the_number_of_sub_clusters(table):
    ax = plots.factors(table)
    rows = [label.get_text() for label in ax.get_yticklabels()]
    assert len(rows) == 3 * 6 + 1 and rows[0] == "MobileNetV3-Small, trained" and rows[-1] == "raw pixels"
    assert [label.get_text() for label in ax.get_xticklabels()] == [*FACTORS, "sub-clusters"]
    assert [text.get_text() for text in ax.texts].count("3.0") == len(rows)


def test_widths_draw_every_run_and_the_large_reference(table):
    axes = plots.widths(table, {"knn_test": "kNN", "homogeneity_k12": "homogeneity"})
    assert len(axes) == 2 and len(axes[0].lines[0].get_xdata()) == 3 + 2
    assert [label.get_text() for label in axes[0].get_xticklabels()] == ["0.25", "1", "2"]
    assert lines_of(axes[0], "resnet50")


def test_widths_say_how_many_runs_have_no_such_number(table):
    gone = (table.arm == "width") & (table.width == 0.25)
    axes = plots.widths(table.assign(purity=table.homogeneity_k12.mask(gone)), {"purity": "purity", "knn_test": "kNN"})
    assert [text.get_text() for text in axes[0].texts] == ["not defined for 1 of 5 runs"] and not axes[1].texts
    assert len(axes[0].lines[0].get_xdata()) == 4 and len(axes[1].lines[0].get_xdata()) == 5
    some = (table.arm == "trained") & (table.seed == 0) & table.arch.isin(["resnet18", "resnet50"])
    [ax] = plots.widths(table.assign(purity=table.homogeneity_k12.mask(some)), {"purity": "purity"})
    [line] = [line for line in ax.lines if line.get_label() == plots.label("resnet18")]
    assert line.get_xdata().tolist() == [0.25, 2] and not lines_of(ax, "resnet50")             # no mean of a selection


def test_over_epochs_has_a_panel_per_number(history):
    axes = plots.over_epochs(history, {"knn_val": "kNN", "homogeneity": "homogeneity"})
    assert [ax.get_ylabel() for ax in axes] == ["kNN", "homogeneity"] and [len(ax.lines) for ax in axes] == [24, 24]


@pytest.mark.parametrize("draw", [
    lambda t: plots.loss(t, 64), lambda t: plots.instance_discrimination(t, 64), plots.generalisation_gap, plots.accuracy_over_k,
    plots.clusters, plots.factors, lambda t: plots.dots(t, "knn_test", "kNN"), lambda t: plots.over_epochs(t, {"knn_val": "kNN"}),
    lambda t: plots.widths(t, {"knn_test": "kNN"}), lambda t: plots.umaps({}, ["a"])])
def test_a_figure_without_runs_is_a_sentence(draw):
    ax = np.ravel(draw(EMPTY))[0]
    assert len(ax.texts) == 1 and ax.texts[0].get_text().endswith(".") and not ax.axison


def test_without_factors_or_widths_a_sentence_says_so(table):
    assert "factors" in plots.factors(table.drop(columns=[c for c in table if c.startswith("ami_")])).texts[0].get_text()
    assert "one width" in plots.widths(table[table.arm != "width"], {"knn_test": "kNN"})[0].texts[0].get_text()


def test_summary_marks_what_has_not_learned_and_shows_percent_with_its_interval(table):
    out = plots.summary(table, {"kNN": "knn_test", "absent": "nothing"}).reset_index()
    failed = out[out.arm == "trained, not learned"]
    assert failed.encoder.tolist() == ["DeiT-Ti"] and set(out.absent) == {""}
    t = table[(table.arm == "trained") & (table.arch == "resnet50")]
    mean, low, high = (100 * x for x in claims.interval(t.knn_test))
    assert out[(out.encoder == "ResNet-50") & (out.arm == "trained")].kNN.item() == f"{mean:.1f} [{low:.1f}, {high:.1f}]"
    assert plots.shown([0.5]) == "50.0"


def test_ranges_are_over_the_means_of_encoders_and_a_range_of_one_is_a_number(table):
    values = [("resnet18", "trained", 0.1), ("resnet18", "trained", 0.3), ("deit_tiny", "trained", 0.5), ("pixels", "pixels", 0.07),
              ("resnet18", "width", 9)]
    made = pd.DataFrame(values, columns=["arch", "arm", "x"]).assign(ami_a=lambda t: t.x, ami_b=0.0)
    assert plots.over_encoders(made, "x") == "trained 20.0% to 50.0%, pixels 7.0%"
    assert plots.over_encoders(made.assign(x=-made.x), "x") == "trained −50.0% to −20.0%, pixels −7.0%"
    assert plots.over_encoders(made.assign(x=-1e-6), "x", ".2f") == "trained 0.00, pixels 0.00"
    assert plots.most_followed(made) == "most followed when trained: a; AMI trained 0.20 to 0.50, pixels 0.07"
    assert plots.most_followed(made.drop(columns=["ami_a", "ami_b"])) == plots.most_followed(made.assign(arm="untrained")) == ""


def test_summary_says_how_many_runs_have_a_number(table):
    gone = table.assign(knn_test=table.knn_test.mask((table.arch == "resnet18") & (table.seed == 0) & (table.arm == "trained")))
    found = plots.summary(gone, {"kNN": "knn_test"}).kNN
    label = ("textures", "ResNet-18", "trained")
    assert found[label] == "– (2 of 3 runs)" and not found[("textures", "ResNet-18", "untrained")].endswith("runs")


def test_verdicts_show_points_and_the_smallest_effect_that_paired_seeds_detect():
    gains = np.array([0.10, 0.12, 0.17])
    _, low, high = claims.interval(gains)
    row = dict(zip(claims.COLUMNS, ["pretext_learned/resnet18", "textures", "", "", "", gains.mean(), low, high, 3, "supported", "", "",
                                   np.nan]))
    out = plots.verdicts(pd.DataFrame([row, row | {"claim": "other"}]), "pretext_learned").reset_index()
    assert len(out) == 1 and out.loc[0, ["encoder", "verdict", "smallest detectable"]].tolist() == ["ResNet-18", "supported", ""]
    assert out.loc[0, "effect [95 %]"] == f"+13.0 points [{100 * low:+.1f}, {100 * high:+.1f}]"
    out = plots.verdicts(pd.DataFrame([row | {"verdict": claims.UNDECIDED}]), "pretext_learned")
    assert out["smallest detectable"].tolist() == [f"{100 * claims.detectable((high - low) / 2, 2):.1f}"]


def test_departures_list_each_field_that_is_not_the_papers_and_who_differs():
    arms = [PretrainConfig(arch=arch, data="textures", seed=3, lr=9.0, precision=precision)
            for arch, precision in (("resnet18", "bf16"), ("resnet50", "bf16"), ("mobilenet_v3_small", "fp32"))]
    out = plots.departures(arms)
    default = PretrainConfig.__dataclass_fields__["data"].default
    assert out.loc["data"].tolist() == [default, "textures"] and set(out.index) == {"data", "precision"}
    assert out.loc["precision", "here"] == "bf16 (ResNet-18, ResNet-50); fp32 (MobileNetV3-Small)"
    assert plots.departures([PretrainConfig()]).empty or "data" not in plots.departures([PretrainConfig()]).index


def test_provenance_counts_runs_commits_and_hours_per_machine():
    table = pd.DataFrame({"profile": "textures", "device": ["a", "a", "b"], "run": list("xyz"), "seconds": [1800, 5400, 36],
                          "commit": ["0123456789", "0123456789", None]})
    out = plots.provenance(table)
    assert out.loc[("textures", "a")].tolist() == [2, "0123456", 2.0] and out.loc[("textures", "b")].tolist() == [1, "unknown", 0.01]


def test_what_no_run_judges_is_a_sentence_and_not_a_row(monkeypatch):
    row = dict(zip(claims.COLUMNS, ["pretext_learned/resnet18", "p", "", "", "", 0.1, 0.05, 0.15, 3, claims.SUPPORTED, "", "", np.nan]))
    lacking = row | {"claim": "pretext_learned/deit_tiny", "verdict": claims.NOT_TESTED}
    monkeypatch.setattr(claims, "ledger", lambda t, p: pd.DataFrame([row, lacking]))
    rows, sentences = plots.judged({"p": pd.DataFrame()}, "pretext_learned")
    assert rows.index.tolist() == [("p", "pretext_learned", "ResNet-18")]
    assert sentences == ["p, pretext_learned: not tested, for want of runs or images that the rule asks for: DeiT-Ti"]
    monkeypatch.setattr(claims, "ledger", lambda t, p: pd.DataFrame([lacking, lacking | {"claim": "no_overfitting/deit_tiny"}]))
    assert plots.judged({"p": pd.DataFrame()}, "pretext_learned", "no_overfitting")[1] == [     # one sentence for those of one fate
        "p, pretext_learned, no_overfitting: not tested, for want of runs or images that the rule asks for: DeiT-Ti"]


def test_rules_are_shown_clause_by_clause_and_whole():
    for name, claim in claims.BY_NAME.items():
        shown = plots.rules(name).data
        clauses = [html.unescape(clause) for clause in re.findall("<li>(.*?)</li>", shown)]
        assert f"<b>{html.escape(claim.statement)}</b> (<code>{name}</code>)" in shown and len(clauses) >= 1 + (claim.rule.count("; ") > 2)
        assert "; ".join(c.rstrip(".") for c in clauses).lower() == claim.rule.rstrip(".").lower()
        assert all(c.count("(") == c.count(")") and c.endswith(".") for c in clauses)
    assert plots.rules("temperature_helps", "projector_helps").data.count("<details>") == 2


def test_umaps_have_a_row_per_encoder_and_a_panel_for_the_classes_and_each_factor():
    rng = np.random.default_rng(0)
    found = pd.DataFrame({"x": rng.random(60), "y": rng.random(60), "label": np.repeat([0, 1], 30), "index": np.arange(60)})
    axes = plots.umaps({"one": found}, ["a", "b"], {"polarity": np.tile([-1.0, 1.0], 30), "phase": np.linspace(0, 1, 60)})
    assert [ax.get_xlabel() for ax in axes[0, 0].figure.axes[3:]] == ["sign", "phase"]                         # of the colour bars
    assert axes.shape == (1, 3) and [len(ax.collections[0].get_offsets()) for ax in axes.flat] == [60] * 3


# ---- arms of the remedies ----

@pytest.fixture
def swept():
    """Two encoders, two data sets, three seeds of the baseline and two of an arm; the arm is 0.1 better on one set, 0.2 on the other."""
    rows = []
    for data, better in (("plain", 0.1), ("tinted", 0.2)):
        for i, arch in enumerate(("mobilenet_v3_small", "resnet18")):
            for seed in range(3):
                level = 0.4 + 0.1 * i + 0.05 * seed
                common = {"profile": "here", "data": data, "arch": arch, "width": 1.0, "seed": seed, "tau": 0.2, "method": "moco"}
                rows.append(common | {"run": f"{data}{arch}{seed}", "arm": "trained", "change": "", "linear_test": level})
                if seed < 2:
                    rows.append(common | {"run": f"{data}{arch}{seed}cold", "arm": "remedy", "change": "temperature 0.1", "tau": 0.1,
                                          "linear_test": level + better})
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def test_gains_pair_an_arm_with_its_own_baseline_by_data_encoder_and_seed(swept):
    won = plots.gains(swept, "linear_test")
    assert len(won) == 8 and np.allclose(won.gain, np.where(won.data == "plain", 0.1, 0.2))
    alone = plots.gains(swept[(swept.arm == "remedy") | (swept.seed == 0)], "linear_test")
    assert set(alone.seed) == {0} and len(alone) == 4                       # an arm without its baseline gains nothing


def test_the_ablation_table_has_the_baseline_first_and_the_gain_in_points(swept):
    out = plots.ablation(swept, {"linear": "linear_test", "absent": "nothing"}).reset_index()
    assert out.arm.tolist() == ["baseline", "temperature 0.1"] * 4 and set(out.absent) == {""}
    assert out[out.arm == "baseline"]["gain, points"].tolist() == [""] * 4
    assert {(row.data, row["gain, points"].split(" ")[0]) for _, row in out[out.arm != "baseline"].iterrows()} == {
        ("plain", "+10.0"), ("tinted", "+20.0")}
    assert "+10.0 (+10.0, +10.0), from 42.5" in set(out["gain, points"])      # the baseline's seeds 0 and 1, not 2
    assert plots.counted(swept).loc[("here", "plain", "temperature 0.1"), "ResNet-18"] == 2
    cost = plots.ablation(swept.assign(seconds=1000 + 100 * swept.seed), {}, costs={"seconds": "seconds"}).seconds
    assert cost.tolist() == ["1,100", "1,050"] * 4                          # medians over seeds 0, 1, 2 and 0, 1


def test_sweeps_and_changes_draw_every_run_and_every_gain(swept):
    plain = swept[swept.data == "plain"]
    axes = plots.sweep(plain, "tau", {"linear_test": "linear probe"}, baseline=0.2)
    dots = [line for line in axes[0, 0].lines if line.get_linestyle() == "None"]
    assert sorted(len(line.get_xdata()) for line in dots) == [5, 5]
    assert [t.get_text() for t in axes[0, 0].get_xticklabels()] == ["0.1", "0.2"]
    small = "mobilenet_v3_small"
    means = [line.get_ydata() for line in lines_of(axes[0, 0], small) if line.get_marker() == plots.marker(small)
             and line.get_linestyle() == "-"]
    assert np.allclose(means, [[0.525, 0.425]])                             # of the seeds that both have
    ax = plots.changes(plain, "linear_test", "points")
    drawn = np.concatenate([line.get_xdata() for line in ax.lines if line.get_marker() == "o"])
    assert len(drawn) == 4 and np.allclose(drawn, 10) and [t.get_text() for t in ax.get_yticklabels()] == ["temperature 0.1"]
    assert "the paper's,\non ImageNet" not in legend_of(ax)
    known = {"temperature 0.1": {"resnet18": 14.0, "deit_tiny": 3.0}, "other": {small: 1}}
    told = plots.changes(plain, "linear_test", "points", paper=known)
    [dash] = [path.vertices for c in told.collections for path in c.get_paths()]       # of an encoder that has the change here
    assert dash[:, 0].tolist() == [14.0, 14.0] and "the paper's,\non ImageNet" in legend_of(told) and told.get_xlim()[1] > 14
    near = plots.changes(plain.assign(linear_test=plain.linear_test / 2), "linear_test", "points")
    assert near.get_xscale() == "linear" and near.get_xlabel() == "points"
    wide = plots.changes(plain.assign(linear_test=plain.linear_test * 2), "linear_test", "points")
    assert wide.get_xscale() == "symlog" and wide.get_xlabel() == "points (logarithmic beyond ±1)"
    assert [t.get_text() for t in wide.get_xticklabels()] == ["−10", "−3", "−1", "0", "1", "3", "10"] and wide.get_xlim()[1] > 20
    one = plots.changes(plain[plain.seed == 0], "linear_test", "points")
    assert lines_of(wide, small) and not lines_of(one, small)               # means; one seed is none
    both = pd.concat([plain.assign(rate="same"), plain[(plain.arm == "trained") | (plain.seed == 0)].assign(rate="own")])
    ax = plots.sweep(both, "tau", {"linear_test": "linear probe"}, by="rate")[0, 0]
    assert {line.get_linestyle() for line in lines_of(ax, "resnet18") if line.get_marker() == plots.marker("resnet18")
            and len(line.get_xdata()) == 2} == {"-", "--"}
    assert {text.get_text() for text in ax.figure.legends[0].get_texts()} == {
        f"{models.ENCODERS[a].label}, {rate}" for a in ("mobilenet_v3_small", "resnet18") for rate in ("same", "own")}
    for nothing in (plots.changes(EMPTY, "linear_test", "points"), plots.sweep(EMPTY, "tau", {"linear_test": "x"})[0]):
        assert nothing.texts[0].get_text().endswith(".")


def test_a_name_with_dollars_is_drawn_as_it_stands_and_is_no_formula():
    names = ["$\\bad{$", "a$b", "<script>alert(1)</script>&\"", "two\nlines", "-"]
    points = pd.DataFrame({"x": np.arange(5.), "y": np.arange(5.), "label": range(5), "index": range(5)})
    for draw in (lambda: plots.umaps({"ResNet-18": points}, names), lambda: plots.views({"original": np.zeros((5, 3, 4, 4))}, names)):
        ax = np.ravel(draw())[0]
        ax.figure.canvas.draw()
        shown = {t.get_text() for legend in ax.figure.legends for t in legend.get_texts()} | {t.get_text() for t in ax.get_xticklabels()}
        assert {plots.plain(name) for name in names} <= shown
        file = io.BytesIO()
        ax.figure.savefig(file, format="svg")                               # as a page holds it
        assert b"<script" not in file.getvalue()
        plt.close(ax.figure)


FOUR = {r.name: r.changes for r in claims.REMEDIES if r.name in ("temperature", "augmentation", "projector", "initialization")}
WORTH = {"temperature": 0.04, "augmentation": 0.0, "projector": 0.02, "initialization": 0.06}


@pytest.fixture
def remedies():
    """A world in which remedies add up, but for temperature and projector together, which lose 0.01; seeds shift everything."""
    rows = []
    for held in [(), *((name,) for name in FOUR), *(tuple(n for n in FOUR if n != left) for left in FOUR), tuple(FOUR)]:
        for seed in range(3):
            value = 0.5 + 0.1 * seed + sum(WORTH[name] for name in held) - 0.01 * ({"temperature", "projector"} <= set(held))
            changes = {field: v for name in held for field, v in FOUR[name].items()}
            rows.append({**studies.TEXTURES.__dict__, "start": "random", "all_epochs": 16, **changes, "profile": "here", "seed": seed,
                         "run": f"{held}{seed}", "arm": "remedy" if held else "trained", "change": "+".join(held), "linear_test": value})
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def test_a_remedys_share_is_what_it_adds_alone_and_what_the_four_lose_without_it(remedies):
    found = plots.shares(remedies, "linear_test").groupby(["remedy", "way"]).gain.agg(["mean", "std", "count"])
    assert (found["count"] == 3).all() and np.allclose(found["std"], 0) and len(found) == 8
    for name, worth in WORTH.items():
        assert found.loc[(plots.SHARED[name], "added alone"), "mean"] == pytest.approx(worth)
        assert found.loc[(plots.SHARED[name], "left out"), "mean"] == pytest.approx(worth - 0.01 * (name in ("temperature", "projector")))
    few = plots.shares(remedies[(remedies.change != "temperature") | (remedies.seed == 0)], "linear_test")
    assert few[(few.remedy == "temperature 0.1") & (few.way == "added alone")].seed.tolist() == [0]    # paired, or not at all
    other = plots.shares(remedies.assign(lr=np.where(remedies.arm == "trained", 0.1, 0.2)), "linear_test")
    assert other.empty                                                      # an arm with another learning rate is none


def test_the_gains_stand_beside_the_papers_with_their_interval_the_baseline_and_the_ceiling(remedies):
    paper = pd.read_csv(runs.ROOT / "results" / "reference" / "paper_headline.csv").set_index("model")
    labels = remedies[(remedies.arm == "trained") & (remedies.seed == 0)].assign(arm="supervised", linear_test=0.9)
    found = plots.beside_paper({"here": pd.concat([remedies, labels])}, {"temperature"}, paper)["MobileNetV3-Small"]
    assert [row for source, row in found.index if source == "here"] == ["baseline", "with labels", "gain: temperature"]
    assert found[("here", "with labels")] == "90.0"
    gain = 100 * WORTH["temperature"]
    assert found[("here", "gain: temperature")] == f"+{gain:.1f} [+{gain:.1f}, +{gain:.1f}]"
    assert found["paper"].tolist() == ["26.8", "+14.5", "+14.2", ""]
    assert plots.shown([0.01], sign="+") == "+1.0" and plots.shown([0.01, -0.02], sign="+") == "−0.5 (−2.0, +1.0)"


def test_what_an_arm_makes_of_a_number_is_told_in_words_over_the_seeds_that_both_have(remedies):
    some = remedies[(remedies.change != "") | (remedies.seed > 0)]
    gain, mean = 100 * WORTH["temperature"], 100 * remedies[(remedies.change == "") & (remedies.seed > 0)].linear_test.mean()
    assert plots.from_to(some, "linear_test", "temperature") == (
        f"MobileNetV3-Small from {mean:.1f} to {mean + gain:.1f}, +{gain:.1f} (+{gain:.1f}, +{gain:.1f})")
    assert plots.from_to(some, "linear_test", "another") == plots.from_to(some.iloc[:0], "linear_test", "temperature") == ""


def test_shares_are_drawn_filled_and_hollow_with_every_seed(remedies):
    ax = plots.share(remedies, "linear_test", "points")
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [t.get_text() for t in ax.get_yticklabels()] == [*plots.SHARED.values()] and sum(len(line.get_xdata()) for line in dots) == 24
    assert sum(to_hex(line.get_markerfacecolor()) == "#ffffff" for line in dots) == 4
    assert legend_of(ax) == ["MobileNetV3-Small", "added alone", "left out"]
    assert plots.share(EMPTY.assign(linear_test=[]), "linear_test", "points").texts[0].get_text().endswith(".")


def test_transfers_have_a_panel_each_for_the_linear_probe_and_fine_tuning_and_the_untrained_first(swept):
    worth = pd.concat([swept[swept.data == "plain"], swept[swept.arm == "trained"].assign(arm="untrained").iloc[:1]])
    worth = worth.assign(linear_digits=0.9, fine_tuned_digits=0.95)
    axes = plots.transfers(worth, "digits", "here")
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["untrained", "baseline", "temperature 0.1"]
    assert [{*np.concatenate([line.get_xdata() for line in ax.lines if line.get_marker() == "o"])} for ax in axes] == [{0.9}, {0.95}]
    assert [ax.get_xlabel() for ax in axes] == ["digits: linear probe, held out", "digits: fine-tuned, held out"]
    assert plots.transfers(swept.iloc[:0], "digits")[0].texts[0].get_text().endswith(".")
