"""The embedded data set: twelve families of procedural texture whose sub-structure is known.

Every image is one pattern p(u, v), standardised, seen through a camera whose settings are drawn independently of the class:

    (u, v) = frequency * R(orientation) (x, y) + phase           pattern coordinates, in periods
    image  = 0.5 + polarity * contrast * p(u, v) + noise * n      n ~ N(0, 1) per pixel; then tint, clipped to [0, 1]

The class says which p; the factors say the rest. So what the clusters *inside* a class follow can be measured, which no set of
photographs allows (notebook 02).
"""
import numpy as np

# factor: (low, high), drawn uniformly. Fixed from the untrained encoder's kNN and the supervised ceiling alone
# (tests/test_textures.py states both), before any comparison of encoders.
RANGES = {
    "orientation": (0.0, 1.0),    # fraction of the family's own symmetry angle (180 degrees for stripes, 90 for a grid, ...)
    "frequency": (2.0, 3.5),      # periods across the image
    "contrast": (0.12, 0.25),     # standard deviation of the pattern, in units of the pixel range
    "phase": (0.0, 1.0),          # shift along u, in periods
    "noise": (0.0, 0.03),         # standard deviation of the pixel noise
}
FACTORS = (*RANGES, "polarity", "hue")   # polarity is -1 or 1; hue in [0, 1) shows only where tint > 0
# What no pixel shows: half a period turns a sine's polarity round, and random fields have neither sign nor place. Given as NaN.
INVISIBLE = {"polarity": ("stripes", "rings", "zigzag", "1/f noise", "labyrinth"), "phase": ("1/f noise", "labyrinth")}


def _fold(x):
    """Distance to the nearest whole number, in [0, 0.5]."""
    return np.abs(x - np.round(x))


def _soft(x, edge=0.06):
    """A step at 0, smoothed over `edge` periods so that lines are not jagged at 32 px."""
    return np.tanh(x / edge)


def _hash(i, j, salt):
    """(...,) whole numbers -> uniform [0, 1): the jitter of Voronoi's seeds, fixed per cell and image."""
    x = np.sin(i * 127.1 + j * 311.7 + salt * 74.7) * 43758.5453
    return x - np.floor(x)


def _stripes(u, v, rng):
    return np.sin(2 * np.pi * u)


def _thin_lines(u, v, rng):
    return _soft(0.12 - _fold(u))


def _checkerboard(u, v, rng):
    return _soft(np.sin(np.pi * u) * np.sin(np.pi * v), 0.2)


def _square_dots(u, v, rng):
    return _soft(0.25 - np.maximum(_fold(u), _fold(v)))


def _rings(u, v, rng):
    return np.sin(2 * np.pi * np.hypot(u - u.mean((1, 2), keepdims=True), 0.6 * (v - v.mean((1, 2), keepdims=True)))
                  + 2 * np.pi * u[:, :1, :1])


def _zigzag(u, v, rng):
    return np.sin(2 * np.pi * (u + 1.2 * _fold(0.7 * v)))


def _bricks(u, v, rng):
    row = np.floor(v)
    return _soft(np.minimum(_fold(v), 2 * _fold((u + row) / 2)) - 0.12)   # bricks two long, each row shifted by one


def _grid(u, v, rng):
    return _soft(0.09 - np.minimum(_fold(u), _fold(v)))


def _voronoi(u, v, rng):
    salt = rng.random((len(u), 1, 1)) * 50
    i, j = np.floor(u), np.floor(v)
    nearest = np.full((2, *u.shape), np.inf)
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            cu, cv = i + di, j + dj
            d = np.hypot(u - cu - _hash(cu, cv, salt), 1.5 * (v - cv - _hash(cu, cv, salt + 1)))
            nearest[1] = np.minimum(nearest[1], np.maximum(nearest[0], d))
            nearest[0] = np.minimum(nearest[0], d)
    return _soft(nearest[1] - nearest[0] - 0.12)


def _spectral(u, v, rng, gain):
    """Gaussian noise whose amplitude over pattern frequency (cycles per period) is gain(f along u, f along v)."""
    n, s, _ = u.shape
    # cycles per pixel -> cycles per period: the gradient of (u, v) is constant over an image
    du = np.stack([u[:, 0, 1] - u[:, 0, 0], u[:, 1, 0] - u[:, 0, 0]], 1)[:, :, None, None]
    dv = np.stack([v[:, 0, 1] - v[:, 0, 0], v[:, 1, 0] - v[:, 0, 0]], 1)[:, :, None, None]
    fy, fx = np.meshgrid(np.fft.fftfreq(s), np.fft.rfftfreq(s), indexing="ij")
    scale = (du ** 2).sum(1)                                              # |grad u|^2, equal to |grad v|^2
    fu = (fx * du[:, 0] + fy * du[:, 1]) / scale
    fv = (fx * dv[:, 0] + fy * dv[:, 1]) / scale
    white = np.fft.rfft2(rng.standard_normal((n, s, s)))
    return np.fft.irfft2(white * gain(fu, fv), s=(s, s))


