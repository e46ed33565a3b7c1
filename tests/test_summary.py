import re

import numpy as np
import pandas as pd
from conftest import made_up_store

from lib import claims, models, report, studies, summary


def test_a_verdict_on_two_encoders_shows_both_and_one_seed_is_said_to_be_one():
    row = {"claim": "projector_helps", "profile": "p", "test": "", "effect": -0.084, "low": -0.345, "high": 0.176, "n": 3,
           "verdict": "undecided", "data": "textures", "purer": np.nan}
    rows = pd.DataFrame([row, row | {"claim": "projector_helps/mobilenet_v3_small"},
                         row | {"claim": "projector_helps/resnet18", "effect": 0.01, "low": np.nan, "high": np.nan, "n": 1}])
    whole, _, alone = rows.itertuples()
    assert summary.agreement(rows, whole) == " (?\u00a0MobileNetV3-Small −8.4, ?\u00a0ResNet-18 +1.0)"
    assert summary.agreement(rows.assign(effect=np.nan), whole) == " (2 ?)"
    assert [summary.whose(rows[:n], whole) for n in (1, 2, 3)] == ["", "", "MobileNetV3-Small "]
    assert summary.agreement(rows[:2], whole) == " (MobileNetV3-Small, 1 of 2 encoders tested; one that contradicts refutes)"
    aside = pd.concat([rows, rows.iloc[[1]].assign(claim=f"{whole.claim}/deit_tiny")])
    assert summary.agreement(aside, whole) == summary.agreement(rows, whole)
    assert [label for label, _ in summary.of_encoders(aside, whole.claim, whole.profile)][-1] == "DeiT-Ti, beside"
    assert summary.said(alone) == "+1.0 points; one seed" and summary.said(whole) == "−8.4 points [−34.5, +17.6]; n = 3"


def test_what_is_not_tested_as_a_whole_names_the_encoders_that_were_tested(tmp_path):
    t = report.table("textures", store=made_up_store(tmp_path, "textures"))
    for seeds in (5, 1):
        rows = report.ledger(t[t.seed < seeds], ["textures"])
        row = next(r for r in summary.overall(rows).itertuples() if r.claim == "pretext_learned")
        alone = next(r for r in rows.itertuples() if r.claim == "pretext_learned/mobilenet_v3_small")
        assert row.verdict == claims.NOT_TESTED != alone.verdict
        assert summary.partly(rows, row) == f"as a whole; MobileNetV3-Small: **{alone.verdict}** {summary.said(alone)}"
        assert summary.partly(rows, alone) == "" and summary.said(row) == summary.agreement(rows, row) == ""


def test_the_terminal_shows_every_claim_with_its_verdict(tmp_path):
    rows = report.ledger(report.table("textures", store=made_up_store(tmp_path, "textures")), ["textures"])
    shown = summary.terminal(rows)
    for row in summary.overall(rows).itertuples():
        if row.verdict != claims.NOT_TESTED or summary.of_encoders(rows, row.claim, "textures"):
            assert re.search(rf"{row.verdict} +{row.claim} ", shown)
        else:
            assert row.claim in shown.split("for want of runs that the rule admits: ")[1]


