import copy
import math

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lib import models
from lib.models import (
    ENCODERS,
    LARGE,
    PROJECTORS,
    SMALL,
    STEMS,
    calibrate_batchnorm,
    encoder,
    hidden,
    multiply_adds,
    parameters,
    projector,
    projector_parameters,
    split_batchnorm,
    table,
)
from lib.runs import ROOT

DIMS = {"mobilenet_v3_small": 1024, "deit_tiny": 192, "efficientnet_b0": 1280, "mobilenet_v3_large": 1280,
        "resnet18": 512, "resnet50": 2048}
NETWORKS = list(DIMS)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def images(n, size=32):
    return torch.randn(n, 3, size, size)


def toy():
    """Convolution (channels 3 -> 4) and BatchNorm, whose statistics have a closed form."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))


# --- convolutions of small images ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("layout, dtype", [(torch.contiguous_format, torch.float64), (torch.channels_last, torch.float64),
                                           (torch.channels_last, torch.float32)])
@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize("kernel, stride", [(1, 1), (1, 2), (3, 1), (3, 2), (5, 1), (5, 2), (7, 2)])
@pytest.mark.parametrize("height, width", [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 3), (4, 4), (5, 2), (8, 8)])
def test_a_lean_convolution_is_the_plain_one_with_its_gradients(height, width, kernel, stride, groups, layout, dtype, monkeypatch):
    plain = nn.Conv2d(6, 6, kernel, stride, kernel // 2, groups=groups, bias=groups == 1).to(dtype=dtype, memory_format=layout)
    lean = models.lean(copy.deepcopy(plain))
    assert type(lean) is models._LeanConv2d and lean.state_dict().keys() == plain.state_dict().keys()
    if dtype == torch.float32:
        monkeypatch.setattr(models, "LEAST", 0)                            # every product by oneDNN
    x = [torch.randn(4, 6, height, width, dtype=dtype, generator=torch.Generator().manual_seed(0)).requires_grad_() for _ in "ab"]
    y = [conv(given) for conv, given in zip((plain, lean), x)]
    assert y[0].shape == y[1].shape
    for out in y:
        (out * torch.arange(out.numel()).view_as(out).sin()).sum().backward()
    if groups == 1 and layout == torch.channels_last:
        assert lean.weight.grad.stride() == lean.weight.stride()             # else the optimiser would see a transposed copy
    for a, b in [y, [given.grad for given in x], *([p.grad, q.grad] for p, q in zip(plain.parameters(), lean.parameters(), strict=True))]:
        torch.testing.assert_close(a, b, rtol=1e-12 if dtype == torch.float64 else 1e-3, atol=1e-12 if dtype == torch.float64 else 1e-4)


def test_a_lean_convolution_takes_what_the_plain_one_takes_and_gives_its_dtype():
    plain = nn.Conv2d(6, 6, 3, padding=1)
    lean = models.lean(copy.deepcopy(plain))
    for x in (torch.randn(6, 1, 1), torch.randn(2, 6, 1, 1), torch.randn(2, 6, 9, 1)):
        with torch.autocast("cpu", torch.bfloat16, enabled=x.ndim == 4):
            a, b = plain(x), lean(x)
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2)              # and so dtype and shape


def test_the_taps_that_are_kept_are_those_that_meet_the_image():
    for n in range(1, 9):
        for k in (1, 3, 5, 7):
            for stride in (1, 2):
                taps, padding = models._kept(n, k, stride, k // 2)
                met = [[t for t in range(k) if 0 <= o * stride + t - k // 2 < n] for o in range(math.ceil(n / stride))]
                assert set(sum(met, [])) == set(range(k)[taps]) and padding == k // 2 - taps.start
                all_seen = models._seeing_all(n, k, stride, k // 2)
                assert [[*range(k)[taps]] for taps in all_seen] == (met if all(len(taps) == n for taps in met) else [])


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "efficientnet_b0", "resnet18"])
def test_lean_convolutions_do_less_work_on_small_images_and_the_same_on_large_ones(name, monkeypatch):
    monkeypatch.setattr(models, "LEAST", math.inf)                         # the counter does not know oneDNN's products

    def work(size):
        torch.manual_seed(0)
        net = encoder(name, size).eval()
        for norm in models._batchnorms(net):                               # else h is next to 0 before training
            norm.train()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            out = net(torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1)))
        return counter.get_total_flops(), out, dict(net.named_parameters())
    lean = {size: work(size) for size in (32, 224)}
    monkeypatch.setattr(models, "lean", lambda net: net)
    plain = {size: work(size) for size in (32, 224)}
    assert lean[32][0] < plain[32][0] and lean[224][0] == plain[224][0]
    assert all(plain[size][0] == 8 * multiply_adds(name, size) for size in plain)            # which counts as on a GPU
    for size in lean:
        assert [*lean[size][2]] == [*plain[size][2]]
        assert all(torch.equal(a, b) for a, b in zip(lean[size][2].values(), plain[size][2].values()))
        most = plain[size][1].abs().max()
        assert most > 0.01 and (lean[size][1] - plain[size][1]).abs().max() < 1e-3 * most


HERE = pytest.mark.skipif(not models.has_onednn(), reason="products go to oneDNN on x86 alone")


@HERE
@pytest.mark.parametrize("shape", [(7, 5), (2, 3, 5), (5,)])
def test_a_product_by_onednn_is_the_plain_one_with_its_gradients(shape, monkeypatch):
    monkeypatch.setattr(models, "LEAST", 0)
    onednn = models._onednn
    given = [torch.randn(*shape[:-1], 2 * shape[-1])[..., ::2], torch.randn(4, 6)[:, 1:], torch.randn(4)]     # parts of larger tensors
    leaves, found = [[t.detach().requires_grad_() for t in given] for _ in "ab"], []
    for product, (x, weight, bias) in zip((models.linear, F.linear), leaves, strict=True):
        y = product(x, weight, bias)
        found.append([y, *torch.autograd.grad(y.sum(), (x, weight, bias), retain_graph=True),             # whose gradient is one number
                      *torch.autograd.grad((y ** 2).sum(), (x, weight, bias))])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    x, weight, bias = leaves[0]
    without = [torch.autograd.grad((product(x, weight) ** 2).sum(), (x, weight)) for product in (models.linear, F.linear)]
    torch.testing.assert_close(*without, rtol=1e-5, atol=1e-5)
    sent = []
    monkeypatch.setattr(models, "_onednn", lambda *args: sent.append(1) or onednn(*args))
    torch.autograd.grad(models.linear(x, weight, bias).sum(), (x, weight, bias))
    assert len(sent) == 3                                                                                  # forward, both gradients
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first, = torch.autograd.grad((models.linear(x, weight, bias) ** 2).sum(), x, create_graph=True)
        first.sum().backward()
    frozen = torch.autograd.grad(models.linear(x, weight.detach(), bias).sum(), (x, bias))
    torch.testing.assert_close(frozen, torch.autograd.grad(F.linear(x, weight.detach(), bias).sum(), (x, bias)))


@HERE
def test_only_large_fp32_products_go_to_onednn(monkeypatch):
    sent = []
    monkeypatch.setattr(models._Product, "apply", lambda x, weight, bias: sent.append(x.shape) or F.linear(x, weight, bias))
    x, weight = torch.randn(2 ** 11, 2 ** 6), torch.randn(2 ** 5, 2 ** 6)                                  # 2 ** 22 multiply-adds
    models.linear(x, weight)
    assert sent == [x.shape]
    for a, b in [(x[1:], weight), (x.double(), weight.double()), (x.bfloat16(), weight.bfloat16())]:
        assert models.linear(a, b).dtype == a.dtype
    with torch.autocast("cpu", torch.bfloat16):
        assert models.linear(x, weight).dtype == torch.bfloat16
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    models.linear(x, weight)
    assert sent == [x.shape]


@pytest.mark.parametrize("least", [0, math.inf])
def test_lean_attention_is_torchs_with_its_gradients(least, monkeypatch):
    monkeypatch.setattr(models, "LEAST", least)
    plain = nn.MultiheadAttention(12, 3, batch_first=True)
    nn.init.normal_(plain.in_proj_bias)
    lean = models.lean(nn.ModuleList([copy.deepcopy(plain)]))[0]
    assert type(lean) is models._LeanAttention and lean.state_dict().keys() == plain.state_dict().keys()
    found = []
    for attention in (plain, lean):
        x = torch.randn(4, 5, 12, generator=torch.Generator().manual_seed(0)).requires_grad_()
        y, weights = attention(x, x, x, need_weights=False)
        assert weights is None
        found.append([y, *torch.autograd.grad((y ** 2).sum(), (x, *attention.parameters()))])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        for other, options in ((x + 1, {"need_weights": False}), (x, {}), (x, {"need_weights": False, "attn_mask": torch.eye(5).bool()})):
            for a, b in zip(plain(x, other, other, **options), lean(x, other, other, **options), strict=True):
                torch.testing.assert_close(a, b)                           # to others, with weights, masked
    seen = []
    monkeypatch.setattr(models.F, "scaled_dot_product_attention", lambda q, k, v: seen.append(q.dtype) or v)
    with torch.autocast("cpu", torch.bfloat16):
        assert lean(x, x, x, need_weights=False)[0].dtype == torch.bfloat16
    assert lean.bfloat16()(*[x.bfloat16()] * 3, need_weights=False)[0].dtype == torch.bfloat16
    assert lean.double()(*[x.double()] * 3, need_weights=False)[0].dtype == torch.float64
    assert seen == [torch.float32, torch.float32, torch.float64]           # never in bf16
    others = [nn.MultiheadAttention(12, 3), nn.MultiheadAttention(12, 3, dropout=0.1, batch_first=True),
              nn.MultiheadAttention(12, 3, add_bias_kv=True, batch_first=True),
              nn.MultiheadAttention(12, 3, add_zero_attn=True, batch_first=True),
              nn.MultiheadAttention(12, 3, kdim=5, batch_first=True)]
    assert {type(m) for m in models.lean(nn.ModuleList(others))} == {nn.MultiheadAttention}
    assert {type(m) for m in projector("simple", 8)} == {models._LeanLinear, nn.ReLU}


def test_only_centred_convolutions_are_lean():
    others = [nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 4, 4), nn.Conv2d(4, 4, 3, 3, 1), nn.Conv2d(4, 4, 3, padding=2, dilation=2),
              nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), nn.Conv2d(4, 4, 3, padding="same")]
    assert {type(m) for m in models.lean(nn.Sequential(*others))} == {nn.Conv2d}
    assert type(encoder("deit_tiny").conv_proj) is nn.Conv2d


# --- encoders ---------------------------------------------------------------------------------------------------------

def test_the_five_small_encoders_the_large_one_and_pixels_are_all_there_is():
    assert SMALL == ("mobilenet_v3_small", "deit_tiny", "efficientnet_b0", "mobilenet_v3_large", "resnet18")
    assert [*ENCODERS] == [*SMALL, LARGE, "pixels"]
    assert len({entry.label for entry in ENCODERS.values()}) == len(ENCODERS)


@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_maps_images_of_any_side_to_its_penultimate_dimension(name, stem, size):
    net = encoder(name, size, stem).eval()
    with torch.no_grad():
        h = net(images(2, size))
    assert h.shape == (2, net.dim) and net.dim == DIMS.get(name, 3 * min(size, 32)**2)
    assert h.isfinite().all()


@pytest.mark.parametrize("name, sides", [("resnet18", (1, 2, 4)), ("mobilenet_v3_small", (1, 2, 2)),
                                         ("efficientnet_b0", (1, 2, 2)), ("deit_tiny", (4, 8, 8))])
def test_stems_leave_the_feature_map_that_the_docstring_says(name, sides):
    for stem, side in zip(STEMS, sides, strict=True):
        net, maps = encoder(name, 32, stem).eval(), []
        layer = {"resnet18": "layer4", "deit_tiny": "conv_proj"}.get(name, "features")
        getattr(net, layer).register_forward_hook(lambda module, args, out, maps=maps: maps.append(out.shape[-2:]))
        net(images(1))
        assert maps == [(side, side)]


PAPER = pd.read_csv(ROOT / "results" / "reference" / "paper_encoders.csv").set_index("model")


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_are_the_official_codes_but_for_deit(name):
    net, paper = encoder(name), PAPER.loc[name]
    assert ENCODERS[name].paper_parameters == paper.parameters == paper.backbone_parameters + 1000 * net.dim + 1000
    assert (parameters(net) == paper.backbone_parameters) == (name != "deit_tiny")


def test_deit_tiny_is_the_standard_one_and_not_the_official_codes():
    standard = 5_717_416  # DeiT-Ti with 3 heads, patch 16, at 224 pixels
    official = 7_479_976
    net = encoder("deit_tiny", 224)
    assert parameters(net) + 193_000 == standard
    assert {layer.num_heads for layer in net.encoder.layers} == {3}
    # The official code doubles the heads (3 * 192^2 + 192^2 more weights a layer) and has no biases on q, k and v.
    assert official - standard == 12 * (4 * 192**2 - 3 * 192)
    assert ENCODERS["deit_tiny"].paper_parameters == official


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "efficientnet_b0", "mobilenet_v3_large"])
def test_the_imagenet_stem_is_torchvisions_network_from_the_same_seed(name):
    ours = encoder(name).eval()
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(weights=None).eval()
    state = theirs.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in ours.state_dict().items())
    head = theirs.fc if name == "resnet18" else theirs.classifier[-1]
    x = images(2)
    torch.testing.assert_close(head(ours(x)), theirs(x))


def test_resnet_features_are_never_negative_and_the_others_are_signed():
    x = images(8)
    for name in NETWORKS:
        h = encoder(name)(x)  # training mode: BatchNorm normalises by the batch
        assert (h.min() < 0) == (not name.startswith("resnet")), name


def test_pixels_are_the_image_itself():
    x = images(2)
    assert torch.equal(encoder("pixels")(x), x.reshape(2, -1))
    assert parameters(encoder("pixels")) == 0


def test_every_batchnorm_has_momentum_one_tenth_and_keeps_its_eps():
    for name, eps in {"mobilenet_v3_small": 1e-3, "mobilenet_v3_large": 1e-3, "efficientnet_b0": 1e-5,
                      "resnet18": 1e-5, "resnet50": 1e-5}.items():
        norms = [m for m in encoder(name).modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms and {(m.momentum, m.eps) for m in norms} == {(0.1, eps)}


@pytest.mark.parametrize("name", NETWORKS)
def test_eval_mode_has_no_randomness_and_only_dropout_and_stochastic_depth_have_any_in_training(name):
    net, x = encoder(name), images(4)
    with torch.no_grad():
        random = not torch.equal(net(x), net(x))
        net.eval()
        assert torch.equal(net(x), net(x))
    assert random == (name.startswith(("mobilenet", "efficientnet")))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_width_multiplies_the_channels_of_a_resnet(name):
    full = encoder(name)
    for width in (0.25, 0.5, 2.0):
        net = encoder(name, width=width)
        assert net.dim == width * full.dim == net(images(2)).shape[1]
        # Closed form: each convolution scales with its inputs (but for the image's 3) and with its outputs.
        scaled = sum(round(p.numel() * width ** (1 if p.dim() == 1 or p.shape[1] == 3 else 2))
                     for p in full.parameters())
        assert parameters(net) == scaled
        assert {m.eps for m in net.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-5}
    for stem, kernel in (("imagenet", 49), ("cifar", 9)):
        std = encoder(name, stem=stem, width=0.5).conv1.weight.std().item()
        assert std == pytest.approx(math.sqrt(2 / (kernel * 32)), rel=0.1)  # kaiming, fan_out


@pytest.mark.parametrize("arguments, message", [
    (dict(name="resnet81"), "encoder = 'resnet81' is unknown; did you mean 'resnet18'"),
    (dict(name="resnet18", stem="cifr"), "stem = 'cifr' is unknown; did you mean 'cifar'"),
    (dict(name="resnet18", width=0), "width must be greater than 0, not 0"),
    (dict(name="resnet18", width=float("nan")), "width must be greater than 0"),
    (dict(name="deit_tiny", width=0.5), "width must be 1.0 for deit_tiny, not 0.5; resnet18 and resnet50"),
    (dict(name="deit_tiny", size=34), "size must be divisible by deit_tiny's patch .8 for stem 'imagenet'., not 34"),
    (dict(name="deit_tiny", size=30, stem="cifar"), "patch .4 for stem 'cifar'., not 30"),
    (dict(name="resnet18", size=4), "size must be at least 8"),
])
def test_bad_arguments_of_an_encoder_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        encoder(**arguments)


# --- projectors -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dim, simple, wide", [(1024, 1.18, 2.36), (192, 0.06, 0.12), (1280, 1.80, 3.61),
                                               (512, 0.33, 0.66), (2048, 4.46, 8.92)])
def test_simple_and_wide_projectors_have_the_official_codes_number_of_parameters(dim, simple, wide):
    assert round(parameters(projector("simple", dim)) / 1e6, 2) == simple
    assert round(parameters(projector("wide", dim)) / 1e6, 2) == wide


def test_projectors_have_the_layers_that_their_names_say():
    def linears(kind, **kwargs):
        return [(m.in_features, m.out_features, m.bias is not None)
                for m in projector(kind, 8, 3, **kwargs) if isinstance(m, nn.Linear)]

    assert linears("linear") == linears("linear", bn=True) == [(8, 3, True)]
    assert linears("simple") == linears("dropout") == [(8, 8, True), (8, 3, True)]
    assert linears("wide") == linears("mlp16") == [(8, 16, True), (16, 3, True)]
    assert linears("deep") == [(8, 8, True), (8, 8, True), (8, 3, True)]
    assert linears("deep", bn=True) == [(8, 8, False), (8, 8, False), (8, 3, True)]
    assert [type(m).__name__ for m in projector("dropout", 8, bn=True)] == [
        "_LeanLinear", "BatchNorm1d", "ReLU", "Dropout", "_LeanLinear"]
    assert not any(isinstance(m, nn.BatchNorm1d) for kind in PROJECTORS for m in projector(kind, 8))
    assert projector("mlp2048", 8)(torch.randn(5, 8)).shape == (5, 128)


@pytest.mark.parametrize("kind, nearest", [("widee", "wide"), ("mlp", "mlp2048"), ("mlp0", "mlp2048")])
def test_an_unknown_projector_is_answered_with_the_nearest_name(kind, nearest):
    with pytest.raises(ValueError, match=f"projector = {kind!r} is unknown; did you mean '{nearest}'"):
        projector(kind, 8)


# --- split BatchNorm --------------------------------------------------------------------------------------------------

def chunk_by_chunk(net, x, splits):
    """BatchNorm net run on each chunk alone from the same start: outputs, and the average of the moved statistics."""
    copies = [copy.deepcopy(net) for _ in range(splits)]
    outputs = torch.cat([one(chunk) for one, chunk in zip(copies, x.split(len(x) // splits), strict=True)])
    statistics = {key: sum(one.state_dict()[key] for one in copies) / splits for key in net.state_dict()}
    return outputs, statistics, copies


@pytest.mark.parametrize("shape, norm", [((8, 5, 3, 3), nn.BatchNorm2d), ((8, 5), nn.BatchNorm1d)])
@pytest.mark.parametrize("splits", [2, 4])
@pytest.mark.parametrize("compiled", [False, True])
def test_split_batchnorm_is_a_loop_over_chunks_forward_backward_and_in_its_statistics(shape, norm, splits, compiled):
    net, x = norm(5), 3 * torch.randn(shape) + torch.arange(8.0).view(-1, *[1] * (len(shape) - 1))
    nn.init.normal_(net.weight), nn.init.normal_(net.bias)
    x0, x1, weight = x.clone().requires_grad_(), x.clone().requires_grad_(), torch.randn(shape)
    expected, statistics, copies = chunk_by_chunk(net, x0, splits)
    split = split_batchnorm(copy.deepcopy(net), splits)
    torch._dynamo.reset()
    z = (torch.compile(split, backend="eager", fullgraph=True) if compiled else split)(x1)
    (expected * weight).sum().backward(), (z * weight).sum().backward()
    torch.testing.assert_close(z, expected)
    torch.testing.assert_close(x1.grad, x0.grad)
    torch.testing.assert_close(split.weight.grad, sum(one.weight.grad for one in copies))
    torch.testing.assert_close(split.bias.grad, sum(one.bias.grad for one in copies))
    for key, value in split.state_dict().items():
        torch.testing.assert_close(value, statistics[key].to(value.dtype))
    assert split.num_batches_tracked == 1
    assert not torch.allclose(z, net(x), atol=0.1)  # plain BatchNorm is something else


def test_split_batchnorm_sees_contiguous_chunks():
    x = images(4, 8)
    moved = x.clone()
    moved[2:] = 100 * moved[2:] + 7
    net = split_batchnorm(toy(), 2)[:2]
    assert torch.equal(net(x)[:2], net(moved)[:2])  # the first half does not notice the second


def test_one_split_and_eval_mode_are_plain_batchnorm():
    plain = encoder("resnet18", width=0.25)
    one, eight = split_batchnorm(copy.deepcopy(plain), 1), split_batchnorm(copy.deepcopy(plain), 8)
    assert [type(m) for m in one.modules()] == [type(m) for m in plain.modules()]
    assert [*eight.state_dict()] == [*plain.state_dict()]
    x = images(16)
    assert torch.equal(plain.eval()(x), eight.eval()(x))
    assert torch.equal(plain.train()(x), one(x))
    assert not torch.allclose(plain(x), eight.train()(x))
    assert torch.equal(plain(x), split_batchnorm(eight, 1)(x))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_split_batchnorm_keeps_the_layout_and_under_bf16_the_precision_of_its_statistics(layout, compiled):
    split = split_batchnorm(nn.BatchNorm2d(5), 4)
    x = (1 + torch.randn(8, 5, 3, 3)).contiguous(memory_format=layout)
    torch._dynamo.reset()
    run = torch.compile(split, backend="eager", fullgraph=True) if compiled else split
    assert run(x).is_contiguous(memory_format=layout)
    with torch.autocast("cpu", torch.bfloat16):
        y = run(x.bfloat16())
    assert y.dtype == torch.bfloat16 and split.running_mean.dtype == split.running_var.dtype == torch.float32
    torch.testing.assert_close(y.float(), chunk_by_chunk(nn.BatchNorm2d(5), x, 4)[0], atol=0.02, rtol=0.02)


def test_split_batchnorm_works_in_whole_networks_and_keeps_channels_last():
    net = split_batchnorm(encoder("mobilenet_v3_small"), 2).to(memory_format=torch.channels_last)
    outputs = []
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.register_forward_hook(lambda module, args, out: outputs.append(out))
    net(images(8, 64).to(memory_format=torch.channels_last)).sum().backward()
    assert outputs and all(out.is_contiguous(memory_format=torch.channels_last) for out in outputs)
    assert all(p.grad is not None for p in net.parameters())
    assert copy.deepcopy(net)(images(4)).shape == (4, 1024)


def test_a_batch_that_does_not_divide_into_splits_is_an_error():
    with pytest.raises(ValueError, match=r"splits must divide the batch \(6 images\), not 4"):
        split_batchnorm(toy(), 4)(images(6))
    with pytest.raises(ValueError, match="splits must be at least 1, not 0"):
        split_batchnorm(toy(), 0)


# --- calibration ------------------------------------------------------------------------------------------------------

def test_calibrated_statistics_are_those_of_the_whole_set():
    net, x = toy(), 2 * images(24, 8) + 1
    net[1].running_mean.fill_(9), net[1].running_var.fill_(9)
    maps = net[0](x).detach()
    calibrate_batchnorm(net, [x])
    torch.testing.assert_close(net[1].running_mean, maps.mean((0, 2, 3)))
    torch.testing.assert_close(net[1].running_var, maps.var((0, 2, 3)))
    calibrate_batchnorm(net, iter(x.split(8)))  # the batches' variances are averaged, the means are the set's
    torch.testing.assert_close(net[1].running_mean, maps.mean((0, 2, 3)))
    torch.testing.assert_close(net[1].running_var, sum(m.var((0, 2, 3)) for m in maps.split(8)) / 3)


def test_calibration_leaves_momentum_modes_weights_and_gradients_and_uses_whole_batches_when_split():
    net, x = split_batchnorm(toy(), 8), images(10, 8)  # 10 does not divide by 8
    net[1].momentum = 0.3
    net[0].eval()
    weight = net[0].weight.clone()
    calibrate_batchnorm(net, [x])
    assert net[1].momentum == 0.3 and net[1].splits == 8
    assert [m.training for m in net] == [False, True, True, True]
    assert torch.equal(net[0].weight, weight) and net[0].weight.grad is None
    torch.testing.assert_close(net[1].running_var, net[0](x).var((0, 2, 3)))


def test_calibration_has_dropout_and_stochastic_depth_off():
    net, other, x = encoder("efficientnet_b0"), encoder("efficientnet_b0"), images(8)
    other.load_state_dict(net.state_dict())
    a, b = (calibrate_batchnorm(n, [x]).state_dict() for n in (net, other))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_calibration_makes_embeddings_vary_where_a_small_momentum_leaves_one_point():
    x = images(64)

    def spread(net):  # standard deviation over images, relative to the size of h
        with torch.no_grad():
            h = net.eval()(x)
        return (h.std(0).norm() / h.norm(dim=1).mean()).item()

    net = encoder("mobilenet_v3_small")
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = 0.01  # torchvision's
    with torch.no_grad():
        for batch in x.split(16):
            net(batch)
    assert spread(net) < 0.01
    assert spread(calibrate_batchnorm(net, x.split(16))) > 0.2


def test_calibration_leaves_encoders_without_batchnorm_alone_and_wants_a_batch_from_the_others():
    for name in ("deit_tiny", "pixels"):
        net = encoder(name)
        assert calibrate_batchnorm(net, None) is net and net.training
    with pytest.raises(ValueError, match="batches must hold at least one batch"):
        calibrate_batchnorm(toy(), [])


# --- costs ------------------------------------------------------------------------------------------------------------

def test_multiply_adds_are_the_published_ones_and_the_closed_form_of_a_transformer():
    assert multiply_adds("resnet18") == pytest.approx(1.81e9, rel=0.005)
    assert multiply_adds("resnet50") == pytest.approx(4.09e9, rel=0.005)
    assert multiply_adds("mobilenet_v3_small") + 1_024_000 == pytest.approx(56.5e6, rel=0.01)
    t, d = 14**2 + 1, 192  # tokens with the class token, width
    assert multiply_adds("deit_tiny") == 12 * (12 * t * d**2 + 2 * t**2 * d) + 14**2 * 768 * d
    assert multiply_adds("pixels") == 0
    assert multiply_adds("resnet18", 32, "cifar") == pytest.approx(0.556e9, rel=0.01)
    assert multiply_adds("resnet18", width=0.5) < multiply_adds("resnet18") / 3


def test_the_table_says_where_our_encoders_differ():
    rows = table().set_index("name")
    assert [*rows.index] == [*SMALL, LARGE]
    assert rows["dim"].to_dict() == DIMS
    assert [*rows.index[rows["parameters"] != rows["paper_parameters"]]] == ["deit_tiny"]
    assert (rows["parameters"] - rows["backbone_parameters"] == 1000 * (rows["dim"] + 1)).all()
    assert rows["differences"].str.len().gt(0).all()
    assert table(32)["multiply_adds"].max() < 1e8


@pytest.mark.parametrize("kind, widths", [("linear", []), ("simple", [6]), ("wide", [12]), ("deep", [6, 6]), ("dropout", [6]),
                                          ("mlp48", [48])])
def test_hidden_widths_and_parameters_are_those_of_the_projector(kind, widths):
    assert hidden(kind, 6) == widths
    for bn in (False, True):
        built = projector(kind, 6, 4, bn)
        assert [layer.out_features for layer in built if isinstance(layer, nn.Linear)] == [*widths, 4]
        assert projector_parameters(kind, 6, 4, bn) == sum(p.numel() for p in built.parameters())


def test_pixels_are_the_image_itself_and_a_large_one_averaged_to_32():
    small, large = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 64, 64)
    assert torch.equal(encoder("pixels", 32)(small), small.flatten(1)) and torch.equal(encoder("pixels", 8)(small[..., :8, :8]),
                                                                                         small[..., :8, :8].flatten(1))
    means = large.view(2, 3, 32, 2, 32, 2).mean((3, 5)).flatten(1)
    assert torch.allclose(encoder("pixels", 64)(large), means, atol=1e-6)
    assert encoder("pixels", 224).dim == 3072                               # else a projector of 150,528 x 150,528 weights
