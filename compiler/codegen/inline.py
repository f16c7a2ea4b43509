"""`Inliner`: the source of functions and classes of prunelang, with everything that they refer to.

Definitions are copied as they stand, comments included; imports of prunelang vanish, the others are kept. Two modules
may use one name for two things: the later one is then renamed, wherever it is meant.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from prunelang.compiler.codegen.absent import Branches, left_of_union
from prunelang.compiler.codegen.modules import BUILTINS, External, Module, Use, Whole, module
from prunelang.compiler.codegen.sources import Symbol

# A registry that only the tool looks into has no place in a script.
DROPPED_DECORATORS = frozenset({Symbol("prunelang.runtime.prox.registry", "register")})
PRAGMA = re.compile(
    r"  # type: ignore(?:\[[^\]]*\])?(?:  # (?!noqa).*)?$"
)  # speaks to this project's type checker alone


@dataclass
class Inliner:
    """What a script needs so far. `reserved` are names that the script itself uses for other things.

    Nothing in the script is of a class that is `absent`: branches for those are left out, with what they need.
    """

    reserved: frozenset[str] = frozenset()
    absent: frozenset[Symbol] = frozenset()
    symbols: dict[Symbol, str] = field(default_factory=dict)  # in the order of discovery, with the name in the script
    externals: dict[str, External] = field(default_factory=dict)  # by bound name

    def use(self, where: str, name: str) -> str:
        """The name under which the script can use ``where.name`` from now on."""
        return self.add(Symbol(where, name))

    def add(self, wanted: Symbol) -> str:
        symbol = resolve(wanted)
        if symbol in self.symbols:
            return self.symbols[symbol]
        source = module(symbol.module)
        if symbol.name not in source.definitions:
            raise LookupError(f"{symbol.module} defines no {symbol.name}")
        self.symbols[symbol] = self._free_name(symbol)
        for use in self._uses(source.definitions[symbol.name], source):
            self._follow(use, source)
        return self.symbols[symbol]

    def external(self, module: str, name: str = "", bound: str = "") -> str:
        """Import something that is not prunelang's."""
        return self._import(External(module, name, bound or name or module.partition(".")[0]))

    def _import(self, wanted: External) -> str:
        known = self.externals.setdefault(wanted.bound, wanted)
        if known != wanted or wanted.bound in self.symbols.values():
            raise LookupError(f"`{wanted.bound}` would be two things in one script: {known} and {wanted}")
        return wanted.bound

    def _free_name(self, symbol: Symbol) -> str:
        taken = {*self.symbols.values(), *self.externals, *self.reserved} | (BUILTINS - {symbol.name})
        stem = symbol.module.rpartition(".")[2]
        bare = symbol.name.rstrip("_")
        marked = f"{bare}_{stem}{symbol.name[len(bare) :]}"  # the underscore of what works in place stays last
        return next(n for n in (symbol.name, marked, f"{marked}_") if n not in taken)

    def _follow(self, use: Use, source: Module) -> None:
        found = target(use, source)
        if isinstance(found, External):
            self._import(found)
        elif found not in DROPPED_DECORATORS:
            self.add(found)

    # ── text ──

    def sections(self) -> list[tuple[str, str]]:
        """(module, source) of everything inlined, each module after those that it needs."""
        wanted: dict[str, list[str]] = {}
        for symbol in self.symbols:
            wanted.setdefault(symbol.module, []).append(symbol.name)
        return [(name, self._section(module(name), set(wanted[name]))) for name in self._ordered(wanted)]

    def _ordered(self, wanted: dict[str, list[str]]) -> list[str]:
        done: dict[str, None] = {}
        open_: set[str] = set()

        def visit(name: str) -> None:
            if name in done or name in open_:
                return
            open_.add(name)
            source = module(name)
            for own in wanted[name]:
                for use in self._uses(source.definitions[own], source):
                    found = target(use, source)
                    if isinstance(found, Symbol) and found.module in wanted:
                        visit(found.module)
            done[name] = None

        for name in wanted:
            visit(name)
        return list(done)

    def _section(self, source: Module, names: set[str]) -> str:
        statements = {id(s): s for n, s in source.definitions.items() if n in names}
        parts: list[str] = []
        before: ast.stmt | None = None
        for s in sorted(statements.values(), key=lambda s: s.lineno):
            plain = isinstance(s, ast.Assign | ast.AnnAssign) and isinstance(before, ast.Assign | ast.AnnAssign)
            parts.append(("" if before is None else "\n" if plain else "\n\n\n") + self._definition(s, source))
            before = s
        return "".join(parts)

    def _definition(self, definition: ast.stmt, source: Module) -> str:
        if members := self._union(definition, source):
            (own,) = source.own_names(definition)
            kept = [self.symbols[resolve(Symbol(source.name, m.id))] for m in members if isinstance(m, ast.Name)]
            return f"{self.symbols[Symbol(source.name, own.name)]} = {' | '.join(kept)}"
        first, last = source.extent(definition)
        lines = {i: source.lines[i - 1].encode() for i in range(first, last + 1)}
        edits = [(u.line, u.start, u.end, self._written(u, source)) for u in self._uses(definition, source)]
        edits += self._own_names(definition, source)
        branches = self._branches(definition, source)
        edits += [(line, start, start + len("elif"), "if") for line, start in branches.firsts]
        for line, start, end, text in sorted(edits, reverse=True):
            lines[line] = lines[line][:start] + text.encode() + lines[line][end:]
        dropped = self._dropped(definition, source) | branches.lines
        return "\n".join(PRAGMA.sub("", lines[i].decode()) for i in sorted(lines) if i not in dropped)

    def _uses(self, definition: ast.stmt, source: Module) -> list[Use]:
        """The uses in what the script has of a definition."""
        left_out = self._branches(definition, source).lines
        found = [use for use in source.uses(definition) if use.line not in left_out]
        members = {m.id for m in self._union(definition, source) if isinstance(m, ast.Name)}
        return [use for use in found if use.name in members] if members else found

    def _branches(self, definition: ast.stmt, source: Module) -> Branches:
        gone = partial(self._gone, source)
        return Branches.of(definition, gone) if self.absent else Branches(gone)

    def _union(self, definition: ast.stmt, source: Module) -> list[ast.expr]:
        """The members of a type alias, where some are left out."""
        return left_of_union(definition, partial(self._gone, source)) if self.absent else []

    def _gone(self, source: Module, kind: ast.expr) -> bool:
        found = source.meant(kind)
        return isinstance(found, Symbol) and resolve(found) in self.absent

    def _written(self, use: Use, source: Module) -> str:
        """How the script writes a use of another definition."""
        found = target(use, source)
        whole = f"{use.name}.{use.attribute}" if use.attribute else use.name
        return self.symbols.get(found, whole) if isinstance(found, Symbol) else whole

    def _own_names(self, definition: ast.stmt, source: Module) -> Iterator[tuple[int, int, int, str]]:
        """Edits that give a definition its name in the script."""
        for own in source.own_names(definition):
            yield own.line, own.start, own.end, self.symbols.get(Symbol(source.name, own.name), own.name)

    def _dropped(self, definition: ast.stmt, source: Module) -> set[int]:
        decorators = getattr(definition, "decorator_list", [])
        named = {d.lineno: d.id for d in decorators if isinstance(d, ast.Name)}
        return {i for i, name in named.items() if source.imports.get(name) in DROPPED_DECORATORS}

    def imports(self) -> str:
        """The import statements, the standard library first."""
        return import_lines(self.externals.values())


