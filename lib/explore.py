"""What one explores: tables that sort and filter, a page for each run, UMAPs side by side whose selection is linked.

DataTables (bundled with itables) sorts what is a plain table without it; Bokeh draws the UMAPs. Nothing is loaded from elsewhere.
"""
import base64
import html
import io
import json

import numpy as np

from lib import models, runs

NEAREST = 10        # neighbours in the picture of which a point tells how many share its class
PANEL = 270         # side of a UMAP, pixels; three fit beside the report's navigation
IMAGE = 64          # side at which a point's image is shown, pixels


def text(value):
    """Any value as HTML text; also safe inside Markdown's raw blocks."""
    return html.escape(str(value)).replace("`", "&#96;")


# ---- tables ----

def html_table(head, body, caption, classes="", name="", listed=()):
    """A table that scrolls sideways on a narrow screen; the first cell of each row is its heading. Cells are HTML, or (HTML, what it is
    sorted by). With a name it sorts, and columns (indices) that are `listed` filter by lists, on a page with `library`."""
    def cell(content, tag):
        shown, order = content if isinstance(content, tuple) else (content, None)
        attributes = "" if order is None else f' data-order="{text(order)}"'
        return f"<{tag}{' scope=row' if tag == 'th' else ''}{attributes}>{shown}</{tag}>"
    head = "".join(f'<th scope="col">{shown}</th>' for shown in head)
    rows = "".join("<tr>" + "".join(cell(c, "td" if i else "th") for i, c in enumerate(row)) + "</tr>" for row in body)
    table = (f'<div class="table-wrapper {classes or name and "explored"}" tabindex="0" role="region" aria-label="{text(caption)}">'
             f"<table{f' id={name}' if name else ''}><caption>{text(caption)}</caption>"
             f"{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{rows}</tbody></table></div>")
    if not name:
        return table
    control = [{"targets": list(listed), "columnControl": [["searchList"]]}]
    options = {"paging": len(body) > 50, "pageLength": 50, "lengthMenu": [50, 200, {"label": "all", "value": -1}], "order": [],
               "autoWidth": False, "columnDefs": control}
    return table + (f"<script>import_tables().then(({{default: DataTable}}) => {{ const table = new DataTable('#{name}', "
                    f"{json.dumps(options)}); addEventListener('beforeprint', () => table.page.len(-1).draw(false)); }});</script>")


DARK = """const dark = matchMedia('(prefers-color-scheme: dark)'), paper = matchMedia('print'), follow = () =>
  document.documentElement.classList.toggle('dark', !paper.matches && (document.body.dataset.theme === 'dark'
    || document.body.dataset.theme !== 'light' && dark.matches));
new MutationObserver(follow).observe(document.body, {attributeFilter: ['data-theme']});
for (const media of [dark, paper]) media.addEventListener('change', follow); follow();"""


def library():
    """The script and style of tables that sort, for a page that has some; they follow the theme's dark mode."""
    from itables.options import dt_bundle
    source = base64.b64encode(dt_bundle.read_bytes()).decode()
    return (f"<style>{dt_bundle.with_suffix('.css').read_text()}</style><script>{DARK}\n"
            f"function import_tables() {{ return window._tables ??= import('data:text/javascript;base64,{source}'); }}</script>")


# ---- a run's page ----

CURVES = {"loss": "loss", "accuracy": "accuracy in the loss", "knn_val": "kNN, val, 2,048 of train"}     # history's columns -> their label


FIRST = ("knn_test", "linear_test", "instdisc_dsd_top1_test", "instdisc_dsd_top1_train")     # of a run's numbers
ACCURACIES = ("knn", "linear", "best_nn", "instdisc", "accuracy")                            # numbers that begin so are in percent


