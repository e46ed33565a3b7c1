import json
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import tiny
from torch import nn

from lib import bench, studies


@pytest.fixture
def small(monkeypatch):
    """Two steps of 32 images each, where a table has 40 of 128."""
    monkeypatch.setattr(bench, "IMAGES", 64)
    monkeypatch.setattr(bench, "recipe", lambda arch, **changes: tiny(limit=64, epochs=1, **{"queue": 32} | changes))
    monkeypatch.setattr(bench.runs, "load_data", lambda *args: bench.noise(64, 32))


def test_a_table_of_each_item_that_needs_no_rival_names_machine_and_command(tmp_path, monkeypatch, small):
    monkeypatch.setattr(bench, "SWITCHES", {"fp32": {}, "bf16": {"precision": "bf16"}, "split": {"bn_splits": 4}})
    bench.main(["--archs", "mobilenet_v3_small", "--rounds", "1", "--output", str(tmp_path / "deep"), "--only",
                "steps", "tried", "switches", "projectors", "limits", "parts", "augmentation"])
    tables = {path.stem: pd.read_csv(path) for path in (tmp_path / "deep").iterdir()}
    parts = tables.pop("parts")
    assert set(tables) == {"steps", "tried", "switches", "projectors", "limits", "augmentation"}
    for table in [*tables.values(), parts]:
        assert table[[*bench.HERE, "command"]].notna().all().all()
    switches, limits, views, whole = tables["switches"], tables["limits"].loc[0], tables["augmentation"], tables["steps"].loc[0]
    assert switches.switch.tolist() == ["fp32", "bf16", "split", "fp32, optimiser not fused"] and switches.relative[0] == 1
    assert (switches.images_per_second > 0).all()
    kinds = {(c.projector, c.projector_bn) for c in studies.projectors("textures", archs=["mobilenet_v3_small"])}
    timed = tables["projectors"].set_index(["projector", "projector_bn"]).relative_time
    assert set(timed.index) == kinds and timed[("simple", False)] == 1 and (timed > 0).all()
    assert limits.share_of_limit == pytest.approx(limits.images_per_second / limits.limit_images_per_second, rel=0.1)
    assert parts.share.sum() == pytest.approx(1, abs=0.01) and parts.part.iloc[-1] == "the whole step, undisturbed"
    assert {"products", "other convolutions", "BatchNorm and LayerNorm", "optimiser and EMA", "elementwise and the rest"} <= set(parts.part)
    assert (parts.microseconds_per_image > 0).all()
    assert parts.mflop_per_image.sum() == pytest.approx(limits.mflop_per_image, rel=0.05)
    assert parts.mbyte_per_image.sum() == pytest.approx(limits.mbyte_per_image, rel=0.05)
    assert views.views_with.tolist() == [*bench.AUGMENTATIONS, "all of MoCo v2, as operations on the batch"]
    assert views.of_it_beyond_the_crop[0] == 0
    assert tables["tried"].gives[0] == 1 and tables["tried"].what.is_unique and (tables["tried"].images_per_second_without > 0).all()
    assert whole.ratio == pytest.approx(whole.whole_step_images_per_second / whole.bare_step_images_per_second, rel=0.1)


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("first", [True, False])
def test_flops_of_a_convolution_know_its_groups(groups, first):
    layer, x = nn.Conv2d(8, 16, 3, groups=groups, bias=False), torch.randn(5, 8, 7, 7, requires_grad=not first)
    with bench.Count() as count:
        layer(x).sum().backward()
    forward = 5 * 16 * 5 * 5 * (8 // groups) * 9 * 2    # N, channels out, 5 x 5 pixels out, channels in of a group, 3 x 3
    assert count.operations["convolution"][0] == forward
    assert count.operations["convolution_backward"][0] == forward * (1 if first else 2)


def test_an_operation_is_timed_as_the_part_of_the_step_that_it_is():
    x, weight = torch.randn(4, 8, 6, 6, requires_grad=True), torch.randn(8, requires_grad=True)
    wide, deep, norm = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8)
    with bench.Count() as count:
        torch.dropout(norm(deep(wide(x))).mean((2, 3)) @ torch.randn(8, 3), 0.5, True).sum().backward()
        weight.detach().lerp_(torch.zeros(8), 0.5)
    calls = {part: row[3] for part, row in count.parts.items()}
    assert {p: n for p, n in calls.items() if p != "elementwise and the rest"} == {
        "depthwise convolutions": 2, "other convolutions": 2, "BatchNorm and LayerNorm": 2, "products": 2, "optimiser and EMA": 1,
        "random numbers": 1} and all(row[0] > 0 for row in count.parts.values())
    assert sum(row[1] for row in count.parts.values()) == sum(flops for flops, _ in count.total)


