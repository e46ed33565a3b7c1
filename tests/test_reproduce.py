import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import TINY, tiny

from lib import reproduce, runs, studies

HERE = {name: "as before" for name in reproduce.SAME}


def run(seed=0, provenance=HERE, history=(1.0,), **metrics):
    config = tiny(seed=seed)
    return SimpleNamespace(name=f"run{seed}", config=config, metrics={"knn_test": 0.5, "linear_test": 0.6} | metrics, provenance=provenance,
                           history=pd.DataFrame({"loss": history}))


def seeds(*knn, arch="resnet18", **fields):
    rest = {"arch": arch, "tau": 0.2, "method": "moco", "epochs": 2, "evaluation": "full"} | fields
    return pd.DataFrame([rest | {"seed": i, "knn_test": k, "linear_test": 0.6 + k} for i, k in enumerate(knn)])


def test_the_spread_is_the_pooled_deviation_over_seeds_of_the_arms_of_an_encoder():
    table = pd.concat([seeds(0.1, 0.3, 0.5), seeds(0.5, 0.6, tau=0.1), seeds(0.9, tau=0.5), seeds(0.2, arch="deit_tiny")])
    others = [seeds(0.1, 0.9, epochs=0), seeds(0.1, 0.8, evaluation="val"), seeds(0.1, 0.7, method="supervised")]   # spread differently
    for t in (table, table.assign(limit=np.nan), table.assign(limit=None), pd.concat([table, *others])):     # a missing limit is one, too
        found = reproduce.spread(t, "knn_test")
        assert found["resnet18 moco full"] == pytest.approx(np.sqrt((2 * 0.04 + 1 * 0.005) / 3)) and "deit_tiny moco full" not in found
    assert found["resnet18 untrained"] == pytest.approx(0.8 / np.sqrt(2))


def test_on_the_same_machine_every_number_must_be_the_same():
    table = seeds(0.5, 0.6)
    assert all(row["agrees"] for row in reproduce.compared(run(), run(), table))
    assert all(row["agrees"] for row in reproduce.compared(run(), run(new=1.0), table))     # a number that was not measured then
    for a, b in ((run(), run(knn_test=0.5 + 1e-12)), (run(old=1.0), run()), (run(), run(history=(1.0 + 1e-12,)))):
        assert not all(row["agrees"] for row in reproduce.compared(a, b, table))


@pytest.mark.parametrize("changed", reproduce.SAME)
def test_on_another_machine_the_seeds_spread_is_allowed_and_no_more(changed):
    table, elsewhere = seeds(0.5, 0.6), HERE | {changed: "another"}
    deviation = 0.1 / np.sqrt(2)
    within, outside = (run(provenance=elsewhere, knn_test=0.5 + by * deviation) for by in (2.9, 3.1))
    assert all(row["agrees"] for row in reproduce.compared(run(), within, table))
    assert [row["measure"] for row in reproduce.compared(run(), outside, table) if not row["agrees"]] == ["knn_test"]
    assert {row["agrees"] for row in reproduce.compared(run(), within, seeds(0.5))} == {None}      # one seed: nothing to judge by


@pytest.fixture
def toy(tmp_path, monkeypatch, textures):
    """A profile of one stored run."""
    monkeypatch.setattr(runs, "STORE", tmp_path / "runs")
    monkeypatch.setattr(reproduce, "STORE", tmp_path / "runs" / ".reproduced")
    monkeypatch.setattr(runs, "load_data", lambda name, limit=None, device="cpu": textures)
    monkeypatch.setitem(studies.PROFILES, "toy", studies.Profile(TINY))
    return runs.run_or_load(replace(tiny(), evaluation="val"), "toy", progress=None)


def test_a_stored_run_is_trained_anew_and_compared(toy, capsys):
    reproduce.main(["--profile", "toy"])
    assert "reproduced: 1 run\n" in capsys.readouterr().out
    assert len(runs.paths("toy", reproduce.STORE)) == len(runs.paths("toy")) == 1
    metrics = json.loads((toy.path / "metrics.json").read_text())
    (toy.path / "metrics.json").write_text(json.dumps(metrics | {"knn_val": metrics["knn_val"] + 0.2}))     # an invented number
    runs.write_sums(toy.path)
    with pytest.raises(SystemExit, match="1 of 1 run not reproduced"):
        reproduce.main(["--profile", "toy"])
    assert "NO" in capsys.readouterr().out


