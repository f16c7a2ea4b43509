"""The inner loop of the script: the optimizer, the options that follow a clock, and the descent step."""

from __future__ import annotations

from collections.abc import Callable

from prunelang.compiler.codegen import coupling, factors, minimax, relaxed, thresholds
from prunelang.compiler.codegen.expressions import inside, literal, quoted
from prunelang.compiler.codegen.program import BATCHES, Program
from prunelang.compiler.graph import (
    Batches,
    Descend,
    Factors,
    Latent,
    Loss,
    Optimizer,
    Quadratic,
    Record,
    Saturated,
    Step,
)
from prunelang.compiler.schedule import Constant, Schedule, clocks_of, is_constant

COUPLED = ("sgd", "adam")  # weight decay is added to the gradient, so μW may ride on it
CLASSES = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
LOSSES = "prunelang.runtime.losses"

Emit = Callable[[tuple[Step, ...], Program], None]


def emit_batches(loop: Batches, p: Program, emit: Emit) -> None:
    w, head = p.writer, loop.body[0]
    assert isinstance(head, Descend)
    node = p.nodes[loop.optimizer]
    assert isinstance(node, Optimizer)
    w.comment(head.line().removesuffix("; guard"))
    for clock in ("epoch", "step"):
        if any(clock in _at_entry(o) for o in (node, *_others(head, p))) or (clock == "step" and clock in p.clocks):
            w.line(f"{clock} = 0")
    _span(p)
    _optimizer(node, head, p)
    for other in _others(head, p):
        _build(other, head, p)
    _constants(node, head, p)
    minimax.enter(loop, p)
    w.line(f"watch = {p.helper('Watch')}(net, args.device)")
    _epochs(loop, node, head, p, emit)
    if node.policy == "kept":
        _release(node, head, p)


def _others(head: Descend, p: Program) -> list[Optimizer]:
    """The optimizers beside the loop's own."""
    found = [p.nodes[n] for n in coupling.optimizers(head)]
    return [n for n in found if isinstance(n, Optimizer)]


def _at_entry(node: Optimizer) -> set[str]:
    """Clocks that the optimizer's options read when it is made."""
    return {c for v in node.options.values() if not isinstance(v, bool) for c in clocks_of(v)}


def _span(p: Program) -> None:
    """The part of p that this loop covers."""
    if "p" not in p.clocks:
        return
    if p.outer is None:
        p.writer.line("p = 0.0")
    else:
        p.writer.line(f"start, end = k / {p.outer}, (k + 1) / {p.outer}")
        p.writer.line("p = start")


# ── before the first batch ───────────────────────────────────────────────────────────────────────────────────────


def _optimizer(node: Optimizer, head: Descend, p: Program) -> None:
    name = p.name(node.name)
    if node.policy == "fresh":
        _build(node, head, p)
        return
    with p.writer.block(f"if {name} is None:"):
        _build(node, head, p)
    for i, q in _riding(node, head, p):
        p.writer.line(f'{name}.param_groups[{i}]["weight_decay"] = {_decay(node, q, p)}')


def _build(node: Optimizer, head: Descend, p: Program) -> None:
    pulls = {} if node.policy == "kept" else {q.of: q for _, q in _riding(node, head, p)}
    groups = []
    for state in _groups(node, p):
        own = f', "weight_decay": {_decay(node, pulls[state], p)}' if state in pulls else ""
        held = p.nodes[state]
        held_by = factors.parameters(held, p) if isinstance(held, Factors) else p.name(state)
        groups.append(f'{{"params": {held_by}{own}}}')
    options = {k: str(v) if isinstance(v, bool) else p.expression(v) for k, v in node.options.items()}
    if "beta1" in options:
        options["betas"] = f"({options.pop('beta1')}, {options.pop('beta2')})"
    said = [f"{k}={v}" for k, v in options.items()]
    head_ = f"{p.name(node.name)} = torch.optim.{CLASSES[node.algorithm]}("
    p.writer.call(head_, [f"[{', '.join(groups)}]", *said, "fused=True"])


def _groups(node: Optimizer, p: Program) -> list[str]:
    return [s for s in node.of if p.tensors(s)]


def _riding(node: Optimizer, head: Descend, p: Program) -> list[tuple[int, Quadratic]]:
    """Quadratic terms whose μW rides on the weight decay, with the number of their parameter group."""
    groups = _groups(node, p)
    return [(groups.index(q.of), q) for q in head.quadratic if q.of in groups] if node.algorithm in COUPLED else []


def _decay(node: Optimizer, q: Quadratic, p: Program) -> str:
    own = node.options["weight_decay"]
    assert not isinstance(own, bool)
    zero = isinstance(own, Constant) and own.value == 0
    return p.name(q.level) if zero else f"{p.expression(own)} + {p.name(q.level)}"


