"""Shared by the tests: one thread, a tiny data set, a configuration that trains on it in about a second, a browser."""
import json
import os
import shutil
from dataclasses import asdict, replace
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from hypothesis import settings
from playwright.sync_api import sync_playwright

from lib import caveats, runs, studies
from lib import data as datasets
from lib.train import PretrainConfig

torch.set_num_threads(1)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
settings.register_profile("study", derandomize=True, deadline=None)           # the same cases at every run
settings.load_profile("study")

TINY = PretrainConfig(data="textures", limit=96, arch="resnet18", width=0.25, projector_bn=True, queue=64, m=0.9, bn_splits=1,
                      epochs=2, batch_size=32, optimizer="adamw", lr=2e-3, weight_decay=0.01, standardize="image")


def tiny(**changes):
    return replace(TINY, **changes)


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def textures(cache):
    """96 training images of 12 classes, 120 of val, 120 held out."""
    return datasets.load("textures", limit=96, root=cache)


@pytest.fixture(scope="session")
def more_textures(cache):
    """1,024 training images, 205 of val, 512 held out."""
    return datasets.load("textures", limit=1024, root=cache)


@pytest.fixture
def toy(monkeypatch, tmp_path, textures):
    """A profile of three runs on the tiny data set (an encoder, itself untrained, and pixels) and an empty store."""
    small = studies.Profile(replace(TINY, epochs=1, width=1.0), encoders=("resnet18",), seeds=1, seeds_of={}, widths=(),
                            extra={"resnet18": {"width": 0.25}}, remedied=(), sweeps=False)
    monkeypatch.setitem(studies.PROFILES, "toy", small)
    monkeypatch.setattr(studies, "supervised", lambda *args: [])
    monkeypatch.setattr(runs, "STORE", tmp_path / "runs")
    monkeypatch.setattr(runs, "load_data", lambda name, limit=None, device="cpu": textures)
    return tmp_path / "runs"


def store_run(store, profile, config, rng, commit="0" * 40, device="a machine"):
    """A run folder as lib.runs writes it, with made-up numbers."""
    path = runs.folder(config, profile, store)
    path.mkdir(parents=True)
    level = 0.8 if config.arch == "pixels" else 0.3 if config.epochs == 0 else 0.7 if config.method == "moco" else 0.9
    metrics = {"images_train": 10000, "images_test": 5004, "classes": 12, "dim": 512, "instances_train": 5000, "instances_test": 5000}
    for name in ("knn_val", "knn_test", "linear_test", "instdisc_dsd_top1_train", *caveats.PRETEXT):
        metrics[name] = level + rng.normal(0, 0.01)
    for tag in ("", "_centred"):
        metrics |= {f"intra_class_d_test{tag}": 1 + rng.normal(0, 0.01), f"uniformity_d_test{tag}": -3 + rng.normal(0, 0.01)}
        for f in (1, 2, 4, 8, 16):
            metrics |= {f"homogeneity_k{12 * f}{tag}": 0.3 + 0.03 * f + rng.normal(0, 0.005),
                        f"completeness_k{12 * f}{tag}": 0.4 - 0.01 * f + rng.normal(0, 0.005)}
    (path / "config.json").write_text(json.dumps(asdict(config) | {"definition": runs.DEFINITION}))
    (path / "metrics.json").write_text(json.dumps(metrics))
    (path / "history.csv").write_text("epoch,loss\n0,\n")
    (path / "provenance.json").write_text(json.dumps({"commit": commit, "device": device, "train_seconds": 60.0}))
    runs.write_sums(path)


def made_up_store(store, *profiles, archs=("mobilenet_v3_small", "resnet50"), **provenance):
    for profile in profiles:
        rng = np.random.default_rng(0)
        arms = studies.encoders(profile, archs=archs)
        for config in [*studies.pixels(profile), *studies.untrained(arms), *arms, *studies.supervised(profile, archs=archs)]:
            store_run(store, profile, config, rng, **provenance)
    return store


@pytest.fixture(scope="session")
def browser():
    """Debian's chromium, headless."""
    if CHROMIUM is None and "REQUIRE_BROWSER" not in os.environ:
        pytest.skip("no chromium: apt-get install chromium to open the report in a browser")
    assert CHROMIUM, "REQUIRE_BROWSER is set and there is no chromium"
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser):
    """A page on which an error, a warning on the console or a request that leaves the disk fails the test."""
    found = []
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.on("console", lambda said: found.append(f"console: {said.text}") if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: found.append(f"error: {error}"))
    page.on("request", lambda request: found.append(f"request: {request.url}") if urlsplit(request.url).scheme not in (
        "file", "data", "blob", "about") else None)
    yield page
    page.close()
    assert not found
