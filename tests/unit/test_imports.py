"""Who may import whom (read from the source), and what a bare import or ``--help`` loads (in a fresh interpreter)."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parent.parent.parent / "hpcreco"
SOURCES = sorted(path for path in PACKAGE.rglob("*.py"))

#: the only modules that may name these packages, and only inside functions
ENGINES = {
    "horovod": {"hpcreco.parallel.horovod"},
    "MinkowskiEngine": {"hpcreco.sparse.minkowski"},
    "mpi4py": {"hpcreco.collective.mpi", "hpcreco.collective.start"},
}
#: the modules that hold Triton kernels, and what launches them: they need triton when they are imported
KERNELS = {
    "hpcreco.sparse.gpu.kernels",
    "hpcreco.sparse.gpu.launch",
    "hpcreco.nn.gpu_kernels",
    "hpcreco.nn.gpu_rows",
}
#: what each of these may import of ours; everything else in the package is free of such a list
FOUNDATIONS = {
    "hpcreco.world": set(),
    "hpcreco.config": set(),
    "hpcreco.shards": set(),
    "hpcreco.collective": {"hpcreco.world"},
    "hpcreco.attempts": set(),
    "hpcreco.filewise": {
        "hpcreco.world",
        "hpcreco.config",
        "hpcreco.shards",
        "hpcreco.collective",
        "hpcreco.attempts",
    },
}
HEAVY = ("torch", "numba", "h5py", "matplotlib")
#: parts of an experiment that need torch; everything else there runs on CPU nodes and laptops without it
WITH_TORCH = {
    "task",
    "model",
    "dataset",
    "sparse",
    "networks",
    "sources",
    "observe",
    "trafo",
    "hypothesis",
    "components",
    "losses",
    "likelihood",
    "rates",
    "reconstruct",
    "objective",
    "scaling",
}


class Import(NamedTuple):
    """``importer`` imports ``imported``; ``at_start``: when it is imported itself."""

    importer: str
    imported: str
    at_start: bool
    line: int


def module_name(path: Path) -> str:
    """Dotted name of a source file of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def imports_of(name: str) -> Iterator[Import]:
    """Every import statement of a module; ``from a import b`` counts as a.b where that is a module."""
    tree = ast.parse(MODULES[name].read_text())
    deferred = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        or is_type_checking(function)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = resolve(name, node)
            targets = [
                f"{origin}.{alias.name}" if f"{origin}.{alias.name}" in MODULES else origin
                for alias in node.names
            ]
        for target in targets:
            yield Import(name, target, id(node) not in deferred, node.lineno)


def is_type_checking(node: ast.AST) -> bool:
    """``if TYPE_CHECKING:`` runs for type checkers only."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def resolve(name: str, node: ast.ImportFrom) -> str:
    """The absolute module of ``from .x import y``."""
    if node.level == 0:
        return node.module or ""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    for _ in range(node.level - 1):
        package = package.rpartition(".")[0]
    return f"{package}.{node.module}" if node.module else package


def within(name: str, parent: str) -> bool:
    """Whether ``name`` is ``parent`` or lies in it."""
    return name == parent or name.startswith(parent + ".")


ALL = [found for name in MODULES for found in imports_of(name)]


def told(found: list[Import]) -> str:
    return "\n".join(f"{MODULES[i.importer]}:{i.line}: {i.importer} imports {i.imported}" for i in found)


def test_the_walk_sees_imports():
    """Guards the tests below: a walk that finds nothing would let everything pass."""
    assert any(i.imported == "rich.console" and not i.at_start for i in ALL)
    assert any(i.imported == "hpcreco.world" and i.at_start for i in ALL)
    assert len(MODULES) > 10


@pytest.mark.parametrize("foundation", FOUNDATIONS)
def test_foundations_import_only_what_lies_below(foundation):
    allowed = FOUNDATIONS[foundation] | {foundation}
    wrong = [
        i
        for i in ALL
        if within(i.importer, foundation)
        and within(i.imported, "hpcreco")
        and i.imported != "hpcreco"  # __version__
        and not any(within(i.imported, a) for a in allowed)
    ]
    assert not wrong, told(wrong)


def test_core_never_imports_an_experiment():
    wrong = [
        i
        for i in ALL
        if not within(i.importer, "hpcreco.experiments") and within(i.imported, "hpcreco.experiments")
    ]
    assert not wrong, told(wrong)


def test_experiments_never_import_each_other():
    def experiment(name: str) -> str:
        return name.split(".")[2] if name.count(".") >= 2 else ""

    wrong = [
        i
        for i in ALL
        if within(i.importer, "hpcreco.experiments")
        and within(i.imported, "hpcreco.experiments")
        and experiment(i.importer) != experiment(i.imported)
    ]
    assert not wrong, told(wrong)


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_are_imported_in_one_place_and_on_demand(engine):
    wrong = [
        i for i in ALL if within(i.imported, engine) and (i.importer not in ENGINES[engine] or i.at_start)
    ]
    assert not wrong, told(wrong)


def test_triton_is_imported_on_demand():
    """Where it is missing, GPUs use torch operations and CPUs need nothing of it."""
    needs_triton = [i for i in ALL if within(i.imported, "triton") or i.imported in KERNELS]
    wrong = [i for i in needs_triton if i.at_start and i.importer not in KERNELS]
    assert not wrong, told(wrong)
    assert any(within(i.imported, "triton") and i.at_start for i in ALL)


def test_relative_imports_stay_in_their_package():
    """``from ..x`` hides which layer is reached; the rules above read absolute names."""
    wrong = [
        f"{path}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level > 1
    ]
    assert not wrong, "\n".join(wrong)


def loaded_by(program: str) -> set[str]:
    """Top-level modules that are loaded after a program ran in a fresh interpreter."""
    code = f"import sys\n{program}\nprint('LOADED', *sorted(m.split('.')[0] for m in sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=400, check=False
    )
    assert run.returncode == 0, run.stderr
    return set(run.stdout.rpartition("LOADED")[2].split())


HELP = """
import hpcreco.cli
try: hpcreco.cli.main({arguments})
except SystemExit as end: assert end.code in (0, None), end.code
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["doctor", "--help"], ["train", "--help"], ["simulate", "--help"]]
)
def test_help_loads_nothing_heavy(arguments):
    if arguments[0] == "simulate":
        arguments = ["simulate", "protodune", "--help"]
    heavy = loaded_by(HELP.format(arguments=arguments)) & set(HEAVY)
    allowed = set() if arguments == ["--help"] else {"numba", "h5py"}
    assert heavy <= allowed, f"hpcreco {' '.join(arguments)} loads {heavy}"