def test_the_papers_questions_are_answered_from_the_numbers_of_all_encoders_or_not_at_all(tmp_path):
    t = report.table("textures", store=made_up_store(tmp_path, "textures", archs=(*models.SMALL, models.LARGE)))
    trained, labels = (t.epochs > 0) & (t.method == "moco"), t.method == "supervised"
    t.loc[trained, "linear_test"], t.loc[labels, "linear_test"] = 0.7, 0.9
    t.loc[trained & (t.arch == "deit_tiny"), "linear_test"] = 0.885
    t.loc[t.arch == "pixels", "instdisc_dsd_top1_test"] = 0.123
    rows = report.ledger(t, ["textures"])

    def answered(t, rows):
        return {question.split(",")[0].rstrip("?").split(" (")[0]: said for question, *said in summary.answers(t, rows, "textures")}

    first, pretext, clusters = (answered(t, rows)[question] for question in (
        "Do small encoders learn without a teacher", "Does training make them better at the pretext task", "Do they over-cluster"))
    standard = t[trained & (t.arch == "resnet18") & (t.width == 1) & (t.seed < 2)]
    longer = standard.assign(epochs=32, all_epochs=32, linear_test=standard.linear_test + [0.1, 0.2], arm="other", run="longer")
    lead, told = answered(pd.concat([t, longer]), rows)["Do twice the epochs help"]
    assert lead == "Undecided on ResNet-18; no verdict, for it had no rule beforehand."
    assert told.endswith("accuracy: ResNet-18 +15.0 [−48.5, +78.5], 2 seeds.")
    three = longer.assign(linear_test=longer.linear_test + 0.1, run="three", projector="wide", tau=0.1, grayscale_p=0.5,
                          jitter=[(0.8, 0.8, 0.8, 0.4)] * 2)
    told = answered(pd.concat([t, longer, three]), rows)["Do twice the epochs help"][1]
    assert "2 seeds, to which the three without a teacher add +10.0 [+10.0, +10.0], 2 seeds." in told
    sure = longer.assign(linear_test=standard.linear_test + [0.149, 0.151])
    other = t[trained & (t.arch == "deit_tiny") & (t.width == 1) & (t.seed < 2)]
    worse = other.assign(epochs=32, all_epochs=32, linear_test=other.linear_test - [0.149, 0.151], arm="other", run="worse")
    assert answered(pd.concat([t, sure, worse]), rows)["Do twice the epochs help"][0].startswith("Yes on ResNet-18; no on DeiT-Ti; no ver")
    assert "ResNet-18 +10.0, 1 seed." in answered(pd.concat([t, longer[longer.seed == 0]]), rows)["Do twice the epochs help"][1]
    assert first[0] == ("All five do, by kNN accuracy over the untrained; within 2 points of the same encoder trained with labels: "
                        "DeiT-Ti; shown to be better than raw pixels: none.")
    spread = t.assign(knn_test=t.knn_test.mask(trained & t.arch.isin(["deit_tiny", "resnet18"]), 0.99).mask(t.arch == "pixels", 0.9))
    spread.loc[trained & (t.arch == "resnet18") & (t.seed == 0), "knn_test"] = 0.8                  # above on average, not shown
    assert answered(spread, rows)["Do small encoders learn without a teacher"][0].endswith("shown to be better than raw pixels: DeiT-Ti.")
    assert "pixels" not in answered(t[t.arch != "pixels"], rows)["Do small encoders learn without a teacher"][0]
    unsure = t.assign(knn_val=t.knn_val.mask(trained & (t.arch == "resnet18") & (t.seed == 0), 0.0))     # its mean is still above
    few_labels = unsure[~labels | (unsure.arch == "resnet18")]
    lead, why = answered(few_labels, rows)["Do small encoders learn without a teacher"]
    assert lead.startswith("4 of five do, by kNN") and "labels: none; shown" in lead and "70.0%, 20 points less)" in why
    assert why.count("points less") == 1
    assert re.search(r"The large ResNet-50 reaches 70.0%. Raw pixels have a kNN accuracy of [\d.]+%.$", first[1])
    assert "on DeiT-Ti (88.5%), and does not on MobileNetV3-Small (70.0%, 20 points less), Eff" in first[1]
    assert pretext[1].endswith("raw pixels 12.3%.")
    for verdict, lead in ((claims.SUPPORTED, "Yes, all five."), (claims.UNDECIDED, "Undecided on every encoder."),
                          (claims.CONTRADICTED, "Not all five: shown on none, no on MobileNetV3-Small, DeiT-Ti, EfficientNet-B0, "
                                                "MobileNetV3-Large and ResNet-18.")):
        whole = rows.assign(verdict=rows.verdict.mask(rows.claim.str.startswith("no_overfitting"), verdict))
        assert answered(t, whole)["And without overfitting"][0] == lead
    unsolved = rows.assign(test=rows.test.mask(rows.claim.str.startswith("no_over"), "").mask(
        rows.claim.isin(["no_overfitting/deit_tiny", "no_overfitting/resnet18"]), f"Shown: {claims.NOT_SOLVED}"))
    assert answered(t, unsolved)["And without overfitting"][1] == "Too little of the task is learned to tell on DeiT-Ti and ResNet-18."
    again = unsolved[unsolved.claim == "no_overfitting/deit_tiny"].assign(profile="textures_again", effect=0.0123, verdict="supported")
    each = summary.grid(pd.concat([unsolved, again]), "textures").set_index("encoder").loc["without overfitting"]
    assert each["DeiT-Ti"].endswith(", task hardly learned") and " → ✓ +1.2 ± " in each["DeiT-Ti"]
    assert "→" not in each["ResNet-18"] and "hardly" in each["ResNet-18"]
    assert "hardly" not in each["MobileNetV3-Small"]
    every = rows.assign(test=rows.test.mask(rows.claim.str.startswith("no_overfitting/"), f"Shown: {claims.NOT_SOLVED}"))
    each = summary.grid(every, "textures").set_index("encoder").loc["without overfitting, task hardly learned"]
    assert not each.str.contains("hardly").any() and len(each) == 5
    assert "→" not in summary.grid(pd.concat([unsolved, again.assign(low=np.nan)]), "textures").to_string()
    even = rows.assign(test=rows.test.mask(rows.claim == "over_clustered_paper/resnet18", "Shown: uniformity"))
    each = summary.grid(even, "textures").set_index("encoder").loc[summary.GRID["over_clustered_paper"]]
    assert each["ResNet-18"].endswith(" u") and not each["DeiT-Ti"].endswith(" u")
    for claim, words in (("over_clustered_paper", "by the paper's pair of measures {} do,"), ("over_clustered", "directly {}")):
        judged = rows[rows.claim.str.startswith(claim + "/")].verdict
        assert words.format(f"{(judged == claims.SUPPORTED).sum()} of five") in clusters[0]
    decided = rows.assign(verdict=rows.verdict.mask(rows.claim == "over_clustered_centred/deit_tiny", claims.CONTRADICTED).mask(
        rows.claim.str.startswith("over_clustered_centred/res"), claims.SUPPORTED).mask(rows.claim == "over_clustered", claims.UNDECIDED))
    lead, told = answered(t, decided)["Do they over-cluster"]
    assert lead.startswith("Undecided: by the") and re.search(r"centred features [1-5] of five \(contradicted on [1-4]\), by clu", lead)
    large = (t.arch == models.LARGE) & trained
    poor = t.assign(knn_test=t.knn_test.mask(large, 0.0), homogeneity_k12=t.homogeneity_k12.mask(large & (t.seed == 0), 0.99))
    none = rows[rows.claim.str.startswith("over_clustered/")].assign(verdict=claims.UNDECIDED)
    rest = rows[~rows.claim.isin(none.claim)]
    lead, told = answered(poor, pd.concat([rest, none]))["Do they over-cluster"]
    assert lead.endswith("by clusters counted directly it cannot be told.")
    none.iloc[0, none.columns.get_loc("verdict")] = claims.CONTRADICTED       # by local purity, which needs no curve
    assert answered(poor, pd.concat([rest, none]))["Do they over-cluster"][0].endswith("directly 0 of five (contradicted on 1).")
    assert "Clusters can show none, since the curves of some runs of ResNet-50 do not hold" in told
    assert "learned less than MobileNetV3-Small, DeiT-Ti" in told
    followed = t.assign(ami_x=0.2, ami_y=t.arch.map({models.LARGE: 0.9}).fillna(0.5))
    assert answered(followed, rows)["What do the groups inside a class follow"] == [
        "Mostly y.", "It is a factor of the images that is not their class. Each class is dealt into as many clusters as a "
        "factor has levels, whether it has groups or not. Adjusted mutual information of these with it: 0.50 "
        "to 0.50 on the five, 0.90 on ResNet-50; "
        "the next factor, x, 0.20 to 0.20 on the five; untrained 0.50 to 0.50; trained with labels 0.50 to 0.90."]
    patterns = followed.rename(columns={"ami_y": "ami_polarity"})
    assert answered(patterns, rows)["What do the groups inside a class follow"][0] == (
        "Mostly polarity (which of light and dark is pattern and which ground), in the 7 of 12 classes that show it.")
    few = t[t.arch != "deit_tiny"]
    assert answered(few, report.ledger(few, ["textures"])) == answered(t[:0], rows) == {}
    gain = rows.iloc[0].to_dict() | {"effect": 0.02, "low": 0.01, "high": 0.03, "n": 3, "verdict": claims.SUPPORTED, "test": ""}
    gains = pd.DataFrame([gain | {"claim": f"improved_helps/{arch}", "effect": 0.01 * i} for i, arch in enumerate(models.SMALL)])
    whole = pd.DataFrame([gain | {"claim": "improved_helps", "effect": 0.0}])
    rest = rows[~rows.claim.str.startswith("improved_helps")]
    lead, told = answered(t, pd.concat([rest, gains, whole]))["Do the paper's four remedies together"]
    assert lead == "Yes, all five." and "above 0 on MobileNetV3-Small (+0.0 points), DeiT-Ti (+1.0 points), " in told
    assert told.endswith("ResNet-18 (+4.0 points). SEED's teacher reaches 70.0%, less than the baselines of DeiT-Ti. The images are grey, "
                         "so stronger colours have next to nothing to act on.")
    gains.loc[gains.claim == "improved_helps/resnet18", "verdict"] = claims.UNDECIDED
    lead, told = answered(t, pd.concat([rest, gains, whole.assign(verdict=claims.UNDECIDED)]))["Do the paper's four remedies together"]
    assert lead == "Undecided as a whole: yes on MobileNetV3-Small, DeiT-Ti, EfficientNet-B0 and MobileNetV3-Large." and (
        "MobileNetV3-Large (+3.0 points), includes it on ResNet-18 (+4.0 points). SEED") in told
    alone = gains.assign(low=gains.low.mask(gains.claim == "improved_helps/resnet18"))
    told = answered(t, pd.concat([rest, alone, whole.assign(verdict=claims.UNDECIDED)]))["Do the paper's four remedies together"][1]
    assert "MobileNetV3-Large (+3.0 points); one seed, hence no interval, on ResNet-18 (+4.0 points). SEED" in told
    each = summary.grid(pd.concat([rest, gains]), "textures").set_index("encoder")
    assert each.loc[summary.IN_PAPER].tolist() == ["+14.5", "+9.7", "+9.1", "+16.5", "−1.3"]
    unknown = pd.concat([rest, gains.assign(effect=np.nan)])
    assert not {summary.IN_PAPER, "gains by the paper's four remedies"} & {*summary.grid(unknown, "textures").encoder}
    assert each.loc["gains by the paper's four remedies"].tolist() == [
        "✓ +0.0 ± 1.0", "✓ +1.0 ± 1.0", "✓ +2.0 ± 1.0", "✓ +3.0 ± 1.0", "? +4.0 ± 1.0"]
    each = summary.grid(pd.concat([rest, gains[1:]]), "textures").set_index("encoder").loc["gains by the paper's four remedies"]
    assert each["MobileNetV3-Small"] == "–" and "–" not in each[1:].tolist()
    assert "gains by the paper's four remedies" not in summary.grid(pd.concat([rest, gains[3:]]), "textures").encoder.tolist()
    few = rows[~rows.claim.str.contains("deit|efficient|large")]             # two encoders are no grid
    assert not len(summary.grid(few, "textures")) and summary.grids(few, ["textures"]) == {}
    assert [*summary.grids(pd.concat([rows, rows.assign(profile="textures_again")]), ["textures", "textures_again"])] == ["textures"]


