import json
import os
import signal
import subprocess
import tarfile

import pandas as pd
import pytest
from conftest import TINY

from lib import gpu, runs, studies, train
from lib.studies import PROFILES


@pytest.fixture
def toy(monkeypatch, tmp_path, textures):
    """A profile of a ResNet-18, itself untrained and pixels, in an empty store; "smoke" has the same data."""
    base = studies.replace(TINY, width=1.0, epochs=1, evaluation="val")
    monkeypatch.setitem(PROFILES, "toy", studies.Profile(base, encoders=("resnet18",), seeds=1, seeds_of={}, widths=(), ceilings=(),
                                                         remedied=(), sweeps=False))
    monkeypatch.setattr(runs, "STORE", tmp_path / "runs")
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    monkeypatch.setattr(runs, "load_data", lambda name, limit=None, device="cpu": textures)
    (tmp_path / ".data").mkdir()
    return tmp_path


ARGUMENTS = ["--profile", "toy", "--only", "observations", "--jobs", "1", "--cpu"]


def test_a_call_trains_what_is_missing_and_packs_what_it_made(toy, capsys):
    gpu.main([*ARGUMENTS, "--out", str(toy / "out"), "--match", "untrained"])
    first = {path.name for path in runs.paths("toy")}
    assert len(first) == 2
    gpu.main([*ARGUMENTS, "--out", str(toy / "out2")])
    assert len(runs.paths("toy")) == 3
    check = json.loads((toy / "out2" / "check.json").read_text())
    assert check["views"] == check["features"] == check["loss"] == 0.0
    with tarfile.open(toy / "out2" / "runs-toy-0.tar") as tar:
        tar.extractall(toy / "home", filter="data")
    for path in runs.paths("toy"):                                          # also what an earlier call made: its answer may be lost
        assert runs.load(toy / "home" / "toy" / path.name).metrics == runs.load(path).metrics
    (toy / ".data" / "known-toy.json").unlink()                             # another machine, which is given these
    gpu.main([*ARGUMENTS, "--out", str(toy / "out3")])
    assert [p.name for p in (toy / "out3").iterdir()] == ["check.json"] and "3 runs, 0 missing" in (said := capsys.readouterr().out)
    assert "3 runs of toy lay here before the first call" in said and "are not packed" in said


def test_a_call_ends_in_time_and_the_next_goes_on(toy, capsys, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    long = studies.replace(PROFILES["toy"].base, epochs=100_000)
    monkeypatch.setitem(PROFILES, "toy", studies.replace(PROFILES["toy"], base=long))
    schedule = train.cosine_lr

    def rate(step, *rest):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)                            # what the timer does, at a moment that we know
        return schedule(step, *rest)
    monkeypatch.setattr(train, "cosine_lr", rate)
    gpu.main([*ARGUMENTS, "--out", str(toy / "out"), "--minutes", "9"])
    monkeypatch.setattr(train, "cosine_lr", schedule)
    gpu.main([*ARGUMENTS, "--out", str(toy / "out"), "--minutes", "0.01"])  # it may be over before anything begins
    said = capsys.readouterr().out
    assert "9 minutes are over" in said and "0.01 minutes are over" in said and signal.getsignal(signal.SIGTERM) is before
    assert len(list((toy / "runs" / "toy").glob(".*checkpoint.safetensors"))) == 1
    assert len(runs.paths("toy")) == 2


def test_rates_are_measured_apart_and_end_in_time_whatever_they_do(toy, capsys, monkeypatch):
    asked = {}

    def hangs(command, cwd, timeout):
        asked.update(command=command, timeout=timeout)
        raise subprocess.TimeoutExpired(command, timeout)
    monkeypatch.setattr(gpu.subprocess, "run", hangs)
    gpu.main([*ARGUMENTS, "--out", str(toy / "out"), "--rates", "--minutes", "5"])
    assert len(runs.paths("toy")) == 3 and asked["timeout"] == 5 * 60 * gpu.RATES_SHARE == 120
    assert "the rates took longer than 120 s" in capsys.readouterr().out and (toy / "out" / "runs-toy-0.tar").exists()
    monkeypatch.setattr(gpu, "RATED_EPOCHS", 2)
    gpu.main([*asked["command"][3:]])                                      # what the other process does
    [row] = pd.read_csv(toy / "out" / "rates.csv").to_dict("records")
    assert row["arch"] == "resnet18" and min(row["images_per_second"], row["model_step_images_per_second"], row["peak_memory_mb"]) > 0
    monkeypatch.setattr(gpu, "measured", lambda *args: [][0])
    gpu.main([*asked["command"][3:]])
    assert pd.read_csv(toy / "out" / "rates.csv").failed.tolist() == ["IndexError: list index out of range"]


