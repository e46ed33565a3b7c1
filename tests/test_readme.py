"""README.md and results/README.md: what they show, and that they say what the stored runs say."""
import re
import subprocess

import numpy as np
import pandas as pd
import pytest
from conftest import made_up_store

from lib import caveats, claims, models, readme, report, runs, studies, summary


def made_up(tmp_path, *archs):
    """(tidy table, ledger) of a made-up store of textures."""
    t = report.table("textures", store=made_up_store(tmp_path, "textures", **({"archs": archs} if archs else {})))
    return t, report.ledger(t, ["textures"])


def test_without_runs_every_claim_is_not_tested(tmp_path):
    t = report.table("textures", store=tmp_path / "none")
    rows = report.ledger(t, ["textures"])
    for text in (readme.front(t, rows), readme.page(t, rows)):
        assert "every claim is *not tested*" in text and "figure.svg" not in text


def test_the_front_page_answers_in_a_table_and_shows_the_figure_and_the_numbers_of_the_first_profile(tmp_path):
    t, rows = made_up(tmp_path, *models.SMALL, models.LARGE)
    shown = readme.front(t, rows)
    asked, limits = summary.answers(t, rows, "textures"), caveats.limits(t, "textures")
    assert len(summary.bear_in_mind(t, rows, ["textures"])) == len(summary.pending(t, "textures")) + len(limits) + 1
    parts = [readme.bullets(summary.nutshell(t, rows, "textures")), "| question | answer |",
             *(f"| {question} | {lead} |" for question, lead, _ in asked),
             f"By encoder, on `textures`: {summary.MARKS}; {summary.IN_GRID}:", readme.points(limits), readme.MORE.format(1, ""),
             "](results/figure.svg)", "runs of `textures`: each mark", "with equal classes, in the pretext task ",
             readme.markdown(summary.headline(t, "textures")), "](results/README.md)"]
    assert all(parts) and sorted(parts, key=shown.index) == parts and all(shown.count(part) == 1 for part in parts[1:])
    assert not any(why in shown for *_, why in asked if why)
    two = pd.concat([t, t[t.arch.isin(["resnet18", "pixels"])].assign(profile="cifar10")], ignore_index=True)      # its numbers are behind
    two.loc[two.arch == "pixels", "linear_test"] = 0.999
    [view, floor], both = caveats.limits(two, "cifar10"), readme.front(two, rows)
    assert caveats.limits(two, "cifar10", repeats=True) == []                                                # all that is said already
    assert readme.points([view, floor]) + "\n" in both and floor.startswith("On cifar10, raw pixels do better")
    row = rows[rows.claim == "temperature_helps/resnet18"].assign(effect=0.02, low=0.01, high=0.03, n=5, verdict=claims.SUPPORTED)
    assert "- On `textures`:\n  - Of 1 intervals of remedies on single encoders 1 excludes 0" in readme.front(
        t, pd.concat([rows[rows.claim != row.claim.iloc[0]], row]))
    assert "runs planned for textures, " in shown                           # what is not trained yet comes first
    longer = row.assign(claim="longer_helps/resnet18", profile="textures_again", data="textures")
    timed = readme.front(t, pd.concat([rows, longer]))
    assert "ResNet-18, textures (drawn grey patterns) |" in timed and "→ ✓ +2.0 [+1.0, +3.0] |" in timed
    assert timed.index(summary.RIVAL) < timed.index(summary.sentence(summary.IN_AGAINST)) and summary.RIVAL not in shown
    photographs = t.assign(profile="cifar10_subset")                        # complete, too: one table of questions, a grid each
    second = rows.assign(profile="cifar10_subset", data=rows.data.replace("textures", "cifar10_jpeg"))
    both_whole = readme.front(pd.concat([t, photographs]), pd.concat([rows, second]))
    assert both_whole.count("| question | answer |") == 1 and len(grid := summary.grid(second, "cifar10_subset"))
    assert f"By encoder, on `cifar10_subset`{summary.of_what(t, 'textures')}, the same:\n\n{readme.markdown(grid)}" in both_whole
    assert shown.count("By encoder, on `") == 1
    assert "rests on, every verdict" in shown and "rests on, the numbers of `cifar10`, every" in both and both.count("`cifar10`") == 2
    assert "](results/figure.svg)" not in readme.BETWEEN.sub("", (runs.ROOT / "README.md").read_text())


