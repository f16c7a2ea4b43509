"""The specs that `prune init` writes: each runs on the embedded digits in well under a minute on one core."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

CODE = {"cnn-l0": "networks.py"}
"""The Python file that goes beside a spec, where it names a network that does not come with the language."""


@dataclass(frozen=True)
class Template:
    """A spec, and the Python file that it needs, if any."""

    name: str
    spec: str
    code_name: str | None
    code: str | None

    @property
    def title(self) -> str:
        """The comment that the spec starts with."""
        return self.spec.partition("\n")[0].removeprefix("# ")


def templates() -> dict[str, Template]:
    """All templates by name."""
    folder = files("prunelang.templates")
    names = sorted(entry.name.removesuffix(".prune") for entry in folder.iterdir() if entry.name.endswith(".prune"))
    found = {}
    for name in names:
        code = CODE.get(name)
        text = None if code is None else (folder / code).read_text(encoding="utf-8")
        found[name] = Template(name, (folder / f"{name}.prune").read_text(encoding="utf-8"), code, text)
    return found


def describe() -> str:
    """One line a template."""
    found = templates()
    width = max(map(len, found))
    return "\n".join(f"{name:<{width}}  {template.title}" for name, template in found.items())
