"""The code generator, without torch: every node has an emitter, sources are copied whole, the text is well-formed."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from prunelang.api import compile
from prunelang.compiler import schedule
from prunelang.compiler.codegen import Array, ArrayData, DataSource, Emitted, IdxData, Symbol, emit
from prunelang.compiler.codegen.expressions import literal, source
from prunelang.compiler.codegen.inline import Inliner
from prunelang.compiler.codegen.program import identifier, pick
from prunelang.compiler.codegen.sources import safetensors
from prunelang.compiler.codegen.states import emit_state
from prunelang.compiler.codegen.steps import emit_step
from prunelang.compiler.codegen.writer import Group, Writer
from prunelang.compiler.graph import State, Step
from prunelang.compiler.schedule import Apply, Clock, Ramp, Schedule, Steps, constant
from tests import shape_tables
from tests.golden_support import GOLDEN, golden

__all__ = ["golden"]

HEAD = "model net = lenet_300_100()\ndata mnist(batch = 256)\nminimize cross_entropy(net)\nsubject to\n"
LC = """
pretrain with sgd(lr = 0.1 * 0.95^epoch, momentum = 0.9) for 20 epochs
solve lc(μ = 9e-5 * 1.1^k, steps = 40)
      with sgd(lr = 0.1 * 0.98^k, momentum = 0.9, nesterov = true) for 20 epochs