def test_the_page_of_results_has_all_that_is_behind_the_front_page(tmp_path):
    t, rows = made_up(tmp_path, *models.SMALL, models.LARGE)
    shown = readme.page(t, rows)
    titles = ["# Results", "## The paper's questions", "## Words", "- **SEED**: ", "## Numbers", "## What is decided", "### textures",
              "## To bear in mind", "## Every claim's verdict and interval", summary.LEGEND]
    assert sorted(titles, key=shown.index) == titles
    for question, lead, why in summary.answers(t, rows, "textures"):
        assert f"- **{question}** *{lead}* {why}".strip() in shown
    lacking = [c.name for c in claims.CLAIMS if f"{c.statement} ({c.source})" not in shown]
    assert f"{len(lacking)} of {len(claims.CLAIMS)} claims are *not tested*" in shown
    counts, chance, decided, alone = summary.short(rows, "textures")
    said = [f"\n\n{counts}", *(f"- {summary.MARK[v]} **{v}** {words}\n" for v, words in decided), *(f"- {words}\n" for words in alone)]
    assert len(said) > 1 and all(words in shown for words in said)
    for pixels, floor in ((0.99, True), (0.0, False)):                       # of the pretext task
        t.loc[t.arch == "pixels", "instdisc_dsd_top1_test"] = pixels
        assert ("often than the baseline of any encoder: 99.0%, the best" in readme.page(t, rows)) == floor
    told = summary.protocol(t, "textures")
    assert "- Pretraining: MoCo v2, one view as query, a queue of 128 and the other keys" in shown
    assert f"- Compute: {told['Compute']}" in shown
    assert "16 epochs: 1,248 steps, 319,488 views; " in told["Pretraining"] and "peak learning rates" in told["Choices"]
    assert f"{t.seconds[t.epochs > 0].sum() / 3600:.1f} hours of training in {(t.epochs > 0).sum()} runs" in told["Compute"]
    assert summary.protocol(t, "cifar10") == {}
    assert summary.of_what(t, "textures") == " (drawn grey patterns of 32 pixels, whose factors are known)"
    assert summary.of_what(t.assign(data="folder:/mine"), "textures") == ""


def test_the_readmes_section_on_speed_has_a_column_per_encoder_or_says_what_is_lacking(tmp_path):
    assert "our own tables are outstanding" in readme.speed(tmp_path)
    made = {"device": "a machine", "cores": 2, "torch": "2", "commit": "0123456789"}
    archs = ("mobilenet_v3_small", "resnet18")
    tables = {"steps": [{"arch": a, "whole_step_images_per_second": 1200 + i, "ratio": 0.87 + i / 10, "ratio_least": 0.85,
                         "ratio_most": 0.99, "goal": 0.95}
                        for i, a in enumerate(archs)],
              "rivals": [{"arch": a, "batch_size": batch, "pipeline": pipeline, "ours_is_times_as_fast": times + i, "goal": goal,
                          "ours_is_times_as_fast_least": times + i - 0.25, "ours_is_times_as_fast_most": times + i + 0.5,
                          "with_the_same_layers": same, "with_the_same_layers_least": same / 2,
                          "with_the_same_layers_most": 2 * same, "goal_with_the_same": goal and goal - 1}
                         for i, a in enumerate(archs)
                         for batch, pipeline, times, same, goal in (
                             (96, "ours", 1, 1, None), (96, "torchvision", 2, 1, None), (96, "lightly", 3.04, 1.52, 3.0),
                             (96, "ours, bare step", 0.9, 1, None), (96, "lightly, bare step", 0.5, 1, None),
                             (48, "ours", 1, 1, None), (48, "lightly", 6.04, 1.6, 3.0))],
              "limits": [{"arch": a, "share_of_limit": 0.5} for a in archs]}
    for name, rows in tables.items():
        pd.DataFrame(rows).assign(**made).to_csv(tmp_path / f"{name}.csv", index=False)
        if name == "steps":
            alone = readme.speed(tmp_path)
            assert "| 87% (85% to 99%) | 97% (85% to 99%) |" in alone and "; outstanding: rivals and limits." in alone
    shown = readme.speed(tmp_path)
    assert "| measured | MobileNetV3-Small | ResNet-18 |" in shown and "| 1,200 | 1,201 |" in shown
    assert "(goal 95%) | 87% (" in shown and "ours, bare step" not in shown and "lightly, bare" not in shown
    assert "times as fast as lightly, batches of 96 (goal 3) | 3.0 (2.8 to 3.5) | 4.0 (3.8 to 4.5) |" in shown
    assert "times as fast as lightly, batches of 48 (goal 3) | 6.0 (5.8 to 6.5) | 7.0 (6.8 to 7.5) |" in shown
    assert "on a machine, 2 cores, torch 2, at 0123456; in turns" in shown
    assert "layers on both sides, batches of 96 (goal 2) | 1.5 (0.8 to 3.0) |" in shown
    assert "the most that a pipeline could give | 6.1 | 2.7 |" in shown
    assert ("Goals that we set ourselves and missed: the share of the bare step's rate (goal 95%: MobileNetV3-Small 87%); times as fast "
            "as lightly with the same layers (goal 2: MobileNetV3-Small 1.5 and 1.6, ResNet-18 1.5 and 1.6). A range") in shown
    assert "as fast as torchvision, batches of 96 | 2.0 (1.8 to 2.5) |" in shown
    each = (("products", 0.3, 3.2), ("BatchNorm", 0.2, 5), ("convolutions", 0.4, 2), ("rest", 0.1, 1), ("the whole step", np.nan, np.nan))
    pd.DataFrame([{"arch": "resnet18", "part": part, "share": share, "times_its_limit": times} for part, share, times in each]).assign(
        **made).to_csv(tmp_path / "parts.csv", index=False)
    told = "own limit | – | convolutions 40%, 2.0 times, products 30%, 3.2 times, BatchNorm 20%, 5.0 times |"
    assert told in readme.speed(tmp_path)
    pd.read_csv(tmp_path / "rivals.csv", dtype={"commit": str}).drop(columns=["goal_with_the_same", "with_the_same_layers"]).query(
        "arch != 'resnet18'").assign(device="a GPU").to_csv(tmp_path / "rivals.csv", index=False)
    pd.read_csv(tmp_path / "steps.csv", dtype={"commit": str}).assign(ratio=0.97).to_csv(tmp_path / "steps.csv", index=False)
    other = readme.speed(tmp_path)
    assert "missed" not in other
    assert "both sides" not in other and "lightly, batches of 96 (goal 3) | 3.0 (2.8 to 3.5) | – |" in other
    assert "a machine, 2 cores, torch 2, at 0123456; a GPU, 2 cores" in other


