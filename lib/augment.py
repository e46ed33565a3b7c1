"""The two views of MoCo v2: every image draws its own parameters. On a GPU as operations on the whole batch, which are all below; on a
CPU the same, image by image, in `lib.kernels`.

Definitions are torchvision's (RandomResizedCrop, ColorJitter, RandomGrayscale, GaussianBlur, RandomHorizontalFlip), on
float images in [0, 1], in MoCo v2's order. Every random number is a hash of (seed, epoch, stream, image, draw): no
generator, no state. So arms of a comparison see the same views, a resumed run sees those of an uninterrupted one, and
an operation switched off changes no other draw. Parameters are drawn on the CPU: taking a subset of the batch then
never synchronises a GPU.
"""

import functools
import itertools
import math
from dataclasses import dataclass, fields
from numbers import Real

import torch
import torch.nn.functional as F

from lib import check_name

GRAY = (0.2989, 0.587, 0.114)  # ITU-R 601-2 luma, rounded as in torchvision
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STANDARDIZE = ("image", "imagenet")
STD_EPSILON = 1e-5  # added to an image's standard deviation: a constant image becomes zero
CROP_TRIES = 10  # candidates per crop, torchvision's number
AHEAD = 4096  # images whose parameters are drawn at once
HIDE_GRIDS = (4, 8, 16)  # patches a side of Hide-and-Seek, one drawn per image; 56, 28 and 14 pixels at 224
ORDERS = torch.tensor(list(itertools.permutations(range(4))))  # (24, 4): operation at each step of the jitter
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
FIXED = 2 ** 31 - 1  # seed of the fixed views that every encoder is measured on: no training may use it


@dataclass(frozen=True)
class Augmentation:
    """What a view may look like; defaults are MoCo v2's. Numbers become floats and pairs tuples: equal ones hash alike.

    crop, ratio:        lowest and highest share of the image's area, and width / height, of the cropped box.
    brightness, contrast, saturation: factor from U[max(0, 1 - b), 1 + b];  hue: shift in turns from U[-hue, hue].
    *_p:                probability of jitter, greyscale, blur, flip; of each patch to be hidden (`hide`).
    blur_sigma:         lowest and highest standard deviation in pixels; the kernel is cut at `blur_radius`.
    standardize:        "image": minus the image's mean, divided by its deviation; "imagenet": ImageNet's, per channel.
    """

    crop: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    jitter_p: float = 0.8
    grayscale_p: float = 0.2
    blur_p: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    flip_p: float = 0.5
    hide_p: float = 0.0
    standardize: str = "image"

    def __post_init__(self):
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if name == "standardize":
                check_name("standardize", value, STANDARDIZE)
            elif name in ("crop", "ratio", "blur_sigma"):
                highest = 1.0 if name == "crop" else math.inf
                pair = tuple(value) if isinstance(value, tuple | list) else ()
                if not (len(pair) == 2 and all(map(_finite, pair)) and 0 < pair[0] <= pair[1] <= highest):
                    above = "0 < low <= high <= 1" if name == "crop" else "0 < low <= high, finite"
                    raise ValueError(f"{name}={value!r}: give (low, high) with {above}.")
                object.__setattr__(self, name, tuple(map(float, pair)))
            else:
                highest = 1.0 if name.endswith("_p") else 0.5 if name == "hue" else math.inf
                if not (_finite(value) and 0 <= value <= highest):
                    above = "at least 0, finite" if highest == math.inf else f"between 0 and {highest:g}"
                    raise ValueError(f"{name}={value!r}: give a number {above}.")
                object.__setattr__(self, name, float(value))


