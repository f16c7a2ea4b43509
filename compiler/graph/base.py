"""`Graph`, and what every state node and every step has in common."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

Sync = Literal["none", "async", "host"]
SYNC_OF_LEVEL: dict[str, Sync] = {"step": "none", "epoch": "host", "outer": "host", "phase": "host"}


@dataclass(frozen=True)
class State(ABC):
    """A named piece of state. All state nodes together are *all* the state there is."""

    name: str

    @abstractmethod
    def line(self) -> str:
        """Its declaration in the listing."""

    def reads(self) -> tuple[str, ...]:
        """The state that it refers to."""
        return ()


@dataclass(frozen=True)
class Step(ABC):
    """One instruction. It declares what it reads and writes and whether it makes the host wait for the device."""

    sync: ClassVar[Sync] = "none"

    @abstractmethod
    def line(self) -> str:
        """Its line in the listing; of a loop, the head."""

    def reads(self) -> tuple[str, ...]:
        return ()

    def writes(self) -> tuple[str, ...]:
        return ()

    def bodies(self) -> tuple[tuple[str, tuple[Step, ...]], ...]:
        """Nested programs with the heading that the listing gives them (empty for none)."""
        return ()


@dataclass(frozen=True)
class Graph:
    """State and a program over it."""

    title: str
    state: tuple[State, ...]
    program: tuple[Step, ...]

    def node(self, name: str) -> State:
        return next(s for s in self.state if s.name == name)

    def digest(self) -> str:
        """sha256 of the canonical serialisation."""
        from prunelang.compiler.graph.codec import to_json  # the codec knows every node, so it comes after them

        text = json.dumps(to_json(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def walk(program: tuple[Step, ...]) -> Iterator[Step]:
    """Every step, nested ones included, in the order of the listing."""
    for step in program:
        yield step
        for _, body in step.bodies():
            yield from walk(body)