def test_the_questions_are_answered_on_photographs_too_as_far_as_they_were_tried(tmp_path):
    store = made_up_store(tmp_path, "textures", archs=(*models.SMALL, models.LARGE))
    t = report.table("textures", "cifar10_subset", store=made_up_store(store, "cifar10_subset", archs=("mobilenet_v3_small", "resnet18")))
    photos = t.profile == "cifar10_subset"
    for arch, before, after in (("pixels", 0.4, 0.4), ("mobilenet_v3_small", 0.2, 0.3), ("resnet18", 0.3, 0.5)):
        for name in ("knn_test", "knn_val"):
            t.loc[photos & (t.arch == arch), name] = np.where(t.epochs[photos & (t.arch == arch)] > 0, after, before)
    row = {"test": "", "n": 3, "data": "cifar10_jpeg", "purer": np.nan, "runs": "", "source": "ours", "profile": "cifar10_subset",
           "effect": 0.01, "low": 0.0, "high": 0.02}
    statement = {claim.name: claim.statement for claim in claims.CLAIMS}
    own = pd.DataFrame([row | {"claim": claim, "statement": statement[claim.split("/")[0]], "verdict": verdict} for claim, verdict in (
        ("pretext_learned/mobilenet_v3_small", claims.CONTRADICTED), ("pretext_learned/resnet18", claims.SUPPORTED),
        ("no_overfitting/resnet18", claims.NOT_TESTED), ("over_clustered/resnet18", claims.UNDECIDED),
        ("over_clustered_paper/mobilenet_v3_small", claims.CONTRADICTED), ("over_clustered_paper/resnet18", claims.SUPPORTED),
        ("improved_no_teacher_helps/mobilenet_v3_small", claims.UNDECIDED))])
    rows = pd.concat([report.ledger(t[~photos], ["textures"]), own])

    def answered(t, rows, profile="textures"):
        found = [(question, said) for question, *said in summary.answers(t, rows, profile) if "photographs" in question]
        assert len(dict(found)) == len(found)                               # no question twice
        return dict(found)
    found = answered(t, rows)
    assert [*found] == ["Do they learn on photographs?", "Does training make them better at the pretext task on photographs?",
                        "Do they over-cluster on photographs?", "Do the three remedies without a teacher help on photographs?"]
    lead, why = found["Do they learn on photographs?"]
    assert lead == "MobileNetV3-Small and ResNet-18 do, by kNN accuracy over the untrained; shown to be better than raw pixels: ResNet-18."
    assert why == ("On cifar10_subset, kNN accuracy untrained and trained: MobileNetV3-Small 20.0% and 30.0%, ResNet-18 30.0% and 50.0%; "
                   "raw pixels 40.0%.")
    lead, why = found["Does training make them better at the pretext task on photographs?"]
    assert lead == "Yes on ResNet-18; no on MobileNetV3-Small."
    assert why == ("On cifar10_subset: +1.0 points [+0.0, +2.0] on MobileNetV3-Small (contradicted), "
                   "+1.0 points [+0.0, +2.0] on ResNet-18 (supported).")
    wide = "+0.010 distance² [+0.000, +0.020]"
    assert found["Do they over-cluster on photographs?"] == [
        "By the paper's pair of measures: yes on ResNet-18; no on MobileNetV3-Small. By clusters counted directly: undecided on ResNet-18.",
        f"On cifar10_subset, by the paper's pair of measures: {wide} on MobileNetV3-Small (contradicted), {wide} on ResNet-18 (supported); "
        "on cifar10_subset, by clusters counted directly: +1.0 points [+0.0, +2.0] on ResNet-18 (undecided)."]
    large = t[photos & (t.arch == "resnet18") & (t.epochs == 0)].assign(arch=models.LARGE, run="large")
    noise = 0.001 * t.seed
    apart = pd.concat([t.assign(intra_class_d_test=1.5 + noise, uniformity_d_test=-2.5 + noise),
                       large.assign(intra_class_d_test=1 + 0.001 * large.seed, uniformity_d_test=-2 + 0.001 * large.seed)])
    assert answered(apart, rows)["Do they over-cluster on photographs?"][0].startswith(
        "By the paper's pair of measures: yes on ResNet-18 (untrained, too); no on MobileNetV3-Small.")
    help_, again = "Do the three remedies without a teacher help on photographs?", own.iloc[[-1]].assign(profile="cifar10_subset_again")
    for verdict, words in ((claims.UNDECIDED, ""), (claims.CONTRADICTED, " (on new seeds contradicted)")):
        lead, why = answered(t, pd.concat([rows, again.assign(verdict=verdict, effect=-0.02)]))[help_]
        assert lead == f"Undecided on MobileNetV3-Small{words}."
        assert why.endswith(f"; on new seeds: −2.0 points [+0.0, +2.0] on MobileNetV3-Small ({verdict}).")
    hardly = rows.assign(test=rows.test.mask(rows.claim == "pretext_learned/resnet18", f"Shown: {claims.NOT_SOLVED}"))
    assert answered(t, hardly)["Does training make them better at the pretext task on photographs?"][0] == (
        "No on MobileNetV3-Small; too little is learned to tell on ResNet-18.")
    lead, why = answered(t[t.arch != "pixels"], rows)["Do they learn on photographs?"]
    assert lead.endswith("over the untrained.") and why.endswith("50.0%.") and "pixels" not in lead + why
    worse = t.assign(knn_val=t.knn_val.mask(photos & (t.arch == "resnet18") & (t.epochs > 0), 0.1))
    assert answered(worse, rows)["Do they learn on photographs?"][0].startswith(
        "MobileNetV3-Small does, by kNN accuracy over the untrained; not shown on ResNet-18; shown to be")
    some = t[~(photos & (t.arch == "resnet18") & (t.epochs == 0))]          # without untrained runs nothing is said
    lead, why = answered(some, rows)["Do they learn on photographs?"]
    assert lead.startswith("MobileNetV3-Small does, by") and "ResNet" not in lead + why
    assert "Do they learn on photographs?" not in answered(t[~photos | (t.epochs > 0)], rows)
    copied = t[photos].assign(data="cifar10", knn_test=0.9, knn_val=0.9)    # another data set under the same profile is left out
    copied = copied.assign(arm=copied.arm.mask(copied.arm == "trained", "other"))
    assert answered(pd.concat([t, copied]), rows) == found
    gpu = t[photos].assign(profile="cifar10", data="cifar10")
    both = answered(pd.concat([t, gpu]), rows)
    assert {"Do they learn on photographs (cifar10)?", "Do they learn on photographs (cifar10_subset)?"} <= both.keys()
    whole = t[~photos].assign(profile="cifar10", data="cifar10")            # all encoders there: its own questions are on photographs
    assert answered(pd.concat([t, whole]), rows.assign(profile=rows.profile.replace("textures", "cifar10")), "cifar10") == {}
    assert answered(t[~photos], rows[rows.profile == "textures"]) == {}