@pytest.mark.skipif(not bench.models.has_onednn(), reason="products go to oneDNN on x86 alone")
def test_flops_of_a_product_are_the_same_by_either_library(monkeypatch):
    for least in (0, bench.math.inf):
        monkeypatch.setattr(bench.models, "LEAST", least)
        x, weight = torch.randn(5, 8, requires_grad=True), torch.randn(3, 8, requires_grad=True)
        with bench.Count() as count:
            bench.models.linear(x, weight).sum().backward()
        assert sum(flops for flops, _ in count.total) == 3 * 2 * 5 * 8 * 3       # forward, both gradients
        assert ("mkldnn._linear_pointwise" in count.operations) == (least == 0)


def test_flops_and_bytes_of_a_step_are_those_of_its_products():
    layer, x = nn.Linear(20, 30), torch.randn(8, 20, requires_grad=True)
    with bench.Count() as count:
        y = layer(x)
        y.view(-1)                                                          # moves nothing
        y.backward(torch.ones_like(y))
    assert sum(flops for flops, _ in count.total) == 3 * 2 * 8 * 20 * 30    # forward, gradient of x, gradient of the weights
    flops, moved, calls = count.operations["addmm"]
    assert flops == 2 * 8 * 20 * 30 and moved == 4 * (30 + 8 * 20 + 20 * 30 + 8 * 30) and calls == 1
    assert not {"view", "t"} & set(count.operations)
    with bench.Count() as count:
        nn.Conv2d(3, 5, 3, padding=1)(torch.randn(2, 3, 8, 8))
    assert count.operations["convolution"][0] == 2 * 2 * 5 * 8 * 8 * 3 * 9
    old, new = [torch.zeros(1000)], [torch.ones(1000)]
    with bench.Count() as count:
        torch._foreach_lerp_(old, new, 0.5)
    assert count.operations["_foreach_lerp_"][1] == 3 * 4000                # reads both, writes one


def test_alternatives_have_their_turns_after_a_warm_up_and_the_median_counts():
    calls = []

    def measure(name, values):
        values = iter(values)
        return lambda: (calls.append(name), next(values))[1]
    found = bench.in_turns({"a": measure("a", [99, 1, 5, 3]), "b": measure("b", [99, 7, 8, 900])}, rounds=3)
    assert found == {"a": [1, 5, 3], "b": [7, 8, 900]} and calls == ["a", "b"] * 4
    assert bench.median(found) == {"a": 3, "b": 8}
    assert bench.ratios(found, "b", "a", "x") == {"x": 7, "x_least": 1.6, "x_most": 300}        # not 8 / 3


def test_torchvisions_views_of_one_image_have_the_moments_of_ours(textures):
    config = tiny(jitter_p=0.0, grayscale_p=0.0, blur_p=0.0)
    pairs = bench.ImageByImage(textures.train.images, bench.torchvision_transform(config, textures.size))
    view0, view1 = next(iter(bench.loader(pairs, 96, 0)))
    assert view0.shape == view1.shape == (96, 3, 32, 32) and view0.dtype == torch.float32 and not torch.equal(view0, view1)
    ours = bench.augment.view(textures.train.images, torch.arange(96), bench.replace(config.augmentation, standardize="imagenet"), 0, 0, 0)
    assert view0.mean().item() == pytest.approx(ours.mean().item(), abs=0.1)
    assert view0.std().item() == pytest.approx(ours.std().item(), rel=0.1)


def test_an_epoch_through_a_loader_takes_every_step(textures):
    seen = []
    pairs = bench.ImageByImage(textures.train.images, bench.torchvision_transform(tiny(), textures.size))
    found = bench.through(bench.loader(pairs, 40, 0), lambda *views: seen.append([v.shape[0] for v in views]), 80)()
    assert seen == [[40, 40]] * 2 and found > 0                             # the last incomplete batch is dropped


