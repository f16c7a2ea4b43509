"""`emit`: a graph as one standalone script of torch.

The script makes the calls that the executor makes, in the same order, through the same functions: their source is
copied into it. So the two end at the same weights, bit for bit, on the same machine with the same number of threads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from prunelang.compiler.codegen import factors, feasible, judging
from prunelang.compiler.codegen.expressions import literal, quoted
from prunelang.compiler.codegen.inline import Inliner
from prunelang.compiler.codegen.options import Option, Options
from prunelang.compiler.codegen.program import LOCALS, METRICS, STANDALONE, Program, identifier, splits_read
from prunelang.compiler.codegen.sources import ArrayData, DataSource, DType, Emitted, IdxData, Symbol, safetensors
from prunelang.compiler.codegen.states import emit_state
from prunelang.compiler.codegen.steps import emit_program
from prunelang.compiler.codegen.writer import WIDTH, Writer, kept
from prunelang.compiler.graph import (
    Calibrate,
    Factor,
    Graph,
    Hit,
    Project,
    Reproject,
    Rest,
    Split,
    Tighten,
    Weights,
    walk,
)
from prunelang.compiler.graph.calibration import SAMPLES, SPLIT
from prunelang.compiler.measured import CERTIFY, SELECT, certified_on
from prunelang.compiler.plan import ModelPlan, Plan, TeacherPlan
from prunelang.compiler.problem import Interval, Measured
from prunelang.compiler.synops import MEASURED as ACTIVITY
from prunelang.dsl.names import to_unicode

NOTHING: Mapping[str, Symbol] = MappingProxyType({})
NONE = Options()
STATISTICS = "prunelang.runtime.statistics"


def emit(
    graph: Graph,
    plan: Plan,
    *,
    network: Symbol,
    data: DataSource,
    seed: int = 0,
    dtype: DType = "float32",
    teachers: Mapping[str, Symbol] = NOTHING,
    losses: Mapping[str, Symbol] = NOTHING,
    spiking: frozenset[str] = frozenset(),
    options: Options = NONE,
    chain: object = None,
) -> Emitted:
    """The script of a graph, and the files that belong beside it.

    `network` and `teachers` are constructors, `losses` the registered losses that the graph names. Those of prunelang
    are copied into the script; a user's own are imported by the name of their module. `spiking` names the teachers that
    are spiking networks. `options` are the params that the script takes as options. `chain` is the network as a chain
    of layers (plain data), where the graph splits it into them.
    """
    return _Script(graph, plan, network, data, seed, dtype, teachers, losses, spiking, options, chain).emitted()


@dataclass
class _Script:
    graph: Graph
    plan: Plan
    network: Symbol
    data: DataSource
    seed: int
    dtype: DType
    teachers: Mapping[str, Symbol]
    losses: Mapping[str, Symbol]
    spiking: frozenset[str]
    options: Options
    chain: object
    program: Program = field(init=False)

    def __post_init__(self) -> None:
        states = {identifier(s.name) for s in self.graph.state}
        inliner = Inliner(
            LOCALS | states | {"main", "arguments", "DTYPE"}, factors.absent(self.graph) | feasible.absent(self.graph)
        )
        inliner.external("torch")
        inliner.external("argparse")
        inliner.external("pathlib", "Path")
        self.program = Program(
            self.graph,
            self.plan,
            inliner,
            self.losses,
            {t.name: _teacher(t.name) for t in self.plan.teachers},
            chain=self.chain,
        )

    @property
    def inliner(self) -> Inliner:
        return self.program.inliner

    def emitted(self) -> Emitted:
        judging.require_judged(self.program)
        self.program.judging = judging.judged(self.program)
        main, arguments = self.main(), self.arguments()
        copied = sorted(self.inliner.sections(), key=lambda s: s[0] != self.network.module)  # the network comes first
        sections = [_banner(name) + "\n\n" + kept(_apart(text)) for name, text in copied]
        parts = [
            self.header(),
            "from __future__ import annotations",
            self.inliner.imports(),
            f"DTYPE = torch.{self.dtype}",
        ]
        body = [kept(arguments), kept(main), *sections, 'if __name__ == "__main__":\n    main()']
        sidecar = {}
        if isinstance(self.data, ArrayData):
            sidecar[self.sidecar_name] = safetensors(self.data.arrays)
        return Emitted("\n\n".join(parts) + "\n\n\n" + "\n\n\n".join(body) + "\n", sidecar)

    @property
    def sidecar_name(self) -> str:
        return f"{self.data.name}.safetensors"

    # ── header and command line ──

    def header(self) -> str:
        w = Writer()
        w.comment(f"Trains {self.plan.model.text} as {self.plan.source.name} asks.")
        w.comment(f"Needs {self._needs()}, and nothing else; written by prunelang, at {WIDTH} columns.")
        if not self.network.inlined:
            user = self.network
            w.comment(f"The network is {user.name} of the module {user.module}, which must be importable.")
        w.comment(self._changed())
        if self.plan.source.text.strip():
            w.lines.append("#")
            w.comment("The spec:")
            w.lines.append("#")
            w.lines += [f"#     {line}".rstrip() for line in self.plan.source.text.strip().splitlines()]
        return w.text()

    def _changed(self) -> str:
        """How to get the script for other values."""
        if not self.options.options:
            return "Every value of the spec is written out below: to change one, edit it here or emit the script anew."
        names = ", ".join(o.flags[0] for o in self.options.options)
        fixed = ", ".join(to_unicode(n) for n in self.options.fixed)
        also = f" ({fixed} among them)" if fixed else ""
        return f"Params of the spec are options: {names}. Every other value{also} is written out below."

    def _needs(self) -> str:
        """The packages that the script imports, besides Python's own."""
        imported = {e.module.partition(".")[0] for e in self.inliner.externals.values()}
        if any(symbol.module == STATISTICS for symbol in self.inliner.symbols):
            imported.add("scipy")  # asked for confidence bounds, where they are computed
        *most, last = (p for p in ("torch", "numpy", "scipy", "spikingjelly") if p in imported)
        return f"{', '.join(most)} and {last}" if most else last

    def arguments(self) -> str:
        w = Writer()
        with w.block("def arguments() -> argparse.Namespace:"):
            w.line("parser = argparse.ArgumentParser()")
            self._data_argument(w)
            _option(w, "--out", "type=Path", 'default=Path("weights.safetensors")', 'help="where the weights go"')
            _option(w, "--seed", "type=int", f"default={self.seed}", 'help="of weights and order"')
            _option(w, "--device", 'default="cpu"', 'help="cpu, cuda, …"')
            for o in self.options.options:
                self._param(w, o)
            for option, path, what in self._weight_files():
                _option(w, option, "type=Path", f"default=Path({quoted(path)})", f"help={quoted(what)}")
            w.line("return parser.parse_args()")
        return w.text()

    def _param(self, w: Writer, o: Option) -> None:
        """A param of the spec, in the range in which the script stands for it."""
        kind = f"{self.inliner.use(STANDALONE, 'amount')}({quoted(o.low)}, {quoted(o.high)})"
        flags = [quoted(flag) for flag in o.flags]
        shown = f"from {o.low} to {o.high}".replace("%", "%%")
        value = o.param.text(o.param.value)
        said = [f"dest={quoted(o.param.variable)}", f"type={kind}", f"default={quoted(value)}"]
        w.call(
            "parser.add_argument(", [*flags, *said, 'metavar="VALUE"', f"help={quoted(f'param of the spec, {shown}')}"]
        )

    def _data_argument(self, w: Writer) -> None:
        if isinstance(self.data, ArrayData):
            beside = f"Path(__file__).with_name({quoted(self.sidecar_name)})"
            _option(w, "--data", "type=Path", f"default={beside}", 'help="the samples"')
            return
        given = "required=True" if self.data.root is None else f"default=Path({quoted(self.data.root)})"
        _option(w, "--data", "type=Path", given, f'help="folder with the idx files of {self.data.name}"')

    def _weight_files(self) -> list[tuple[str, str, str]]:
        found = [(f"--{_teacher(t.name)}", t.weights, f"weights of {t.name}") for t in self.plan.teachers]
        if self.plan.model.weights is not None:
            found.append(("--weights", self.plan.model.weights, "weights to start from"))
        return [(option.replace("_", "-"), path, what) for option, path, what in found]

    # ── main ──

    def main(self) -> str:
        p, w = self.program, self.program.writer
        w.line("args = arguments()")
        metrics = self._metrics()
        further = {split for _, split, _ in metrics} | splits_read(self.graph) | judging.splits_judged(p)
        self._load(w, further - {"train"})
        w.blank()
        self._networks(w)
        w.blank()
        w.comment("── state ──")
        if p.judging:
            judging.declare(["train", *sorted(further - {"train"})], p)
        for node in self.graph.state:
            if node.name in p.used:
                emit_state(node, p)
        for step in walk(self.graph.program):
            if (
                isinstance(step, Project | Hit | Factor | Reproject | Split | Calibrate | Tighten)
                and step.onto is not None
            ):
                feasible.declare(step, step.onto, p)
        w.line("torch.set_flush_denormal(True)  # weights that shrink step by step get there, and it is slow")
        w.line("drawn = 0  # epochs of data so far: the order of each follows from the seed and this number")
        emit_program(self.graph.program, p)
        for title, split, name in metrics:
            value = f"{p.helper('measured')}(net, {quoted(name)}, {split}_x, {split}_y)"
            if name in ACTIVITY:
                value = f"judge.value({quoted(name)}, {quoted(split)})"
            w.line(f"value = {value}")
            w.line(f'print(f"{title}: {{value:.6g}}")')
        self._save(w)
        self._without_unread(w)
        return "def main() -> None:\n" + self._with_options(w.text())

    def _without_unread(self, w: Writer) -> None:
        """Leaves out the count of epochs, and tensors, where steps ask for neither: those of a splitting alone."""
        code = [line for line in w.lines if not line.lstrip().startswith("#")]
        held = (s.name for s in self.graph.state if isinstance(s, Weights | Rest))
        for name in ("drawn", *map(self.program.name, held)):
            if sum(len(re.findall(rf"\b{name}\b", line)) for line in code) == 1:
                w.cut(f"{name} = ")

    def _with_options(self, text: str) -> str:
        """The same with params as variables, where they are options."""
        if not self.options.options:
            return text
        lines = [self.options.lines.get(i, line) for i, line in enumerate(text.split("\n"))]
        if any("Fraction(" in line for line in self.options.lines.values()):
            self.inliner.external("fractions", "Fraction")
        reads = [f"    {o.variable} = args.{o.param.variable}" for o in self.options.options]
        return "\n".join([lines[0], *reads, *lines[1:]])

    def _load(self, w: Writer, further: set[str]) -> None:
        """The splits as the run has them: inputs in the network's shape and in its dtype."""
        plan = self.plan
        if text := self.program.spec_line(plan.data.span):
            w.comment(text)
        splits = ["train", *sorted(further)]
        idx = isinstance(self.data, IdxData)
        cut = further & {"validation", "select", "certify"}
        if isinstance(self.data, IdxData):
            w.line(f"data = {self.inliner.use(STANDALONE, 'idx_images')}(args.data, center={self.data.center})")
        else:
            w.line(f"data = {self.inliner.use(STANDALONE, 'read_safetensors')}(args.data)")
        for split in splits:
            x, y = f"{split}_x", f"{split}_y"
            if idx and split == SPLIT:
                continue
            if not idx:
                w.line(f'{x}, {y} = data["x_{split}"], data["y_{split}"]')
            elif split not in cut:
                w.line(f'{x}, {y} = data["{split}"]')
                w.line(f"{x} = {x}.reshape(-1, {', '.join(map(str, plan.table.input_shape))})")
                if split == "train" and plan.data.reads_validation:
                    self._cut_validation(w, cut)
            cast = "to(DTYPE)." if self.floating else ""
            w.line(f"{x}, {y} = {x}.{cast}to(args.device), {y}.to(args.device)")
        if SPLIT in further and idx:
            w.line(f"{SPLIT}_x, {SPLIT}_y = {self.inliner.use(STANDALONE, 'sampled')}(train_x, train_y, {SAMPLES})")

    def _cut_validation(self, w: Writer, wanted: set[str]) -> None:
        """Validation out of train, and the halves of it; `wanted` are those that the script reads."""
        share, seed = self.plan.data.validation, self.plan.data.seed
        fraction = self.inliner.external("fractions", "Fraction")
        count = f"round({fraction}({share.numerator}, {share.denominator}) * len(train_x))"
        if not wanted:
            cut = self.inliner.use(STANDALONE, "without_validation")
            w.line(f"train_x, train_y = {cut}(train_x, train_y, {count}, {seed})")
            return
        cut = self.inliner.use(STANDALONE, "cut_validation")
        both = "(train_x, train_y), (validation_x, validation_y)"
        w.line(f"{both} = {cut}(train_x, train_y, {count}, {seed})")
        if wanted & {"select", "certify"}:
            both, count = "(select_x, select_y), (certify_x, certify_y)", "len(validation_x) - len(validation_x) // 2"
            other = self.inliner.use("prunelang.runtime.data.dataset", "HALVES")
            w.line(f"{both} = {cut}(validation_x, validation_y, {count}, {seed} ^ {other})")

    @property
    def floating(self) -> bool:
        """Whether the inputs are numbers with a point."""
        return isinstance(self.data, IdxData) or self.data.arrays["x_train"].dtype.startswith(("F", "BF"))

    def _networks(self, w: Writer) -> None:
        p, plan = self.program, self.plan
        if text := p.spec_line(plan.model.span):
            w.comment(text)
        w.line("torch.manual_seed(args.seed)")
        w.line(f"net = {self._constructed(plan.model, self.network, plan.table.steps > 0)}")
        if plan.model.weights is not None:
            self._filled(w, "net", "weights")
        trained = {t for s in self.graph.state if isinstance(s, Weights | Rest) for t in s.tensors}
        frozen = [t.name for t in plan.table.tensors if t.role != "buffer" and t.name not in trained]
        if frozen:
            w.call(f"frozen = {p.helper('parameters')}(", ["net", *map(quoted, frozen)])
            with w.block("for v in frozen:"):
                w.line("v.requires_grad_(False)")
        for t in plan.teachers:
            name = _teacher(t.name)
            w.line(f"{name} = {self._constructed(t, self.teachers[t.name], t.name in self.spiking)}.eval()")
            self._filled(w, name, name)
            w.line(f"{name}.requires_grad_(False)")

    def _constructed(self, model: ModelPlan | TeacherPlan, symbol: Symbol, spiking: bool) -> str:
        """A new network; a spiking one of a user remembers, those of the zoo do not."""
        used = self.inliner.add(symbol) if symbol.inlined else self.inliner.external(symbol.module, symbol.name)
        given = ", ".join(f"{k}={literal(v)}" for k, v in model.arguments.items())
        made = f"{used}({given}).to(DTYPE).to(args.device)"
        if not spiking or symbol.inlined:
            return made
        return f"{self.inliner.use('prunelang.runtime.spiking.state', 'at_rest')}({made})"

    def _filled(self, w: Writer, net: str, option: str) -> None:
        """Starting weights from a file."""
        read = self.inliner.use(STANDALONE, "read_safetensors")
        with w.block(f"for name, v in {read}(args.{option}).items():"):
            w.line(f"{net}.state_dict()[name].copy_(torch.where(v == 0, 0, v))  # −0.0 is read as 0.0")

    def _metrics(self) -> list[tuple[str, str, str]]:
        """(title, split, metric) of what the spec reports and bounds, as far as the script has the split: bounds on the
        half of validation that no choice read."""
        found: dict[tuple[str, str], str] = {}
        for item in self.plan.report:
            if isinstance(item.function, Measured):
                found.setdefault((item.function.split, item.function.name), item.title)
        for c in self.plan.problem.constraints:
            if isinstance(c.function, Measured):
                bound = f" ({_bound(c.set)})" if isinstance(c.set, Interval) else ""
                split = certified_on(self.plan.problem, c.function.split)
                found.setdefault((split, c.function.name), f"{c.label}{bound}")
        known = {"train", "test"} | splits_read(self.graph)
        known |= judging.splits_judged(self.program) | ({CERTIFY} if SELECT in known else set())
        if isinstance(self.data, ArrayData):
            known = {n[2:] for n in self.data.arrays}
        return [
            (f"{_escaped(title)} on {split}", split, name)
            for (split, name), title in found.items()
            if (name in METRICS or (self.program.judging and name in ACTIVITY)) and split in known
        ]

    def _save(self, w: Writer) -> None:
        aliases = [a for t in self.plan.table.tensors for a in t.aliases]
        stored = "net.state_dict()"
        if aliases:
            names = ", ".join(map(quoted, aliases))
            stored = "{" + f"name: v for name, v in net.state_dict().items() if name not in ({names},)" + "}"
        w.line(f"{self.inliner.use(STANDALONE, 'write_safetensors')}(args.out, {stored})")
        w.line('print(f"weights: {args.out}")')


def _option(w: Writer, name: str, *rest: str) -> None:
    w.call("parser.add_argument(", [quoted(name), *rest])


def _teacher(name: str) -> str:
    return f"teacher_{identifier(name)}"


def _bound(interval: Interval) -> str:
    low = [f"≥ {float(interval.lower):g}"] if interval.lower is not None else []
    high = [f"≤ {float(interval.upper):g}"] if interval.upper is not None else []
    return ", ".join([*low, *high])


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("{", "{{").replace("}", "}}").replace('"', "'")


def _banner(module: str) -> str:
    head = f"# ── from {module} "
    return head + "─" * max(2, WIDTH - len(head))


def _apart(text: str) -> str:
    """Functions and classes stand two lines below what comes before, constants one."""
    return text if not text.startswith(("def ", "class ", "@")) else "\n" + text
