"""What runs on a GPU is of one piece, as far as that shows without one: on a device that is pretended."""
import sys
from dataclasses import replace

import pytest
import torch
from conftest import tiny
from pretended import NAME, gpu
from torch import nn

from lib import augment, bench, models, probe, runs, studies, train
from lib import gpu as borrowed
from lib.train import pretrain

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here, and torch has room for one other kind beside the CPU")
KINDS = {
    "moco": {}, "every option of moco": {"symmetric": True, "bn_splits": 4, "smoothing": 0.1, "batch_keys": True, "queue": 64},
    "hidden patches, blur, whitened by ImageNet": {"hide_p": 0.5, "blur_p": 1.0, "grayscale_p": 0.5, "standardize": "imagenet"},
    "sgd": {"optimizer": "sgd", "lr": 1e-4}, "simclr": {"method": "simclr"},
    "supervised": {"method": "supervised"}, "seed": {"method": "seed", "teacher": tiny()}, "deit": {"arch": "deit_tiny", "width": 1.0},
    "mobilenet": {"arch": "mobilenet_v3_small", "width": 1.0},
}


def moved(data):
    """The data set as lib.data.load puts it on a device: the images there, labels on the CPU."""
    parts = {name: getattr(data, name) for name in ("train", "val", "test")}
    return replace(data, **{name: replace(part, images=part.images.to(NAME)) for name, part in parts.items()})


def teacher_of(config):
    """A frozen module for a method that needs one; any does here."""
    torch.manual_seed(1)
    return nn.Sequential(models.encoder("resnet18", size=32, width=0.25), models.projector("simple", 128)) if config.teacher else None


