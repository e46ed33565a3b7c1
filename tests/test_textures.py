import numpy as np
import pytest

from lib import textures


def test_images_are_balanced_grey_and_deterministic():
    images, labels, factors = textures.draw(120, 3)
    again = textures.draw(120, 3)
    assert images.shape == (120, 3, 32, 32) and images.dtype == np.uint8
    assert np.bincount(labels).tolist() == [10] * 12
    assert (images == again[0]).all() and (labels == again[1]).all()
    assert (images[:, 0] == images[:, 1]).all() and (images[:, 0] == images[:, 2]).all()
    assert set(factors) == set(textures.FACTORS) and all(len(v) == 120 for v in factors.values())
    assert not (textures.draw(120, 4)[0] == images).all()


def test_factors_are_drawn_independently_of_the_class_and_of_each_other():
    _, labels, factors = textures.draw(5004, 1)
    values = np.ma.masked_invalid([*factors.values(), *(labels == c for c in range(12))])
    correlation = np.ma.corrcoef(values)[:len(factors)]
    np.fill_diagonal(correlation, 0)
    seen = [name for name in factors if name != "hue"]
    assert np.abs(correlation[:len(seen)]).max() < 0.075          # 4 / sqrt(2917), for polarity shows in seven classes of twelve


def test_what_no_pixel_shows_is_not_given_as_a_factor():
    _, labels, factors = textures.draw(1200, 0)
    for name, values in factors.items():
        hidden = [textures.CLASSES[c] for c in range(12) if np.isnan(values[labels == c]).all()]
        assert hidden == [c for c in textures.CLASSES if name == "hue" or c in textures.INVISIBLE.get(name, ())]
        assert np.isfinite(values[~np.isin(labels, [textures.CLASSES.index(c) for c in hidden])]).all()
    assert np.isfinite(textures.draw(120, 0, tint=0.5)[2]["hue"]).all()


def test_invisible_factors_change_nothing_that_another_draw_would_not():
    v, u = np.meshgrid(*2 * [np.linspace(-2, 2, 33)], indexing="ij")
    u, v = u[None], v[None]

    class Mirrored:
        def __init__(self):
            self.rng = np.random.default_rng(0)

        def standard_normal(self, shape):
            return -self.rng.standard_normal(shape)
    for family in textures.INVISIBLE["polarity"]:
        pattern = textures.FAMILIES[family][0]
        plain = pattern(u, v, np.random.default_rng(0))
        if family in textures.INVISIBLE["phase"]:                 # a random field: equally likely mirrored, and anywhere
            assert np.allclose(pattern(u, v, Mirrored()), -plain)
            assert np.allclose(pattern(u + 0.3, v, np.random.default_rng(0)), plain)
        else:
            assert np.allclose(pattern(u + 0.5, v, None), -plain)


def test_measured_contrast_and_polarity_are_the_factors():
    images, labels, factors = textures.draw(1200, 0)
    deviation = images[:, 0].reshape(1200, -1).std(1) / 255
    assert np.corrcoef(deviation, factors["contrast"])[0, 1] > 0.95
    dots = labels == textures.CLASSES.index("square dots")        # bright dots on dark ground, or the other way round
    skew = ((images[dots, 0] / 255 - images[dots, 0].mean((1, 2), keepdims=True) / 255) ** 3).mean((1, 2))
    assert (np.sign(skew) == factors["polarity"][dots]).mean() > 0.9


def test_stripes_have_the_frequency_and_orientation_that_the_factors_say():
    images, labels, factors = textures.draw(1200, 0)
    for i in np.flatnonzero(labels == 0)[:40]:
        spectrum = np.abs(np.fft.fft2(images[i, 0] - images[i, 0].mean(), s=(256, 256)))
        fy, fx = np.unravel_index(spectrum[:128].argmax(), (128, 256))
        fx = fx - 256 if fx > 128 else fx
        assert np.hypot(fx, fy) / 8 == pytest.approx(factors["frequency"][i], abs=0.35)
        difference = np.arctan2(fy, fx) / np.pi - factors["orientation"][i]
        assert abs(difference - round(difference)) < 0.06


def test_a_class_looks_the_same_after_its_symmetry_angle():
    # the ends of the orientation range meet: one full turn of the factor is the family's own symmetry
    y, x = np.meshgrid(*2 * [np.linspace(-0.5, 0.5, 33)], indexing="ij")
    rng = np.random.default_rng(0)
    for name in ("stripes", "checkerboard", "grid lines", "hexagonal lattice"):
        pattern, degrees = textures.FAMILIES[name]
        start, turned = (pattern((4 * (np.cos(a) * x + np.sin(a) * y))[None] + q, (4 * (np.cos(a) * y - np.sin(a) * x))[None], rng)
                         for a, q in ((0, 0), (np.deg2rad(degrees), 0)))
        assert np.abs(np.abs(start) - np.abs(turned)).max() < 1e-6, name


def test_tint_adds_colour_that_follows_hue_and_nothing_else():
    grey, _, _ = textures.draw(60, 0)
    tinted, _, factors = textures.draw(60, 0, tint=1.0)
    assert (tinted.astype(int).max(1) - tinted.astype(int).min(1)).mean() > 30
    brightest = tinted.mean((2, 3)).argmax(1)
    assert (brightest == np.round(factors["hue"] * 3).astype(int) % 3).mean() > 0.95
    assert grey.shape == tinted.shape


@pytest.mark.parametrize("bad", [dict(n=0), dict(n=12, size=4), dict(n=12, tint=1.5), dict(n=12, tint=float("nan"))])
def test_impossible_requests_are_refused(bad):
    with pytest.raises(ValueError, match="textures: n = "):
        textures.draw(**{"n": 1, "seed": 0, **bad})
