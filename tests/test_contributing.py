"""CONTRIBUTING.md is true: its diffs apply, each to one file, and what they add can be used."""
import re
import shutil
import subprocess
import sys

from lib.runs import ROOT

USE = """
import numpy as np, pandas as pd, torch
from lib import claims, data, models, plots, runs, studies
assert runs.ROOT.name == "copy"
assert models.encoder("mobilenet_v2", 32)(torch.zeros(2, 3, 32, 32)).shape == (2, 1280)
assert plots.colour("pixels") == "#8C8C8C" and plots.label("mobilenet_v2") == "MobileNetV2"
arms = studies.plan("smoke", archs="mobilenet_v2")
assert {c.arch for c in arms if c.epochs and c.method == "moco" and not c.start} == {"mobilenet_v2"}

class FashionMNIST:
    classes = [f"class {i}" for i in range(10)]
    def __init__(self, root, train, download):
        n = 400 if train else 100
        self.data, self.targets = torch.full((n, 28, 28), 7, dtype=torch.uint8), torch.arange(n) % 10
import torchvision.datasets
torchvision.datasets.FashionMNIST = FashionMNIST
found = data.load("fashion_mnist", root=runs.ROOT / "data")
assert found.size == 32 and len(found.test) == 100 and len(found.train) + len(found.val) == 400
assert data.load("fashion_mnist", root=runs.ROOT / "data").checksum == found.checksum                 # from its cache

tighter = [c for c in studies.augmentation("textures") if c.crop_min == 0.5]
assert {(c.arch, c.seed) for c in tighter} == {(arch, seed) for arch in claims.REMEDIED for seed in range(5)}
assert set(tighter) <= set(studies.remedies("textures"))
rows = claims.ledger(pd.DataFrame(), "textures")
assert {"tighter_crops_helps", "tighter_crops_gathers", "learned"} <= set(rows.claim)
"""


def test_the_diffs_of_contributing_apply_to_one_file_each_and_what_they_add_works(tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "lib", copy / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    diffs = re.findall(r"```diff\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert len(diffs) == 4
    for diff in diffs:
        assert len(re.findall("^diff --git", diff, re.MULTILINE)) == 1
        done = subprocess.run(["git", "apply", "--unidiff-zero", "-"], input=diff, cwd=copy, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr + diff
    done = subprocess.run([sys.executable, "-c", USE], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_commit_of_the_changes_exists():
    listed = re.findall(r"^\| ([0-9a-f]{7}) \|", (ROOT / "results" / "CHANGES.md").read_text(), re.MULTILINE)
    known = subprocess.run(["git", "-C", ROOT, "log", "--format=%h", "--abbrev=7"], capture_output=True, text=True).stdout.split()
    whole = len(known) > 100                                                # neither a shallow clone nor none
    assert listed and (not whole or set(listed) <= set(known))
