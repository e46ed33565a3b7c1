"""The encoders, their stems for small images, the projectors, and what BatchNorm needs.

An encoder maps standardised images x (N, 3, S, S) to the representation h (N, D): the penultimate output, which the
paper evaluates. A projector maps h to z (N, 128), which only the loss sees. Networks are torchvision's, untrained.

| stem       | ResNet                               | MobileNetV3, EfficientNet | DeiT-Ti              | side at S=32 |
|------------|--------------------------------------|---------------------------|----------------------|--------------|
| `imagenet` | 7x7 stride 2, max-pool (torchvision) | 3x3 stride 2              | patch min(16, S//4)  | 1, 1, 4      |
| `stride1`  | 7x7 stride 1, max-pool               | 3x3 stride 1              | half that patch      | 2, 2, 8      |
| `cifar`    | 3x3 stride 1, no max-pool            | 3x3 stride 1              | patch 4              | 4, 2, 8      |

"side" is that of the last feature map (of the grid of patches) for the three families in the order of the columns.
"""

import platform
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models as tv
from torchvision.models.resnet import BasicBlock, Bottleneck

from lib import check_name

STEMS = ("imagenet", "stride1", "cifar")
PROJECTORS = ("linear", "simple", "wide", "deep", "dropout")  # and mlp<hidden>, such as mlp2048