def _finite(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


# Random numbers -------------------------------------------------------------------------------------------------------

_GOLDEN, _MIX1, _MIX2, _WORD = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 2**64 - 1


def _signed(word: int) -> int:
    return (word & _WORD) - ((word & 2**63) << 1)


def _mix_word(word: int) -> int:
    word &= _WORD
    word = (word ^ (word >> 30)) * _MIX1 & _WORD
    word = (word ^ (word >> 27)) * _MIX2 & _WORD
    return word ^ (word >> 31)


def _mix(words):
    """`_mix_word` on int64 tensors, in place: `>>` on int64 repeats the sign, hence the masks; products wrap."""
    words.bitwise_xor_((words >> 30).bitwise_and_((1 << 34) - 1)).mul_(_signed(_MIX1))
    words.bitwise_xor_((words >> 27).bitwise_and_((1 << 37) - 1)).mul_(_signed(_MIX2))
    return words.bitwise_xor_((words >> 31).bitwise_and_((1 << 33) - 1))


def keyed_uniform(index, draws: int, seed: int, epoch: int = 0, stream: int = 0):
    """Uniform numbers without a generator: splitmix64's finalizer (Steele et al., 2014) over the five words of the key.

    index: (N,) int64 image ids. Returns (N, draws) float32 in [0, 1), multiples of 2^-24, on the device of `index`;
    bit-identical on every device and for every batch that an image comes in. Number d does not depend on `draws`.
    """
    key = 0
    for word in (seed, epoch, stream):
        key = _mix_word(key + _GOLDEN + _mix_word(int(word) + _GOLDEN))
    image = _mix(index.to(torch.int64) * _signed(_GOLDEN) + _signed(key))  # (N,)
    draw = torch.arange(1, draws + 1, device=index.device) * _signed(_GOLDEN)
    words = _mix(image[:, None] + draw)
    return (words >> 40).bitwise_and_(2**24 - 1).to(torch.float32).mul_(2.0**-24)


def boxes(area, aspect, vertical, horizontal, height: int, width: int, ratio: tuple[float, float]):
    """RandomResizedCrop's box: the first of T candidates that fits the image, else the central crop nearest in ratio.

    area, aspect: (N, T) shares of the image's area and width / height; vertical, horizontal: (N,) in [0, 1), the place
    among those possible. Returns (N,) int64 top, left, height, width. It is torchvision's loop, its tries drawn ahead.
    """
    target = area.double() * (height * width)
    w = (target * aspect).sqrt().round().long()  # (N, T)
    h = (target / aspect).sqrt().round().long()
    fits = (0 < w) & (w <= width) & (0 < h) & (h <= height)
    first = fits.int().argmax(dim=1, keepdim=True)
    w, h = w.gather(1, first)[:, 0], h.gather(1, first)[:, 0]
    top = (vertical * (height - h + 1)).floor().long()
    left = (horizontal * (width - w + 1)).floor().long()
    fallback_w = min(width, round(height * ratio[1]))
    fallback_h = min(height, round(width / ratio[0]))
    fallback = (height - fallback_h) // 2, (width - fallback_w) // 2, fallback_h, fallback_w
    found = fits.any(dim=1)
    return tuple(torch.where(found, box, other) for box, other in zip((top, left, h, w), fallback, strict=True))


def draw(index, augmentation: Augmentation, height: int, width: int, seed: int, epoch: int, stream: int) -> dict:
    """Each image's parameters, as CPU tensors. All numbers are drawn, whether or not an operation is on.

    box: (N, 4) int64 (top, left, height, width);  flip, jittered, gray, blurred: (N,) bool;
    factors: (N, 4) of brightness, contrast, saturation, hue;  order: (N, 4), which comes at each step;  sigma: (N,);
    where hide_p > 0 also grid: (N,) patches a side;  hidden: (N, 16, 16) bool.
    """
    a = augmentation
    used = 2 * CROP_TRIES + 12
    numbers = keyed_uniform(torch.as_tensor(index, device="cpu"), used + (1 + 16 * 16 if a.hide_p else 0), seed, epoch, stream)
    u, rest = numbers[:, :used].double(), numbers[:, used:]
    area = _between(u[:, :CROP_TRIES], *a.crop)
    aspect = _between(u[:, CROP_TRIES : 2 * CROP_TRIES], *map(math.log, a.ratio)).exp()
    vertical, horizontal, flip, jittered, *factors, order, gray, blurred, sigma = u[:, 2 * CROP_TRIES :].unbind(1)
    limits = [(max(0.0, 1 - s), 1 + s) for s in (a.brightness, a.contrast, a.saturation)] + [(-a.hue, a.hue)]
    hide = {"grid": torch.tensor(HIDE_GRIDS)[(rest[:, 0] * len(HIDE_GRIDS)).long()],
            "hidden": rest[:, 1:].view(-1, 16, 16) < a.hide_p} if a.hide_p else {}
    return hide | {
        "box": torch.stack(boxes(area, aspect, vertical, horizontal, height, width, a.ratio), dim=1),
        "flip": flip < a.flip_p,
        "jittered": jittered < a.jitter_p,
        "factors": torch.stack([_between(f, *limit) for f, limit in zip(factors, limits, strict=True)], dim=1).float(),
        "order": ORDERS[(order * len(ORDERS)).long()],
        "gray": gray < a.grayscale_p,
        "blurred": blurred < a.blur_p,
        "sigma": _between(sigma, *a.blur_sigma).float(),
    }


def _between(u, low, high):
    return low + (high - low) * u


# Operations: images (N, 3, H, W) float in [0, 1], parameters (N,) on any device ---------------------------------------


def resized_crop(images, top, left, height, width, flip, size: int):
    """Crop each image's box, resize it (bilinear, antialiased), mirror it where `flip`: (N, 3, size, size).

    A resize is linear and separable, so one matrix per axis and image does all three. MoCo flips last; mirroring
    commutes with the colour operations and with the symmetric blur.
    """
    *_, image_height, image_width = images.shape
    rows = _resize_matrix(top, height, torch.zeros_like(flip), image_height, size, images.device)
    columns = _resize_matrix(left, width, flip, image_width, size, images.device)
    return _separable(images, rows, columns)


def _resize_matrix(start, length, flip, side: int, size: int, device):
    """(N, size, side): row i weighs the image's pixels for output pixel i, by a triangle around its centre, as wide as
    the larger of an input and an output pixel, cut at the box [start, start + length)."""
    start, length, flip = (_to(p, device)[:, None] for p in (start, length, flip))
    pixel = torch.arange(size, device=device)
    pixel = torch.where(flip, size - 1 - pixel, pixel)
    scale = length / size  # (N, 1) input pixels per output pixel
    distance = (torch.arange(side, device=device) - start + 0.5)[:, None, :] - (scale * (pixel + 0.5))[:, :, None]
    weights = distance.abs_().div_(-scale.clamp_min(1)[:, :, None]).add_(1).clamp_min_(0)
    source = torch.arange(side, device=device)
    weights.mul_(((source >= start) & (source < start + length))[:, None, :])
    return weights.div_(weights.sum(dim=2, keepdim=True))


def _separable(images, rows, columns):
    """rows (N, S, H) @ images (N, C, H, W) @ columns^T (N, W, T), channel by channel: (N, C, S, T)."""
    n, channels, height, _ = images.shape
    narrow = torch.bmm(images.flatten(1, 2), columns.mT).view(n * channels, height, columns.shape[1])
    rows = rows[:, None].expand(-1, channels, -1, -1).flatten(0, 1)
    return torch.bmm(rows, narrow).unflatten(0, (n, channels))


def luma(images):
    """(N, 1, H, W): the grey value of each pixel."""
    return images[:, :1].mul(GRAY[0]).add_(images[:, 1:2], alpha=GRAY[1]).add_(images[:, 2:], alpha=GRAY[2])


def grayscale(images):
    return luma(images).expand_as(images)


def adjust_hue(images, shift):
    """Turn each image's hue by `shift` (turns, in [-0.5, 0.5]), keeping HSV's saturation and value."""
    r, g, b = images.unbind(dim=1)
    highest = torch.maximum(torch.maximum(r, g), b)
    lowest = torch.minimum(torch.minimum(r, g), b)
    chroma = highest - lowest
    # Sextants from red, 0 to 3, positive through green and negative through blue: HSV's three cases in one formula.
    turn = (g + b).sub_(r).sub_(lowest).div_(chroma.clamp_min(1e-12)).add_(1).copysign_(g - b)
    turn = turn.div_(6).add_(_to(shift + 1, images.device).view(-1, 1, 1)).frac_()
    # Each channel runs from lowest to highest along a trapezoid around its own hue; grey has chroma 0 and stays.
    centre, slope, height = _constant(((1 / 2, 1 / 3, 2 / 3), (6, -6, -6), (-1, 2, 2)), images.device).view(3, 3, 1, 1)
    share = (turn[:, None] - centre).abs_().mul_(slope).add_(height).clamp_(0, 1)
    return torch.addcmul(lowest[:, None], share, chroma[:, None])


def jitter(images, factors, order):
    """ColorJitter with a factor and an order for every image: factors (N, 4) and order (N, 4) as `draw` makes them.

    The three blends run on all images at once, each image with the kind that is its turn; images are sorted by when
    their hue turns, so that the costly hue works on one slice per step and once per image.
    """
    device = images.device
    factors, order = factors.cpu(), order.cpu()
    hue_step = (order == HUE).int().argmax(dim=1)
    rank = hue_step.argsort()
    ends = torch.bincount(hue_step, minlength=4).cumsum(0).tolist()
    factors, blends = factors[rank], order[rank]
    blends = blends[blends != HUE].view(-1, 3)  # kind of blend at each step
    weights = factors.gather(1, blends)
    sources = torch.stack([blends == CONTRAST, blends == SATURATION]) * (1 - weights)  # (2, N, 3)
    weights, (means, lumas), hue = _to(weights, device), _to(sources, device), _to(factors[:, HUE], device)
    rank = _to(rank, device)
    images = images.index_select(0, rank)
    for step, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        if end > start and factors[start:end, HUE].any():
            images[start:end] = adjust_hue(images[start:end], hue[start:end])
        if step < 3:
            weight, from_mean, from_luma = (w[:, step].view(-1, 1, 1, 1) for w in (weights, means, lumas))
            grey = luma(images)
            flat = from_mean * grey.mean(dim=(2, 3), keepdim=True)
            images = torch.addcmul(grey.mul_(from_luma).add_(flat), images, weight).clamp_(0, 1)
    return torch.empty_like(images).index_copy_(0, rank, images)


def hide(images, grid, hidden):
    """Hide-and-Seek (Singh & Lee 2017): patches of the image get its mean colour. grid: (N,) patches a side, hidden: (N, 16, 16)."""
    (*_, height, width), device = images.shape, images.device
    grid, hidden = _to(grid, device), _to(hidden, device)
    rows, columns = (torch.arange(side, device=device) * grid[:, None] // side for side in (height, width))  # (N, side): a pixel's patch
    mask = hidden[torch.arange(len(images), device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return torch.where(mask[:, None], images.mean(dim=(2, 3), keepdim=True), images)


def blur_radius(side: int) -> int:
    """Kernels have 2 * radius + 1 pixels, a tenth of the image's side and at least 3: 3 at 32 px, 9 at 96, 23 at 224.

    MoCo v2 blurs 224 px with Pillow, whose kernel is not cut; at 32 px the cut keeps a blur's deviation below 0.82 px.
    """
    return min(max(1, side // 20), side - 1)


def gaussian_blur(images, sigma):
    """Blur each image with its own sigma (pixels), borders reflected, kernel cut at `blur_radius`."""
    *_, height, width = images.shape
    columns = _blur_matrix(_to(sigma, images.device), width)
    return _separable(images, columns if height == width else _blur_matrix(_to(sigma, images.device), height), columns)


def _blur_matrix(sigma, side: int):
    radius = blur_radius(side)
    offset = torch.arange(-radius, radius + 1, device=sigma.device)
    taps = torch.exp(-0.5 * (offset / sigma[:, None]) ** 2)
    return ((taps / taps.sum(dim=1, keepdim=True)) @ _reflection(side, radius, sigma.device)).view(-1, side, side)


@functools.lru_cache(maxsize=16)
def _reflection(side: int, radius: int, device):
    """(2 * radius + 1, side * side): which input pixel each tap of each output pixel reads."""
    source = torch.arange(side) + torch.arange(-radius, radius + 1)[:, None]
    source = (side - 1) - ((side - 1) - source.abs()).abs()
    return F.one_hot(source, side).flatten(1).float().to(device)


@functools.lru_cache(maxsize=16)
def _constant(values, device):
    """Kept on the device, since a copy from a list would synchronise a GPU."""
    return torch.tensor(values, dtype=torch.float32, device=device)


def _to(parameter, device):
    return parameter.to(device, non_blocking=True)


# Views ----------------------------------------------------------------------------------------------------------------


def standardized(images, standardize: str):
    """Mean 0 and deviation 1: of each image over its pixels and channels ("image"), or of ImageNet's channels."""
    check_name("standardize", standardize, STANDARDIZE)
    if standardize == "imagenet":
        mean, std = _constant((IMAGENET_MEAN, IMAGENET_STD), images.device).view(2, 3, 1, 1)
        return (images - mean).div_(std)
    centred = images - images.mean(dim=(1, 2, 3), keepdim=True)
    std = torch.linalg.vector_norm(centred, dim=(1, 2, 3), keepdim=True) / math.sqrt(math.prod(images.shape[1:]))
    return centred.div_(std + STD_EPSILON)  # torch.var takes 40 times as long on a CPU


def original(images, standardize: str = "image", size: int | None = None):
    """The un-augmented image: uint8 (N, 3, H, W) -> standardised float32 (N, 3, S, S), resized if need be."""
    size = _check_images(images, size)
    pixels = images.float().div_(255)
    if pixels.shape[2:] != (size, size):
        pixels = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    return standardized(pixels, standardize)


def view(images, index, augmentation: Augmentation, seed: int, epoch: int, stream: int, size: int | None = None):
    """One random view of each image: uint8 (N, 3, H, W) -> standardised float32 (N, 3, S, S) on the device of `images`
    (in channels_last on a CPU).

    index: (N,) int64 ids of the images, preferably on the CPU; a view is a function of (image, id, seed, epoch, stream)
    and of nothing else. view0 is stream 0, view1 stream 1. size: S, by default the side of the images.
    """
    size = _check_images(images, size)
    if len(index) != len(images):
        raise ValueError(f"index has {len(index)} ids for {len(images)} images: give one id per image.")
    return rendered(images, draw(index, augmentation, *images.shape[2:], seed, epoch, stream), augmentation.standardize, size)


def views(batches, order, augmentation: Augmentation, seed: int, epoch: int):
    """Triples (index, view0, view1) of pairs (index (B,), square images), which follow `order` (N,): `view` of streams 0 and 1.

    Batches have one size; the last may be smaller.
    Parameters are drawn `AHEAD` images at a time: the same numbers as batch by batch, at a tenth of the time.
    """
    at, many = 0, 0
    for index, images in batches:
        size, many = _check_images(images, None), many or max(1, AHEAD // len(index)) * len(index)
        start = at % many
        if not start:
            ahead = [draw(order[at : at + many], augmentation, size, size, seed, epoch, stream) for stream in (0, 1)]
        parts = [{name: value[start : start + len(index)] for name, value in drawn.items()} for drawn in ahead]
        if images.device.type == "cpu":
            yield index, *(rendered(images, part, augmentation.standardize, size) for part in parts)
        else:  # both at once: half the operations to launch
            both = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            yield index, *rendered(torch.cat([images, images]), both, augmentation.standardize, size).chunk(2)
        at += len(index)


def rendered(images, drawn: dict, standardize: str, size: int):
    """The views from the parameters that `draw` gave: by `lib.kernels` on a CPU, in channels_last; elsewhere by `batched`."""
    if images.device.type != "cpu":
        return batched(images, drawn, standardize, size)
    from lib import kernels  # here, since only views on a CPU need Numba

    means_stds = _constant(IMAGENET_MEAN + IMAGENET_STD if standardize == "imagenet" else (), images.device)
    return kernels.views(images.contiguous(), drawn, size, blur_radius(size), means_stds)


def batched(images, drawn: dict, standardize: str, size: int):
    """The views from the parameters that `draw` gave, as operations on the whole batch: what a GPU is good at."""
    with torch.autocast(images.device.type, enabled=False):
        pixels = resized_crop(images.float().div_(255), *drawn["box"].unbind(dim=1), drawn["flip"], size)
        pixels = _where(drawn["jittered"], pixels, jitter, drawn["factors"], drawn["order"])
        pixels = _where(drawn["gray"], pixels, grayscale)
        pixels = _where(drawn["blurred"], pixels, gaussian_blur, drawn["sigma"])
        if "hidden" in drawn:
            pixels = hide(pixels, drawn["grid"], drawn["hidden"])
        return standardized(pixels, standardize)


def _where(mask, images, operation, *parameters):
    """`operation` on the images that drew it, in place; the others cost nothing."""
    rows = mask.nonzero()[:, 0]  # on the CPU
    if len(rows):
        there = _to(rows, images.device)
        images.index_copy_(0, there, operation(images.index_select(0, there), *(p[rows] for p in parameters)))
    return images


def _check_images(images, size: int | None) -> int:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images is {images.dtype} {tuple(images.shape)}: give uint8 (N, 3, H, W).")
    if size is None and images.shape[2] != images.shape[3]:
        raise ValueError(f"size=None for images of {tuple(images.shape[2:])} pixels: give size unless they are square.")
    size = images.shape[2] if size is None else size
    if size < 1:
        raise ValueError(f"size={size}: give at least 1 pixel.")
    return size