def test_the_minutes_that_commands_take_are_those_that_were_measured(tmp_path):
    assert "ours are outstanding" in readme.commands(tmp_path)
    pd.DataFrame([{"what": what, "seconds": seconds, "status": status, "device": "a machine", "cores": 2, "commit": "0123456789"}
                  for what, seconds, status in (("make x", 20, 0), ("make report", 500, 0), ("make report", 100, 0), ("make test", 440, 2))]
                 ).to_csv(tmp_path / "commands.csv", index=False)
    assert ("on a machine, 2 cores, at 0123456: `make x` 1, `make report` 8, `make report` again 2, "
            "`make test` 7 (ended with status 2). The first") in readme.commands(tmp_path)


# ---- what is committed ----

def uncommitted():
    answer = subprocess.run(["git", "-C", runs.ROOT, "status", "--porcelain", "results/runs"], capture_output=True, text=True)
    return answer.returncode or answer.stdout.strip()


def test_the_readmes_and_the_claims_file_say_what_the_stored_runs_say():
    if uncommitted():
        pytest.skip("results/ holds runs that are not committed: `make readme` refreshes what is compared here")
    t = report.table(*studies.COMMITTED)
    rows = report.ledger(t, studies.COMMITTED)
    text = (runs.ROOT / "README.md").read_text()
    assert [name for _, name, _ in readme.BETWEEN.findall(text)] == ["commands", "results", "speed"]
    assert readme.refreshed(text, t, rows) == text
    assert readme.page(t, rows) == (runs.ROOT / "results" / "README.md").read_text()
    if len(t):
        stored = pd.read_csv(runs.ROOT / "results" / "claims.csv").astype(object).fillna("")
        now = rows.to_csv(index=False, float_format="%.6g")
        now = pd.read_csv(pd.io.common.StringIO(now)).astype(object).fillna("")
        pd.testing.assert_frame_equal(stored, now, rtol=1e-4)


def test_the_readmes_name_only_files_targets_and_notebooks_that_exist():
    targets = set(re.findall(r"^([a-z]+):", (runs.ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in (runs.ROOT / "README.md", runs.ROOT / "results" / "README.md"):
        text = path.read_text()
        assert set(re.findall(r"`make ([a-z]+)", text)) <= targets
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            if "://" not in link and not link.startswith("results/report"):
                assert (path.parent / link).exists(), link
        assert set(re.findall(r"`(\d\d_\w+)`", text)) <= {path.stem for path in report.NOTEBOOKS.glob("*.ipynb")}
