"""The tree itself: layout, links, version, package data, file sizes, and what importing the lower layers costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("dsl", "compiler", "runtime")
SOURCES = sorted(
    path
    for folder in (*LAYERS, "prunelang")
    for path in (ROOT / folder).rglob("*.py")
    if not any(parent.is_symlink() for parent in path.parents)  # prunelang/dsl and dsl are the same files
)
WRITTEN = ("*.py", "*.md", "*.toml", "*.lock", "*.yml", "*.yaml", "*.prune", "*.lark", "*.json", "*.txt", "*.html")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def project_names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9-]", requirement, maxsplit=1)[0].lower() for requirement in requirements}


def written() -> list[Path]:
    """Every text of the project, without environments, build outputs and run directories."""
    folders = (*LAYERS, "prunelang", "specs", "tests", "benchmarks", "docs", "tools", ".ci", ".github")
    found = [p for pattern in WRITTEN for folder in folders for p in (ROOT / folder).rglob(pattern)]
    found += [p for p in ROOT.iterdir() if p.is_file() and (p.name == "Makefile" or any(map(p.match, WRITTEN)))]
    return [*found, ROOT / ".ci" / "run"]


# ── layout ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_is_linked_into_the_package(layer: str) -> None:
    link = ROOT / "prunelang" / layer
    assert link.is_symlink()
    assert link.readlink() == Path("..") / layer


def test_every_folder_of_code_is_a_package() -> None:
    """A folder without ``__init__.py`` would be importable from a checkout and missing from the wheel."""
    assert not [relative(f) for f in {p.parent for p in SOURCES} if not (f / "__init__.py").is_file()]


def test_the_grammar_is_package_data() -> None:
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["*"]
    assert (ROOT / "dsl" / "grammar.lark").is_file()
    assert "*.lark" in patterns
    assert (ROOT / "prunelang" / "py.typed").is_file()
    assert "py.typed" in patterns


def test_every_data_file_of_the_package_is_declared() -> None:
    package_data = PYPROJECT["tool"]["setuptools"]["package-data"]
    undeclared = [
        relative(path)
        for folder in (*LAYERS, "prunelang")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"} and not any(p.is_symlink() for p in path.parents)
        if not any(path.match(pattern) for patterns in package_data.values() for pattern in patterns)
    ]
    assert not undeclared


# ── versions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_version_is_written_once() -> None:
    literal = re.compile(r"^__version__\s*(:.*)?=\s*[\"']", re.MULTILINE)
    written_again = [relative(p) for p in SOURCES if literal.search(p.read_text(encoding="utf-8"))]
    assert not written_again, "take it from importlib.metadata"


def test_the_changelog_speaks_of_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {PYPROJECT['project']['version']}" in changelog


def test_the_installed_version_is_this_one() -> None:
    try:
        installed = version("prunelang")
    except PackageNotFoundError:
        pytest.skip("runs from a checkout that is not installed")
    assert installed == PYPROJECT["project"]["version"]


def test_every_requirement_is_pinned_once() -> None:
    pins = [line for line in LOCK.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+(\.post[0-9]+)?", pin) for pin in pins)
    names = [pin.partition("==")[0] for pin in pins]
    assert len(names) == len(set(names))


def test_what_is_declared_is_locked() -> None:
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    locked = set(re.findall(r"^([a-z0-9-]+)==", LOCK, re.MULTILINE))
    chosen = ("snn", "bench", "report", "integrations", "test", "dev")
    declared = [*project["dependencies"], *(name for extra in chosen for name in extras[extra])]
    assert project_names(declared) <= locked | {"pre-commit", "prunelang"}


# ── texts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_is_read_in_one_sitting(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 450
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "say what the module is for"


def test_no_text_names_a_folder_of_one_machine() -> None:
    machine = re.compile(r"(?<![\w.])/(?:work|root|opt/(?:wheels|pypi))\b/")
    assert not [relative(p) for p in written() if machine.search(p.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_a_page_about_the_code_names_files_that_exist(page: str) -> None:
    quoted = re.findall(
        r"`((?:dsl|compiler|runtime|prunelang|specs|tests|tools|docs|benchmarks)/[\w./-]*)`",
        (ROOT / page).read_text("utf-8"),
    )
    assert len(quoted) >= 5
    assert not [name for name in quoted if "NAME" not in name and not (ROOT / name).exists()]


# ── imports ─────────────────────────────────────────────────────────────────────────────────────────────


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    inside = parts if parts[0] == "prunelang" else ("prunelang", *parts)
    return ".".join(inside[:-1] if inside[-1] == "__init__" else inside)


def imported_at_once(path: Path, modules: set[str]) -> set[str]:
    """The modules of ours that importing this file imports: not those inside functions or under TYPE_CHECKING."""
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        match node:
            case ast.Import():
                names |= {alias.name for alias in node.names}
            case ast.ImportFrom(module=str(origin)):
                inner = {f"{origin}.{alias.name}" for alias in node.names}
                names |= inner if inner <= modules else inner | {origin}
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.If(test=ast.Name(id="TYPE_CHECKING")):
                continue
        waiting.extend(ast.iter_child_nodes(node))
    return names & modules


def third_parties(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"prunelang"}


def test_what_is_imported_is_declared_and_the_other_way_round() -> None:
    distribution = {"sklearn": "scikit-learn"}
    imported = {distribution.get(name, name) for path in SOURCES for name in third_parties(path)}
    needed = project_names(PYPROJECT["project"]["dependencies"])
    optional = PYPROJECT["project"]["optional-dependencies"]
    extras = project_names([*optional["snn"], *optional["report"], *optional["tensorboard"]])
    assert imported <= needed | extras
    assert needed <= imported


def test_no_import_cycles() -> None:
    """With a cycle, whether a module can be imported depends on which was imported before it."""
    by_name = {module_name(path): path for path in SOURCES}
    imports = {name: imported_at_once(path, set(by_name)) - {name} for name, path in by_name.items()}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(reversed(error.args[1])), pytrace=False)


def test_checking_loads_neither_torch_nor_sympy() -> None:
    """`check`, `fmt` and the editor start in a fraction of a second: no module of dsl or compiler loads either."""
    program = """
import importlib, pkgutil, sys
for layer in ("prunelang.dsl", "prunelang.compiler"):
    for module in pkgutil.walk_packages(importlib.import_module(layer).__path__, layer + "."):
        importlib.import_module(module.name)
print(*sorted({"torch", "sympy", "sklearn", "scipy"} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []
