import html
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import made_up_store, store_run
from hypothesis import given
from hypothesis import strategies as st

from lib import claims, explore, models, pages, report, runs, studies, summary

HOSTILE = '<script>alert("x")</script> & `**bold**` | ```'


# ---- a made-up notebook ----


def notebook(path, source, **parameters):
    cells = [nbformat.v4.new_markdown_cell("# A question with $\\frac{a}{b}$\n\nWhat it asks:\n\n$$\\sum_{i=1}^N x_i^2$$"),
             nbformat.v4.new_code_cell("\n".join(f"{k} = {v!r}" for k, v in parameters.items()), metadata={"tags": ["parameters"]}),
             nbformat.v4.new_markdown_cell("## What it shows\n\nLook at *the line*: it rises."), nbformat.v4.new_code_cell(source)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {
        "name": "python3", "display_name": "Python 3", "language": "python"}}), path)
    return path


DRAWS = """
import matplotlib.pyplot as plt, pandas as pd, sys
from lib import plots
plots.style()
from tqdm.auto import tqdm
for _ in tqdm(range(3)): pass
print("profile is", profile)
display(pd.DataFrame({"name": ["<script>alert(1)</script>"]}))
display(pd.DataFrame({"row": range(60)}))
for name in ('textures', 'quick'):
    plt.plot([1, 2]);
    plt.title(f'{name}, made up');
    plt.show()
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A report of two profiles, one without runs, hostile strings in its runs, and one executed notebook."""
    folder = tmp_path_factory.mktemp("site")
    store = made_up_store(folder / "runs", "textures", "quick", commit=HOSTILE, device=HOSTILE)
    t = report.table("textures", "cifar10_subset", "quick", store=store)
    rows = report.ledger(t, ["textures", "quick"])
    rows.loc[rows.claim == "pretext_learned", "verdict"] = claims.UNDECIDED
    drawn = folder / "report" / "notebooks" / "01_pretext_fitting.ipynb"
    source = notebook(folder / "01_pretext_fitting.ipynb", DRAWS, profile="quick", archs=None, tau=0.2)
    report.execute(source, drawn, profile="smoke")
    index = pages.build(t, rows, ["textures", "cifar10_subset", "quick"], "quick", [drawn],
                         report=folder / "report", note=HOSTILE, store=store)
    return index.parent


