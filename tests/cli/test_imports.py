"""What the commands load: torch where something is trained or traced, and nowhere else."""

from __future__ import annotations

import os

import pytest

from prunelang.compiler import catalog, shape_cache
from tests.cli.conftest import ROOT, Done, Prune
from tests.shape_tables import resnet50

RESNET50 = ROOT / "tests" / "data" / "resnet50.shapes.json"
SPEC = """\
model net = resnet50()
data  tensors("imagenet.safetensors")
minimize   cross_entropy(net)
subject to
    sparsity: ‖net.weights‖₀ ≤ 5%
    compute:  sparse_macs(net) ≤ 30%
solve lc(steps = 40) with sgd(lr = 0.01) for 1 epochs
"""

WATCHED = """
import atexit, sys
heavy = {"torch", "sympy", "sklearn", "scipy", "rich", "numpy", "safetensors", "typer"}
atexit.register(lambda: print("loaded:", *sorted(heavy & set(sys.modules)), file=sys.stderr))
from prunelang.cli import main
main()
"""
BLOCKED = """
import sys
sys.modules["torch"] = None  # importing it raises ImportError
from prunelang.cli import main
main()
"""


def loaded(prune: Prune, *words: object, **more: str) -> tuple[int, list[str]]:
    """The exit code of a command, and the heavy packages that it loaded."""
    run = prune.python("-c", WATCHED, *words, **more)
    return run.returncode, run.stderr.splitlines()[-1].removeprefix("loaded:").split()


def test_the_package_loads_nothing(prune: Prune) -> None:
    """`import prunelang` is what every embedding program pays."""
    code = """
import sys
before = set(sys.modules)
import prunelang
own = {name for name in set(sys.modules) - before if name.startswith("prunelang")}
print(*sorted(own), "importlib.metadata" in sys.modules)
print(sorted(set(prunelang.__all__) - set(dir(prunelang))))
prunelang.compile, prunelang.Program, prunelang.SpecError, prunelang.register.model, prunelang.__version__
print("torch" in sys.modules)
"""
    run = prune.python("-c", code)
    assert run.stdout.splitlines() == ["prunelang False", "[]", "False"]


def test_a_name_that_the_package_has_not() -> None:
    import prunelang

    with pytest.raises(AttributeError, match="no attribute 'solve'"):
        _ = prunelang.solve


@pytest.mark.parametrize(
    "words",
    [
        ("check", "spec.prune", "--shapes", RESNET50),
        ("check", "spec.prune", "--shapes", RESNET50, "--format", "json"),
        ("explain", "spec.prune", "--shapes", RESNET50, "--stage", "solver"),
        ("explain", "P310"),
        ("fmt", "--check", "spec.prune"),
        ("init", "new.prune"),
        ("--help",),
    ],
    ids=lambda words: words[0] if isinstance(words, tuple) else "",
)
def test_commands_that_load_nothing_heavy(words: tuple[object, ...], prune: Prune) -> None:
    prune.write("spec.prune", SPEC)
    assert loaded(prune, *words) == (0, [])


def test_the_cache_of_shapes_saves_torch(prune: Prune) -> None:
    """The first check of a network traces it; the next reads what that wrote."""
    cache = str(prune.folder / "cache")
    code, first = loaded(prune, "check", "tiny.prune", PRUNELANG_CACHE=cache)
    assert (code, "torch" in first) == (0, True)
    assert loaded(prune, "check", "tiny.prune", PRUNELANG_CACHE=cache) == (0, [])


def test_a_large_network_from_the_cache(prune: Prune, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNELANG_CACHE", str(prune.folder / "cache"))
    facts, table = catalog.MODELS["resnet50"], resnet50()
    assert facts.source is not None
    shape_cache.write(shape_cache.key(table.model, (3, 224, 224), (facts.source, *catalog.TRACERS)), table)
    prune.write("spec.prune", SPEC)
    assert loaded(prune, "check", "spec.prune", PRUNELANG_CACHE=os.environ["PRUNELANG_CACHE"]) == (0, [])


@pytest.mark.parametrize(
    "words",
    [
        ("verify", "runs/tiny"),
        ("report", "runs/tiny"),
        ("export", "runs/tiny", "-o", "exported.safetensors"),
        ("verify", "runs/tiny/weights.safetensors", "--spec", "tiny.prune", "--shapes", "runs/tiny/shapes.json"),
    ],
    ids=lambda words: words[0] if isinstance(words, tuple) else "",
)
def test_commands_that_work_where_torch_is_not_installed(words: tuple[str, ...], done: Done) -> None:
    run = done.prune.python("-c", BLOCKED, *words)
    assert run.returncode == 0, run.stderr


def test_running_says_what_it_needs_where_torch_is_not_installed(prune: Prune) -> None:
    run = prune.python("-c", BLOCKED, "run", "lenet.prune", "--shapes", "shapes.json")
    assert (run.returncode, run.stdout) == (2, "")
    assert "needs torch, which is not installed" in run.stderr