def test_a_repetition_says_which_verdicts_hold_and_what_longer_training_gains(tmp_path):
    t = report.table("textures", store=made_up_store(tmp_path, "textures", archs=(*models.SMALL, models.LARGE)))
    before = report.ledger(t, ["textures"])
    row = {"test": "", "n": 5, "data": "textures", "purer": np.nan, "runs": "", "source": "ours"}
    statement = {claim.name: claim.statement for claim in claims.CLAIMS}
    signs = {"✓": (0.02, 0.01, 0.03, claims.SUPPORTED), "✗": (-0.02, -0.03, -0.01, claims.CONTRADICTED),
             "?": (0.01, -0.01, 0.03, claims.UNDECIDED), "–": (np.nan, np.nan, np.nan, claims.NOT_TESTED)}
    def of(profile, **verdicts):
        return pd.DataFrame([row | {"claim": claim.replace("_ON_", "/"), "profile": profile, "statement": statement[claim.split("_ON_")[0]]}
                             | dict(zip(("effect", "low", "high", "verdict"), signs[mark])) for claim, mark in verdicts.items()])
    small, large = "mobilenet_v3_small", "resnet18"
    marks = {f"temperature_helps_ON_{small}": "✓✓", f"temperature_helps_ON_{large}": "✗✗", f"negatives_helps_ON_{small}": "✓✗",
             f"negatives_helps_ON_{large}": "✗?", f"projector_helps_ON_{small}": "?✓", f"projector_helps_ON_{large}": "??",
             f"initialization_helps_ON_{small}": "✓–", "temperature_helps": "✓✗"}
    first = of("textures", **{claim: both[0] for claim, both in marks.items()})
    again = of("textures_again", **{claim: both[1] for claim, both in marks.items()})
    found = summary.repeated(pd.concat([first, again]), "textures")
    assert found.became.tolist() == [summary.HELD, summary.HELD, summary.TURNED, summary.GONE, summary.NEW, summary.OPEN]
    assert found.iloc[2, 2:5].tolist() == ["MobileNetV3-Small", "✓ +2.0 points [+1.0, +3.0], n = 5", "✗ −2.0 points [−3.0, −1.0], n = 5"]
    assert summary.repeated(first, "textures").empty and summary.repeated(pd.concat([first, again]), "textures_again").empty
    longer = of("textures_again", longer_helps="?", **{f"{claim}_ON_{arch}": mark for claim, marks in zip(claims.LENGTH, ("✓✗", "✗?", "??"))
                                                       for arch, mark in zip((small, large), marks)})
    def answered(*rows):
        return {question: said for question, *said in summary.answers(t, pd.concat(rows), "textures")}
    held, more = "Do the verdicts hold on new seeds?", "Do twice the epochs help?"
    four, three = (f"Do the {few} gain more than twice the epochs do?"
                   for few in ("paper's four remedies", "three remedies without a teacher"))
    assert not {held, more, four, three} & answered(before).keys()
    told = answered(before, first, again, longer)
    lead, why = told[held]
    assert lead == ("2 of 4 do (1 of 2 on MobileNetV3-Small and 1 of 2 on ResNet-18); 1 undecided now; 1 the opposite now; beside them "
                    "1 decided only there.")
    assert ("4 had been decided. Turned into their opposite: ✓ → ✗ Fewer negatives help small models (MobileNetV3-Small). "
            "Undecided now: ✗ → ? Fewer negatives help small models (ResNet-18). Decided only there: ? → ✓ A wider") in why
    assert " Held: ✓ → ✓ A lower temperature" in why
    assert "another teacher" not in why
    seeded = [of(p, **{f"improved_helps_ON_{small}": mark}) for p, mark in (("textures", "✓"), ("textures_again", "?"))]
    assert answered(before, first, again, *seeded)[held][1].endswith("another teacher there, too: what became of them may be its doing.")
    up, down, around = "+2.0 points [+1.0, +3.0]", "−2.0 points [−3.0, −1.0]", "+1.0 points [−1.0, +3.0]"
    small_up, large_down = f"{up} on MobileNetV3-Small (supported)", f"{down} on ResNet-18 (contradicted)"
    rule = "On textures_again, by rules of before the runs, on seeds that nobody had seen, in linear accuracy: "
    assert told[more] == ["Yes on MobileNetV3-Small; no on ResNet-18.", f"{rule}{small_up}, {large_down}."]
    assert told[four] == ["No on MobileNetV3-Small; undecided on ResNet-18.",
                          f"{rule}{down} on MobileNetV3-Small (contradicted), {around} on ResNet-18 (undecided)."]
    assert told[three] == ["Undecided on MobileNetV3-Small and ResNet-18.",
                           f"{rule}{around} on MobileNetV3-Small (undecided), {around} on ResNet-18 (undecided)."]
    photographs = [of(p, **{f"{claim}_ON_{small}": mark for claim, mark in zip((*claims.LENGTH, "improved_no_teacher_helps"), marks)}
                      ).assign(data="cifar10_jpeg") for p, marks in (("cifar10_subset", "–––✓"), ("cifar10_subset_again", "✓–✗✓"))]
    both = answered(before, again, longer, *photographs)
    where = [rule.replace("textures", "cifar10_subset"), "on photographs?"]
    assert both[f"Do twice the epochs help {where[1]}"] == ["Yes on MobileNetV3-Small.", f"{where[0]}{small_up}."]
    assert both[three.replace("do?", f"do {where[1]}")] == [
        "No on MobileNetV3-Small.", f"{where[0]}{down} on MobileNetV3-Small (contradicted)."]
    assert both["Do the verdicts on photographs hold on new seeds?"][0] == "1 of 1 do."
    assert four.replace("do?", f"do {where[1]}") not in both
    for lone in ([photographs[1]], photographs):                            # told beside a profile that was repeated itself, or not at all
        assert not [question for question in answered(before, *lone) if "photographs" in question]
    assert not [question for question in answered(before, again, longer, photographs[1]) if "photographs" in question]
    foreign = again.assign(data="folder:/mine")                             # the repetition of other images repeats nothing
    assert not {held, more} & answered(before, first, foreign, longer.assign(data="folder:/mine")).keys()
    assert summary.repeated(pd.concat([first, foreign]), "textures").empty
    few = longer[longer.claim.str.startswith("longer_helps")]               # what is not trained yet is not spoken of
    assert more in answered(before, few) and not {four, three} & answered(before, few).keys()
    lead, why = answered(before, *(some[some.claim == f"projector_helps/{small}"] for some in (first, again)))[held]
    assert lead == "1 decided only there."
    assert "of their own, none had been decided. Decided only there: ? → ✓ A wider projector helps" in why
    for mark, words in ("✓", ", on new seeds too"), ("?", ", on new seeds undecided"), ("✗", ", on new seeds the reverse"), ("–", ""):
        once = of("textures", improved_helps="?", **{f"improved_helps_ON_{small}": "✓"})
        twice = of("textures_again", **{f"improved_helps_ON_{small}": mark})
        gains = before[~before.claim.str.startswith("improved_helps")]
        lead, why = next(said for question, said in answered(gains, once, twice).items() if "four remedies" in question)
        assert f"lies above 0 on MobileNetV3-Small (+2.0 points{words})." in why
        assert lead == f"Undecided as a whole: yes on MobileNetV3-Small{f' ({words[2:]})' if mark in '?✗' else ''}."
    assert summary.nutshell(t, longer, "textures") == summary.nutshell(t, before[before.profile == "none"], "textures") == []
    paper = pd.DataFrame([row | {"claim": claim, "profile": "textures", "source": source, "verdict": signs[mark][3], "low": np.nan}
                          for claim, source, mark in (
        ("pretext_learned", "paper, (i)", "✗"), ("pretext_learned/resnet18", "paper, (i)", "✓"), ("over_clustered", "paper, (ii)", "?"),
        ("temperature_helps", "paper", "✗"), ("negatives_helps", "paper", "–"), ("improved_no_teacher_helps", "ours", "✓"))])
    paper = paper.assign(statement=paper.claim.str.partition("/")[0].map(statement))
    said = [
        "Of 4 claims drawn from the paper, each made a test of ours, none is supported on textures, 2 contradicted, and 1 undecided, which "
        "says neither; 1 not tested. A claim is supported if every small encoder that it names supports it, and contradicted if one "
        "contradicts it.",
        f"Contradicted: “{statement['pretext_learned']}”; “{statement['temperature_helps']}”."]
    floor = summary.nutshell(t, paper, "textures")[1]
    t = t.assign(instdisc_dsd_top1_test=t.instdisc_dsd_top1_test.mask(t.arch == "pixels", 0.0))
    assert summary.nutshell(t, paper, "textures") == said
    assert re.search(r"held-out images” \(below raw pixels: the best small encoder has [\d.]+%, raw pixels [\d.]+%\); “A", floor)
    assert summary.nutshell(t, pd.concat([paper, longer.assign(data="other")]), "textures") == said
    against = paper.assign(source=paper.source.mask(paper.claim == "temperature_helps", "paper; its code's figures speak against it"),
                           verdict=paper.verdict.replace(claims.UNDECIDED, claims.SUPPORTED))
    assert summary.nutshell(t, against, "textures")[1:] == [
        f"Supported: “{statement['over_clustered']}”.",
        f"{said[1].removesuffix('.')} (the paper's own plotted numbers speak against it)."]
    tried = paper.assign(source=paper.source.mask(paper.claim == "over_clustered", "paper, a remedy; not adopted there"))
    assert summary.nutshell(t, tried, "textures")[0].startswith(
        "Of 4 claims drawn from the paper (1 of them on what it tried and did not adopt), each made a test of ours, none is")
    known = of("textures", temperature_helps_ON_resnet18="✗")
    for half, stands in ((0.001, True), (0.019, False)):                    # beside 19 that say nothing
        many = [known.assign(low=-0.02 - half, high=-0.02 + half), *(
            of("textures", **{f"{r.name}_{m}_ON_{arch}": "?"}) for r in claims.REMEDIES for m in ("helps", "gathers")
            for arch in (small, large) if (r.name, m, arch) != ("temperature", "helps", large))]
        told = summary.nutshell(t, pd.concat([paper, *many]), "textures")[1]
        words = " (does not survive a correction for the number of intervals)"
        assert told.endswith(f"“{statement['temperature_helps']}”{'' if stands else words}.")
    start, end = "On new seeds twice the epochs of the baseline gain more than remedies at the usual number: more than ", (
        ". That cannot explain the paper's gains at 200 epochs; its improved models of 800 have no baseline of their length. In schedules "
        "as short as ours an encoder is far from done.")
    fours = "the paper's four (with another teacher there) on MobileNetV3-Small (textures)"
    threes = "the three remedies without a teacher on MobileNetV3-Small"
    assert summary.nutshell(t, pd.concat([paper, longer]), "textures") == [*said, f"{start}{fours}{end}"]
    better = longer.assign(verdict=longer.verdict.mask(longer.claim.str.contains("beats"), claims.SUPPORTED))
    assert summary.nutshell(t, pd.concat([paper, better]), "textures") == summary.nutshell(t, pd.concat([paper, few]), "textures") == said
    held = "Of verdicts on single encoders that were tried again on new seeds, these hold: 1 of 2 on MobileNetV3-Small and 1 of 2 "
    held += "on ResNet-18 (textures)"
    never = said[1].replace("”;", "” (not repeated);")
    fate = [said[0], f"{never.removesuffix('.')} (on new seeds: ResNet-18 holds)."]
    assert summary.nutshell(t, pd.concat([paper, first, again]), "textures") == [*fate, f"{held}."]
    gone = again.assign(verdict=again.verdict.mask(again.claim == "temperature_helps/resnet18", claims.UNDECIDED))
    for changed, words in ((gone, ", hence not contradicted there"), (gone.assign(verdict=gone.verdict.mask(
            gone.claim == "temperature_helps/mobilenet_v3_small", claims.CONTRADICTED)), "")):
        assert summary.nutshell(t, pd.concat([paper, first, changed]), "textures")[1].endswith(
            f" (on new seeds: ResNet-18 undecided now{words}).")
    assert summary.nutshell(t, pd.concat([paper, first, again, *photographs, longer]), "textures") == [
        *fate, f"{held}, 1 of 1 on MobileNetV3-Small (cifar10_subset).",
        "On photographs (cifar10_subset) the three remedies without a teacher are shown to raise the linear probe of MobileNetV3-Small.",
        f"{start}{fours}, {threes} (cifar10_subset){end}"]
    rows = pd.concat([before, longer, *photographs])
    shown = summary.against(t, rows).set_index("linear accuracy")
    images = "(drawn grey patterns)"
    assert shown.columns.tolist() == [f"MobileNetV3-Small, textures {images}", f"ResNet-18, textures {images}",
                                      "MobileNetV3-Small, cifar10_subset (photographs)"]
    assert shown.index.tolist() == [words for key, words in summary.AGAINST.items()      # without a run no row
                                     if key not in ("improved_no_teacher", "improved_helps", "improved")]
    assert len({*summary.AGAINST.values()}) == len(claims.LENGTH) + 4
    assert shown.iloc[:, 2].tolist() == [
        "→ ✓ +2.0 [+1.0, +3.0]", "✓ +2.0 [+1.0, +3.0] → ✓ +2.0 [+1.0, +3.0]", "→ ✗ −2.0 [−3.0, −1.0]", ""]
    once = t[(t.arch == large) & (t.epochs > 0) & (t.method == "moco") & (t.width == 1)]
    twice = once.assign(epochs=32, all_epochs=32, linear_test=once.linear_test + 0.1, arm="other", run="twice")
    three = twice.assign(**{name: [value] * len(twice) for name, value in studies.PAPERS.items()}, run="three",
                         linear_test=twice.linear_test + 0.02 * (twice.seed < 2))
    both = pd.concat([t, twice, three])
    told = dict((question, why) for question, _, why in summary.answers(both, before, "textures"))["Do twice the epochs help?"]
    assert re.search(r"ResNet-18 \+10.0 \[.*\], 5 seeds.*, to which the three without a teacher add \+0.8 \[.*\], 5 seeds\.", told)
    four = three.assign(start="seed", run="four", linear_test=three.linear_test - 0.0001)
    told = dict((question, why) for question, _, why in summary.answers(pd.concat([both, four[four.seed == 4]]), before, "textures"))
    assert told["Do twice the epochs help?"].endswith("5 seeds and the four add +0.0, 1 seed.")
    shown = summary.against(both, rows).set_index("linear accuracy").iloc[:, 1]
    assert shown.loc[summary.AGAINST["improved_no_teacher"]] == "+0.8 [−0.6, +2.2]" and summary.AGAINST["improved"] not in shown
    assert re.search(r"of linear accuracy, ResNet-18 \+0.8 \[.*\], 5 seeds \(no rule asked for it\).$",
                     summary.nutshell(both, pd.concat([paper, longer]), "textures")[-1])
    shown = summary.against(pd.concat([t, twice]), rows).set_index("linear accuracy").iloc[:, 1]
    assert shown.iloc[0] == "+10.0 [+10.0, +10.0] → ✗ −2.0 [−3.0, −1.0]" and shown.iloc[2] == "→ ? +1.0 [−1.0, +3.0]"
    assert summary.against(t, before).empty and summary.against(t, pd.concat([before, foreign])).empty