class _ResNet(tv.ResNet):
    """torchvision's ResNet with every number of channels multiplied by `width`; at 1.0 the same network."""

    def __init__(self, block, layers, size: int, stem: str, width: float):
        self.width = width
        super().__init__(block, layers)
        if stem == "stride1":
            self.conv1.stride = (1, 1)
        elif stem == "cifar":
            self.conv1 = nn.Conv2d(3, self.conv1.out_channels, kernel_size=3, padding=1, bias=False)
            nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
            self.maxpool = nn.Identity()
        self.fc = nn.Linear(self.inplanes, 1000)

    def _make_layer(self, block, planes: int, *args, **kwargs):
        if self.width != 1 and planes == 64:  # the first stage: torchvision has just built a stem of 64 channels
            self.inplanes = self._scaled(64)
            self.conv1 = nn.Conv2d(3, self.inplanes, kernel_size=7, stride=2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(self.inplanes)
        return super()._make_layer(block, self._scaled(planes), *args, **kwargs)

    def _scaled(self, planes: int) -> int:
        return max(1, round(planes * self.width))


def _convolutional(builder: Callable, size: int, stem: str, width: float) -> nn.Module:
    """MobileNetV3 or EfficientNet from torchvision's builder."""
    net = builder(weights=None)
    if stem != "imagenet":
        net.features[0][0].stride = (1, 1)
    return net


def _deit_tiny(size: int, stem: str, width: float) -> nn.Module:
    patch = {"imagenet": min(16, size // 4), "stride1": min(16, size // 4) // 2, "cifar": 4}[stem]
    if size % patch:
        raise ValueError(f"size must be divisible by deit_tiny's patch ({patch} for stem {stem!r}), not {size}.")
    return tv.VisionTransformer(size, patch, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768)


@dataclass(frozen=True)
class Entry:
    """What the study knows of an encoder; `encoder()` turns it into a network."""

    label: str  # in figures
    build: Callable[[int, str, float], nn.Module]  # (size, stem, width) -> a network with its 1000-way classifier
    classifier: str | None = None  # attribute that holds the classifier, whose last Linear is taken off
    scalable: bool = False  # accepts a width other than 1
    paper_parameters: int | None = None  # of the official code's network with a 1000-way head, counted
    differences: str = ""  # what is so in our network, and not in the official code's


_MOBILENET = ("BatchNorm eps 1e-3, not 1e-5; in blocks that expand, squeeze-and-excitation after the activation, not "
              "before it; its weights start like a convolution's, not at N(0, 0.01^2)")
_EFFICIENTNET = ("BatchNorm eps 1e-5, not 1e-3, and momentum 0.1, not 0.01; symmetric padding, not TensorFlow's; "
                 "convolutions start at N(0, 2/fan_out), not PyTorch's default")
_DEIT = ("3 heads of 64, not 6; q, k, v with biases; patch projection trained, not frozen at its random start; no "
         "dropout, not 0.1; positions start at N(0, 0.02^2), class token at 0, not N(0, 1); LayerNorm eps 1e-6")

PIXELS = 32  # side to which larger images are averaged before their pixels are compared: 224 px would have 150,528 dimensions
ENCODERS = {
    "mobilenet_v3_small": Entry("MobileNetV3-Small", partial(_convolutional, tv.mobilenet_v3_small), "classifier",
                                paper_parameters=2_542_856, differences=_MOBILENET),
    "deit_tiny": Entry("DeiT-Ti", _deit_tiny, "heads", paper_parameters=7_479_976, differences=_DEIT),
    "efficientnet_b0": Entry("EfficientNet-B0", partial(_convolutional, tv.efficientnet_b0), "classifier",
                             paper_parameters=5_288_548, differences=_EFFICIENTNET),
    "mobilenet_v3_large": Entry("MobileNetV3-Large", partial(_convolutional, tv.mobilenet_v3_large), "classifier",
                                paper_parameters=5_483_032, differences=_MOBILENET),
    "resnet18": Entry("ResNet-18", partial(_ResNet, BasicBlock, [2, 2, 2, 2]), "fc", True, 11_689_512, "none known"),
    "resnet50": Entry("ResNet-50", partial(_ResNet, Bottleneck, [3, 4, 6, 3]), "fc", True, 25_557_032, "none known"),
    "pixels": Entry("raw pixels", lambda size, stem, width: nn.Sequential(nn.AdaptiveAvgPool2d(min(size, PIXELS)), nn.Flatten())),
}
SMALL = ("mobilenet_v3_small", "deit_tiny", "efficientnet_b0", "mobilenet_v3_large", "resnet18")  # the paper's five
LARGE = "resnet50"


def _kept(n: int, k: int, stride: int, padding: int) -> tuple[slice, int]:
    """Of a convolution along an axis of n pixels: (taps of its k that meet the image somewhere, padding that these need)."""
    outputs = (n + 2 * padding - k) // stride + 1
    first = max(0, padding - (outputs - 1) * stride)
    return slice(first, min(k, n + padding)), padding - first


def _seeing_all(n: int, k: int, stride: int, padding: int) -> list[slice]:
    """Of a convolution along an axis of n pixels: for each output its taps that meet the image, if these are n for each; else none."""
    outputs = (n + 2 * padding - k) // stride + 1
    firsts = [padding - stride * output for output in range(outputs)]
    return [slice(first, first + n) for first in firsts] if all(0 <= first <= k - n for first in firsts) else []


LEAST = 2 ** 22  # multiply-adds from which a product is handed to oneDNN: below, the way there costs more than it saves


class _Product(torch.autograd.Function):
    """x (N, I) times weight (O, I) transposed, plus bias, and its gradients, all by oneDNN."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        x, weight = x.contiguous(), weight.contiguous()  # parts of larger tensors take oneDNN a thousand times as long
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (_onednn(grad, weight.t()) if of_x else None, _onednn(grad.t(), x.t()) if of_weight else None,
                grad.sum(0) if of_bias else None)


def _onednn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """F.linear, the same to rounding: x (..., I), weight (O, I) -> (..., O). On an x86 CPU large fp32 products go to oneDNN.

    There PyTorch sends its convolutions to it, but its products to MKL, which was half as fast on the AMD EPYC of results/bench.
    """
    if (torch.compiler.is_compiling() or x.device.type != "cpu" or x.numel() * len(weight) < LEAST
            or not x.dtype == weight.dtype == torch.float32 or torch.is_autocast_enabled("cpu") or not has_onednn()):
        return F.linear(x, weight, bias)
    return _Product.apply(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], -1)


def has_onednn() -> bool:
    """Whether large products go to oneDNN here; elsewhere they are torch's own."""
    return torch.backends.mkldnn.enabled and _built_with_onednn()


@lru_cache
def _built_with_onednn() -> bool:
    return (platform.machine() in ("x86_64", "AMD64") and torch.backends.mkldnn.is_available()
            and hasattr(torch.ops.mkldnn, "_linear_pointwise"))


class _LeanLinear(nn.Linear):
    """Linear by `linear`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear(x, self.weight, self.bias)


class _LeanAttention(nn.MultiheadAttention):
    """MultiheadAttention without dropout; on a CPU that of a sequence (N, T, D) to itself has its products by `linear`, and the attention
    itself in fp32 at least: torch's in bf16 takes four times as long backwards (AMD EPYC)."""

    def forward(self, query, key, value, **options):
        if not query is key is value or query.device.type != "cpu" or query.ndim != 3 or options != {"need_weights": False}:
            return super().forward(query, key, value, **options)
        packed = linear(query, self.in_proj_weight, self.in_proj_bias).unflatten(-1, (3, self.num_heads, self.head_dim))
        precise = packed.to(torch.promote_types(packed.dtype, torch.float32))
        with torch.autocast("cpu", enabled=False):
            heads = F.scaled_dot_product_attention(*precise.permute(2, 0, 3, 1, 4)).to(packed.dtype)
        return linear(heads.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias), None


class _LeanConv2d(nn.Conv2d):
    """Conv2d that on a CPU does without the taps that meet nothing but padding, and is a product of matrices where each output pixel sees
    the whole map: 3 x 3 on 2 x 2, or whatever gives one pixel.

    The same function to rounding. On 32 x 32 images the last stages are as small as that, and most of a kernel is waste.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cpu" or x.ndim != 4:
            return super().forward(x)
        if self.groups > 1:
            axes = zip(x.shape[2:], self.kernel_size, self.stride, self.padding, strict=True)
            (rows, above), (columns, left) = (_kept(*axis) for axis in axes)
            return F.conv2d(x, self.weight[:, :, rows, columns], self.bias, self.stride, (above, left), groups=self.groups)
        map_, stride = (x[:, :, ::self.stride[0], ::self.stride[1]], (1, 1)) if self.kernel_size == (1, 1) else (x, self.stride)
        rows, columns = (_seeing_all(*axis) for axis in zip(map_.shape[2:], self.kernel_size, stride, self.padding, strict=True))
        if not (rows and columns):
            return super().forward(x)
        kernel = self.weight.permute(0, 2, 3, 1)  # as channels_last has it in memory, and so the map
        weights = [kernel[:, of_y, of_x].flatten(1) for of_y in rows for of_x in columns]  # (O, all that the map holds) per output
        if len(weights) == 1:
            return linear(map_.permute(0, 2, 3, 1).flatten(1), weights[0], self.bias)[:, :, None, None]
        bias = None if self.bias is None else self.bias.repeat(len(weights))
        y = linear(map_.permute(0, 2, 3, 1).flatten(1), torch.cat(weights), bias)
        return y.unflatten(1, (len(rows), len(columns), -1)).permute(0, 3, 1, 2)


def lean(net: nn.Module) -> nn.Module:
    """The same network, its centred convolutions as _LeanConv2d, its products as `linear` has them."""
    for m in net.modules():
        if type(m) is nn.Linear:
            m.__class__ = _LeanLinear
        elif type(m) is nn.MultiheadAttention and m.batch_first and m.in_proj_weight is not None and not (
                m.dropout or m.add_zero_attn or m.bias_k is not None):
            m.__class__ = _LeanAttention
        elif (type(m) is nn.Conv2d and m.padding == tuple(k // 2 for k in m.kernel_size) and all(k % 2 for k in m.kernel_size)
                and max(m.stride) <= 2 and m.dilation == (1, 1) and m.padding_mode == "zeros"):
            m.__class__ = _LeanConv2d
    return net


def encoder(name: str, size: int = 32, stem: str = "imagenet", width: float = 1.0) -> nn.Module:
    """Untrained encoder: (N, 3, S, S) -> h (N, D), with D as its attribute `dim`.

    h is the penultimate output. MobileNetV3: after Linear, h-swish and Dropout(0.2) (D 1024 small, 1280 large).
    EfficientNet-B0: pooled, after Dropout(0.2) (1280). ResNets: pooled, so never negative (512 and 2048 at width 1).
    DeiT-Ti: the class token after the last LayerNorm (192). `pixels`: the image itself, at most 32 x 32 (3 S^2), the baseline.
    width multiplies the channels of a ResNet; the others take 1.0 only. stem: see the table above.
    BatchNorm's momentum is 0.1 in all (torchvision's MobileNetV3 has 0.01, whose running statistics stay near their
    start in a short run, so that every image gets the same h in eval mode). Its eps is torchvision's.
    """
    check_name("encoder", name, ENCODERS)
    check_name("stem", stem, STEMS)
    entry = ENCODERS[name]
    if not width > 0:
        raise ValueError(f"width must be greater than 0, not {width}.")
    if width != 1 and not entry.scalable:
        scalable = " and ".join(other for other, e in ENCODERS.items() if e.scalable)
        raise ValueError(f"width must be 1.0 for {name}, not {width}; {scalable} take others.")
    if size < 8:
        raise ValueError(f"size must be at least 8 pixels, not {size}.")
    net = lean(entry.build(size, stem, width))
    if entry.classifier is None:
        net.dim = 3 * min(size, PIXELS) ** 2
        return net
    layers = getattr(net, entry.classifier)
    layers = layers if isinstance(layers, nn.Sequential) else nn.Sequential(layers)
    setattr(net, entry.classifier, layers[:-1])  # an empty Sequential is the identity
    net.dim = layers[-1].in_features
    for module in _batchnorms(net):
        module.momentum = 0.1
    return net


def projector(kind: str, dim: int, out: int = 128, bn: bool = False) -> nn.Sequential:
    """Projector: h (N, dim) -> z (N, out), not normalised.

    `linear`: one Linear. `simple`: Linear(dim, dim)-ReLU-Linear (MoCo v2, the paper's baseline). `wide`: hidden 2 dim
    (the paper's improved recipe). `deep`: three Linears, hidden dim. `dropout`: simple with Dropout(0.5) after the
    ReLU. `mlp2048`: hidden 2048, or any other number. bn puts BatchNorm1d after each hidden Linear, which then has no
    bias (`linear` has none to put it after); the paper's projectors have none.
    """
    widths, layers = hidden(kind, dim), []
    for n_in, n_out in zip([dim, *widths], widths, strict=False):
        layers += [nn.Linear(n_in, n_out, bias=not bn), *([nn.BatchNorm1d(n_out)] if bn else []), nn.ReLU(inplace=True)]
    if kind == "dropout":
        layers.append(nn.Dropout(0.5))
    return lean(nn.Sequential(*layers, nn.Linear([dim, *widths][-1], out)))


def hidden(kind: str, dim: int) -> list[int]:
    """Widths of a projector's hidden layers on h (N, dim); none of `linear`."""
    mlp = re.fullmatch(r"mlp([1-9]\d*)", str(kind))
    if not mlp:
        check_name("projector", kind, (*PROJECTORS, "mlp2048"))
    return {"linear": [], "wide": [2 * dim], "deep": [dim, dim]}.get(kind, [int(mlp[1]) if mlp else dim])


def projector_parameters(kind: str, dim: int, out: int = 128, bn: bool = False) -> int:
    """Number of parameters of a projector, as `projector` has it."""
    with torch.device("meta"):  # shapes alone
        return parameters(projector(kind, dim, out, bn))


def _batchnorms(module: nn.Module) -> list[nn.Module]:
    return [m for m in module.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]


class _Split:
    """BatchNorm that in training normalises each of `splits` contiguous chunks of the batch by itself."""

    def forward(self, x):
        if not self.training or self.splits == 1 or self.momentum is None:  # None: being calibrated
            return super().forward(x)
        if len(x) % self.splits:
            raise ValueError(f"splits must divide the batch ({len(x)} images), not {self.splits}.")
        self.num_batches_tracked += 1
        # Chunk i moves its own copy of the running statistics; their mean is one step towards the chunks' mean.
        mean, var = (s.expand(self.splits, -1).clone() for s in (self.running_mean, self.running_var))  # (splits, C)
        if x.device.type != "cpu" or torch.compiler.is_compiling():  # chunks' channels as channels of their own: a third fewer operations
            weight, bias = (None if p is None else p.repeat(self.splits) for p in (self.weight, self.bias))
            dealt = x.movedim(1, -1).unflatten(0, (self.splits, -1)).movedim(0, -2).flatten(-2).movedim(-1, 1)  # (n, splits C, ...)
            dealt = F.batch_norm(dealt, mean.view(-1), var.view(-1), weight, bias, True, self.momentum, self.eps)
            out = dealt.movedim(1, -1).unflatten(-1, (self.splits, -1)).movedim(-2, 0).flatten(0, 1).movedim(-1, 1)
            last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
            out = out.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        else:
            out = torch.cat([F.batch_norm(chunk, mean[i], var[i], self.weight, self.bias, True, self.momentum, self.eps)
                             for i, chunk in enumerate(x.chunk(self.splits))])
        self.running_mean.copy_(mean.mean(dim=0))
        self.running_var.copy_(var.mean(dim=0))
        return out


class SplitBatchNorm1d(_Split, nn.BatchNorm1d): ...


class SplitBatchNorm2d(_Split, nn.BatchNorm2d): ...


def split_batchnorm(module: nn.Module, splits: int) -> nn.Module:
    """Emulates BatchNorm on `splits` GPUs on one device (MoCo: 8); changes the module in place and returns it.

    In training mode each of `splits` contiguous chunks of the batch is normalised by its own mean and variance. The
    running statistics move once per step, towards the chunks' average mean and average unbiased variance (MoCo under
    DDP keeps the first GPU's instead). Eval mode and state_dict are those of plain BatchNorm; splits=1 is plain.
    The batch must be divisible by splits, into chunks of two images or more; channels_last is kept.
    """
    if splits < 1:
        raise ValueError(f"splits must be at least 1, not {splits}.")
    for m in _batchnorms(module):
        if splits > 1 or isinstance(m, _Split):
            m.__class__ = SplitBatchNorm1d if isinstance(m, nn.BatchNorm1d) else SplitBatchNorm2d
            m.splits = splits
    return module


@torch.no_grad()
def calibrate_batchnorm(module: nn.Module, batches: Iterable[torch.Tensor]) -> nn.Module:
    """Re-estimates BatchNorm's running statistics over batches (n, 3, S, S), in place; returns the module.

    They become the plain average of the batches' means and unbiased variances: estimates of the whole set's if the
    batches are random and of one size (not sorted by class). Only BatchNorm is in training mode: dropout and stochastic
    depth are off. A split BatchNorm takes the batch as a whole here. Momentum and modes are afterwards as before.
    An encoder without BatchNorm is left alone, and batches is not read.
    """
    norms = _batchnorms(module)
    if not norms:
        return module
    modes = {m: m.training for m in module.modules()}
    momenta = [m.momentum for m in norms]
    module.eval()
    for m in norms:
        m.reset_running_stats()
        m.train()
        m.momentum = None  # cumulative average
    try:
        for x in batches:
            module(x)
    finally:
        for m, training in modes.items():
            m.training = training
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum
    if norms[0].num_batches_tracked == 0:
        raise ValueError("batches must hold at least one batch, not none.")
    return module


def parameters(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())


@lru_cache
def multiply_adds(name: str, size: int = 224, stem: str = "imagenet", width: float = 1.0) -> int:
    """Multiply-adds of one image's forward pass, without a classifier: convolutions, taps on padding too, and matrix products only."""
    with torch.device("meta"):  # shapes alone
        net, x = encoder(name, size, stem, width).eval(), torch.zeros(1, 3, size, size)
    with FlopCounterMode(display=False) as counter:
        net(x)
    return counter.get_total_flops() // 2


def table(size: int = 224, stem: str = "imagenet") -> pd.DataFrame:
    """One row per encoder (not `pixels`): what it is, what it costs, and how it differs from the official code's.

    parameters and paper_parameters count a 1000-way head, backbone_parameters none; multiply_adds: per image at `size`.
    """
    rows = []
    for name in (*SMALL, LARGE):
        with torch.device("meta"):
            net = encoder(name, size, stem)
        rows.append({"name": name, "label": ENCODERS[name].label, "parameters": parameters(net) + 1000 * (net.dim + 1),
                     "backbone_parameters": parameters(net), "dim": net.dim,
                     "multiply_adds": multiply_adds(name, size, stem),
                     "paper_parameters": ENCODERS[name].paper_parameters, "differences": ENCODERS[name].differences})
    return pd.DataFrame(rows)
