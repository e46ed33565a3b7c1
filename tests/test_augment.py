"""augment: every operation against torchvision on single images, and the random numbers against what they promise."""

import dataclasses
import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as tv
from scipy import stats
from torchvision.transforms import InterpolationMode, RandomResizedCrop

from lib import augment, kernels
from lib.augment import (
    HIDE_GRIDS,
    ORDERS,
    Augmentation,
    adjust_hue,
    batched,
    blur_radius,
    boxes,
    draw,
    gaussian_blur,
    grayscale,
    jitter,
    keyed_uniform,
    original,
    resized_crop,
    standardized,
    view,
)

OFF = Augmentation(crop=(1, 1), ratio=(1, 1), jitter_p=0, grayscale_p=0, blur_p=0, flip_p=0)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


def random_images(n, height=32, width=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, height, width or height), dtype=torch.uint8, generator=generator)


def close(a, b, atol=1e-5):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


def drawn(augmentation=None, n=500, side=32, seed=0, epoch=0, stream=0):
    return draw(torch.arange(n), augmentation or Augmentation(), side, side, seed, epoch, stream)


# Random numbers -------------------------------------------------------------------------------------------------------


def splitmix64(word):
    word &= 2**64 - 1
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
    return word ^ (word >> 31)


def keyed_by_hand(image, number, seed, epoch, stream):
    golden, key = 0x9E3779B97F4A7C15, 0
    for word in (seed, epoch, stream):
        key = splitmix64(key + golden + splitmix64(word + golden))
    return (splitmix64(splitmix64(key + image * golden) + (number + 1) * golden) >> 40) / 2**24