def _release(node: Optimizer, head: Descend, p: Program) -> None:
    """Take the pull off the weight decay again."""
    own = node.options["weight_decay"]
    assert not isinstance(own, bool)
    for i, _ in _riding(node, head, p):
        p.writer.line(f'{p.name(node.name)}.param_groups[{i}]["weight_decay"] = {p.expression(own)}')


def _constants(node: Optimizer, head: Descend, p: Program) -> None:
    """What does not change within the loop."""
    for q, name in _pulls(head):
        rides = "; μW rides on the weight decay" if node.algorithm in COUPLED else ""
        p.writer.comment(f"the gradient of {q} is {q.level}·{q.of} − c{rides}")
        with p.writer.block("with torch.no_grad():"):
            p.writer.line(f"{name} = [x * {p.name(q.level)} for x in {p.name(q.target)}]")
    relaxed.rooms(head, p)
    for made in _made(head, p):
        factors.enter(made, p)
    if head.support and (loose := _restricted(head, p)):
        pairs = f"zip({p.view(head.support, loose)}, {p.view(p.weights_of(head.support), loose)})"
        p.writer.line(f"kept = [mask.to(w.dtype) for mask, w in {pairs}]")


def _made(head: Descend, p: Program) -> list[Factors]:
    """The factors that the descent moves."""
    return [node for name in head.latents if isinstance(node := p.nodes[name], Factors)]


def _restricted(head: Descend, p: Program) -> tuple[str, ...]:
    """The tensors whose gradients are restricted to the support: all but those that are made of factors."""
    made = {t for node in _made(head, p) for t in node.tensors}
    return tuple(t for t in p.tensors(head.support) if t not in made) if head.support else ()


def _pulls(head: Descend) -> list[tuple[Quadratic, str]]:
    return [(q, "c" if len(head.quadratic) == 1 else f"c_{i + 1}") for i, q in enumerate(head.quadratic)]


# ── epochs and batches ───────────────────────────────────────────────────────────────────────────────────────────


def _epochs(loop: Batches, node: Optimizer, head: Descend, p: Program, emit: Emit) -> None:
    w = p.writer
    by_epochs = loop.unit == "epochs"
    length = _length(loop.duration, p)
    counted = not by_epochs or bool(p.clocks & {"p", "step"})
    if counted:
        per_epoch = f"-(-len(train_x) // {p.data.batch})"
        w.line(f"total = {length} * {per_epoch}" if by_epochs else f"total = {length}")
        w.line("done = 0")
    if not by_epochs:
        p.inliner.external("itertools")
    if loop.until:
        w.line("watched: list[float] = []")
    with w.block(f"for epoch in range({length}):" if by_epochs else "for epoch in itertools.count():"):
        w.line("net.train()")
        _each_epoch(node, head, p)
        with w.block(
            f"for x, y in {p.inliner.use(BATCHES, 'batches')}(train_x, train_y, {p.data.batch}, args.seed, drawn):"
        ):
            _batch(loop, node, head, p, emit, counted)
            if not by_epochs:
                with w.block("if done == total:"):
                    w.line("break")
        w.line("drawn += 1")
        emit(loop.settle, p)
        w.line(f'mean = watch.mean(f"{_stage(loop)}, epoch {{epoch}}")')
        emit(loop.each_epoch, p)
        if loop.until:
            _until(loop.until, p)
        if not by_epochs:
            with w.block("if done == total:"):
                w.line("break")


def _until(test: Saturated, p: Program) -> None:
    """Leave the loop once the loss that it watches has stopped to fall."""
    w = p.writer
    if test.since:
        with w.block(f"if p >= {test.since!r}:"):
            w.line(f"watched.append({p.name(test.level)})")
    else:
        w.line(f"watched.append({p.name(test.level)})")
    with w.block(f"if {p.kernel('saturated')}(watched, {test.window}):"):
        if "p" in p.clocks:
            w.line("p = 1.0")
        w.line("break")


def _length(duration: Schedule, p: Program) -> str:
    if isinstance(duration, Constant):
        return str(max(1, round(float(duration.value))))
    return f"max(1, round({p.expression(duration)}))"


def _stage(loop: Batches) -> str:
    return next((s.stage for s in loop.each_epoch if isinstance(s, Record)), "training")


def _each_epoch(node: Optimizer, head: Descend, p: Program) -> None:
    _weights(head, p, lambda clocks: bool(clocks) and not clocks & {"step", "p"})
    for each in (node, *_others(head, p)):
        _options(each, p, lambda clocks: not clocks & {"step", "p"} and "epoch" in clocks)


def _weights(head: Descend, p: Program, chosen: Callable[[frozenset[str]], bool]) -> None:
    """Set the coefficients of data terms whose clocks are chosen."""
    for i, loss in enumerate(head.losses):
        if chosen(clocks_of(loss.weight)):
            p.writer.line(f"weight_{i + 1} = {p.expression(loss.weight)}")


