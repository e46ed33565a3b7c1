"""Each notebook runs as a reader runs it, on the smoke profile; and each is committed as a change of thought, without outputs."""
import ast
import os
import re
import subprocess
import sys

import nbformat
import pytest

from lib import runs, studies
from lib.runs import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
named = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
# where a guard is the same code in all, which a cheap test of each shows, running one notebook is enough
last = pytest.mark.parametrize("path", NOTEBOOKS[-1:], ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def papermill(path, output, *arguments, cwd=ROOT, timeout=540):
    command = [sys.executable, "-m", "papermill", str(path), str(output), "--no-progress-bar", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout,
                          env=os.environ | {"OMP_NUM_THREADS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"})


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """The smoke runs, in their place in the store (ignored by git): `make test` trains them beforehand, else one worker does."""
    from filelock import FileLock
    with FileLock(tmp_path_factory.getbasetemp().parent / "smoke.lock"):
        return [runs.run_or_load(config, "smoke", progress=False) for config in studies.plan("smoke")]


def test_there_are_notebooks():
    assert {"01_pretext_fitting", "02_over_clustering"} <= {path.stem for path in NOTEBOOKS}


@named
def test_notebook_is_committed_without_outputs_and_with_readable_ids(path):
    notebook = read(path)
    nbformat.validate(notebook)
    ids = [cell.id for cell in notebook.cells]
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5) and notebook.metadata.kernelspec.name == "python3"
    assert len(set(ids)) == len(ids) and all(i.replace("-", "").isalpha() and i.islower() for i in ids)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code(path))


@named
def test_notebook_has_one_commented_parameters_cell_of_plain_values(path):
    tagged = [cell for cell in code(path) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    lines = tagged[0].source.splitlines()
    assert all("  # " in line for line in lines)
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(tagged[0].source).body}
    assert values["profile"] == "quick" and {"profile", "data", "archs", "train"} <= set(values)


@named
def test_no_later_cell_takes_a_parameters_name_for_something_else(path):
    cells = [ast.parse(cell.source) for cell in code(path)]
    at = next(i for i, cell in enumerate(code(path)) if "parameters" in cell.metadata.get("tags", []))
    parameters = {node.targets[0].id for node in cells[at].body}
    bound = {node.id for cell in cells[at + 1:] for node in ast.walk(cell)
             if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    assert not parameters & bound


@named
def test_notebook_defines_nothing_and_keeps_its_cells_short(path):
    lengths = [len(cell.source.splitlines()) for cell in code(path)]
    assert max(lengths) <= 25 and sorted(lengths)[int(0.7 * len(lengths))] <= 12
    nodes = [node for cell in code(path) for node in ast.walk(ast.parse(cell.source))]
    assert not any(isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)) for node in nodes)


@named
def test_notebook_begins_with_its_question_the_criteria_and_the_parameters(path):
    cells = read(path).cells
    assert [cell.cell_type for cell in cells[:3]] == ["markdown", "markdown", "code"] and cells[0].source.split("\n")[0].endswith("?")
    assert cells[-1].cell_type == "markdown" and cells[-1].source.startswith("## Limits")


@named
def test_notebook_runs_on_smoke(path, smoke, tmp_path):
    done = papermill(path, tmp_path / "out.ipynb", "-p", "profile", "smoke")
    assert done.returncode == 0, done.stderr[-2000:]
    executed = [cell for cell in read(tmp_path / "out.ipynb").cells if cell.cell_type == "code"]
    kinds = [kind for cell in executed for output in cell.outputs for kind in output.get("data", {})]
    whole = path.stem in ("01_pretext_fitting", "02_over_clustering")        # of a remedy, smoke has one arm
    assert kinds.count("image/svg+xml") >= (5 if whole else 1) and kinds.count("text/html") >= (4 if whole else 3)
    assert not [o.text for cell in executed for o in cell.outputs if o.get("name") == "stderr" and "Warning" in o.text]