def test_the_mixer_is_splitmix64():
    # The published generator from state 0 returns mix(golden), mix(2 * golden), ...
    golden = 0x9E3779B97F4A7C15
    assert [splitmix64(golden * i) for i in (1, 2, 3)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


@pytest.mark.parametrize("key", [(0, 0, 0), (7, 3, 1), (2**40, 199, 0), (-1, 5, 2)])
def test_keyed_uniform_is_the_hash_in_plain_integers(key):
    index = torch.tensor([0, 1, 2, 49_999, 1_281_166, 2**40, -3])
    expected = [[keyed_by_hand(image, number, *key) for number in range(9)] for image in index.tolist()]
    assert keyed_uniform(index, 9, *key).tolist() == expected


@pytest.mark.parametrize("device", DEVICES)
def test_keyed_uniform_keeps_its_committed_values_on_every_device(device):
    index = torch.tensor([0, 1, 49_999], device=device)
    committed = [[13119575, 6461823, 12779003], [8122614, 12846433, 10046227], [11693062, 5293997, 10372900]]
    assert (keyed_uniform(index, 3, seed=1, epoch=2, stream=1) * 2**24).long().tolist() == committed


def test_keyed_uniform_is_uniform_on_zero_to_one():
    u = keyed_uniform(torch.arange(20_000), 20, seed=3).double()
    assert u.min() >= 0 and u.max() < 1
    assert stats.chisquare(torch.histc(u, 256, 0, 1).numpy()).pvalue > 1e-3
    n = u.numel()
    for power in (1, 2, 3, 4):
        spread = math.sqrt((1 / (2 * power + 1) - 1 / (power + 1) ** 2) / n)
        assert abs(u.pow(power).mean() - 1 / (power + 1)) < 4 * spread
    bits = (u * 2**24).long()[..., None] >> torch.arange(24) & 1
    assert (bits.double().mean(dim=(0, 1)) - 0.5).abs().max() < 4.5 * 0.5 / math.sqrt(n)


@pytest.mark.parametrize("neighbour", ["index", "seed", "epoch", "stream", "draw"])
def test_keyed_uniform_of_neighbouring_keys_is_uncorrelated(neighbour):
    index = torch.arange(50_000)
    u = keyed_uniform(index, 4, 5, 6, 0)
    v = {
        "index": lambda: keyed_uniform(index + 1, 4, 5, 6, 0),
        "seed": lambda: keyed_uniform(index, 4, 6, 6, 0),
        "epoch": lambda: keyed_uniform(index, 4, 5, 7, 0),
        "stream": lambda: keyed_uniform(index, 4, 5, 6, 1),
        "draw": lambda: u.roll(1, dims=1),
    }[neighbour]()
    assert (u != v).float().mean() > 0.999
    for a, b in ((u, v), ((u - 0.5).abs(), (v - 0.5).abs())):  # shifts, and reflections, which a correlation cannot see
        assert abs(np.corrcoef(a.flatten(), b.flatten())[0, 1]) < 4.5 / math.sqrt(u.numel())
    cells = (u * 16).long() * 16 + (v * 16).long()
    assert stats.chisquare(torch.bincount(cells.flatten(), minlength=256).numpy()).pvalue > 1e-4


def test_keyed_uniform_of_swapped_words_differs():
    index = torch.arange(100)
    keys = set(itertools.permutations((1, 2, 3))) | {(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)}
    rows = {tuple(keyed_uniform(index, 1, *key)[:, 0].tolist()) for key in keys}
    assert len(rows) == len(keys)


def test_a_number_depends_neither_on_how_many_are_drawn_nor_on_its_batch():
    u = keyed_uniform(torch.arange(100), 8, 1, 2, 1)
    assert torch.equal(u[:, :3], keyed_uniform(torch.arange(100), 3, 1, 2, 1))
    assert torch.equal(u[[42, 7]], keyed_uniform(torch.tensor([42, 7]), 8, 1, 2, 1))


# Crop and flip --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height, width, size", [(32, 32, 32), (32, 32, 20), (24, 24, 48), (40, 56, 32)])
def test_resized_crop_and_flip_are_torchvisions(height, width, size):
    n = 24
    images = random_images(n, height, width).float() / 255
    top, left, h, w = draw(torch.arange(n), Augmentation(crop=(0.02, 1.0)), height, width, 0, 0, 0)["box"].unbind(1)
    flip = torch.arange(n) % 2 == 0
    ours = resized_crop(images, top, left, h, w, flip, size)
    for i in range(n):
        theirs = tv.resized_crop(
            images[i], int(top[i]), int(left[i]), int(h[i]), int(w[i]), [size, size], InterpolationMode.BILINEAR, True
        )
        close(ours[i], tv.hflip(theirs) if flip[i] else theirs, atol=2e-6)


def test_full_area_crop_at_the_same_size_is_the_identity():
    images = random_images(5).float() / 255
    zero, side, no = torch.zeros(5).long(), torch.full((5,), 32), torch.zeros(5).bool()
    assert torch.equal(resized_crop(images, zero, zero, side, side, no, 32), images)
    assert torch.equal(resized_crop(images, zero, zero, side, side, ~no, 32), images.flip(3))


def test_a_view_with_everything_off_is_the_original():
    images = random_images(6)
    close(view(images, torch.arange(6), OFF, 0, 0, 0), original(images, "image"))


def loop_box(area, aspect, height, width, ratio):
    """torchvision's loop over given candidates: (height, width, whether one fitted)."""
    for share, shape in zip(area, aspect, strict=True):
        w, h = round(math.sqrt(share * height * width * shape)), round(math.sqrt(share * height * width / shape))
        if 0 < w <= width and 0 < h <= height:
            return h, w, True
    if width / height < ratio[0]:
        return round(width / ratio[0]), width, False
    if width / height > ratio[1]:
        return height, round(height * ratio[1]), False
    return height, width, False


@pytest.mark.parametrize("height, width", [(32, 32), (32, 100), (100, 32), (3, 9)])
@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (1.9, 2.0)])
def test_boxes_are_those_of_torchvisions_loop(height, width, ratio):
    n, generator = 400, torch.Generator().manual_seed(0)
    # Three tries instead of ten, so that some images fall back.
    area = 0.2 + 0.8 * torch.rand(n, 3, generator=generator, dtype=torch.float64)
    aspect = ratio[0] + (ratio[1] - ratio[0]) * torch.rand(n, 3, generator=generator, dtype=torch.float64)
    place = torch.rand(2, n, generator=generator, dtype=torch.float64)
    found = []
    for i, (top, left, h, w) in enumerate(zip(*boxes(area, aspect, *place, height, width, ratio), strict=True)):
        expected_h, expected_w, fitted = loop_box(area[i].tolist(), aspect[i].tolist(), height, width, ratio)
        assert (int(h), int(w)) == (expected_h, expected_w)
        y, x = height - expected_h, width - expected_w
        expected = (int(place[0, i] * (y + 1)), int(place[1, i] * (x + 1))) if fitted else (y // 2, x // 2)
        assert (int(top), int(left)) == expected
        found.append(fitted)
    assert not all(found) and (any(found) or ratio[0] > 1)


@pytest.mark.parametrize("side, crop, ratio", [(224, (0.2, 1.0), (3 / 4, 4 / 3)), (32, (0.08, 0.5), (0.5, 3.0))])
def test_boxes_are_distributed_as_torchvisions(side, crop, ratio):
    n, image = 4_000, torch.empty(3, side, side)
    torch.manual_seed(0)
    theirs = torch.tensor([RandomResizedCrop.get_params(image, list(crop), list(ratio)) for _ in range(n)]).double().T
    ours = drawn(Augmentation(crop=crop, ratio=ratio), n, side)["box"].T.double()
    for name, quantity in {
        "area": lambda top, left, h, w: h * w,
        "ratio": lambda top, left, h, w: w / h,
        "top": lambda top, left, h, w: top,
        "left": lambda top, left, h, w: left,
        "bottom": lambda top, left, h, w: top + h,
        "diagonal": lambda top, left, h, w: top - left,
    }.items():
        assert stats.ks_2samp(quantity(*ours), quantity(*theirs)).pvalue > 1e-3, name


@pytest.mark.parametrize("height, width", [(32, 32), (32, 100), (100, 32), (31, 24)])
@pytest.mark.parametrize("ratio", [(3.9, 4.0), (0.2, 0.21), (0.05, 20.0)])
def test_an_image_that_no_candidate_fits_gets_torchvisions_central_box(height, width, ratio):
    area = torch.full((1, 4), 3.0)  # larger than the image
    ours = boxes(area, torch.ones(1, 4), torch.rand(1), torch.rand(1), height, width, ratio)
    theirs = RandomResizedCrop.get_params(torch.empty(3, height, width), [3.0, 3.0], list(ratio))
    assert tuple(map(int, ours)) == theirs


def test_two_copies_of_an_image_differ_under_different_ids_and_agree_under_one():
    twins = random_images(1).expand(2, -1, -1, -1).contiguous()
    assert not torch.allclose(*view(twins, torch.tensor([3, 4]), Augmentation(), 0, 0, 0), atol=0.1)
    assert torch.equal(*view(twins, torch.tensor([3, 3]), Augmentation(), 0, 0, 0))
    assert len(set(map(tuple, drawn()["box"].tolist()))) > 450


# Colour and blur ------------------------------------------------------------------------------------------------------


def awkward_images():
    """Random images beside greys, black, white, primaries and two equal maxima, where hue has its special cases."""
    images = random_images(8).float() / 255
    images[0] = images[0, :1]
    images[1], images[2] = 0, 1
    images[3] = torch.eye(3).repeat(1, 11)[:, None, :32].expand(3, 32, 32)
    images[4, 1] = images[4, 0]
    images[5, 2] = images[5, 1]
    images[6, 2] = images[6, 0]
    return images


@pytest.mark.parametrize("shifts", [torch.linspace(-0.5, 0.5, 8), torch.tensor([0.5, 0.4, 0.3, 1 / 3, -0.1, 0.1, -0.5, 0.0])])
def test_hue_is_torchvisions_with_every_images_own_shift(shifts):
    images = awkward_images()
    for roll in range(8):
        shift = shifts.roll(roll)
        result = adjust_hue(images, shift)
        for i in range(8):
            close(result[i], tv.adjust_hue(images[i], float(shift[i])))


def test_grayscale_is_torchvisions():
    images = awkward_images()
    close(grayscale(images), tv.rgb_to_grayscale(images, 3), atol=1e-6)


def test_jitter_is_torchvisions_in_each_images_own_order():
    n = 4 * len(ORDERS)
    images = random_images(n).float() / 255
    factors, order = (
        drawn(Augmentation(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.4), n)["factors"],
        ORDERS.repeat(4, 1),
    )
    result = jitter(images, factors, order)
    operations = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    for i in range(n):
        expected = images[i]
        for kind in order[i].tolist():
            expected = operations[kind](expected, float(factors[i, kind]))
        close(result[i], expected, atol=2e-4 if factors[i, 3] else 1e-5)
    assert (result - jitter(images, factors, order.flip(1))).abs().mean() > 1e-3  # the order matters


def test_jitter_of_strength_zero_changes_nothing():
    images = random_images(24).float() / 255
    factors = drawn(Augmentation(brightness=0, contrast=0, saturation=0, hue=0), 24)["factors"]
    close(jitter(images, factors, ORDERS), images, atol=1e-6)


@pytest.mark.parametrize("height, width", [(32, 32), (33, 47), (96, 96), (224, 224)])
def test_gaussian_blur_is_torchvisions_with_every_images_own_sigma(height, width):
    n = 3 if height > 100 else 8
    images, sigma = random_images(n, height, width).float() / 255, torch.linspace(0.1, 2.0, n)
    result = gaussian_blur(images, sigma)
    kernel = [2 * blur_radius(width) + 1, 2 * blur_radius(height) + 1]
    for i in range(n):
        close(result[i], tv.gaussian_blur(images[i], kernel, [float(sigma[i])] * 2), atol=2e-6)


def test_blur_kernels_are_a_tenth_of_the_side_odd_and_at_least_three():
    assert [2 * blur_radius(side) + 1 for side in (2, 8, 32, 64, 96, 224)] == [3, 3, 3, 7, 9, 23]


# Who draws what -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, mask", [("jitter_p", "jittered"), ("grayscale_p", "gray"), ("blur_p", "blurred"), ("flip_p", "flip")]
)
def test_an_operation_takes_its_share_of_the_images(name, mask):
    assert not drawn(dataclasses.replace(Augmentation(), **{name: 0}))[mask].any()
    assert drawn(dataclasses.replace(Augmentation(), **{name: 1}))[mask].all()
    share = drawn(dataclasses.replace(Augmentation(), **{name: 0.3}), n=10_000)[mask].float().mean()
    assert abs(share - 0.3) < 4 * math.sqrt(0.21 / 10_000)