def test_what_the_three_remedies_do_elsewhere_is_told_of_each_encoder():
    row = {"source": "ours", "profile": "photographs", "statement": "", "n": 3, "effect": 0.1, "runs": "", "test": "", "purer": np.nan}

    def of(width=0.01, **verdicts):
        rows = [row | {"claim": f"improved_no_teacher_helps/{arch}", "verdict": v} for arch, v in verdicts.items()]
        return pd.DataFrame(rows).assign(low=0.1 - width, high=0.1 + width)
    s, c, u = claims.SUPPORTED, claims.CONTRADICTED, claims.UNDECIDED
    none = pd.DataFrame(columns=["profile", "arch", "knn_test", "epochs", "method", "width", "evaluation", "data", "lr", "weight_decay"])
    for verdicts, again, words in (
            ({"resnet18": u}, {"resnet18": u}, "no encoder; undecided on ResNet-18."),
            ({"resnet18": s, "deit_tiny": c}, {}, "ResNet-18, and to lower that of DeiT-Ti."),
            ({"resnet18": u, "deit_tiny": u, "mobilenet_v3_small": c}, {"deit_tiny": c, "mobilenet_v3_small": c},
             "none of 3 encoders, and to lower that of MobileNetV3-Small and DeiT-Ti (there on new seeds); undecided on ResNet-18.")):
        assert summary._of_the_three(none, of(**verdicts), of(**again) if again else of(resnet18=u)[:0], "these").endswith(
            f"On these the three remedies without a teacher are shown to raise the linear probe of {words}")
    assert summary._of_the_three(none, of(resnet18=claims.NOT_TESTED), of(resnet18=u), "these") == ""
    wide = summary._of_the_three(none, of(0.2, resnet18=s), of(resnet18=u), "")
    assert "ResNet-18 (a verdict that does not survive a correction for the number of intervals)" in wide
    three, none = ["resnet18", "deit_tiny", "mobilenet_v3_small"], of(resnet18=u)[:0]
    lose = of(**dict.fromkeys(three, u)).assign(effect=[-0.01, -0.02, -0.03])
    t = pd.DataFrame([{"profile": "photographs", "arch": arch, "knn_test": knn, "epochs": 20, "method": "moco", "width": 1,
                       "evaluation": "full", "data": "d", "lr": 1.0, "weight_decay": 0.1, "run": arch, "seed": 0}
                      for arch, knn in zip(("pixels", *three), (0.4, 0.5, 0.3, 0.3))])
    assert summary._of_the_three(t, lose, none, "these").endswith(
        "MobileNetV3-Small. On average over seeds all 3 lose, by 1.0 to 3.0 points. By kNN raw pixels do better than the baseline of "
        "MobileNetV3-Small and DeiT-Ti.")
    assert "On average" not in summary._of_the_three(t, lose.assign(effect=[-0.01, -0.02, 0.0]), none, "these")


def test_a_claim_that_is_contradicted_names_the_encoders_that_contradict_it_those_that_support_it_and_how_many_were_tested():
    row = {"profile": "p", "test": "", "low": np.nan, "high": np.nan, "n": 1, "data": "textures", "purer": np.nan}
    rows = pd.DataFrame([row | {"claim": c, "verdict": v, "effect": e} for c, v, e in (
        ("improved_helps", "contradicted", -0.01), ("improved_helps/mobilenet_v3_small", "contradicted", -0.01),
        ("improved_helps/resnet18", "contradicted", -0.02), ("improved_helps/deit_tiny", "supported", 0.01))])
    told = summary.deciding(rows, next(rows.itertuples()))
    assert told == ("MobileNetV3-Small (−1.0 points; one seed), ResNet-18 (−2.0 points; one seed); but supported on DeiT-Ti; "
                    "3 of 5 encoders tested")
    alone = rows.iloc[[0]].assign(claim="size_not_architecture")
    assert summary.deciding(alone, next(alone.itertuples())) == "−1.0 points per doubling of width; one seed"


def test_what_to_bear_in_mind_stands_by_profile_without_naming_it_again():
    told = ["Of all, one.", "On textures, raw pixels do better.", "On textures, on cifar10, too.", "On cifar10, no.\nMore.",
            "On foot, it is far."]
    assert summary.by_profile(told) == [("", ["Of all, one."]), ("textures", ["Raw pixels do better.", "On cifar10, too."]),
                                        ("cifar10", ["No.\nMore."]), ("", ["On foot, it is far."])]
    assert summary.by_profile([]) == []


