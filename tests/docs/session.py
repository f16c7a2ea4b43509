"""A page being followed: its files in a folder of its own, its commands as processes, its Python in one namespace."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import prunelang
from prunelang.dsl.diagnostics import SpecError
from prunelang.runtime import prox
from tests.docs.blocks import ROOT, Block, agrees, commands_of, completed, shape

ALLOWED = re.compile(r"(prune|python|ls|cat|cp|head|tail|echo)( |$)")
# What was trained, or speaks of the machine, has other digits elsewhere.
TRAINED = re.compile(
    r"(prune (run|sweep|verify|report|export|doctor|--version|explain \S+ --probe)|python|head|tail)\b"
)
PROGRESS = '{"event"'
SHARED = "prune run specs/quickstart.prune --out runs/quickstart"

# What a page adds to the folders of the package (`compiler/solvers/NAME.py`, …) is found in its own folder too.
SHIM = """#!/bin/sh
exec {python} -c '
import os, sys
import prunelang.compiler.bridges, prunelang.compiler.pruners, prunelang.compiler.solvers, prunelang.runtime.prox
compiler = prunelang.compiler
for package in (compiler.bridges, compiler.pruners, compiler.solvers, prunelang.runtime.prox):
    folder = package.__name__.replace("prunelang.", "").replace(".", "/")
    if os.path.isdir(folder):
        package.__path__.append(os.path.abspath(folder))
from prunelang.cli import main
sys.argv[0] = "prune"
main()
' "$@"
"""


class Shared:
    """The quickstart, run once for all pages that show it."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        shim = self.bin / "prune"
        shim.write_text(SHIM.format(python=sys.executable), encoding="utf-8")
        shim.chmod(0o755)
        (self.bin / "python").symlink_to(sys.executable)
        self.quickstart = folder / "runs" / "quickstart"
        self.printed: str | None = None


class Session:
    """One page, followed block by block. `texts` holds what its blocks should say, by line."""

    def __init__(self, folder: Path, shared: Shared) -> None:
        self.folder = folder
        self.shared = shared
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.printed = ""
        self.texts: dict[int, str] = {}
        shutil.copytree(ROOT / "specs", folder / "specs")

    def follow(self, block: Block) -> str | None:
        """Run a block; what is wrong with it, if anything."""
        handler = getattr(self, f"_{block.kind}", None) if block.kind.isidentifier() else None
        if handler is None:
            return f"no test knows what a block of `{' '.join(block.words)}` is"
        if block.file is not None:
            path = self.folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text + "\n", encoding="utf-8")
            if path.parent == self.folder / "runtime" / "prox":
                prox.__path__.append(str(path.parent))
        wrong: str | None = handler(block)
        return wrong

    # ── kinds ──

    def _prune(self, block: Block) -> str | None:
        """Checks, and its solver takes it. ``error CODE``: is refused; ``norun CODE``: checks, but cannot be run.

        ``fragment``: some lines of a spec; ``each``: and every line by itself.
        """
        if "fragment" not in block.words:
            return self._checks(block, block.text + "\n")
        texts = block.text.splitlines() if "each" in block.words else [block.text]
        wrong = [f"`{text}` {found}" for text in texts if (found := self._checks(block, completed(text))) is not None]
        return "\n".join(wrong) or None

    def _checks(self, block: Block, text: str) -> str | None:
        expected, refused = block.after("error"), block.after("norun")
        try:
            program = prunelang.compile(text)
        except SpecError as error:
            codes = sorted({d.code for d in error.diagnostics if d.severity == "error"})
            return None if codes == [expected] else f"is refused with {', '.join(codes)}:\n{error}"
        if expected is not None:
            return f"checks, and should be refused with {expected}"
        obstacles = sorted({d.code for d in program.obstacles if d.severity == "error"})
        if obstacles != ([refused] if refused else []):
            return f"checks, and its solver says {', '.join(obstacles) or 'nothing'}"
        return None

    def _python(self, block: Block) -> str | None:
        """Executed after those before it, unless it is a file."""
        if block.file is not None:
            compile(block.text, block.place, "exec")
            return None
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.chdir(self.folder):
            exec(compile(block.text, block.place, "exec"), self.names)
        self.printed = out.getvalue()
        return None

    def _text(self, block: Block) -> str | None:
        """``output``: what the Python block before printed (``about``: up to digits); ``diagram``: folders exist."""
        if "diagram" in block.words:
            missing = [x for x in re.findall(r"\b([a-z]+)/", block.text) if not (ROOT / x).is_dir()]
            return f"there is no folder {missing[0]}/" if missing else None
        if "output" not in block.words:
            return "plain text is not tested: say what it is"
        return self._compare(block, block.text, self.printed, "about" in block.words, self.printed.rstrip())

    def _json(self, block: Block) -> str | None:
        try:
            json.loads(block.text)
        except ValueError as error:
            return str(error)
        return None

    def _sh(self, block: Block) -> str | None:
        """Commands that take too long for a test: their targets and modules have to exist."""
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        for line in block.text.splitlines():
            words = line.split("#")[0].split()
            if words[:1] == ["make"] and len(words) == 2 and words[1] in targets:
                continue
            module = words[2] if words[:2] == ["python", "-m"] and len(words) > 2 else ""
            if module and any((ROOT / module.replace(".", "/")).with_suffix(s).exists() for s in ("", ".py")):
                continue
            return f"`{line}` is neither a target of the Makefile nor a module here"
        return None

    def _console(self, block: Block) -> str | None:
        wrong: list[str] = []
        said: list[str] = []
        about = False
        for command in commands_of(block):
            if not ALLOWED.match(command.line):
                return f"`{command.line}` is not run in tests"
            printed = self._run(command.line)
            about = about or bool(TRAINED.match(command.line))
            ok = agrees(shape(command.output), shape(printed)) if about else agrees(command.output, printed)
            keep = ok and "…" in command.output.splitlines()
            said.append(f"$ {command.line}\n" + (command.output if keep else printed))
            if not ok:
                wrong.append(f"$ {command.line}\nprints\n{printed}\nand the page says\n{command.output}")
        self.texts[block.line] = "".join(said).rstrip()
        return "\n".join(wrong) or None

    # ── helpers ──

    def _compare(self, block: Block, said: str, printed: str, about: bool, whole: str) -> str | None:
        ok = agrees(shape(said), shape(printed)) if about else agrees(said, printed)
        if not (ok and "…" in said.splitlines()):
            self.texts[block.line] = whole
        return None if ok else f"prints\n{printed}"

    def _run(self, line: str) -> str:
        """What a terminal would show, without the progress."""
        if line == SHARED and self.shared.printed is not None:
            shutil.copytree(self.shared.quickstart, self.folder / "runs" / "quickstart", dirs_exist_ok=True)
            return self.shared.printed
        path = f"{self.shared.bin}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "NO_COLOR": "1"}
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=240,
        )
        text = done.stdout.replace(f"{self.folder}{os.sep}", "")
        shown = "".join(x for x in text.splitlines(keepends=True) if not x.startswith(PROGRESS))
        if line == SHARED:
            self.shared.printed = shown
            shutil.copytree(self.folder / "runs" / "quickstart", self.shared.quickstart)
        return shown