def curves():
    """A function that draws a Run's history as SVG, always on the same figure: making one takes longest."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    from lib import plots
    plots.style()
    figure = Figure(figsize=(plots.WIDTH, 2.2), layout="constrained")
    axes = figure.subplots(1, len(CURVES))

    def draw(run):
        for ax, (column, label) in zip(axes, CURVES.items()):
            ax.clear()
            values = run.history.reindex(columns=["epoch", column]).dropna()
            ax.plot(values.epoch, values[column], color=plots.colour(run.config.arch), marker="." if len(values) < 30 else "")
            ax.set(xlabel="epoch", title=label)
            if column != "loss":
                ax.yaxis.set_major_formatter(PercentFormatter(1))
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        return file.getvalue()[file.getvalue().index("<svg"):]
    return draw


def pairs(values, caption):
    """A dict as a table of two columns."""
    rows = [[f"<code>{text(k)}</code>", text(f"{v:.6g}" if isinstance(v, float) else v)] for k, v in values.items()]
    return html_table([], rows, caption)


def run_page(run, what, rests, drawn=""):
    """The body of a run's page. what: its arm, in words; rests: the names of the verdicts that rest on it; drawn: its curves."""
    c, profile = run.config, run.path.parent.name
    plain = {f: getattr(c, f) for f in c.__dataclass_fields__} | {
        f: runs.folder(getattr(c, f), profile).name for f in ("start", "teacher") if getattr(c, f)}
    numbers = {k: v for k, v in run.metrics.items() if isinstance(v, (int, float)) and not k.startswith("nn")}
    names = ", ".join(f"<code>{text(claim)}</code>" for claim in rests)
    behind = f"<details><summary>{len(rests)} verdicts rest on it</summary>{names}</details>" if rests else "<p>No verdict rests on it.</p>"
    def shown(name):
        value = numbers[name]
        exact = isinstance(value, int) or not name.startswith(ACCURACIES) or name.endswith(("_k", "_lr"))
        return f"{100 * value:.1f} %" if not exact else f"{value:.4g}" if isinstance(value, float) else value
    numbers = {name: shown(name) for name in (*(k for k in FIRST if k in numbers), *(k for k in numbers if k not in FIRST))}
    return (f"<h1>{text(models.ENCODERS[c.arch].label)}, {text(what)}, seed {c.seed}</h1>"
            f'<p><code>{text(profile)}/{text(run.name)}</code>, one of <a href="../../runs.html">all runs</a>. '
            f'<a href="../../ledger.html">All verdicts</a>.</p>{behind}'
            + (f'<div class="curves" role="img" aria-label="{", ".join(CURVES.values())}, over the epochs">{drawn}</div>' if drawn else "")
            + f"<p>To train it anew and compare: <code>make reproduce PROFILE={text(profile)} MATCH={text(run.name)}</code>"
            + (f", where the data set {text(c.data)} is</p>" if c.data == "cifar10_jpeg" else "</p>")
            + pairs(numbers, "What was measured (accuracies over k stand in its metrics.json)")
            + pairs(plain, "Its configuration") + pairs(run.provenance, "Where and by what it was made"))


# ---- UMAP ----

def picture(image):
    """An image (3, S, S), uint8, as a data URI: WebP, at most IMAGE pixels a side, for a look."""
    from PIL import Image
    file, drawn = io.BytesIO(), Image.fromarray(np.asarray(image).transpose(1, 2, 0))
    drawn.thumbnail((IMAGE, IMAGE))
    drawn.save(file, "webp", quality=60)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def nearest(xy, count=NEAREST):
    """The `count` nearest other points (all, if there are fewer) of each point. xy: (N, 2). Returns (N, count) int."""
    from scipy.spatial import cKDTree
    near = cKDTree(xy).query(xy, min(count + 1, len(xy)))[1]
    others = near != np.arange(len(xy))[:, None]                           # where points coincide, oneself need not come first
    others[others.all(1), -1] = False
    return near[others].reshape(len(xy), -1)