def target(use: Use, source: Module) -> Symbol | External:
    """What a use means, followed through re-exports."""
    if use.name in source.definitions:
        return Symbol(source.name, use.name)
    found = source.imports[use.name]
    if isinstance(found, Whole):
        assert use.attribute is not None
        return resolve(Symbol(found.module, use.attribute))
    return found if isinstance(found, External) or found in DROPPED_DECORATORS else resolve(found)


def resolve(symbol: Symbol) -> Symbol:
    """Where a symbol is defined: packages hand on names of their modules."""
    source = module(symbol.module)
    onward = source.imports.get(symbol.name)
    return resolve(onward) if isinstance(onward, Symbol) and symbol.name not in source.definitions else symbol


def import_lines(externals: Iterable[External]) -> str:
    """Import statements in the usual order: whole modules before names, the standard library before torch."""
    found = sorted(externals)
    groups = []
    for standard in (True, False):
        here = [e for e in found if (e.module.partition(".")[0] in sys.stdlib_module_names) == standard]
        lines = [_import_line(e) for e in here if not e.name]
        for name in dict.fromkeys(e.module for e in here if e.name):
            names = sorted((e for e in here if e.module == name and e.name), key=lambda e: _rank(e.name))
            lines.append(f"from {name} import " + ", ".join(_alias(e.name, e.bound) for e in names))
        if lines:
            groups.append("\n".join(lines))
    return "\n\n".join(groups)


def _import_line(e: External) -> str:
    return f"import {e.module}" if e.bound == e.module.partition(".")[0] else f"import {e.module} as {e.bound}"


def _alias(name: str, bound: str) -> str:
    return name if name == bound else f"{name} as {bound}"


def _rank(name: str) -> tuple[int, str]:
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2, name)