def test_what_cannot_be_judged_is_not_called_reproduced(toy, monkeypatch, capsys):
    monkeypatch.setattr(reproduce, "SAME", ("elsewhere",))                  # another machine, and one seed
    load = runs.load
    monkeypatch.setattr(runs, "load", lambda path: replace(load(path), provenance=load(path).provenance | {"elsewhere": path}))
    reproduce.main(["--profile", "toy"])
    said = capsys.readouterr().out
    assert "reproduced: 0 runs; not judged, since no arm of that kind has two seeds: 1 run" in said
    assert re.search(r"1 run compared within the seeds' spread, not to the bit: elsewhere was \S+, here \S*reproduced", said)


def test_a_damaged_run_stands_in_the_way_of_itself_alone(toy, capsys):
    damaged = runs.run_or_load(replace(tiny(seed=1), epochs=0, evaluation="val"), "toy", progress=None).path
    (damaged / "metrics.json").write_text("{}")
    reproduce.main(["--profile", "toy", "--match", toy.name])
    said = capsys.readouterr().out
    assert "reproduced: 1 run\n" in said and f"left out of the spread over seeds: {damaged}" in said
    for match in (damaged.name, ""):
        with pytest.raises(SystemExit, match="metrics.json was edited"):
            reproduce.main(["--profile", "toy", "--match", match])


def test_what_other_code_reproduced_is_trained_again(toy, monkeypatch, capsys):
    reproduce.main(["--profile", "toy"])
    trained, train = [], runs._train
    monkeypatch.setattr(runs, "_train", lambda config, *rest: (trained.append(config), train(config, *rest)))
    monkeypatch.setattr(runs, "COMMIT", "one that changes no step")
    reproduce.main(["--profile", "toy"])
    assert trained == []
    monkeypatch.setattr(reproduce.train, "CODE", "another")
    reproduce.main(["--profile", "toy"])
    assert len(trained) == 1
    (runs.paths("toy", reproduce.STORE)[0] / "metrics.json").write_text("{}")     # a damaged reproduction is in nobody's way
    reproduce.main(["--profile", "toy"])
    assert len(trained) == 2


def test_a_start_that_other_code_reproduced_is_trained_again_too(toy, monkeypatch, capsys):
    first = runs.load(toy.path).config
    begun = runs.run_or_load(replace(first, start=first, seed=1), "toy", progress=None)
    reproduce.main(["--profile", "toy", "--match", begun.name])
    trained, train = [], runs._train
    monkeypatch.setattr(runs, "_train", lambda config, *rest: (trained.append(config), train(config, *rest)))
    monkeypatch.setattr(reproduce.train, "CODE", "another")
    reproduce.main(["--profile", "toy", "--match", begun.name])
    assert trained == [begun.config, first]                                 # the outer begins, and trains what it needs


def test_a_run_that_was_stopped_on_the_same_machine_must_be_identical_too():
    part = {"device": "a", "threads": 1, "torch": "2"}
    stopped = run(provenance=HERE | {"sessions": [part, part]})
    assert reproduce.differences(stopped, run()) == []
    moved = run(provenance=HERE | {"sessions": [part, part | {"threads": 2}]})
    assert reproduce.differences(moved, run()) == ["threads changed where it went on"]


def test_a_run_of_before_the_fused_optimiser_need_not_be_identical_but_an_untrained_one_must():
    again = run(provenance=HERE | {"rounding": 2})
    assert reproduce.differences(run(), again) == ["lib.train.ROUNDING was 1, here 2"]
    assert reproduce.differences(again, again) == []
    before = run()
    before.config = replace(before.config, epochs=0)
    assert reproduce.differences(before, again) == []


def test_what_cannot_be_reproduced_is_said_before_any_training(toy):
    for arguments, words in [(["--profile", "toys"], "profile = 'toys' is unknown; did you mean 'toy'"),
                             (["--profile", "toy", "--match", "nothing"], "none of the 1 stored runs of toy")]:
        with pytest.raises(SystemExit, match=words):
            reproduce.main(arguments)