def _one_over_f(u, v, rng):
    def gain(fu, fv):
        f = np.hypot(fu, 3 * fv)
        return 1 / np.maximum(f, 0.2) ** 1.2 * (f > 0)
    return _spectral(u, v, rng, gain)


def _labyrinth(u, v, rng):
    field = _spectral(u, v, rng, lambda fu, fv: np.exp(-((np.hypot(fu, 1.6 * fv) - 1) / 0.2) ** 2 / 2))
    return np.tanh(3 * field / (field.std((1, 2), keepdims=True) + 1e-12))


def _hexagonal(u, v, rng):
    return sum(np.cos(2 * np.pi * (np.cos(a) * u + np.sin(a) * v)) for a in (0, np.pi / 3, 2 * np.pi / 3))


# class: (pattern, the angle in degrees after which it looks the same)
FAMILIES = {
    "stripes": (_stripes, 180), "thin lines": (_thin_lines, 180), "checkerboard": (_checkerboard, 90),
    "square dots": (_square_dots, 90), "rings": (_rings, 180), "zigzag": (_zigzag, 180), "bricks": (_bricks, 180),
    "grid lines": (_grid, 90), "voronoi cells": (_voronoi, 180), "1/f noise": (_one_over_f, 180),
    "labyrinth": (_labyrinth, 180), "hexagonal lattice": (_hexagonal, 60),
}
CLASSES = tuple(FAMILIES)


def draw(n, seed, size=32, tint=0.0):
    """n textures, balanced over the twelve classes (counts differ by at most one), in shuffled order.

    seed: the images are a function of (n, seed, size, tint). tint in [0, 1]: strength of a per-image colour cast, a factor that
    the class says nothing about; 0 keeps every image grey, as the study's main data set is.
    Returns images uint8 (n, 3, size, size), labels int64 (n,) indexing CLASSES, factors {name: float32 (n,)},
    NaN in the classes where a factor does not show (INVISIBLE; hue where tint is 0).
    """
    if n < 1 or size < 8 or not 0 <= tint <= 1:
        raise ValueError(f"textures: n = {n}, size = {size}, tint = {tint}; allowed: n >= 1, size >= 8, tint in [0, 1]")
    rng = np.random.default_rng([seed, n, size])
    factors = {name: rng.uniform(low, high, n) for name, (low, high) in RANGES.items()}
    factors["polarity"] = rng.choice([-1.0, 1.0], n)
    factors["hue"] = rng.random(n)
    shift_v = rng.random(n)                                               # a second phase, a nuisance
    labels = np.arange(n) % len(CLASSES)
    images = np.empty((n, size, size, 3), np.uint8)
    y, x = np.meshgrid(*2 * [(np.arange(size) + 0.5) / size - 0.5], indexing="ij")
    channel = np.arange(3) / 3
    for c, (pattern, symmetry) in enumerate(FAMILIES.values()):
        for rows in np.array_split(np.flatnonzero(labels == c), max(1, n // 6000)):
            f = {name: values[rows, None, None] for name, values in factors.items()}
            angle = np.deg2rad(symmetry) * f["orientation"]
            u = f["frequency"] * (np.cos(angle) * x + np.sin(angle) * y) + f["phase"]
            v = f["frequency"] * (np.cos(angle) * y - np.sin(angle) * x) + shift_v[rows, None, None]
            p = pattern(u, v, rng)
            p = (p - p.mean((1, 2), keepdims=True)) / (p.std((1, 2), keepdims=True) + 1e-6)
            grey = 0.5 + f["polarity"] * f["contrast"] * p + f["noise"] * rng.standard_normal(p.shape)
            cast = 1 + tint * 0.5 * np.cos(2 * np.pi * (f["hue"] - channel))   # (rows, 1, 3)
            images[rows] = (np.clip(grey[..., None] * cast[:, None], 0, 1) * 255 + 0.5).astype(np.uint8)
    for name, families in INVISIBLE.items():
        factors[name][np.isin(labels, [CLASSES.index(family) for family in families])] = np.nan
    if not tint:
        factors["hue"][:] = np.nan
    order = rng.permutation(n)
    return (np.ascontiguousarray(images[order].transpose(0, 3, 1, 2)), labels[order].astype(np.int64),
            {name: values[order].astype(np.float32) for name, values in factors.items()})