def test_who_is_apart_from_the_reference_before_any_training_is_told_by_the_claims_own_measures(tmp_path):
    t = report.table("textures", store=made_up_store(tmp_path, "textures", archs=(*models.SMALL, models.LARGE)))
    noise = 0.001 * t.seed
    wide, even = (t.arch == "deit_tiny") & (t.epochs == 0), (t.arch == "resnet18") & (t.epochs == 0)
    t = t.assign(intra_class_d_test=(1 + noise).mask(wide, 1.5 + noise), uniformity_d_test=(-2 + noise).mask(wide | even, -2.5 + noise))
    t.loc[(t.arch == "mobilenet_v3_small") & (t.epochs > 0), "intra_class_d_test"] = 1.9      # apart once trained
    assert summary._apart_before(t, claims.baseline(t)) == ["DeiT-Ti"]                        # ResNet-18: by one of the two alone
    rows = report.ledger(t, ["textures"])
    both = rows.assign(verdict=rows.verdict.mask(rows.claim.isin(["over_clustered_paper/deit_tiny", "over_clustered_paper/resnet18"]),
                                                 claims.SUPPORTED))
    lead = next(lead for question, lead, _ in summary.answers(t, both, "textures") if question == "Do they over-cluster?")
    assert " of five do (1 of these even before training), by the same pair" in lead
    assert summary._apart_before(t[t.epochs > 0], claims.baseline(t)) == []
