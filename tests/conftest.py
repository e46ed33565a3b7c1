"""Shared by the tests: one thread, a tiny data set, a configuration that trains on it in about a second."""
from dataclasses import replace

import pytest
import torch
from hypothesis import settings

from lib import data as datasets
from lib.train import PretrainConfig

torch.set_num_threads(1)
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
