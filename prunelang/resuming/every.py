"""How often a checkpoint is due."""

from __future__ import annotations

import re
from dataclasses import dataclass

EVERY = re.compile(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*(epochs?|)\s*")


@dataclass(frozen=True)
class Every:
    """How often a checkpoint is due between the ends of stages: after minutes, or after epochs (iterations of bcd)."""

    minutes: float | None = 5.0
    epochs: int | None = None

    @classmethod
    def parse(cls, text: str) -> Every:
        """``5`` minutes or ``10epochs``. Errors: ValueError."""
        found = EVERY.fullmatch(text)
        number = 0.0 if found is None else float(found[1])
        if found is None or number <= 0 or (found[2] and number != int(number)):
            raise ValueError(f"{text!r} is neither minutes, such as 5, nor epochs, such as 10epochs")
        return cls(None, int(number)) if found[2] else cls(number)

    def __str__(self) -> str:
        return f"{self.minutes:g}" if self.epochs is None else f"{self.epochs}epochs"
