import ast
import platform
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version

import yaml

import lib
from lib.runs import ROOT

PINS = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]     # only make bench installs them
DISTRIBUTION = {"PIL": "Pillow", "sklearn": "scikit-learn", "umap": "umap-learn", "docutils": "Sphinx", "sphinx": "Sphinx",
                "matplotlib_inline": "ipykernel", "IPython": "ipykernel", "jupyter_client": "ipykernel",
                "nbformat": "papermill", "yaml": "papermill"}
COMMANDS = {"jupyterlab", "ipykernel", "myst-nb", "furo", "pytest-xdist", "ruff"}      # used, but not imported by us


def imported(paths):
    trees = [ast.parse(path.read_text()) for path in paths]
    names = {alias.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    ours = {"lib", *(path.stem for path in (ROOT / "tests").glob("*.py"))}
    roots = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - ours
    return {DISTRIBUTION.get(root, root) for root in roots}


def test_every_requirement_is_an_exact_pin_and_what_is_installed():
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    assert [line for line in lines if line] == [f"{name}=={pin}" for name, pin in PINS.items()]
    assert {name: version(name).split("+")[0] for name in PINS} == PINS


def test_what_is_imported_is_pinned_and_what_is_pinned_is_used():
    used = imported([*(ROOT / "lib").glob("*.py"), *(ROOT / "tests").glob("*.py")])
    assert used <= set(PINS) | {pin.split("==")[0] for pins in EXTRAS.values() for pin in pins}, "imported but not pinned"
    assert set(PINS) - used <= COMMANDS, "pinned but not used"


def test_conda_users_get_the_pins_of_requirements_txt():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, packages = environment["dependencies"]
    assert packages == {"pip": ["-r requirements.txt", "-e ."]} and pip == "pip"
    least = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    assert [int(n) for n in python.removeprefix("python=").split(".")] >= [int(n) for n in least.split(".")]


def test_training_needs_nothing_that_only_notebooks_or_pages_need():
    """A machine with the training packages alone can run lib.studies: nothing else may be imported by it."""
    allowed = {"torch", "torchvision", "numpy", "pandas", "sklearn", "joblib", "PIL", "safetensors", "filelock", "tqdm",
               "scipy", "threadpoolctl"}                                    # the last two come with scikit-learn
    code = "import sys, lib.studies, lib.gpu; print(*(f'lib/{name[4:]}.py' for name in sys.modules if name.startswith('lib.')))"
    files = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout.split()
    assert {"lib/train.py", "lib/probe.py", "lib/studies.py", "lib/bench.py"} <= set(files)
    for file in files:
        for node in (ROOT / file).read_text().splitlines():                 # at its top: what a function imports is needed there alone
            found = re.match(r"(?:from|import) ([\w.]+)", node)
            assert not found or found[1].partition(".")[0] in allowed | {"lib"} | set(sys.stdlib_module_names), (file, node)


def test_what_runs_before_a_commit_is_pinned_and_finds_nothing_to_mend():
    hooks = [hook for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"] for hook in repo["hooks"]]
    dev = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]
    pinned = {name: pin for line in (*dev, *(ROOT / "requirements.txt").read_text().splitlines())
              for name, _, pin in [line.split("#")[0].strip().partition("==")] if pin}
    assert {hook["entry"].split()[0] for hook in hooks} == {f".venv/bin/{name}" for name in ("ruff", "nbstripout")}
    assert {"ruff", "nbstripout", "pre-commit"} <= set(pinned)
    style = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", ROOT], capture_output=True, text=True)
    assert style.returncode == 0, style.stdout


def test_the_order_in_which_to_read_names_every_module():
    told = lib.__doc__.split("in this order:")[1]
    named = re.findall(r"[a-z]+", re.sub(r"\(.*?\)", "", told, flags=re.DOTALL))
    assert sorted(named) == sorted(path.stem for path in (ROOT / "lib").glob("*.py") if path.stem != "__init__")


def test_the_make_targets_of_the_readme_can_be_planned():
    targets = ("report", "render", "test", "lab", "study", "readme")
    done = subprocess.run(["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count(".venv/bin") >= len(targets), done.stderr


def test_parameters_reach_the_report_through_make():
    given = "PARAMS=archs=['resnet18', 'resnet50'] data=digits"
    done = subprocess.run(["make", "-n", "report", "PROFILE=smoke", given], cwd=ROOT, capture_output=True, text=True, check=True)
    assert """--profile smoke  -p "archs=['resnet18','resnet50']" -p "data=digits\"""" in done.stdout


def test_freed_memory_is_used_again_and_not_given_back():
    code = """
import resource, torch
from lib import bench
config = bench.recipe("resnet18")
step, batch = bench.stepper(config, bench.noise(256, 32)), bench.constant(config, bench.noise(256, 32))
for _ in range(15):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(*batch)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout
    assert platform.libc_ver()[0] != "glibc" or sorted(map(int, said.split()))[7] < 1000   # pages of 4 KB, median; else some 6,000