def test_values_given_to_papermill_are_trained_and_stand_in_the_ablation_table(smoke, tmp_path):
    path = next(p for p in NOTEBOOKS if p.stem == "03_temperature")
    done = papermill(path, tmp_path / "out.ipynb", "-p", "profile", "smoke", "-p", "taus", "[0.07, 0.3]")
    assert done.returncode == 0, done.stderr[-2000:]
    shown = next(cell.outputs[0].data["text/html"] for cell in code(tmp_path / "out.ipynb") if "plots.ablation" in cell.source)
    assert "temperature 0.07" in shown and "temperature 0.3" in shown


@last
def test_unknown_profile_stops_the_notebook_with_the_nearest_name(path, tmp_path):
    done = papermill(path, tmp_path / "out.ipynb", "-p", "profile", "smokee")
    assert done.returncode != 0 and "did you mean 'smoke'?" in done.stderr


@last
def test_a_misspelt_parameter_stops_the_notebook_with_the_nearest_name_before_anything_is_trained(path, tmp_path):
    """papermill alone warns, and would train the default profile for minutes."""
    before = set(runs.STORE.glob("quick/*"))
    done = papermill(path, tmp_path / "out.ipynb", "-p", "profil", "smoke", timeout=60)
    assert done.returncode != 0 and "no parameter 'profil'; did you mean 'profile'?" in done.stderr
    assert set(runs.STORE.glob("quick/*")) == before
    cells = {cell.id: cell for cell in read(tmp_path / "out.ipynb").cells}
    assert cells["setup"].outputs[-1].ename == "TypeError" and cells["runs"].execution_count is None


@named
def test_the_guard_against_misspelt_parameters_knows_all_of_them(path):
    cells = {cell.id: ast.parse(cell.source) for cell in code(path)}
    known = next(node.args[1:] for node in ast.walk(cells["setup"])
                 if isinstance(node, ast.Call) and ast.unparse(node.func) == "studies.check_parameters")
    assert [name.value for name in known] == [node.targets[0].id for node in cells["parameters"].body]


def test_no_cell_of_several_lines_stands_in_two_notebooks():
    """What notebooks share belongs to lib; the parameters must stand in each."""
    cells = [cell.source for path in NOTEBOOKS for cell in code(path) if cell.id != "parameters" and cell.source.count("\n") > 1]
    assert len(set(cells)) == len(cells)


def test_notebook_08_sets_whole_recipes_apart_from_single_remedies():
    cells = {cell.id: cell.source for cell in code(ROOT / "notebooks" / "08_improved_baselines.ipynb")}
    whole = re.compile(re.search(r'contains\("(.+?)"\)', cells["runs"]).group(1))
    planned = {studies.change(config, p) for p in ("textures", "textures_again") for config in studies.improved(p)} - {""}
    assert {change for change in planned if whole.search(change)} == {
        "the paper's three", "the paper's four", "light-moco's recipe", "SEED alone", "32 epochs", "the paper's three, 32 epochs",
        "the paper's four, 32 epochs"}


def test_notebook_runs_from_its_own_folder_and_takes_encoders_as_text(smoke, tmp_path):
    path = ROOT / "notebooks" / "01_pretext_fitting.ipynb"
    done = papermill(path, tmp_path / "out.ipynb", "-p", "profile", "smoke", "-p", "archs", "mobilenet_v3_small", cwd=path.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    cell = next(c for c in nbformat.read(tmp_path / "out.ipynb", 4).cells if c.id == "loss")
    figures = [o["data"]["image/svg+xml"] for o in cell.outputs if "image/svg+xml" in o.get("data", {})]
    [mine] = [figure for figure in figures if "<!-- smoke: " in figure]     # beside the committed runs, which have them all
    assert "MobileNetV3-Small" in mine and "ResNet-50" not in mine


def test_every_parameter_that_the_batch_passes_exists():
    from papermill import inspect_notebook
    for path in NOTEBOOKS:
        found = inspect_notebook(str(path))
        assert {"profile", "data", "archs", "train"} <= set(found) and all(entry["help"] for entry in found.values()), path.name