WHATS = [{"what": what, "n": 300} for what, n in bench.EVALUATION[2:-1]]     # UMAP takes a minute to import and compile


@pytest.mark.parametrize("case", [*WHATS, {"queue": 64}, {"images": 64, "queue": 32}])
def test_a_case_measures_time_and_peak_memory(case, capsys, small):
    bench.main(["--case", json.dumps(case)])
    found = json.loads(capsys.readouterr().out)
    assert found["peak_memory_mb"] > 100 and (found.get("seconds", 0) >= 0.0 if "what" in case else found["images_per_second"] > 0)


def test_a_case_that_fails_says_why_and_stops_no_other(monkeypatch):
    assert "resnet19" in bench.apart({"arch": "resnet19"})["failed"]
    monkeypatch.setattr(bench.sys, "executable", "/bin/false")
    assert "ended with 1" in bench.apart({"arch": "resnet18"})["failed"]


def test_commands_are_timed_one_after_another_in_a_clone_of_what_is_committed_and_failures_are_told(tmp_path, monkeypatch):
    here = tmp_path / "here"
    git = ["git", "-C", here, "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["git", "init", "-q", here], [*git, "commit", "-q", "--allow-empty", "-m", "first"]):
        bench.subprocess.run(command, check=True)
    (here / "uncommitted").touch()
    monkeypatch.setattr(bench.runs, "ROOT", here)
    monkeypatch.setenv("PYTHONPATH", "mine")
    monkeypatch.setattr(bench, "COMMANDS", ("touch built", "test -e uncommitted", "test -e built", "printenv PYTHONPATH"))
    bench.main(["--only", "commands", "--output", str(tmp_path)])
    table = pd.read_csv(tmp_path / "commands.csv")
    assert table.what.tolist() == list(bench.COMMANDS) and table.status.tolist() == [0, 1, 0, 1] and (table.seconds >= 0).all()
    monkeypatch.setattr(bench, "ITEMS", {"commands": None})                 # not among those that are measured unasked
    bench.main(["--output", str(tmp_path)])


def test_without_lightly_the_rivals_are_left_out_and_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(bench.sys.modules, "lightly.transforms", None)
    monkeypatch.setitem(bench.sys.modules, "lightly", None)
    bench.main(["--only", "rivals", "--output", str(tmp_path)])
    assert "rivals: left out, since lightly" in capsys.readouterr().out and not list(tmp_path.iterdir())
    with pytest.raises(SystemExit, match="item = 'rival' is unknown; did you mean 'rivals'"):
        bench.main(["--only", "rival"])


def test_what_is_taken_back_is_taken_back_for_that_measurement_alone(small, textures):
    config, seen = tiny(limit=64, epochs=1, queue=32), []

    def instead(*args):
        seen.append(args)
        return rendered(*args)
    rendered = bench.augment.rendered
    bench.undone(lambda: bench.patch.object(bench.augment, "rendered", instead), config, bench.noise(64, 32))()
    assert seen and bench.augment.rendered is rendered


def test_rivals_are_compared_at_moco_v2s_batches_and_at_the_studys(monkeypatch):
    monkeypatch.setattr(bench.runs, "load_data", lambda *args: bench.noise(64, 32))
    monkeypatch.setitem(bench.sys.modules, "lightly", SimpleNamespace())
    monkeypatch.setitem(bench.sys.modules, "lightly.transforms", SimpleNamespace(
        MoCoV2Transform=lambda **_: SimpleNamespace(transforms=[lambda image: image])))
    seen = []
    for name in ("stepper", "lightly_step", "whole", "bare"):
        monkeypatch.setattr(bench, name, lambda config, *_, **__: seen.append(config.batch_size))
    monkeypatch.setattr(bench, "loader", lambda _, batch_size, workers: seen.append(batch_size))
    monkeypatch.setattr(bench, "in_turns", lambda measures, rounds: {name: [2.0, 4.0] for name in measures})
    found = bench.rivals(["resnet18"], 2)
    assert list(dict.fromkeys(seen)) == list(dict.fromkeys(found.batch_size)) == [256, 128] == list(bench.BATCHES)
    assert set(found[found.batch_size == 256].pipeline) == set(found[found.batch_size == 128].pipeline) == {*bench.WHY}


def test_plain_encoders_have_torchvisions_convolutions_and_the_next_one_has_ours():
    with bench.plain():
        assert type(bench.models.encoder("resnet18").conv1) is torch.nn.Conv2d
    assert type(bench.models.encoder("resnet18").conv1) is bench.models._LeanConv2d


def test_lightlys_encoder_has_torchvisions_convolutions_and_ours_is_told_apart(monkeypatch):
    lightly = SimpleNamespace(NTXentLoss=lambda **_: nn.Identity(), update_momentum=None,
                              MoCoProjectionHead=lambda dim, _, out: nn.Linear(dim, out))
    for name in ("", ".loss", ".models", ".models.modules", ".models.utils"):
        monkeypatch.setitem(bench.sys.modules, f"lightly{name}", lightly)
    encoder, built = bench.models.encoder, []
    monkeypatch.setattr(bench.models, "encoder", lambda *args, **kwargs: built.append(encoder(*args, **kwargs)) or built[-1])
    for make in (bench.lightly_step, bench.stepper):
        make(tiny(arch="resnet18", queue=32), bench.noise(16, 32))
    assert [type(net.conv1) for net in built[:2]] == [nn.Conv2d, bench.models._LeanConv2d]
    found = {"ours": [8, 8], "ours, torchvision's encoder": [6, 6], "lightly": [2, 2], "torchvision v2, our step": [3, 3]}
    assert bench.equal(found, "lightly") == {"with_the_same_layers": 3, "with_the_same_layers_least": 3, "with_the_same_layers_most": 3,
                                             "goal_with_the_same": 3}
    assert bench.equal(found, "torchvision v2, our step") == bench.equal({"ours": [8], "lightly": [2]}, "lightly") == {}   # on a GPU


def test_a_step_with_views_and_one_on_a_constant_batch_alternate_in_one_training(monkeypatch, small):
    config, data, order, seen = tiny(limit=64, epochs=1, queue=32, batch_size=8), bench.noise(64, 32), [], []
    rendered, forward = bench.augment.rendered, bench.train.MoCo.forward
    monkeypatch.setattr(bench.augment, "rendered", lambda *args: order.append("view") or rendered(*args))

    def watched(self, view0, *rest):
        order.append("step")
        seen.append(view0.clone())
        return forward(self, view0, *rest)
    monkeypatch.setattr(bench.train.MoCo, "forward", watched)
    found = bench.alternating(config, data, 3)
    assert list(found) == ["whole", "bare"] and all(len(rates) == 2 and min(rates) > 0 for rates in found.values())    # without the first
    assert order == ["view", "view", "step", "step"] * 4 * 3
    assert all(torch.equal(view, seen[0]) for view in seen[1::2]) and not torch.equal(seen[0], seen[2])


def test_the_rates_of_alternating_steps_are_those_of_each_epochs_steps_of_a_kind(monkeypatch, small):
    clock = iter(range(10 ** 9))
    monkeypatch.setattr(bench.time, "perf_counter", lambda: float(next(clock)))
    spent = iter([1, 3] * 99)                                               # a whole step looks at the clock once more within
    monkeypatch.setattr(bench.train, "pretrain", lambda data, config, device: [
        [None for _ in bench.augment.views(None, torch.arange(64), config.augmentation, 0, epoch)] for epoch in range(config.epochs)])
    monkeypatch.setattr(bench.augment, "rendered", lambda *args: torch.tensor([next(clock) for _ in range(next(spent))]))
    found = bench.alternating(tiny(limit=64, epochs=1, queue=32, batch_size=8), bench.noise(64, 32), 3)
    assert found["bare"] == [8.0, 8.0] and found["whole"] == pytest.approx([8 / 5, 8 / 5])     # 1 tick; 1 and the 1 + 3 of two views


def test_a_recipe_takes_every_field_that_a_table_varies():
    assert bench.recipe("resnet18", queue=512).queue == 512 and bench.recipe("resnet18").queue == bench.QUEUE
    assert {bench.recipe(**({"arch": "resnet18"} | {k: v for k, v in case.items() if k in ("arch", "queue")})).epochs
            for case in bench.SCALING} == {1}