def _options(node: Optimizer, p: Program, chosen: Callable[[frozenset[str]], bool]) -> None:
    """Set the options whose clocks are chosen."""
    for option, value in node.options.items():
        if not isinstance(value, bool) and chosen(clocks_of(value)):
            with p.writer.block(f"for group in {p.name(node.name)}.param_groups:"):
                p.writer.line(f"group[{quoted(option)}] = {p.expression(value)}")


def _batch(loop: Batches, node: Optimizer, head: Descend, p: Program, emit: Emit, counted: bool) -> None:
    w = p.writer
    if "step" in p.clocks:
        w.line("step = done")
    for each in (node, *_others(head, p)):
        _options(each, p, lambda clocks: bool(clocks & {"step", "p"}))
    _weights(head, p, lambda clocks: bool(clocks & {"step", "p"}))
    emit((head,), p)
    if counted:
        w.line("done += 1")
    if "p" in p.clocks:
        w.line("p = done / total" if p.outer is None else "p = start + (end - start) * done / total")
    emit(loop.body[1:], p)


def emit_descend(head: Descend, p: Program) -> None:
    """Forward, backward, closed-form gradients, masked update."""
    w, optimizer = p.writer, p.name(head.by)
    node = p.nodes[head.by]
    assert isinstance(node, Optimizer)
    w.line("outputs = net(x)")
    for i, loss in enumerate(head.losses):
        w.line(f"loss = {'' if i == 0 else 'loss + '}{_term(loss, i, p)}")
    w.line("loss.backward()")
    w.line("watch.add(loss.detach())")
    if head.quadratic or head.penalties or head.couplings or head.support or head.latents:
        with w.block("with torch.no_grad():"):
            _closed_form(node, head, p)
    guard = p.kernel("not_finite")
    w.line(f"{optimizer}.found_inf = {guard}(loss.detach())  # a loss that is not finite masks the update")
    w.line(f"{optimizer}.step()")
    for c in head.couplings:
        coupling.step(c, p)
    w.line(f"{optimizer}.zero_grad(set_to_none=True)")
    for _, weights in _latents(head, p):
        with w.block(f"for w in {weights}:"):
            w.line("w.grad = None")


def _closed_form(node: Optimizer, head: Descend, p: Program) -> None:
    w = p.writer
    for q, constant in _pulls(head):
        weights = p.name(q.of)
        grads = f"{p.kernel('gradients')}({weights})"
        if node.algorithm in COUPLED:
            w.line(f"{p.kernel('subtract_')}({grads}, {constant})")
        else:
            w.line(f"{p.kernel('add_pull_')}({grads}, {weights}, {constant}, {p.name(q.level)})")
    relaxed.gradients(head, p)
    coupling.gradients(head, p)
    if head.support and (loose := _restricted(head, p)):
        grads = f"{p.kernel('gradients')}({p.view(p.weights_of(head.support), loose)})"
        w.line(f"{p.kernel('restrict_')}({grads}, kept)")
    for made in _made(head, p):
        factors.hand_over(made, p)
    for name, _ in _latents(head, p):
        if isinstance(p.nodes[name], Latent):
            thresholds.hand_over(name, p)


def _latents(head: Descend, p: Program) -> list[tuple[str, str]]:
    """(latent or factors, the weights that it writes)."""
    nodes = [p.nodes[n] for n in head.latents]
    own = [(n.name, p.name(n.of)) for n in nodes if isinstance(n, Latent)]
    return own + [(n.name, p.view(n.of, n.tensors)) for n in nodes if isinstance(n, Factors)]


def _term(loss: Loss, number: int, p: Program) -> str:
    """One data term with its weight."""
    value = criterion(loss, p)
    if isinstance(loss.weight, Constant) and loss.weight.value == 1:
        return value
    weight = inside(loss.weight) if is_constant(loss.weight) else f"weight_{number + 1}"
    return f"{weight} * {value}" if number else f"{value} * {weight}"


def criterion(loss: Loss, p: Program) -> str:
    """A data term over `outputs`, `x` and `y`."""
    arguments = dict(loss.arguments)
    if loss.name == "distill":
        teacher = p.teachers[str(arguments["teacher"])]
        wanted = f"{p.helper('outputs_of')}({teacher}, x)"
        return f"{p.inliner.use(LOSSES, 'distill')}(outputs, {wanted}, {float(arguments['T'])!r})"
    if loss.name not in p.losses:
        return f"{p.inliner.use(LOSSES, loss.name)}(outputs, y)"
    symbol = p.losses[loss.name]
    used = p.inliner.add(symbol) if symbol.inlined else p.inliner.external(symbol.module, symbol.name)
    options = "".join(f", {k}={literal(v)}" for k, v in arguments.items())
    return f"{used}(outputs, y{options})"
