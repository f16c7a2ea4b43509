"""One diagnostic of the catalogue."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    code: str
    title: str
    what: str
    why: str
    mend: str

    def page(self) -> str:
        """The page that ``prune explain P205`` prints."""
        return f"{self.code}  {self.title}\n\nWhat  {self.what}\nWhy   {self.why}\nMend  {self.mend}"