class Page(HTMLParser):
    """Links, loads, images and text of an HTML page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.images, self.ids, self.tags = [], [], [], set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        self.tags.append(tag)
        self.ids.add(a.get("id"))
        if tag == "a" and "href" in a:
            self.links.append(a["href"])
        if tag in ("script", "img", "iframe", "source", "video", "audio", "object", "embed") and (a.get("src") or a.get("data")):
            self.loads.append(a.get("src") or a["data"])
        if tag == "link" and a.get("rel") not in ("index", "search", "next", "prev", "canonical"):
            self.loads.append(a["href"])
        if tag == "img":
            self.images.append(a)


def pages_of(site):
    return {path: Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}


# ---- the pages ----

def test_every_link_of_the_report_leads_to_a_file_and_an_anchor_that_exist(site):
    found = pages_of(site)
    assert {"index.html", "search.html", "01_pretext_fitting.html"} <= {p.name for p in found}
    for path, page in found.items():
        for link in [*page.links, *page.loads]:
            url = urlsplit(link)
            if url.scheme or link.startswith("data:"):
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            assert target.is_file(), f"{path.name} -> {link}"
            if url.fragment and target in found:
                assert unquote(url.fragment) in found[target].ids, f"{path.name} -> {link}"


def test_the_report_loads_nothing_from_a_network(site):
    for path, page in pages_of(site).items():
        assert not [load for load in page.loads if urlsplit(load).scheme in ("http", "https") or load.startswith("//")], path
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", sheet.read_text()), sheet


def test_every_image_of_the_report_says_what_it_shows(site):
    images = [image for page in pages_of(site).values() for image in page.images]
    assert images
    prose = "What it shows. Look at the line: it rises."
    assert [image.get("alt") for image in Page(site / "01_pretext_fitting.html").images if image.get("alt")] == [
        f"{name}, made up. {prose}" for name in ("textures", "quick")]      # each figure of a cell, on the page that is built
    assert {image.get("alt") for image in images} <= {f"textures, made up. {prose}", f"quick, made up. {prose}", pages.FIGURE}
    drawn = [text for path in site.rglob("runs/*/*.html") if "<svg" in (text := path.read_text().split("<article", 1)[1])]
    assert drawn and all('role="img" aria-label="loss, ' in text for text in drawn)


def test_every_figure_is_there_as_svg_and_what_it_is_drawn_from_as_csv(site):
    page = Page(site / "take_away.html")
    figures = [link for link in page.links if link.endswith(".svg")]
    assert figures == ["_static/figure.svg", "take/01_pretext_fitting-1.svg", "take/01_pretext_fitting-2.svg"]
    assert all((site / figure).read_text().lstrip().startswith("<?xml") for figure in figures)
    assert "01_pretext_fitting-1.svg</a>: textures, made up. What it shows. Look at" in (site / "take_away.html").read_text()
    table, history = (pd.read_csv(site / "take" / f"textures-{kind}.csv") for kind in ("runs", "epochs"))
    assert {"arm", "change", "completeness_matched", "completeness_matched_own"} <= set(table) and "trained" in set(table.arm)
    assert set(history.run) == set(table.run) and table.knn_test.notna().all() and {"take/quick-runs.csv"} < set(page.links)


def test_the_tables_to_take_away_hold_transfer_and_umaps_where_they_are_stored(tmp_path):
    store = made_up_store(tmp_path / "store", "textures")
    found = [runs.load(path) for path in runs.paths("textures", store)]
    one = next(run for run in found if run.config.arch == "resnet50" and run.config.epochs)
    runs._add(one.path / "transfer-digits.json", '{"linear": 0.9, "fine_tuned": 0.95}\n')
    runs._add(one.path / "umap.csv", "index,x,y,label\n3,0.5,1.5,2\n")
    links = pages.take_away({}, found, tmp_path)
    table = pd.read_csv(tmp_path / "textures-runs.csv").set_index("run")
    assert table.loc[one.name, ["linear_digits", "fine_tuned_digits"]].tolist() == [0.9, 0.95] and len(table) == len(found)
    assert table.linear_digits.notna().sum() == 1 and "1 points of UMAPs of <code>textures</code>" in links
    drawn = pd.read_csv(tmp_path / "textures-umaps.csv").to_dict("records")
    assert drawn == [{"index": 3, "x": 0.5, "y": 1.5, "label": 2, "run": one.name}]


def test_code_is_folded_and_shown_on_demand(site, page):
    page.goto(f"file://{site}/01_pretext_fitting.html")
    code = page.locator("div.cell_input").last
    assert not code.is_visible() and page.locator("div.cell_output img").first.is_visible()
    page.get_by_text("Show the code").last.click()
    assert code.is_visible() and "plt.plot" in code.inner_text()


def test_a_long_table_scrolls_in_a_box_with_its_head_in_sight_and_is_whole_on_paper(site, page):
    page.goto(f"file://{site}/01_pretext_fitting.html")
    tables = page.locator(".output.text_html:has(table.dataframe)")
    short, box = tables.first, tables.last
    heights = "box => [box.clientHeight, box.scrollHeight]"
    (shown, whole), (one, same) = box.evaluate(heights), short.evaluate(heights)
    assert shown <= 0.8 * 900 < whole and one == same
    box.evaluate("box => { box.scrollTop = 500 }")
    tops = box.evaluate("box => [box, box.querySelector('thead')].map(part => part.getBoundingClientRect().top)")
    assert abs(tops[0] - tops[1]) < 2
    page.emulate_media(media="print")
    shown, whole = box.evaluate(heights)
    assert shown == whole


def test_the_protocol_stands_beside_the_numbers(site):
    protocol = re.findall(r"<details><summary>Protocol and cost on <code>(\w+)</code>.*?</details>", (site / "index.html").read_text())
    assert {"textures", "quick"} <= {*protocol}
    t = report.table("textures", "cifar10_subset")
    told = pages.protocol_html(t, "cifar10_subset")
    assert re.findall(r'<th scope=row>([^<]+)', told) == [                  # in the order of everywhere
        encoder.label for arch, encoder in models.ENCODERS.items() if arch in {*claims.baseline(t[t.profile == "cifar10_subset"]).arch}]
    for words in ("a queue of 128 and the other keys of the batch", "stem stride1", "20 epochs: 1,560 steps, 399,360 views",
                 "temperature 0.2", "k = 20",
                  "a part of train of cifar10_jpeg: MobileNetV3-Small 0.0006", "5,000 held-out", "Multiply-adds at 32 px", "<td>fp32</td>",
                  f"<td>{models.multiply_adds('resnet18', 32, 'stride1') / 1e6:,.0f} M</td>"):
        assert words in told, words
    assert pages.protocol_html(t, "quick") == "" and pages.protocol_html(t[:0], "textures") == ""


def test_a_notebooks_page_begins_with_its_verdicts_and_folds_cells_in_a_row_into_one(site):
    text = (site / "01_pretext_fitting.html").read_text()
    table = text[:text.index("</table>")]
    assert table.count("complete the pretext task without overfitting") == 1 and "over-cluster" not in table
    assert 'class="verdict ' in table and 'href="runs/textures/' in table and "<code>textures</code>" in table
    cells = [nbformat.v4.new_code_cell(source) for source in "abcd"]
    cells[1].outputs = [nbformat.v4.new_output("stream", name="stdout", text="said")]
    cells.insert(3, nbformat.v4.new_markdown_cell("between"))
    made = pages.readable(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A"), *cells]), "n", "<b>so</b>")
    assert [c.source for c in made.cells[1:]] == ["a\n\nb", "c", "between", "d"] and "<b>so</b>" in made.cells[0].source
    assert made.cells[1].outputs[0].text == "said"


def test_line_drawings_turn_dark_with_the_page_and_photographs_do_not(site, browser):
    for scheme, turned in (("light", "none"), ("dark", "invert(0.93) hue-rotate(180deg)")):
        page = browser.new_page(color_scheme=scheme)
        for name, part in (("01_pretext_fitting", "img.lines >> nth=0"), ("index", "img.headline")):
            page.goto(f"file://{site}/{name}.html")
            assert page.locator(part).evaluate("image => getComputedStyle(image).filter") == turned
        page.close()
    for drawn, lines in (("<svg><path/></svg>", True), ("<svg><path/><image/></svg>", False)):
        cell = nbformat.v4.new_code_cell("", outputs=[nbformat.v4.new_output("display_data", {"image/svg+xml": drawn})])
        made = pages.readable(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A"), cell]), "n")
        assert ("classes" in made.cells[1].metadata.mystnb["image"]) == lines


def test_each_of_several_figures_of_a_cell_is_described_by_its_own_title():
    svgs = ["<svg><!-- textures, 16 epochs --><path/></svg>", "<svg><!-- cifar10_subset, 20 epochs. --><image/></svg>", "<svg></svg>"]
    said = nbformat.v4.new_output("stream", name="stdout", text="said")
    outputs = [said, *(nbformat.v4.new_output("display_data", {"image/svg+xml": svg}) for svg in svgs[:2]), said,
               nbformat.v4.new_output("display_data", {"image/svg+xml": svgs[2]})]
    cells = [nbformat.v4.new_markdown_cell("# A"), nbformat.v4.new_code_cell("draw()", outputs=outputs), nbformat.v4.new_code_cell("b")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    made = pages.readable(notebook, "n").cells
    assert [[*map(pages.drawing, cell.outputs)] for cell in made[1:4]] == [["", svgs[0]], [svgs[1], ""], [svgs[2]]]
    alts = [cell.metadata.mystnb["image"]["alt"] for cell in made[1:4]]
    assert alts == ["textures, 16 epochs. A.", "cifar10_subset, 20 epochs. A.", "A."]
    assert ["classes" in cell.metadata.mystnb["image"] for cell in made[1:4]] == [True, False, True]
    assert [cell.source for cell in made[1:]] == ["draw()", *["# a further figure"] * 2, "b"]
    assert [cell.metadata.tags for cell in made[1:]] == [["hide-input"], ["remove-input"], ["remove-input"], ["hide-input"]]
    nbformat.validate(notebook)


def test_mathematics_is_in_the_page_itself(site):
    page = Page(site / "01_pretext_fitting.html")
    assert page.tags.count("math") >= 2 and {"mfrac", "msubsup"} <= set(page.tags)
    assert (site / "01_pretext_fitting.html").read_text().count('display="block"') == 1
    assert not [load for load in page.loads if "mathjax" in load.lower()]


def test_progress_bars_and_widgets_stay_out_of_the_report(site):
    text = (site / "01_pretext_fitting.html").read_text()
    assert "it/s" not in text and "widget-view" not in text and "require.min.js" not in text


def test_hostile_text_from_runs_is_shown_and_not_obeyed(site):
    text = (site / "index.html").read_text()
    assert "<script>alert" not in text and "<strong>bold" not in text
    assert "&lt;script&gt;alert" in text


def test_the_index_shows_each_claim_for_each_profile_and_links_it_to_its_notebook(site):
    text = (site / "index.html").read_text()
    for claim in claims.CLAIMS:
        assert explore.text(claim.statement) in text
        assert "".join(f"<li>{explore.text(clause)}</li>" for clause in claims.clauses(claim.rule)) in text
    assert re.search("Not tested, because no runs are stored: .*cifar10_subset", text)
    assert 'href="01_pretext_fitting.html"' in text
    for heading in ("In short", "Verdicts", "Results", "Encoders", "Runs and machines"):
        assert f"<h2>{heading}" in text
    assert "±" in text and "your run" in text
    assert ("10,000 drawn grey patterns of 32 pixels, whose factors are known, 12 classes, 16 epochs in batches of 128; 2 encoders, "
            "3 to 5 seeds each</li>") in text
    assert re.search(r"Of \d+ runs planned for textures, \d+ are not trained yet: verdicts rest on the others", text)
    assert "runs planned for quick" not in text
    assert "<li>Raw pixels find the view of an original image among 5,000 more often" in text
    told = text.index("<li>On <code>textures</code>:<ul><li>")
    assert text.index("<ul><li>Of ", text.index("To bear in mind")) < told       # what is planned is of no profile
    assert text.index("<h2>In short") < text.index('src="_static/figure.svg"') < text.index("<h2>Verdicts") < told
    assert text.index("<h2>Verdicts") < text.index("the test and each encoder</summary>") < told < text.index("<h2>Encoders")
    verdicts = text[text.index("<h2>Verdicts"):told]
    behind = re.findall(r'<summary>\d+ runs</summary><ul><li><a href="(runs/textures/[^"]+)"', verdicts)
    assert behind and all((site / link).is_file() for link in behind)
    assert (site / "_static" / "figure.svg").is_file()
    for word in summary.WORDS:
        assert f"<dt>{explore.text(word)}</dt>" in text


def test_a_report_without_any_run_says_not_tested(tmp_path):
    t = report.table("textures", store=tmp_path / "none")
    index = pages.build(t, report.ledger(t, ["textures"]), ["textures"], None, [], report=tmp_path / "report")
    assert "Not tested, because no runs are stored" in index.read_text()
    assert summary.terminal(report.ledger(t, ["textures"])).startswith("no runs yet")


def test_a_browser_opens_every_page_from_the_disk_without_errors_or_requests(site, page):
    found = sorted(pages_of(site))
    assert len(found) > 20
    for path in found:
        page.goto(f"file://{path}")
        assert page.title() and page.locator("h1").count() == (path.name != "search.html"), path
        made = page.locator("a[href]").evaluate_all("all => all.map(link => link.href)")         # scripts may have added some
        assert not [link for link in made if link.startswith("file:") and not Path(unquote(urlsplit(link).path)).exists()], path
    page.goto(f"file://{site}/search.html?q=line")
    page.get_by_text("Search finished, found").wait_for()
    assert page.locator("ul.search a", has_text="A question").count()


def explored(page, path):
    """Open a page with a table that sorts, and show all of it."""
    page.goto(f"file://{path}")
    page.locator("select.dt-input").select_option("-1")


def shown(page, column):
    return page.locator(f"table.dataTable tbody tr > :nth-child({column})").all_inner_texts()


def test_the_ledger_is_sorted_and_filtered_by_verdict_and_profile(site, page):
    explored(page, site / "ledger.html")
    assert len(shown(page, 2)) > 100 and {"textures", "quick"} == set(shown(page, 4))

    def choose(column, value):
        page.locator(f"table.dataTable thead th:nth-child({column}) .dtcc-button_dropdown").click()
        page.locator(".dtcc-dropdown").get_by_text(value).first.click()
        page.keyboard.press("Escape")
    choose(2, "undecided")
    some = shown(page, 2)
    assert some and all(verdict.startswith("? undecided") for verdict in some) and {"textures", "quick"} == set(shown(page, 4))
    choose(4, "quick")
    assert 0 < len(shown(page, 2)) < len(some) and {"quick"} == set(shown(page, 4))
    explored(page, site / "ledger.html")
    page.locator("input[type=search]").first.fill("over-cluster: their clusters")     # what a reader sees, not only names
    page.wait_for_timeout(500)
    assert {name.split()[-1] for name in shown(page, 1)} == {"over_clustered"}
    explored(page, site / "ledger.html")
    head = page.locator("table.dataTable thead th:nth-child(6)")
    head.click()
    page.locator("th[aria-sort=ascending]").wait_for()
    first = [int(n) for n in shown(page, 6)]
    head.click()
    page.locator("th[aria-sort=descending]").wait_for()
    assert first == sorted(first) and [int(n) for n in shown(page, 6)] == first[::-1] and len(set(first)) > 1


def test_a_verdict_leads_to_its_runs_and_a_run_tells_its_configuration_numbers_and_origin(site, page):
    explored(page, site / "ledger.html")
    row = page.locator("table.dataTable tbody tr", has_text="pretext_learned").filter(has_text="MobileNetV3-Small").first
    row.locator("summary").click()
    row.locator("details a").first.click()
    page.wait_for_url("**/runs/**")
    assert page.locator("h1").inner_text().startswith("MobileNetV3-Small, ")
    page.get_by_text("verdicts rest on it").click()
    for words in ("pretext_learned/mobilenet_v3_small", "batch_size", "knn_test", "make reproduce", "<script>alert"):
        assert words in page.locator("body").inner_text()
    numbers = dict(zip(*(page.locator(f"table >> nth=0 >> tbody tr > :nth-child({i})").all_inner_texts() for i in (1, 2))))
    assert all(value.endswith(" %") == (name.startswith(explore.ACCURACIES) and not name.endswith(("_k", "_lr")))
               for name, value in numbers.items()) and {"knn_test", "knn_val", "uniformity_d_test"} <= set(numbers)
    page.goto(f"file://{site}/runs.html")
    page.locator("input[type=search]").first.fill("untrained")
    page.wait_for_timeout(500)
    assert set(shown(page, 2)) == {"MobileNetV3-Small", "ResNet-50", "raw pixels"} and set(shown(page, 1)) == {"untrained"}


# of the text in tables, paragraphs and verdicts the lowest contrast with what is behind it
CONTRAST = r"""() => {
    const light = c => { const [r, g, b] = c.map(x => x / 255).map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
                         return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const parts = c => c.match(/[\d.]+/g).map(Number);
    const behind = e => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor);
                                                           if (c.length < 4 || c[3] > 0.9) return c; } return [255, 255, 255]; };
    const text = [...document.querySelectorAll('article td, article th, article p, article .verdict, article .quiet')];
    return Math.min(...text.filter(e => e.innerText.trim() && e.offsetParent).map(e => {
        const [a, b] = [parts(getComputedStyle(e).color), behind(e)].map(c => light(c.slice(0, 3)));
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); })); }"""


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_is_legible_on_a_phone_and_in_the_dark(site, browser, width, scheme):
    """No page is wider than the screen, and text stands out from what is behind it (WCAG AA: 4.5)."""
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    run = next(site.glob("runs/textures/*.html")).relative_to(site)
    for name in ("index.html", "ledger.html", "runs.html", "changes.html", "take_away.html", "01_pretext_fitting.html", str(run)):
        page.goto(f"file://{site}/{name}")
        if name in ("ledger.html", "runs.html"):
            page.locator("table.dataTable").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert page.evaluate(CONTRAST) >= 4.5, name
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_paper_tables_are_whole_and_nothing_is_dark(site, browser, scheme):
    """A4 at 96 pixels an inch, less the margins: upright, and across for the tables that one explores."""
    page = browser.new_page(color_scheme=scheme)
    page.emulate_media(media="print", color_scheme=scheme)
    for name, width in (("index", 718), ("01_pretext_fitting", 718), ("ledger", 1047), ("runs", 1047)):
        page.set_viewport_size({"width": width, "height": 1000})
        page.goto(f"file://{site}/{name}.html")
        if width > 718:
            page.locator("table.dataTable").wait_for()
            assert page.locator(".table-wrapper").evaluate("table => getComputedStyle(table).page") == "across"
        assert not page.locator(".sidebar-drawer").is_visible()
        wide = page.locator(".table-wrapper table").evaluate_all("tables => tables.map(t => t.getBoundingClientRect().right)")
        assert wide and max(wide) <= width, name
        assert page.evaluate(CONTRAST) >= 4.5, name
        drawn = page.locator(":is(.headline, img.lines)").evaluate_all("all => all.map(image => getComputedStyle(image).filter)")
        assert set(drawn) <= {"none"}, name
    page.close()


# ---- notebooks in batch ----

def test_execute_refuses_a_misspelt_parameter_and_names_the_nearest(tmp_path):
    source = notebook(tmp_path / "n.ipynb", "", profile="quick", archs=None)
    with pytest.raises(TypeError, match=r"no parameter 'profil'; did you mean 'profile'\?"):
        report.execute(source, tmp_path / "out.ipynb", profil="smoke")
    assert not (tmp_path / "out.ipynb").exists()


def test_a_notebook_that_fails_is_named_with_its_cell_and_keeps_what_it_has(tmp_path):
    source = notebook(tmp_path / "n.ipynb", "raise ZeroDivisionError('by nothing')", profile="quick")
    with pytest.raises(RuntimeError, match=r"n.ipynb stopped in cell \d: ZeroDivisionError: by nothing \(traceback in .*out.ipynb"):
        report.execute(source, tmp_path / "out.ipynb")
    assert "ZeroDivisionError" in (tmp_path / "out.ipynb").read_text()


@pytest.mark.parametrize("given, refused", [({"tau": 1}, False), ({"tau": "low"}, True), ({"tau": None}, True), ({"archs": ["x"]}, False),
                                            ({"epochs": 0.5}, True), ({"epochs": True}, True), ({"epochs": 3}, False)])
def test_a_parameter_of_another_type_than_its_default_is_refused(tmp_path, given, refused):
    source = notebook(tmp_path / "n.ipynb", "", tau=0.2, archs=None, epochs=2)
    if refused:
        with pytest.raises(TypeError, match="allowed: a"):
            report.check_parameters([source], given)
    else:
        report.check_parameters([source], given)


@pytest.mark.parametrize("text, expected", [
    ("3", 3), ("1e-3", 1e-3), ("['resnet18']", ["resnet18"]), ("[resnet18, resnet50]", ["resnet18", "resnet50"]), ("None", None),
    ("folder:/my/images", "folder:/my/images"), ("True", True), ("[]", [])])
def test_parameters_of_the_command_line_become_python_values(text, expected):
    assert studies.value(text) == expected


@pytest.mark.parametrize("arguments, sentence", [
    (["--profile", "quik"], "did you mean 'quick'"), (["-p", "archs"], "write it as name=value"),
    (["-p", "profile=smoke"], "--profile"), (["-p", "arcs=[resnet18]"], "did you mean 'archs'"), (["-p", "archs=[resnet81]"], "resnet18")])
def test_bad_arguments_end_in_one_sentence_before_any_training(tmp_path, monkeypatch, arguments, sentence):
    notebook(tmp_path / "01_x.ipynb", "", profile="quick", archs=None, data=None)
    monkeypatch.setattr(report, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(studies, "main", lambda argv: pytest.fail("trained"))
    with pytest.raises(SystemExit, match=re.escape(sentence)) as stopped:
        report.main(arguments)
    assert stopped.value.code.startswith("error: ") and "\n" not in stopped.value.code


def test_a_notebook_is_executed_again_only_when_something_it_depends_on_changed(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(report, "execute", lambda source, output, **parameters: (made.append(parameters), output.write_text("{}")))
    source, output = notebook(tmp_path / "n.ipynb", "", profile="quick"), tmp_path / "out.ipynb"
    assert report.executed(source, output, {"profile": "smoke"})
    assert not report.executed(source, output, {"profile": "smoke"})
    assert report.executed(source, output, {"profile": "quick"})
    notebook(tmp_path / "n.ipynb", "x = 1", profile="quick")
    assert report.executed(source, output, {"profile": "quick"}) and len(made) == 3


def test_a_stored_run_a_reference_or_a_damaged_checksum_calls_for_another_execution(tmp_path, monkeypatch):
    store = made_up_store(tmp_path / "runs", "quick", archs=("resnet18",))
    monkeypatch.setattr(runs, "STORE", store)
    source = notebook(tmp_path / "n.ipynb", "", profile="quick")
    run = runs.paths("quick")[0]

    def changed(path, text):
        before = report.fingerprint(source, {"profile": "quick"})
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((path.read_text() if path.exists() else "") + text)
        return report.fingerprint(source, {"profile": "quick"}) != before
    assert changed(run / "SHA256SUMS", "aa  history.csv\n")
    assert not changed(run / "SHA256SUMS", "aa  umap.csv\n")               # else whoever draws it first makes the others stale
    assert not changed(run / "SHA256SUMS", "aa  transfer-digits.json\n")
    source = report.NOTEBOOKS / "08_improved_baselines.ipynb"              # which draws it
    assert changed(run / "SHA256SUMS", "bb  transfer-digits.json\n")
    for name in ("lib", "requirements.txt"):
        (tmp_path / name).symlink_to(runs.ROOT / name)
    monkeypatch.setattr(report, "ROOT", tmp_path)
    for name in ("reference/paper.csv", "bench/projectors.csv"):
        assert changed(tmp_path / "results" / name, "1\n")
    before = report.fingerprint(source, {"profile": "quick"})
    (run / "SHA256SUMS").unlink()
    assert report.fingerprint(source, {"profile": "quick"}) != before      # the notebook, which loads it, refuses it by name


@pytest.fixture
def dry(tmp_path, monkeypatch):
    """`report.main` that trains, executes and writes nothing: what it would train, and the table of its index."""
    store, did = made_up_store(tmp_path / "runs", "quick", archs=("resnet18", "efficientnet_b0")), {"trained": [], "executed": []}
    monkeypatch.setattr(runs, "STORE", store)
    table = report.table
    monkeypatch.setattr(report, "table", lambda *profiles, **kwargs: table(*profiles, store=store, **kwargs))
    monkeypatch.setattr(studies, "main", did["trained"].append)
    monkeypatch.setattr(report, "executed", lambda source, output, parameters: did["executed"].append(parameters))
    monkeypatch.setattr(report, "write_claims", lambda rows, path: None)
    monkeypatch.setattr(report, "build", lambda t, rows, profiles, mine, drawn, note: did.update(table=t, profiles=profiles, mine=mine,
                                                                                                 note=note))
    return did


def test_only_the_encoders_asked_for_are_trained_and_the_index_has_them_even_outside_the_profile(dry):
    report.main(["--profile", "quick", "-p", "archs=[efficientnet_b0]"])
    assert "efficientnet_b0" not in studies.PROFILES["quick"].encoders
    (arguments,) = dry["trained"]
    assert arguments[arguments.index("--archs") + 1] == "efficientnet_b0"
    assert dry["executed"] == [{"profile": "quick", "archs": ["efficientnet_b0"]}] * len(list(report.NOTEBOOKS.glob("*.ipynb")))
    assert set(dry["table"].arch) == {"pixels", "resnet18", "efficientnet_b0"}                # what is stored beside them, too
    assert "EfficientNet-B0" in set(summary.headline(dry["table"], "quick").encoder)


def test_runs_of_the_readers_own_values_stand_among_the_runs_where_they_are_asked_for(dry):
    own = [c for c in studies.temperature("quick", None, ["resnet18"], [0.07]) if c.tau == 0.07]
    for config in own:
        store_run(runs.STORE, "quick", config, np.random.default_rng(1))
    names = {runs.folder(c, "quick").name for c in own}
    report.main(["--profile", "quick", "-p", "archs=[resnet18]", "-p", "taus=[0.07]"])
    assert names and names <= set(dry["table"].run)
    report.main(["--profile", "quick", "-p", "archs=[resnet18]"])
    assert not names & set(dry["table"].run)


def test_without_the_parameter_the_index_has_the_profiles_own_encoders(dry):
    report.main(["--profile", "quick"])
    assert "--archs" not in dry["trained"][0] and set(dry["table"].arch) == {"pixels", "resnet18"}


def test_other_data_under_a_committed_profile_are_the_readers_own_runs(dry):
    report.main(["--profile", "cifar10_subset", "-p", "data=digits"])
    assert dry["mine"] == dry["profiles"][-1] == "cifar10_subset" and dry["profiles"].count("cifar10_subset") == 1
    report.main(["--profile", "cifar10_subset"])
    assert dry["mine"] is None and dry["profiles"] == list(studies.COMMITTED)


def test_for_the_reference_alone_the_notebook_of_small_encoders_recipes_is_left_out(dry):
    report.main(["--profile", "quick", "-p", "archs=[resnet50]"])
    assert len(dry["executed"]) == len(list(report.NOTEBOOKS.glob("*.ipynb"))) - 1


def test_a_run_that_fails_is_told_and_the_others_are_drawn(dry, monkeypatch, capsys):
    def fails(error):
        raise error
    monkeypatch.setattr(studies, "main", lambda given: fails(studies.Failed("error: resnet18-seed1: Collapsed")))
    with pytest.raises(SystemExit, match="error: resnet18-seed1: Collapsed"):
        report.main(["--profile", "quick"])
    assert {parameters["train"] for parameters in dry["executed"]} == {False} and "mine" in dry
    assert capsys.readouterr().err.startswith("error: resnet18-seed1: Collapsed")
    changed = SystemExit("error: was trained on other images than lie there now")
    for arguments, error in ((["--profile", "smoke"], studies.Failed("error: nothing is stored")), (["--profile", "quick"], changed)):
        dry["executed"].clear()
        monkeypatch.setattr(studies, "main", lambda given: fails(error))           # noqa: B023
        with pytest.raises(SystemExit):
            report.main(arguments)
        assert not dry["executed"]


@pytest.mark.parametrize("arguments", [["-p", "train=False"], ["--no-train"]])
def test_train_false_trains_nothing(dry, arguments):
    report.main(["--profile", "quick", *arguments])
    assert not dry["trained"] and dry["executed"] == [{"profile": "quick", "train": False}] * len(list(report.NOTEBOOKS.glob("*.ipynb")))
    planned = len(studies.plan("quick"))                                    # the store lacks what the remedies train, and an encoder
    assert re.fullmatch(rf"Of {planned} runs planned for quick, \d+ are not trained yet: .*\n", dry["note"])


# ---- numbers ----

def test_the_claims_file_is_the_same_every_time_and_holds_six_digits(tmp_path):
    store = made_up_store(tmp_path / "runs", "textures")
    rows = report.ledger(report.table(*studies.COMMITTED, store=store), studies.COMMITTED)
    report.write_claims(rows, tmp_path / "claims.csv")
    first, touched = (tmp_path / "claims.csv").read_text(), (tmp_path / "claims.csv").stat().st_mtime_ns
    report.write_claims(report.ledger(report.table(*studies.COMMITTED, store=store), studies.COMMITTED), tmp_path / "claims.csv")
    assert (tmp_path / "claims.csv").read_text() == first and (tmp_path / "claims.csv").stat().st_mtime_ns == touched
    read = pd.read_csv(tmp_path / "claims.csv")
    assert list(read) == claims.COLUMNS and set(read.profile) == {"textures"}
    assert set(read.claim.str.split("/").str[0]) == set(claims.BY_NAME)
    numbers = pd.read_csv(tmp_path / "claims.csv", dtype=str)[["effect", "low", "high"]].stack().dropna()
    assert len(numbers) and all(f"{float(number):.6g}" == number for number in numbers)


def test_every_claim_links_to_a_notebook_and_has_a_unit():
    assert all(claim.unit in claims.UNITS for claim in claims.CLAIMS)
    assert {claim.notebook[:2] for claim in claims.CLAIMS} == {f"{n:02}" for n in range(1, 9)}
    assert {f"{claims.BY_NAME[name].notebook}.ipynb" for name in (*claims.OBSERVATIONS, "size_not_architecture")} <= {
        path.name for path in report.NOTEBOOKS.glob("*.ipynb")}


def test_percentages_carry_half_their_interval_and_never_more_than_there_is():
    assert summary.percent([]) == "" and summary.percent([0.5]) == "50.0" and summary.percent([0.5, 0.6, 0.7]) == "60.0 ± 24.8"
    assert summary.percent([0.2, 0.6]) == "40.0 ± > 50"


def test_effects_are_shown_in_points_with_their_interval():
    row = pd.Series({"claim": "pretext_learned/resnet18", "effect": 0.1234, "low": 0.1, "high": 0.15, "test": ""})
    assert claims.effect(row) == ("+12.3 points", "[+10.0, +15.0]")
    assert claims.effect(row.replace({0.1: np.nan})) == ("+12.3 points", "")
    assert claims.effect(row.replace({0.1: -0.0004}))[1].startswith("[+0.0, ")          # not minus nothing
    row = pd.Series(dict(row, claim="over_clustered_paper", test="the rule. Shown: uniformity"))
    assert claims.effect(row) == ("+0.123 of uniformity", "[+0.100, +0.150]")


def test_the_detectable_effect_agrees_with_the_ledgers_own_formula():
    values = np.array([0.01, -0.02, 0.03, 0.0, 0.015])
    mean, low, high = claims.interval(values)
    row = pd.Series({"claim": "pretext_learned", "effect": mean, "low": low, "high": high, "n": 5, "test": "",
                     "verdict": claims.UNDECIDED})
    assert claims.smallest_detectable(row) == f"{100 * claims.detectable((high - low) / 2, 4):.1f}"
    assert claims.smallest_detectable(row.replace(claims.UNDECIDED, claims.SUPPORTED)) == ""


def test_the_headline_table_has_means_over_seeds_and_empty_cells_where_nothing_was_run(tmp_path):
    t = report.table("textures", store=made_up_store(tmp_path, "textures"))
    rows = summary.headline(t, "textures").set_index("encoder")
    small = t[(t.arch == "mobilenet_v3_small") & (t.method == "moco") & (t.epochs > 0)]
    assert rows.loc["MobileNetV3-Small", "seeds"] == "5" == str(len(small))
    assert rows.loc["MobileNetV3-Small", "kNN trained"].startswith(f"{100 * small.knn_test.mean():.1f} ± ")
    assert rows.loc["raw pixels", "kNN trained"] == "" and rows.loc["raw pixels", "kNN untrained"]
    assert "±" not in rows.loc["ResNet-50", summary.SUPERVISED]           # one seed has no interval


def test_only_the_runs_that_a_profile_plans_count(tmp_path):
    """Runs on other data, of another learning rate, or that chose hyper-parameters stay out of the tables."""
    store, rng = made_up_store(tmp_path, "quick", archs=("resnet18",)), np.random.default_rng(1)
    before = len(report.table("quick", store=store))
    store_run(store, "quick", studies.base("quick", "resnet18", "folder:/elsewhere"), rng)
    store_run(store, "quick", studies.base("quick", "resnet18", lr=0.123), rng)
    store_run(store, "quick", studies.search("quick", archs=("resnet18",))[0], rng)
    assert before and len(report.table("quick", store=store)) == before
    assert list(report.table("quick", store=store, data="folder:/elsewhere").data) == ["folder:/elsewhere"]


def test_what_a_profile_still_lacks_is_counted_on_the_data_set_or_on_its_copy():
    for data in (None, "cifar10_jpeg"):
        planned = [runs.folder(c, "cifar10").name for c in studies.plan("cifar10", data)]
        t = pd.DataFrame({"profile": "cifar10", "run": [*planned[2:], "of another study"]})
        assert summary.pending(t, "cifar10")[0].startswith(f"Of {len(planned)} runs planned for cifar10, 2 are not trained yet")
        assert summary.pending(pd.DataFrame({"profile": "cifar10", "run": planned}), "cifar10") == []
        here = [runs.folder(c, "cifar10").name for c in studies.temperature("cifar10", data)]
        assert studies.pending(here[1:], "cifar10", study=studies.temperature)[0].startswith(
            f"Of {len(here)} runs planned for cifar10 in this notebook, 1 are not")


def test_runs_that_lack_are_said_to_be_of_remedies_where_the_observations_are_complete():
    planned, watched = ([runs.folder(c, "textures").name for c in study("textures")] for study in (studies.plan, studies.observations))
    assert ", all of remedies: verdicts on these rest on the others" in studies.pending(watched, "textures")[0]
    assert "not trained yet: verdicts rest on" in studies.pending([name for name in planned if name != watched[0]], "textures")[0]


def test_in_short_stand_the_decided_claims_and_apart_from_them_the_encoders_on_which_alone_one_is_supported():
    row = {"profile": "p", "effect": 0.1, "low": np.nan, "high": np.nan, "n": 1, "test": "", "data": "textures", "purer": np.nan}
    rows = pd.DataFrame([row | {"claim": c, "verdict": v, "statement": f"<{c.split('/')[0]}>"} for c, v in (
        ("projector_helps", "undecided"), ("projector_helps/mobilenet_v3_small", "supported"), ("projector_helps/resnet18", "undecided"),
        ("projector_helps/deit_tiny", "supported"),                                                               # not judged on it
        ("temperature_helps", "contradicted"), ("temperature_helps/resnet18", "contradicted"),
        ("temperature_helps/mobilenet_v3_small", "supported"), ("negatives_helps", "not tested"), ("augmentation_helps", "not tested"),
        ("negatives_helps/resnet18", "undecided"), ("augmentation_helps/deit_tiny", "undecided"),                 # again not judged on it
        ("augmentation_helps/resnet18", "not tested"))])
    said = pages.decided_html(rows, ["p"])
    assert "4 claims as a whole: 1 contradicted, 1 undecided, 2 not tested (1 of these on some encoders, but not" in said
    assert said.count("<li>") == 2
    assert "contradicted</span> &lt;temperature_helps&gt;: ResNet-18 (+10.0 points; one seed); but supported on Mobile" in said
    assert f"<p>{summary.ALONE}</p><ul><li>&lt;projector_helps&gt;: MobileNetV3-Small (+10.0 points; one seed)</li></ul>" in said
    assert "&lt;negatives_helps&gt;" not in said and "chance" not in said
    known = rows[~rows.claim.str.contains("augmentation|negatives")].assign(low=0.05, high=0.15, n=3)
    assert "<p>Of 4 intervals of remedies on single encoders 4 exclude 0" in pages.decided_html(known, ["p"])


def test_the_papers_questions_unfold_to_what_an_answer_rests_on(monkeypatch):
    rows = pd.DataFrame({"profile": []})
    each = pd.DataFrame([{"encoder": "one", "ResNet-18": f"+1 → <2>{summary.HARDLY}"}])
    monkeypatch.setattr(summary, "grids", lambda rows, profiles: {p: each for p in profiles})
    monkeypatch.setattr(summary, "against", lambda *_: [])
    monkeypatch.setattr(summary, "complete", lambda t, profiles: profiles[:1])
    monkeypatch.setattr(summary, "answers", lambda t, rows, profile: [("Is 1 < 2?", "Yes.", "By <counting>."), ("And 2 < 1?", "No.", "")])
    shown = pages.questions_html(None, rows, ["p", "q"])
    assert shown.count("Is 1 ") == 1 and "verdict on p, effects" in shown and "verdict on q, effects" in shown
    assert f'<span class="number">+1 </span><br><span class="number">→ &lt;2&gt;</span>{summary.HARDLY}<' in shown    # words may break
    assert '<div class="asked"><details><summary>Is 1 &lt; 2?<br><b>Yes.</b></summary><p>By &lt;counting&gt;.</p></details>' in shown
    assert "<details class=bare><summary>And 2 &lt; 1?<br><b>No.</b></summary></details></div>" in shown
    monkeypatch.setattr(summary, "complete", lambda *_: [])
    monkeypatch.setattr(summary, "grids", lambda *_: {})
    assert pages.questions_html(None, rows, ["p"]) == pages.nutshell_html(None, rows, ["p"]) == ""


def test_the_check_of_the_pipeline_on_photographs_is_outstanding_until_its_runs_are_there_and_then_judged():
    asymmetric, symmetric = studies.anchors("cifar10", "cifar10_jpeg")[:2]
    rows = [{"profile": "cifar10", "run": runs.folder(c, "cifar10").name, "data": c.data, "knn_projection_test": knn}
            for c, knn in ((asymmetric, 0.8055), (symmetric, 0.8324))]
    def check(*rows):
        return summary.check_on_photographs(pd.DataFrame(rows))
    assert check() == check(rows[0] | {"data": "textures"}) == check(rows[0] | {"data": "cifar100"}) == []
    for [none] in (check(rows[0] | {"profile": "cifar10_subset"}), check(rows[0] | {"knn_projection_test": np.nan})):
        assert none.count("no run yet beside") == 1 and none.endswith(
            "It is outstanding: until it is passed, numbers on photographs are provisional.")
        assert "82.6 % with one view" in none and "85.3 % with both" in none
    [some] = check(rows[0])
    assert "80.5 % on cifar10_jpeg, more than 2 points below 82.6 % with one view" in some and some.count("no run yet beside") == 1
    [short] = check({**rows[0], "knn_projection_test": 0.806}, rows[1])
    assert "80.6 % on cifar10_jpeg, no more than 2 points below" in short and "83.2 % on cifar10_jpeg, more than 2 points" in short
    assert short.endswith("It is not passed, so numbers on photographs are provisional.") and "outstanding" not in short
    [whole] = check({**rows[0], "knn_projection_test": 0.9}, {**rows[1], "knn_projection_test": 0.9})
    assert "90.0 % on cifar10_jpeg, no more than 2 points below 85.3 %" in whole
    assert "provisional" not in whole and "no run yet" not in whole
    original = {"run": runs.folder(studies.anchors("cifar10")[0], "cifar10").name, "data": "cifar10", "knn_projection_test": 0.813}
    assert "81.3 % on cifar10, more than 1 point below" in check(rows[0] | original)[0]


@given(st.text())
def test_any_text_is_shown_as_itself(value):
    shown = explore.text(value)
    assert not set("<>`\"") & set(shown) and html.unescape(shown) == value