def test_the_pretended_gpu_refuses_two_devices_and_knows_what_crosses():
    with gpu() as device:
        x, y = torch.ones(4, 3).to(NAME), torch.ones(4, 3)
        with pytest.raises(RuntimeError, match="two devices, pretended:0 and cpu"):
            _ = x + y
        with pytest.raises(RuntimeError, match="two devices"):
            nn.Linear(3, 2)(x)
        assert (x + 1).device.type == NAME and device.waits == device.sent == [(4, 3)]
        y.to(NAME, non_blocking=True), x.copy_(y, non_blocking=True)
        assert device.waits == [(4, 3)] and len(device.sent) == 3
        assert x.sum().item() == 12 and x[:2].cpu().sum() == 6 and device.waits[1:] == [(), (2, 3)]
        assert x[torch.tensor([0, 2])].shape == (2, 3) and device.waits[3:] == [(2,)]      # torch sends the index, and waits
        device.forget()
        for waiting in (lambda: x[x > 2], lambda: x.unique(), lambda: torch.zeros(2 ** 15).to(NAME, non_blocking=True)):
            before = len(device.waits)
            waiting()
            assert len(device.waits) == before + 1
        for wrong in (lambda: y[torch.arange(2).to(NAME)], lambda: x.index_put_((torch.arange(4),), y)):
            with pytest.raises(RuntimeError, match="two devices"):
                wrong()
        device.forget()
        weight = nn.Linear(3, 2).to(NAME)
        device.forget()
        (weight(x) ** 2).sum().backward()
        assert weight.weight.grad.device.type == NAME and device.waits == [] and device.launched["addmm"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_on_a_gpu_mixes_no_devices_and_waits_for_nothing_before_an_epoch_ends(kind, textures, monkeypatch):
    config = tiny(**{"lr": 1e-5} | KINDS[kind])                            # small, for rounding grows with steps
    on_cpu = pretrain(textures, config, teacher=teacher_of(config))[1][-1]
    here, there = (train.build(config, textures, teacher=teacher_of(config)).train() for _ in range(2))
    views, index = torch.randn(2, 32, 3, 32, 32), torch.arange(32)
    for module in (*here.modules(), *there.modules()):
        if isinstance(module, nn.Dropout):                                 # draws on after what was drawn before
            module.p = 0.0
    seen, summary = [], train.summary

    def counted(*args):
        seen.append((list(device.waits), len(device.sent)))
        row = summary(*args)
        device.forget()
        return row
    with gpu() as device:
        first = there.to(NAME)(*views.to(NAME), index.to(NAME))[0].item()  # numbers agree while no step has let their rounding grow
        monkeypatch.setattr(train, "summary", counted)
        there = pretrain(moved(textures), config, device=NAME, teacher=teacher_of(config))[1][-1]
    assert first == pytest.approx(here(*views, index)[0].item(), rel=1e-5)
    waits, sent = seen[1]                                                  # the first epoch also has what is sent once
    assert waits == [] and sent <= 3 * 18                                  # of three steps: parameters of the views, numbers of images
    assert there["loss"] == pytest.approx(on_cpu["loss"], rel=2e-2) and set(there) == set(on_cpu)


def test_both_views_of_a_batch_take_half_the_operations_and_are_those_that_each_would_be_alone(textures):
    order, recipe = torch.arange(96), augment.Augmentation(hide_p=0.3)
    with gpu() as device:
        data = moved(textures)
        [_, (index, *pair), _] = augment.views(data.train.batches(order, 32), order, recipe, 3, 1)
        device.forget()
        alone = [augment.view(data.train.images[index], index, recipe, 3, 1, stream) for stream in (0, 1)]
        each = sum(device.launched.values())
        for view, other in zip(pair, alone, strict=True):
            torch.testing.assert_close(view.cpu(), other.cpu(), rtol=0, atol=1e-6)
        device.forget()
        batches = augment.views(data.train.batches(order, 32), order, recipe, 3, 1)
        next(batches)
        assert 0.45 < sum(device.launched.values()) / each < 0.6


def test_an_evaluation_on_a_gpu_keeps_h_there_and_gives_the_numbers_of_the_cpu(textures):
    config = tiny()
    encoder, projector = models.encoder("resnet18", size=32, width=0.25), models.projector("simple", 128)
    found, kept = probe.evaluate(encoder, textures, config, projector)
    during = probe.monitor(textures, config)(encoder, 0)
    with gpu() as device:
        data, e, p = moved(textures), encoder.to(NAME), projector.to(NAME)
        device.forget()
        there, kept_there = probe.evaluate(e, data, config, p)
        assert (96, 128) not in device.read and (96, 128) not in device.sent              # h of train
        assert probe.monitor(data, config)(e, 0) == pytest.approx(during, abs=0.02)
    assert there == pytest.approx(found, abs=0.02, rel=1e-3) and set(there) == set(found)
    assert abs(kept["h"] - kept_there["h"]).max() < 0.02 and (kept["label"] == kept_there["label"]).all()


def test_a_training_that_is_stopped_on_a_gpu_goes_on_there_to_the_same_end(textures, tmp_path):
    config, path = tiny(), tmp_path / "checkpoint.safetensors"
    with gpu():
        data = moved(textures)
        whole = pretrain(data, config, device=NAME)[1]
        pretrain(data, config, device=NAME, resume=path, stop_after=1, every=0)
        assert pretrain(data, config, device=NAME, resume=path)[1] == whole


@pytest.mark.parametrize("what", ["instance discrimination, N x N", "kNN, 10,000 against N", "linear probe, N"])
def test_what_a_gpu_evaluates_is_measured_there(what, monkeypatch):
    monkeypatch.setattr(bench, "device", lambda: NAME)
    with gpu() as device:
        assert bench.evaluation_case(what, 2048)["seconds"] >= 0
    assert sum(device.launched.values()) > 20 and not {(2048, 128), (2048, 1024)} & {*device.read}


def test_the_check_of_a_borrowed_gpu_runs_there_and_its_rates_are_taken_there(monkeypatch, textures, tmp_path):
    monkeypatch.setattr(bench, "device", lambda: NAME)
    monkeypatch.setitem(sys.modules, "lib.kernels", None)                  # such a machine may lack Numba
    with gpu() as device:
        monkeypatch.setattr(runs, "load_data", lambda name, limit=None, device="cpu": moved(textures) if device == NAME else textures)
        assert max(borrowed.agreement(NAME).values()) < 1e-3
        device.forget()
        monkeypatch.setattr(studies, "base", lambda *args, **changes: tiny(**changes))
        borrowed.rates(["resnet18"], "smoke", None, NAME, tmp_path / "rates.csv")
        assert (tmp_path / "rates.csv").read_text().count("resnet18") == 1
    assert device.launched["convolution_backward"] == 20 * (borrowed.RATED_EPOCHS * 3 + 12)