def test_import_loads_nothing_heavy():
    assert not loaded_by("import hpcreco") & {*HEAVY, *ENGINES}


def torch_free() -> list[str]:
    """Modules of experiments that must run where torch is not: all but those named for the network side."""
    return [
        name
        for name in MODULES
        if within(name, "hpcreco.experiments") and not WITH_TORCH & set(name.split("."))
    ]


def test_experiments_load_without_torch():
    """One interpreter imports them all, with torch and the optional engines made unimportable."""
    blocked = ("torch", *ENGINES, "tensorboard", "torch_geometric", "triton")
    program = f"for m in {blocked!r}: sys.modules[m] = None\nimport importlib\n" + "\n".join(
        f"importlib.import_module({name!r})" for name in torch_free()
    )
    assert "hpcreco" in loaded_by(program)


def test_command_line_works_without_optional_packages():
    """``config list`` does its job with no engine, no MPI and no tensorboard to import."""
    blocked = (*ENGINES, "tensorboard", "torch_geometric", "triton")
    program = f"for m in {blocked!r}: sys.modules[m] = None\n" + HELP.format(arguments=["config", "list"])
    assert "hpcreco" in loaded_by(program)


def declared() -> str:
    return (PACKAGE.parent / "pyproject.toml").read_text()


#: import name -> distribution, where they differ
DISTRIBUTIONS = {
    "yaml": "pyyaml",
    "llvmlite": "numba",
    "MinkowskiEngine": None,
    "torch_geometric": None,
    "horovod": None,
    "pynvml": None,
}


def test_every_package_imported_is_declared():
    """A package that happens to be installed here would be missing elsewhere."""
    imported = {i.imported.split(".")[0] for i in ALL} - set(sys.stdlib_module_names) - {"hpcreco"}
    names = {DISTRIBUTIONS.get(name, name) for name in imported} - {None}
    missing = [n for n in names if not re.search(rf'^\s*"?.*"{re.escape(n)}\b', declared(), re.M | re.I)]
    assert not missing, f"imported but not in pyproject.toml: {missing}"


def test_every_declared_package_is_locked():
    """tools/requirements.lock must pin all that pyproject.toml asks for, or a set-up differs from day to day."""
    lock = (PACKAGE.parent / "tools" / "requirements.lock").read_text().lower()
    asked = set(re.findall(r'"([A-Za-z][\w.-]*)(?:[<>=~!][^"]*)"', declared())) - {"hpcreco"}
    loose = [name for name in asked if not re.search(rf"^{re.escape(name.lower())}==", lock, re.M)]
    assert asked, "no requirement found in pyproject.toml"
    assert not loose, f"in pyproject.toml but not pinned in tools/requirements.lock: {loose}"
