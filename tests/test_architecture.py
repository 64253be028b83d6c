"""Rules about the code itself: imports go one way, the command line stays light, no pickle."""

from __future__ import annotations

import ast
import resource
import statistics
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support.places import ROOT
from vpo_kit.cli.model import model_app
from vpo_kit.cli.options import app
from vpo_kit.cli.pair import pair_app
from vpo_kit.cli.reward import reward_app
from vpo_kit.registry import METHODS, MODELS, REWARDS, Registry

PACKAGE, TESTS = ROOT / "vpo_kit", ROOT / "tests"

# each layer may import the ones before it
LAYERS = [
    {"errors", "catalogue"},
    {"fields"},
    {
        "registry",
        "run_sections",
        "config",
        "content",
        "measures",
        "plain",
        "prompts",
        "files",
        "links",
        "folders",
        "step_folders",
        "inputs",
    },
    {"formats", "defaults", "recipes", "video", "schedule", "losses", "processes", "net", "pages"},
    {"sampler"},
    {"times", "stochastic"},
    {"models"},
    {"truth"},
    {"rewards", "clips"},
    {"sprites"},
    {"duets"},
    {"judged"},
    {"pairing"},
    {"labelling"},
    {"methods"},
    {"training", "evaluation"},
    {"testing"},
    {"comparison", "planning"},
    {"study"},
    {"library"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# siblings inside one layer or folder: a part and its base
SHARED = {
    "run_sections": {"config"},
    "registry": {"config", "run_sections", "prompts", "links"},
    "plain": {"prompts"},
    "inputs": {"prompts"},
    "base": {"rewards", "methods", "models"},
}


def imports(path: Path, package: str = "vpo_kit") -> set[str]:
    """The modules of a package that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name for name in names if name.startswith(f"{package}.")}
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    own = path.relative_to(PACKAGE).with_suffix("").parts
    for name in imports(path):
        other = name.split(".")[1:]
        if other[0] not in LEVEL or other[0] == own[0]:
            continue
        lower = LEVEL[other[0]] < LEVEL[own[0]]
        neighbour = own[0] in SHARED.get(other[0], set())
        assert lower or neighbour, f"{'/'.join(own)} must not import {name}"


@pytest.mark.parametrize("registry", [METHODS, REWARDS, MODELS], ids=lambda registry: registry.kind)
def test_registered_parts_do_not_import_each_other(registry: Registry) -> None:
    modules = {target.partition(":")[0] for target in registry.targets().values() if target.startswith("vpo_kit.")}
    for module in modules:
        found = imports(PACKAGE.parent / f"{module.replace('.', '/')}.py")
        siblings = {name for name in found if name.rpartition(".")[0] in modules - {module} or name in modules}
        assert not siblings, f"{module} imports its siblings {siblings}"


def test_what_is_shown_is_no_markup() -> None:
    """All commands speak to the console of `library.display.terminal`."""
    made = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Console"
    }
    assert made == {"library/display.py"}


def test_a_class_name_has_one_meaning() -> None:
    """`Config` is what every reward calls its settings, `Block` what a network repeats: they may recur."""
    places = Counter(
        node.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and node.name not in ("Config", "Block")
    )
    assert not [name for name, count in places.items() if count > 1]


# the folder says of what; a command's own file may be called like what it commands
RECURRING = {
    "base", "loading", "check", "export", "server", "__main__", "answers", "data", "page", "plan", "preview",
    "settings", "tracker", "train", "truth", "world",
}  # fmt: skip


def test_a_file_name_has_one_meaning() -> None:
    places = Counter(path.stem for path in FILES if path.parent != PACKAGE / "cli")
    assert {name for name, count in places.items() if count > 1} <= RECURRING


def test_a_docstring_has_a_subject() -> None:
    """`Characters per token`, not `Of one token`: it is read where the name it belongs to is not seen."""
    fragments = ("As", "Beside", "By", "For", "From", "Of", "To", "With")
    assert not [
        f"{path.relative_to(PACKAGE)}: {node.value.value}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        and node.value.value.split(" ")[0] in fragments
    ]  # fmt: skip


def test_no_import_cycle() -> None:
    """Of imports at the top of a file; those inside functions are allowed to look back."""
    modules = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in FILES}
    order = TopologicalSorter(
        {
            name: {
                module
                for node in ast.parse(path.read_text()).body
                if isinstance(node, ast.ImportFrom) and node.module
                for module in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
                if module in modules
            }
            for name, path in modules.items()
        }
    )
    order.prepare()  # raises `CycleError` and names the cycle


def test_files_and_functions_stay_small() -> None:
    lengths = [len(path.read_text().splitlines()) for path in FILES]
    functions = [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    ]
    assert max(lengths) <= 400
    assert statistics.median(lengths) <= 110
    assert statistics.quantiles(functions, n=10)[-1] <= 25


def test_a_dataclass_of_many_fields_takes_them_by_name() -> None:
    """From five fields on nobody sees at the call what the third one was."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            marks = [ast.unparse(mark) for mark in node.decorator_list] if isinstance(node, ast.ClassDef) else []
            if isinstance(node, ast.ClassDef) and any("dataclass" in mark for mark in marks):
                fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
                own = [part for part in fields if "ClassVar" not in ast.unparse(part.annotation)]
                by_name = any("kw_only=True" in mark for mark in marks)
                assert len(own) <= 4 or by_name, f"{path}: {node.name}"


COMMANDS = [
    "", "init", "train", "plan", "sample", "score", "eval", "label", "clips", "methods", "rewards", "models", "metrics",
    "config", "doctor", "model", "model check", "export", "compare", "study", "runs", "watch",
    "pair", "pair import", "pair inspect", "pair signal", "pair check", "pair export", "pair merge", "pair split",
    "reward", "reward check", "reward bench", "reward serve", "reward train-vqa",
]  # fmt: skip


def test_help_imports_nothing_heavy() -> None:
    """One command after the other in one process: the first that imports too much is named."""
    code = (
        "import contextlib, io, sys\nfrom vpo_kit.cli import main\n"
        f"for command in {COMMANDS!r}:\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):\n"
        "        main([*command.split(), '--help'])\n"
        "    assert 'Usage' in shown.getvalue(), command\n"
        "    heavy = {'torch', 'diffusers', 'transformers', 'numpy'} & set(sys.modules)\n"
        "    assert not heavy, (command, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_command_lines_files_import_nothing_heavy() -> None:
    names = [f"vpo_kit.cli.{path.stem}" for path in FILES if path.parent == PACKAGE / "cli"]
    code = (
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_command_is_a_file_of_its_name() -> None:
    groups = {"": app, "pair_": pair_app, "reward_": reward_app, "model_": model_app}
    found = {
        f"{group}{command.name or command.callback.__name__}".replace("-", "_"): command.callback.__module__
        for group, typed in groups.items()
        for command in typed.registered_commands
        if command.callback is not None
    }
    assert found == {name: f"vpo_kit.cli.{name}" for name in found}
    assert {*found, *(group.rstrip("_") for group in groups if group)} == {
        name.replace(" ", "_").replace("-", "_") for name in COMMANDS if name
    }


def test_help_is_fast() -> None:
    """Against the imports that it cannot do without: seconds alone say more of the machine."""

    def seconds(*arguments: str) -> float:
        """Processor time, which a busy machine does not stretch."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    took = [(seconds("-m", "vpo_kit", "--help"), seconds("-c", "import typer, rich")) for _ in range(4)]
    ours, bare = (min(column) for column in zip(*took, strict=True))
    assert ours < 2 * bare


def test_no_pickle() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                assert not {"pickle", "dill", "joblib"} & set(names), path
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords), path


APART = {"project", "support", "data"}
"""Folders of the tests that mirror none: what is of the whole project, what tests share, and files they read."""
OWN_NAMES = {
    "pages/test_contrast.py",  # the stylesheet's colours
    "pages/test_in_a_browser.py",  # all pages
    "test_architecture.py",  # the two trees themselves
    "models/test_adapters.py",  # every family at once, each beside diffusers' own pipeline
}


def test_tests_mirror_the_package() -> None:
    """``tests/rewards/test_vqa.py`` is of ``rewards/vqa.py``, or of a package of that name; or it has its folder's."""
    apart = set()
    for path in TESTS.rglob("test_*.py"):
        place, name = path.relative_to(TESTS), path.stem.removeprefix("test_")
        if place.parts[0] in APART:
            continue
        folder = PACKAGE / place.parent
        assert folder.is_dir(), f"{place}: there is no vpo_kit/{place.parent}"
        if name != folder.name and not (folder / f"{name}.py").is_file() and not (folder / name).is_dir():
            apart.add(place.as_posix())
    assert apart == OWN_NAMES
    assert {path.name for path in TESTS.iterdir() if path.is_dir() and "__" not in path.name} >= APART


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_imports_a_test(path: Path) -> None:
    found = {name for name in imports(path, "tests") if any(part.startswith("test_") for part in name.split("."))}
    assert not found, "what several tests need is in tests/support"