finetune with sgd(lr = 0.02 * 0.99^epoch, momentum = 0.9) for 20 epochs
report accuracy(net)
"""
SPECS = {
    "lc": "# Pruning to 5 % of the weights.\n" + HEAD + "    sparsity: ‖net.weights‖₀ ≤ 5%\n" + LC,
    "ista": HEAD
    + "    ∀ l ∈ net.layers: ‖l.weights‖₀ ≤ 10%\n"
    + "solve ista() with sgd(lr = ramp(0.1, 1e-3, 0, 1, shape = cosine), momentum = 0.9) for 30 epochs\n"
    + "finetune with sgd(lr = 0.01) for 1000 steps\n",
    "weighted": HEAD + "    size: bytes(net) ≤ 40 KB\n    compute: sparse_macs(net) ≤ 20%\n" + LC,
    "gda": HEAD
    + '    sparsity: ‖net.weights‖₀ ≤ 5%\n    compute: ‖net["fc1"].weights‖₀ ≤ 3%\n'
    + "solve gda() with adam(lr = 1e-3 * 0.95^epoch) for 30 epochs\nfinetune with sgd(lr = 0.01) for 1000 steps\n",
    "ball": HEAD + "    ball: ‖net.weights‖₁ ≤ 100\n" + LC,
    "groups": HEAD + '    rows: group_norm0(net["fc1", "fc2"].weights, by = row) ≤ 200\n' + LC,
}
MNIST = IdxData("mnist", center=True)
NETWORK = Symbol("prunelang.runtime.zoo.lenet", "lenet_300_100")


def emitted(text: str, network: Symbol = NETWORK, data: DataSource = MNIST) -> Emitted:
    program = compile(text, shapes=shape_tables.lenet_300_100())
    return emit(program.graph, program.plan, network=network, data=data)


# ── every node ───────────────────────────────────────────────────────────────────────────────────────────────────


def nodes(base: type) -> list[type]:
    """Every kind of state, or of step, of the graph, in whatever file it is."""
    found = [c for kind in base.__subclasses__() for c in (kind, *nodes(kind))]
    return sorted({c for c in found if c.__module__.startswith("prunelang.compiler.graph.")}, key=lambda c: c.__name__)


PLAYED = ("Allocate", "AscendBudgets", "AscendResidual")  # moves of a `Saddle`, which makes them together


@pytest.mark.parametrize("kind", nodes(State))
def test_every_state_has_an_emitter(kind: type) -> None:
    assert emit_state.dispatch(kind) is not emit_state.dispatch(object)


@pytest.mark.parametrize("kind", [kind for kind in nodes(Step) if kind.__name__ not in PLAYED])
def test_every_step_has_an_emitter(kind: type) -> None:
    assert emit_step.dispatch(kind) is not emit_step.dispatch(object)


def test_a_new_step_without_an_emitter_is_refused() -> None:
    class Novel(Step):
        def line(self) -> str:
            return "novel"

    assert emit_step.dispatch(Novel) is emit_step.dispatch(object)
    with pytest.raises(TypeError, match="no emitter for Novel"):
        emit_step(Novel(), None)  # type: ignore[arg-type]


# ── the text ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["lc", "ista", "gda"])
def test_the_program_reads_as_expected(name: str, golden: Callable[[Path, str], None]) -> None:
    """The main function; what is copied below it has tests of its own and is named only."""
    program, *parts = emitted(SPECS[name]).script.split("\n\n\n# ── from ")
    main = program[program.index("def main()") :]
    modules = [part.partition(" ")[0] for part in parts]
    golden(GOLDEN / "emitted" / f"{name}.txt", main + "\n\n\n# Copied from\n#     " + "\n#     ".join(modules) + "\n")


@pytest.mark.parametrize("name", SPECS)
def test_ruff_has_nothing_to_say(name: str) -> None:
    require_tidy(emitted(SPECS[name]).script)


def require_tidy(script: str) -> None:
    if importlib.util.find_spec("ruff") is None:
        pytest.skip("ruff is not installed")
    for command in (["check"], ["format", "--check", "--diff", "--line-length", "120"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--isolated", "--stdin-filename", "train.py", "-"],
            input=script,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SPECS)
def test_nothing_of_prunelang_is_imported(name: str) -> None:
    tree = ast.parse(emitted(SPECS[name]).script)
    modules = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    modules |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    outside = {m.partition(".")[0] for m in modules} - sys.stdlib_module_names
    assert outside <= {"torch", "numpy"}
    if name in ("lc", "ista", "gda"):
        assert outside == {"torch"}


def test_a_spiking_script_needs_spikingjelly_and_says_so() -> None:
    head = HEAD.replace("lenet_300_100()", "snn_mlp([784, 500, 10])")
    program = compile(head + "    all: ‖net.weights‖₀ ≤ 5%\n" + LC, shapes=shape_tables.snn_mlp())
    network = Symbol("prunelang.runtime.zoo.spiking", "snn_mlp")
    script = emit(program.graph, program.plan, network=network, data=MNIST).script
    assert "# Needs torch and spikingjelly, and nothing else" in script
    assert "from spikingjelly.activation_based import" in script
    assert "at_rest(" not in script, "what comes from the zoo keeps no state"
    require_tidy(script)
    assert "# Needs torch, and nothing else" in emitted(SPECS["lc"]).script


def test_only_operators_in_use_are_copied() -> None:
    assert "JointProjection" not in emitted(SPECS["lc"]).script
    assert "JointProjection" in emitted(SPECS["weighted"]).script
    assert "L1Ball" not in emitted(SPECS["lc"]).script
    assert "L1Ball" in emitted(SPECS["ball"]).script
    assert "soft_" not in emitted(SPECS["lc"]).script


def test_the_same_program_gives_the_same_text() -> None:
    assert emitted(SPECS["weighted"]) == emitted(SPECS["weighted"])


def test_the_header_holds_the_spec_and_lines_point_to_it() -> None:
    script = emitted(SPECS["lc"]).script
    header = script.partition("from __future__")[0]
    for line in SPECS["lc"].strip().splitlines():
        assert f"#     {line}".rstrip() in header
    assert "    # spec line 9: solve lc(μ = 9e-5 * 1.1^k, steps = 40)" in script
    assert "# spec line 6: sparsity: ‖net.weights‖₀ ≤ 5%" in script


def test_a_network_of_the_user_is_imported_by_name() -> None:
    script = emitted(SPECS["lc"], network=Symbol("my_models", "tiny")).script
    assert "from my_models import tiny" in script
    assert "# The network is tiny of the module my_models, which must be importable." in script
    assert "class LeNet300100" not in script


def test_other_data_lie_in_a_file_beside_the_script() -> None:
    arrays = {"x_train": Array("F32", (2, 1), b"\0" * 8), "y_train": Array("I64", (2,), b"\0" * 16)}
    got = emitted(SPECS["lc"], data=ArrayData("mine", arrays))
    assert list(got.sidecar) == ["mine.safetensors"]
    assert 'Path(__file__).with_name("mine.safetensors")' in got.script


# ── expressions ──────────────────────────────────────────────────────────────────────────────────────────────────

K, EPOCH, P = Clock("k"), Clock("epoch"), Clock("p")
SCHEDULES = [
    (Apply("*", (constant("9e-5"), Apply("^", (constant("1.1"), K)))), "9e-05 * 1.1**k"),
    (Apply("^", (Apply("+", (K, constant(1))), constant(2))), "(k + 1.0) ** 2.0"),
    (Apply("-", (constant(1), Apply("-", (K, EPOCH)))), "1.0 - (k - epoch)"),
    (Apply("/", (Apply("*", (K, EPOCH)), constant(3))), "k * epoch / 3.0"),
    (Apply("*", (K, Apply("/", (EPOCH, constant(3))))), "k * (epoch / 3.0)"),
    (Apply("neg", (Apply("^", (K, constant("0.5"))),)), "-k**0.5"),
    (Apply("cos", (Apply("*", (Apply("pi", ()), P)),)), "float(math.cos(math.pi * p))"),
    (Apply("max", (K, constant(2))), "max(k, 2.0)"),
    (Ramp(constant(1), constant(0), constant(2), constant(5), "epochs"), 'ramp(epoch, 1.0, 0.0, 2.0, 5.0, "linear")'),
    (Steps(constant(1), ((constant("0.5"), K),)), "k if p >= 0.5 else 1.0"),
]


@pytest.mark.parametrize(("expression", "text"), SCHEDULES)
def test_expressions_are_short_and_compute_the_same(expression: Schedule, text: str) -> None:
    assert source(expression) == text
    exact = ast.parse(schedule.python(expression), mode="eval")
    assert ast.dump(ast.parse(text, mode="eval")) == ast.dump(exact)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((784, 300), "(784, 300)"),
        ((3,), "(3,)"),
        (True, "True"),
        (None, "None"),
        ("relu", '"relu"'),
        ('a "b"', "'a \"b\"'"),
        (Fraction(1, 10), "0.1"),
        (Fraction(3), "3"),
        ({"fc1.weight": 2}, '{"fc1.weight": 2}'),
    ],
)
def test_plain_values(value: object, text: str) -> None:
    assert literal(value) == text


@pytest.mark.parametrize(
    ("state", "variable"), [("θ_1", "θ_1"), ("µ", "μ"), ("data", "data_"), ("O_solve", "O_solve"), ("a b", "_a_b")]
)
def test_states_become_identifiers(state: str, variable: str) -> None:
    assert identifier(state) == variable


def test_views_of_states() -> None:
    names = ("a", "b", "c", "d")
    assert pick("W", names, names) == "W"
    assert pick("W", names, ("b", "c")) == "W[1:3]"
    assert pick("W", names, ("a",)) == "W[:1]"
    assert pick("W", names, ("c", "d")) == "W[2:]"
    assert pick("W", names, ("c", "a")) == "[W[2], W[0]]"


def test_long_statements_are_laid_out() -> None:
    w = Writer(1)
    inner = Group("Bound(", ('"name"', Group("{", tuple(f'"tensor_{i}.weight": {i}' for i in range(8)), "}")))
    w.call("bounds = [", [inner, "last"], "]")
    assert w.lines[:3] == ["    bounds = [", "        Bound(", '            "name",']
    assert w.lines[-3:] == ["        ),", "        last,", "    ]"]


def test_short_calls_stay_on_one_line() -> None:
    w = Writer()
    w.call("f(", ["a", Group("(", ("1",))])
    w.call("function(", ["argument_number_one" * 2, "argument_number_two" * 2, "x" * 34])
    assert w.lines[0] == "f(a, (1,))"
    inner = ", ".join(["argument_number_one" * 2, "argument_number_two" * 2, "x" * 34])
    assert w.lines[1:] == ["function(", f"    {inner}", ")"]


# ── copying ──────────────────────────────────────────────────────────────────────────────────────────────────────


def names_of(text: str) -> set[str]:
    return {n.name for n in ast.parse(text).body if isinstance(n, ast.FunctionDef | ast.ClassDef)}


def copied(inliner: Inliner) -> str:
    return "\n\n\n".join(text for _, text in inliner.sections())


def test_a_function_comes_with_everything_it_needs_and_nothing_else() -> None:
    inliner = Inliner()
    assert inliner.use("prunelang.runtime.kernels", "anchored") == "anchored"
    assert names_of(copied(inliner)) == {"anchored", "s_lats", "clipped"}
    assert inliner.imports() == "import math\nfrom collections.abc import Callable"


def test_names_are_followed_through_packages() -> None:
    inliner = Inliner()
    inliner.use("prunelang.runtime.data", "Split")
    assert {"Split", "DataUnavailable"} <= names_of(copied(inliner))


def test_one_name_for_two_things_is_told_apart() -> None:
    inliner = Inliner(frozenset({"s_lats"}))
    assert inliner.use("prunelang.runtime.kernels", "s_lats") == "s_lats_thresholds", "after where it is defined"
    inliner.use("prunelang.runtime.kernels", "anchored")
    text = copied(inliner)
    assert "def s_lats_thresholds(x: float)" in text
    assert "shape: Shape = s_lats_thresholds)" in text


def test_what_works_in_place_keeps_its_underscore() -> None:
    inliner = Inliner()
    inliner.use("prunelang.runtime.kernels", "soft_")
    assert inliner.use("prunelang.runtime.prox.l1_penalty", "soft_") == "soft_l1_penalty_"


def test_registration_has_no_place_in_a_script() -> None:
    inliner = Inliner()
    inliner.use("prunelang.runtime.prox.l1_ball", "L1Ball")
    text = copied(inliner)
    assert "@register" not in text
    assert "@dataclass(frozen=True)\nclass L1Ball" in text


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(LookupError, match="defines no nothing_"):
        Inliner().use("prunelang.runtime.kernels", "nothing_")


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_arrays_are_packed_as_safetensors() -> None:
    raw = safetensors({"a": Array("F32", (1, 2), b"12345678"), "b": Array("U8", (3,), b"xyz")})
    size = int.from_bytes(raw[:8], "little")
    assert size % 8 == 0
    header = json.loads(raw[8 : 8 + size])
    assert header["a"] == {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}
    assert raw[8 + size :] == b"12345678xyz"
    assert header["b"]["data_offsets"] == [8, 11]


def test_arrays_have_the_bytes_of_their_shape() -> None:
    with pytest.raises(ValueError, match="8 bytes are not F32 of shape"):
        safetensors({"a": Array("F32", (3,), b"12345678")})