@pytest.mark.parametrize(
    "name, operation",
    [
        ("jitter_p", lambda images, d: jitter(images, d["factors"], d["order"])),
        ("grayscale_p", lambda images, d: grayscale(images)),
        ("blur_p", lambda images, d: gaussian_blur(images, d["sigma"])),
        ("flip_p", lambda images, d: images.flip(3)),
    ],
)
def test_an_operation_reaches_all_images_at_probability_one_and_only_its_own_at_a_half(name, operation):
    images, index = random_images(40), torch.arange(40)
    plain = images.float() / 255
    for p in (1, 0.5):
        augmentation = dataclasses.replace(OFF, **{name: p})
        d = draw(index, augmentation, 32, 32, 0, 0, 0)
        mask = d[{"jitter_p": "jittered", "grayscale_p": "gray", "blur_p": "blurred", "flip_p": "flip"}[name]]
        expected = torch.where(mask.view(-1, 1, 1, 1), operation(plain, d), plain)
        close(view(images, index, augmentation, 0, 0, 0), standardized(expected, "image"))
        assert mask.all() if p == 1 else 5 < mask.sum() < 35


@pytest.mark.parametrize("side", [32, 40, 224])
def test_hidden_patches_get_the_mean_of_the_image_on_a_grid_of_its_own(side):
    images, index = random_images(60, side, side), torch.arange(60)
    hiding = dataclasses.replace(OFF, hide_p=0.3)
    d = draw(index, hiding, side, side, 0, 0, 0)
    assert set(d["grid"].tolist()) == set(HIDE_GRIDS) and abs(d["hidden"].float().mean() - 0.3) < 0.02
    result, plain = view(images, index, hiding, 0, 0, 0), images.float() / 255
    for i in range(12):
        grid, expected = int(d["grid"][i]), plain[i].clone()
        for y in range(side):
            for x in range(side):
                if d["hidden"][i, y * grid // side, x * grid // side]:
                    expected[:, y, x] = plain[i].mean((1, 2))
        close(result[i], standardized(expected[None], "image")[0], atol=3e-5)
    nothing = draw(index, OFF, side, side, 0, 0, 0)
    assert all(torch.equal(d[name], value) for name, value in nothing.items() if name != "box") and "hidden" not in nothing


def test_a_view_is_the_operations_one_after_the_other_on_single_images():
    n, augmentation = 30, Augmentation()
    images, index = random_images(n), torch.arange(100, 100 + n)
    result, d = view(images, index, augmentation, 4, 5, 1), draw(index, augmentation, 32, 32, 4, 5, 1)
    adjust = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    for i in range(n):
        image = tv.resized_crop(images[i].float() / 255, *d["box"][i].tolist(), [32, 32])
        if d["jittered"][i]:
            for kind in d["order"][i].tolist():
                image = adjust[kind](image, float(d["factors"][i, kind]))
        if d["gray"][i]:
            image = tv.rgb_to_grayscale(image, 3)
        if d["blurred"][i]:
            image = tv.gaussian_blur(image, [3, 3], [float(d["sigma"][i])] * 2)
        if d["flip"][i]:
            image = tv.hflip(image)
        close(result[i], (image - image.mean()) / image.std(correction=0), atol=1e-3)


def test_switching_an_operation_off_leaves_the_other_draws_as_they_were():
    reference = drawn(seed=3, epoch=4, stream=1)
    alone = {
        "jitter_p": {"jittered"},
        "grayscale_p": {"gray"},
        "blur_p": {"blurred"},
        "flip_p": {"flip"},
        "brightness": {"factors"},
        "hue": {"factors"},
    }
    for name, touched in alone.items():
        other = drawn(dataclasses.replace(Augmentation(), **{name: 0}), seed=3, epoch=4, stream=1)
        for key in reference.keys() - touched:
            for a, b in zip(reference[key], other[key], strict=True):
                assert torch.equal(a, b), (name, key)
    no_hue = drawn(Augmentation(hue=0), seed=3, epoch=4, stream=1)["factors"]
    assert torch.equal(no_hue[:, :3], reference["factors"][:, :3]) and not no_hue[:, 3].any()


def test_factors_fill_their_ranges_and_orders_are_equally_frequent():
    d = drawn(Augmentation(brightness=0.4, contrast=1.5, saturation=0.8, hue=0.1), n=20_000)
    for i, (low, high) in enumerate([(0.6, 1.4), (0, 2.5), (0.2, 1.8), (-0.1, 0.1)]):
        assert stats.kstest(d["factors"][:, i], "uniform", (low, high - low)).pvalue > 1e-3
    assert stats.kstest(d["sigma"], "uniform", (0.1, 1.9)).pvalue > 1e-3
    counts = torch.unique(d["order"], dim=0, return_counts=True)[1]
    assert len(counts) == 24 and stats.chisquare(counts).pvalue > 1e-3


def test_the_draws_of_an_image_are_independent_of_one_another():
    d = drawn(Augmentation(), n=20_000)
    top, left, h, w = d["box"].double().unbind(1)
    columns = [
        h * w,
        w / h,
        d["order"][:, 0],
        *d["factors"].T,
        d["sigma"],
        d["flip"],
        d["jittered"],
        d["gray"],
        d["blurred"],
    ]
    correlation = np.corrcoef(np.stack([c.numpy().astype(float) for c in columns])) - np.eye(len(columns))
    correlation[0, 1] = correlation[1, 0] = 0  # large boxes are squarer, in torchvision too
    assert np.abs(correlation).max() < 4.5 / math.sqrt(20_000)


# Views ----------------------------------------------------------------------------------------------------------------


def test_a_view_is_a_function_of_its_key():
    images, index = random_images(16), torch.arange(16)
    reference = view(images, index, Augmentation(), 1, 2, 0)
    torch.manual_seed(99)
    assert torch.equal(reference, view(images, index, Augmentation(), 1, 2, 0))
    for key in ((2, 2, 0), (1, 3, 0), (1, 2, 1)):
        other = view(images, index, Augmentation(), *key)
        assert ((reference - other).abs().mean(dim=(1, 2, 3)) > 0.1).all(), key


def test_a_batch_of_one_equals_its_row_in_a_batch_of_many():
    images, index = random_images(64), torch.arange(64) * 7
    many = view(images, index, Augmentation(), 1, 2, 0)
    for i in range(0, 64, 5):
        assert torch.equal(view(images[i : i + 1], index[i : i + 1], Augmentation(), 1, 2, 0)[0], many[i])
    rank = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(view(images[rank], index[rank], Augmentation(), 1, 2, 0), many[rank])


@pytest.mark.parametrize("changes", [{}, {"standardize": "imagenet"}, {"hide_p": 0.3}, {"crop": (0.02, 1.0), "ratio": (0.1, 10.0)},
                                     {"brightness": 1.0, "contrast": 0.0, "saturation": 2.0, "hue": 0.5, "jitter_p": 1.0},
                                     {"grayscale_p": 1.0, "jitter_p": 0.0}, {"blur_p": 1.0, "blur_sigma": (0.1, 9.0)}])
@pytest.mark.parametrize("height, width, size", [(32, 32, 32), (48, 31, 20), (24, 40, 64), (9, 9, 2), (9, 9, 1)])
def test_the_kernels_of_a_cpu_and_the_batched_operations_of_a_gpu_are_the_same_views(height, width, size, changes):
    augmentation, index = Augmentation(**changes), torch.arange(60)
    images = torch.cat([random_images(30, height, width), (random_images(30, height, width, seed=1) // 100) * 100])   # ties, greys, black
    images[0], images[1] = 0, 255
    other = batched(images, draw(index, augmentation, height, width, 0, 0, 0), augmentation.standardize, size)
    plain = other.flatten(1).std(1) > 0.05 if augmentation.standardize == "image" else slice(None)       # rounding over 1e-5 is no image
    close(view(images, index, augmentation, 0, 0, 0, size)[plain], other[plain], atol=2e-4)
    assert size == 1 or augmentation.standardize == "imagenet" or plain.sum() > 50          # a grey pixel has no deviation


def test_kernels_compile_the_constants_of_augment_in():
    assert (kernels.RED, kernels.GREEN, kernels.BLUE) == tuple(map(np.float32, augment.GRAY))
    assert kernels.STD_EPSILON == np.float32(augment.STD_EPSILON)


def test_parameters_of_other_images_are_refused_before_unchecked_loops_read_them():
    images, order = random_images(10), torch.arange(10)
    with pytest.raises(ValueError, match="parameters of 2 images, images has 4"):
        list(augment.views(((ids, images[ids]) for ids in order.split([4, 2, 4])), order[:8], Augmentation(), 0, 0))


@pytest.mark.parametrize("ahead", [1, 8, 20, 4096])
@pytest.mark.parametrize("hide_p", [0.0, 0.2])
def test_parameters_drawn_ahead_give_the_views_of_each_batch(monkeypatch, ahead, hide_p):
    monkeypatch.setattr(augment, "AHEAD", ahead)
    images, augmentation = random_images(40), Augmentation(hide_p=hide_p)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    batches = [(index, images[index]) for index in order.split(8)]
    seen = list(augment.views(iter(batches), order, augmentation, 3, 4))
    assert torch.equal(torch.cat([index for index, _, _ in seen]), order)
    for index, *pair in seen:
        for stream, result in enumerate(pair):
            assert torch.equal(result, view(images[index], index, augmentation, 3, 4, stream))


@pytest.mark.parametrize("n", [1, 2, 7])
def test_views_are_the_same_to_the_bit_on_any_number_of_threads_and_from_any_layout(monkeypatch, n):
    images, index, before, seen = random_images(n), torch.arange(n), torch.get_num_threads(), []
    expected = view(images, index, Augmentation(), 1, 2, 0)
    monkeypatch.setattr(kernels, "PER_THREAD", 1)
    dealt = kernels._dealt
    monkeypatch.setattr(kernels, "_dealt", lambda *arrays: seen.append(arrays[-1]) or dealt(*arrays))
    try:
        for threads in (1, 3, 5):
            torch.set_num_threads(threads)
            assert torch.equal(view(images, index, Augmentation(), 1, 2, 0), expected)
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {min(n, 3), min(n, 5)} - {1}
    elsewhere = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(view(elsewhere, index, Augmentation(), 1, 2, 0), expected) and not elsewhere.is_contiguous()


def test_a_forked_process_makes_views_without_the_threads_that_it_lacks(monkeypatch):
    """OpenMP's would end it."""
    images, index, before = random_images(4), torch.arange(4), torch.get_num_threads()
    monkeypatch.setattr(kernels, "PER_THREAD", 1)
    torch.set_num_threads(2)
    try:
        expected = view(images, index, Augmentation(), 1, 2, 0)
        child = os.fork()
        if not child:
            same = False
            try:
                same = torch.equal(view(images, index, Augmentation(), 1, 2, 0), expected)
            finally:
                os._exit(not same)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        torch.set_num_threads(before)


def test_views_leave_pytorch_its_number_of_threads():
    """Numba's OpenMP sets it when it starts, so in a process of its own."""
    code = ("import torch\nfrom lib import augment\ntorch.set_num_threads(2)\nimages = torch.zeros(128, 3, 32, 32, dtype=torch.uint8)\n"
            "for epoch in range(2):\n    augment.view(images, torch.arange(128), augment.Augmentation(), 0, epoch, 0)\n"
            "    print(torch.get_num_threads())")
    made = subprocess.run([sys.executable, "-c", code], env=os.environ | {"NUMBA_NUM_THREADS": "8"}, capture_output=True, text=True)
    assert made.stdout.split() == ["2", "2"], made.stderr


def test_a_view_neither_changes_its_input_nor_draws_from_the_global_generator():
    images, state = random_images(8), torch.get_rng_state()
    before = images.clone()
    view(images, torch.arange(8), Augmentation(), 0, 0, 0)
    original(images)
    assert torch.equal(images, before) and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("n, size", [(5, None), (5, 24), (5, 40), (1, None)])
def test_views_are_float32_of_the_asked_size(n, size):
    images = random_images(n)
    for result in (view(images, torch.arange(n), Augmentation(), 0, 0, 0, size), original(images, size=size)):
        assert result.dtype == torch.float32 and result.shape == (n, 3, size or 32, size or 32)


def test_an_empty_batch_gives_an_empty_view():
    assert view(random_images(0), torch.arange(0), Augmentation(), 0, 0, 0).shape == (0, 3, 32, 32)


def test_pixels_stay_between_zero_and_one_before_they_are_standardised():
    strong = Augmentation(
        crop=(0.02, 1), brightness=1, contrast=1, saturation=1, hue=0.5, jitter_p=1, standardize="imagenet"
    )
    result = view(random_images(200), torch.arange(200), strong, 0, 0, 0)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    pixels = result * std + mean
    assert pixels.min() > -1e-5 and pixels.max() < 1 + 1e-5 and pixels.max() > 0.99 and pixels.min() < 0.01


def test_original_is_the_image_resized_as_torchvision_does_and_standardised():
    images = random_images(4, 48, 48)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    close(original(images, "imagenet"), tv.normalize(images.float() / 255, mean.tolist(), std.tolist()))
    close(
        original(images, "imagenet", 32),
        tv.normalize(tv.resize(images.float() / 255, [32, 32]), mean.tolist(), std.tolist()),
    )


def test_per_image_standardisation_has_mean_zero_deviation_one_and_leaves_constants_at_zero():
    images = random_images(6)
    images[0] = 77
    for result in (original(images), view(images, torch.arange(6), Augmentation(), 0, 0, 0)):
        assert result[1:].mean(dim=(1, 2, 3)).abs().max() < 1e-5
        close(result[1:].flatten(1).std(dim=1, correction=0), torch.ones(5), atol=1e-3)
        assert result[0].abs().max() < 0.05  # rounding, divided by 1e-5


def test_autocast_leaves_views_in_full_precision():
    images, index = random_images(8), torch.arange(8)
    reference = view(images, index, Augmentation(), 0, 0, 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(reference, view(images, index, Augmentation(), 0, 0, 0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_sees_the_views_of_the_cpu_without_synchronising():
    images, index = random_images(64), torch.arange(64)
    there = images.cuda()
    view(there, index, Augmentation(), 0, 0, 0)  # constants reach the GPU
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = view(there, index, Augmentation(), 1, 2, 0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    close(result.cpu(), view(images, index, Augmentation(), 1, 2, 0), atol=2e-3)


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, value, allowed",
    [
        ("crop", (0.0, 1.0), "0 < low <= high <= 1"),
        ("crop", (0.2, 1.5), "0 < low <= high <= 1"),
        ("crop", (0.9, 0.2), "0 < low <= high <= 1"),
        ("crop", 0.2, "(low, high)"),
        ("crop", (0.2, math.nan), "0 < low <= high <= 1"),
        ("ratio", (4 / 3, 3 / 4), "0 < low <= high"),
        ("ratio", (1, math.inf), "finite"),
        ("blur_sigma", (0, 2), "0 < low <= high"),
        ("blur_sigma", (0.1, 1.0, 2.0), "(low, high)"),
        ("brightness", -0.1, "at least 0"),
        ("contrast", math.inf, "finite"),
        ("saturation", "0.4", "number"),
        ("hue", 0.6, "between 0 and 0.5"),
        ("hue", -0.1, "between 0 and 0.5"),
        ("jitter_p", 1.1, "between 0 and 1"),
        ("grayscale_p", -0.1, "between 0 and 1"),
        ("blur_p", math.nan, "between 0 and 1"),
        ("flip_p", True, "between 0 and 1"),
        ("standardize", "imagnet", "did you mean 'imagenet'"),
        ("standardize", None, "imagenet"),
    ],
)
def test_an_impossible_augmentation_is_refused_by_name_value_and_what_is_allowed(name, value, allowed):
    with pytest.raises(ValueError) as error:
        Augmentation(**{name: value})
    assert name in str(error.value) and repr(value) in str(error.value) and allowed in str(error.value)


def test_equal_augmentations_are_equal_whether_written_as_lists_or_integers():
    assert Augmentation(crop=[0.2, 1], brightness=1) == Augmentation(crop=(0.2, 1.0), brightness=1.0)
    assert hash(Augmentation(crop=[0.2, 1])) == hash(Augmentation())


def test_wrong_images_ids_and_sizes_are_refused():
    images = random_images(4)
    with pytest.raises(ValueError, match="images is torch.float32"):
        view(images.float(), torch.arange(4), Augmentation(), 0, 0, 0)
    with pytest.raises(ValueError, match="uint8"):
        original(images[0])
    with pytest.raises(ValueError, match="index has 3 ids for 4 images"):
        view(images, torch.arange(3), Augmentation(), 0, 0, 0)
    with pytest.raises(ValueError, match="size=0"):
        view(images, torch.arange(4), Augmentation(), 0, 0, 0, 0)
    with pytest.raises(ValueError, match="size=None"):
        original(random_images(2, 32, 40))
    with pytest.raises(ValueError, match="standardize"):
        original(images, "images")
