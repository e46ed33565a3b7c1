import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lib import explore

CLASSES = ["lines", "<b>rings</b>"]


def points(n=60, seed=0):
    """Two classes side by side, as lib.runs.umap has them."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    return pd.DataFrame({"x": rng.random(n) + 2 * labels, "y": rng.random(n), "label": labels, "index": np.arange(n)})


@pytest.mark.parametrize("xy", [np.random.default_rng(0).random((40, 2)), np.zeros((40, 2))])
def test_neighbours_are_the_nearest_points_but_oneself(xy):
    near = explore.nearest(xy)
    for i in range(40):
        order = sorted((j for j in range(40) if j != i), key=lambda j: np.hypot(*(xy[i] - xy[j])))
        assert near[i].tolist() == order[:10] if xy.any() else i not in near[i] and len({*near[i]}) == 10     # any ten are the nearest
    assert [sorted(row) for row in explore.nearest(xy[:4]).tolist()] == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]


def test_a_picture_is_the_image_but_for_the_compression():
    image = np.zeros((3, 32, 32), np.uint8)
    image[0, :, 16:] = 255
    uri = explore.picture(image)
    back = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/webp;base64,")))))
    assert back.shape == (32, 32, 3) and abs(back.astype(int) - image.transpose(1, 2, 0)).mean() < 8


def test_a_table_escapes_nothing_twice_and_sorts_by_what_it_is_told():
    table = explore.html_table(["a", "b"], [[("<b>one</b>", '1"2'), "x"], ["two", ("3 %", 0.03)]], "A <caption>", name="some", listed=(1,))
    assert '<th scope=row data-order="1&quot;2"><b>one</b></th><td>x</td>' in table
    assert '<td data-order="0.03">3 %</td>' in table and "<caption>A &lt;caption&gt;</caption>" in table
    assert "<table id=some>" in table and '"targets": [1]' in table
    assert "<script" not in explore.html_table(["a"], [["b"]], "c") and "<thead" not in explore.html_table([], [["b"]], "c")


def test_umaps_need_nothing_from_elsewhere_and_only_the_points_that_all_have():
    fewer = points(50, 1)
    html = explore.umaps({"one": points(), "two": fewer}, CLASSES, {"angle": np.linspace(0, 1, 60)})
    assert not re.search(r"&lt;(script|link) [^&]*(src|href)=", html) and explore.umaps({}, CLASSES) == ""
    assert html.count("<iframe") == 1 and 'title="UMAP to explore"' in html


FIRST_PANEL = """() => { const walk = view => view.model.type === 'Figure' ? view : (view.child_views || []).map(walk).find(found => found);
    window.panel = [...Bokeh.index].map(walk).find(found => found); window.source = panel.model.renderers[0].data_source;
    window.at = (x, y) => { const {left, top} = panel.el.getBoundingClientRect();
        return [left + panel.frame.x_scale.compute(x), top + panel.frame.y_scale.compute(y)]; }; }"""


def test_a_large_image_is_shown_small():
    uri = explore.picture(np.zeros((3, 224, 224), np.uint8))
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        assert uri.startswith("data:image/webp;base64,") and image.size == (64, 64)


def test_a_point_shows_its_image_class_factors_and_neighbours_and_what_is_selected_is_selected_in_all(tmp_path, page):
    images = np.random.default_rng(0).integers(0, 255, (60, 3, 32, 32), dtype=np.uint8)
    html = explore.umaps({"small": points(), "large": points(seed=1)}, CLASSES, {"angle": np.linspace(0, 1, 60)}, images, "textures")
    (tmp_path / "umap.html").write_text(f"<!doctype html><meta charset=utf-8><body>{html}")
    page.goto(f"file://{tmp_path}/umap.html")
    frame, inside, outer = page.frame_locator("iframe"), page.frames[1], page.locator("iframe").bounding_box()
    frame.locator(".bk-Figure").nth(1).wait_for()
    inside.wait_for_function("window.Bokeh && Bokeh.documents.length && [...Bokeh.index].length")
    inside.evaluate(FIRST_PANEL)
    x, y = inside.evaluate("at(source.data.x0[0], source.data.y0[0])")
    page.mouse.move(outer["x"] + x - 30, outer["y"] + y)
    page.mouse.move(outer["x"] + x, outer["y"] + y, steps=5)
    frame.get_by_text("of 10 neighbours here share its class").first.wait_for()
    assert frame.get_by_text(re.compile("angle 0.00")).count() and frame.locator("img[src^='data:image/webp']").count() == 1
    near = explore.nearest(points()[["x", "y"]].values)[0]
    inside.wait_for_function("window.ringed = panel.model.renderers[1].data_source, ringed.data.x0.length")
    for name, seed in (("0", 0), ("1", 1)):                                # in the picture of the other encoder they are the same images
        for axis in "xy":
            assert list(inside.evaluate(f"[...ringed.data.{axis}{name}]")) == pytest.approx(points(seed=seed)[axis][near].tolist())
    assert frame.get_by_text(f"{(near % 2 == 0).sum()} of 10 neighbours here share its class").count()
    corners = [inside.evaluate(f"at({x}, {y})") for x, y in ((-0.03, -0.02), (1.1, -0.02), (1.1, 1.02), (-0.03, 1.02))]
    page.mouse.move(outer["x"] + corners[3][0], outer["y"] + corners[3][1])
    page.mouse.down()
    for x, y in corners:
        page.mouse.move(outer["x"] + x, outer["y"] + y, steps=5)
    page.mouse.up()
    assert sorted(inside.evaluate("source.selected.indices")) == list(range(0, 60, 2))          # the left class, in every panel's source
    assert inside.evaluate("[...panel.model.document._all_models.values()].filter(m => m.type === 'ColumnDataSource').length") == 2
    frame.locator("select").select_option("angle")
    assert inside.evaluate("new Set(source.data.colour).size") > 20
