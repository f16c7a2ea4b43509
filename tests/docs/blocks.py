"""The fenced blocks of a page: what each is, by the words after its fence; and the page with some of them rewritten."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md")
FENCE = re.compile(r"^```(.*)$")


LETTERS = str.maketrans("0123456789", "abcdefghij")


@dataclass(frozen=True)
class Block:
    """One fenced block. `line` is that of its opening fence, from 1."""

    page: Path
    line: int
    words: tuple[str, ...]
    text: str

    @property
    def kind(self) -> str:
        return self.words[0] if self.words else ""

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file that the block is the text of: ``file=NAME``."""
        return next((w.removeprefix("file=") for w in self.words if w.startswith("file=")), None)

    def after(self, word: str) -> str | None:
        """The word behind `word`."""
        return self.words[self.words.index(word) + 1] if word in self.words else None


def blocks_of(page: Path) -> list[Block]:
    """Every fenced block of a page, in order. Raises `ValueError` for a fence that is never closed."""
    found: list[Block] = []
    inside: list[str] | None = None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = FENCE.match(line)
        if inside is None and fence:
            start, words, inside = number, tuple(fence[1].split()), []
        elif inside is not None and line == "```":
            found.append(Block(page, start, words, "\n".join(inside)))
            inside = None
        elif inside is not None:
            inside.append(line)
    if inside is not None:
        raise ValueError(f"{page}:{start}: the fence is never closed")
    return found


def rewrite(page: Path, texts: Mapping[int, str]) -> None:
    """Put other texts into the blocks that open at the given lines."""
    lines = page.read_text(encoding="utf-8").splitlines()
    for block in reversed(blocks_of(page)):
        if block.line in texts:
            end = block.line + len(block.text.splitlines()) if block.text else block.line
            lines[block.line : end] = texts[block.line].splitlines()
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Command:
    """A ``$`` line of a console block, and what is said to be printed."""

    line: str
    output: str


def commands_of(block: Block) -> list[Command]:
    """Raises `ValueError` for a console block that does not begin with a ``$`` line."""
    found: list[Command] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append(Command(line[2:], ""))
        elif not found:
            raise ValueError(f"{block.place}: output before a command")
        else:
            last = found.pop()
            found.append(Command(last.line, f"{last.output}{line}\n"))
    return found


def shape(text: str) -> str:
    """The text with every number but exit codes as 0, every run of blanks as one: the same on every machine."""
    text = re.sub(r"exit code \d+", lambda m: m[0].translate(LETTERS), text)
    text = re.sub(r"\b[0-9a-f]{16,}\b", "0", text)
    text = re.sub(r"\d+(?:[.,]\d+)*(?:e[-+]?\d+)?", "0", text)
    text = re.sub(r"\b0(?: 0)+\b", "0", text)
    return re.sub(r"[ \t]+", " ", text)


def agrees(said: str, printed: str) -> bool:
    """Whether the two are the same; a line ``…`` in `said` stands for any lines."""
    pattern = "".join(r"(?:.*\n)*?" if x == "…" else re.escape(x) + "\n" for x in _lines(said))
    return re.fullmatch(pattern, "".join(x + "\n" for x in _lines(printed))) is not None


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


# ── pieces of a spec ─────────────────────────────────────────────────────────────────────────────────────────────

ORDER = ("model", "data", "declared", "objective", "subject", "pretrain", "solve", "prune", "finetune", "report")
KINDS = {
    **{w: w for w in ("model", "data", "pretrain", "solve", "prune", "finetune", "report")},
    **dict.fromkeys(("language", "param", "let", "freeze"), "declared"),
    **dict.fromkeys(("minimize", "maximize"), "objective"),
    **dict.fromkeys(("subject", "s.t."), "subject"),
}
DEFAULT = {
    "model": "model net = lenet_300_100()",
    "data": "data mnist()",
    "objective": "minimize cross_entropy(net)",
    "solve": "solve auto",
}
OPTIMIZERS = ("sgd(", "adam(", "adamw(")


def completed(fragment: str) -> str:
    """A whole spec around some of its lines: what is missing is filled in, and lone constraints get their heading."""
    groups: dict[str, list[str]] = {name: [] for name in ORDER}
    at = "subject"
    for line in fragment.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        word = line.split()[0].split("(")[0]
        if line.startswith(OPTIMIZERS):
            at, line = "solve", f"solve auto with {line}"
        elif not line[0].isspace():
            at = KINDS.get(word, "subject")
            if at == "subject" and word not in KINDS:
                line = f"    {line}"
        groups[at].append(line)
    if groups["subject"] and groups["subject"][0].split()[0] not in KINDS:
        groups["subject"].insert(0, "subject to")
    for name, line in DEFAULT.items():
        groups[name] = groups[name] or [line]
    return "".join(f"{line}\n" for name in ORDER for line in groups[name])