def umaps(found, classes, factors=None, images=None, title=""):
    """UMAPs side by side as HTML: a point under the pointer shows its image, class, factors and how many of its neighbours in that picture
    share its class, and these neighbours are ringed in all; what is selected in one is selected in all. Colours by class or by a factor.

    found: {encoder's label: lib.runs.umap}; classes: names; factors: {name: (N,) values}; images: (N, 3, S, S) uint8, or a
    folder's, by the points' `index`, or None. "" without any. An iframe, so that neither page nor script touches the other.
    """
    if not found:
        return ""
    from bokeh.embed import file_html
    from bokeh.layouts import column, gridplot
    from bokeh.models import ColumnDataSource, CustomJS, HoverTool, Select
    from bokeh.plotting import figure
    from bokeh.resources import Resources
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    from lib import plots
    index = sorted(set.intersection(*(set(points["index"]) for points in found.values())))
    tables = {name: points.set_index("index").loc[index] for name, points in found.items()}
    labels = next(iter(tables.values())).label.values
    palette = plots.class_colours(len(classes))
    data = {"class": [classes[i] for i in labels], "colour": [to_hex(palette[i]) for i in labels]}
    colours = {"class": list(data["colour"])}
    for name, values in (factors or {}).items():
        values = np.asarray(values, float)[index]
        data[name] = [f"{v:.2f}" if np.isfinite(v) else "–" for v in values]
        scaled = (values - np.nanmin(values)) / (np.nanmax(values) - np.nanmin(values) or 1)
        cmap = colormaps["hsv" if name in plots.CYCLIC else "viridis"]
        colours[name] = [to_hex(cmap(v)) if np.isfinite(v) else "#d0d0d0" for v in scaled]
    if images is not None:
        data["image"] = [picture(image) for image in images[index]]
    near = [nearest(points[["x", "y"]].values) for points in tables.values()]
    for i, points in enumerate(tables.values()):
        data |= {f"x{i}": points.x.values, f"y{i}": points.y.values, f"same{i}": (labels[near[i]] == labels[:, None]).sum(1)}
    source, panels = ColumnDataSource(data), []
    ringed = ColumnDataSource({f"{axis}{i}": [] for i in range(len(tables)) for axis in "xy"})
    for i, name in enumerate(tables):
        shown = "" if images is None else f'<img src="@image" width="{IMAGE}" alt="" style="image-rendering: pixelated"><br>'
        words = "<br>".join(["<b>@class</b>", *[f"{f} @{{{f}}}" for f in factors or ()],
                             f"@same{i} of {near[i].shape[1]} neighbours here share its class"])
        panel = figure(title=name, tools="pan,wheel_zoom,box_select,lasso_select,tap,reset", active_drag="lasso_select",
                       width=PANEL, height=PANEL)
        drawn = panel.scatter(f"x{i}", f"y{i}", source=source, size=4, color="colour", line_color=None, alpha=0.8, nonselection_alpha=0.06)
        panel.scatter(f"x{i}", f"y{i}", source=ringed, size=9, fill_color=None, line_color="black")
        told = CustomJS(args={"source": source, "ringed": ringed, "near": near[i].tolist()}, code="""
            const at = cb_data.index.indices[0], those = at === undefined ? [] : near[at];
            if (those.length || ringed.length) ringed.data = Object.fromEntries(Object.keys(ringed.data).map(
                name => [name, those.map(other => source.data[name][other])]));""")
        panel.add_tools(HoverTool(renderers=[drawn], limit=1, callback=told,      # of points that lie on each other one is enough
                                  tooltips=f'<div style="font-size: 12px; max-width: 13em">{shown}{words}</div>'))
        panel.axis.visible, panel.grid.visible = False, False
        panels.append(panel)
    choose = Select(title="Colour", value="class", options=list(colours), width=160)
    choose.js_on_change("value", CustomJS(args={"source": source, "colours": colours}, code="""
        source.data.colour = colours[cb_obj.value]; source.change.emit();"""))
    grid = gridplot([panels], toolbar_location="above", merge_tools=True, sizing_mode="scale_width")       # as narrow as the page
    bundled = Resources(mode="inline", log_level="error")
    page = file_html(column(choose, grid, sizing_mode="scale_width"), bundled, title or "UMAP")
    return (f'<div class="umaps"><div>{text(title)}</div>'
            f'<iframe srcdoc="{html.escape(page)}" title="{text(f"{title} UMAP to explore".strip())}" loading="lazy" '
            f'style="width: 100%; min-width: {PANEL * 2 // 3 * len(panels)}px; max-width: {PANEL * len(panels) + 30}px; '
            f'height: calc(clamp({PANEL * 2 // 3}px, {100 // len(panels)}vw, {PANEL}px) + 110px); border: 0; background: #fff">'
            '</iframe></div>')