def test_a_study_that_breaks_has_what_was_finished_packed(toy, monkeypatch):
    gpu.main([*ARGUMENTS, "--out", str(toy / "first")])
    (toy / ".data" / "known-toy.json").write_text("[]")
    monkeypatch.setattr(gpu.studies, "main", lambda argv: [][0])            # as an error that nobody foresaw
    with pytest.raises(IndexError):
        gpu.main([*ARGUMENTS, "--out", str(toy / "out")])
    assert (toy / "out" / "runs-toy-0.tar").exists()


def test_without_a_gpu_the_cpu_is_not_taken_unasked(toy, monkeypatch):
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="torch sees no GPU here; --cpu rehearses on the CPU"):
        gpu.main([*ARGUMENTS[:-1], "--out", str(toy / "out")])
    assert runs.paths("toy") == [] and not (toy / "out").exists()


@pytest.mark.parametrize("name", ["cifar10", "imagenet", "smoke"])
def test_the_images_whose_rate_is_taken_are_more_than_the_queue_holds(name, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(runs, "load_data", lambda *args: None)
    monkeypatch.setattr(gpu, "measured", lambda config, data, device: asked.append(config) or {})
    gpu.rates(["resnet18", "deit_tiny"], name, None, "cuda", tmp_path / "rates.csv")
    assert [(c.arch, c.compile) for c in asked] == [("resnet18", False), ("deit_tiny", False), ("resnet18", True)]
    assert all(c.queue < c.limit <= max(gpu.RATED, 2 * c.queue) for c in asked)


@pytest.mark.parametrize("wrong", [{"features": 0.3}, {"views": 0.3}, {"features": float("nan")}, {"views": float("nan")}, {"loss": 0.3}])
def test_a_device_that_computes_otherwise_trains_nothing(toy, monkeypatch, wrong):
    monkeypatch.setattr(gpu, "agreement", lambda device: {"views": 0.0, "features": 0.0, "loss": 0.0} | wrong)
    with pytest.raises(SystemExit, match="differs from the CPU by more than 0.05"):
        gpu.main([*ARGUMENTS, "--out", str(toy / "out")])
    assert runs.paths("toy") == []


def test_packed_files_are_small_enough_to_travel(toy, monkeypatch):
    gpu.main([*ARGUMENTS, "--out", str(toy / "out")])
    monkeypatch.setattr(gpu, "LARGEST", 30_000)
    files = gpu.pack("toy", toy)
    assert len(files) > 1 and all(file.stat().st_size < 60_000 for file in files)
    names = [name for file in files for name in tarfile.open(file).getnames()]
    assert len(names) == len(set(names)) == 3 * len(gpu.PACKED)
    assert gpu.pack("toy", toy, [path.name for path in runs.paths("toy")]) == []


@pytest.mark.parametrize("arguments, words", [
    (["--profile", "cifar"], "error: profile = 'cifar' is unknown; did you mean 'cifar10'"),
    (["--profile", "cifar10", "--archive", "a"], "error: archive = 'a' with data = 'cifar10'; allowed: with --data cifar10_jpeg"),
    (["--profile", "cifar10", "--data", "folder:/images", "--archive", "a.tar.xz"], "with data = 'folder:/images'; allowed")])
def test_what_cannot_be_had_is_said_before_anything_is_done(toy, arguments, words):
    with pytest.raises(SystemExit, match=words):
        gpu.main([*arguments, "--out", str(toy / "out")])
    assert not list((toy / ".data").iterdir())


def test_the_archive_is_unpacked_once(tmp_path):
    (tmp_path / "a").write_text("image")
    with tarfile.open(tmp_path / "a.tar.xz", "w:xz") as tar:
        tar.add(tmp_path / "a", "train/a")
    for _ in range(2):
        gpu.unpack(tmp_path / "a.tar.xz", tmp_path / ".data" / "set")
        (tmp_path / "a.tar.xz").write_text("no archive any more")
    assert (tmp_path / ".data" / "set" / "train" / "a").read_text() == "image"
