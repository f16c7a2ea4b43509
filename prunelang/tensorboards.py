"""`prune run --tensorboard DIR`: losses, constraints, prices and levels of a run as TensorBoard shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from prunelang.page.series import numbers_of
from prunelang.runtime.files import FileProblem

if TYPE_CHECKING:
    from prunelang.runtime.machine import Event


def both(first: Callable[[Event], None], second: Callable[[Event], None]) -> Callable[[Event], None]:
    """An observer that tells two."""

    def observe(event: Event) -> None:
        first(event)
        second(event)

    return observe


@contextmanager
def tensorboard(folder: Path | None) -> Iterator[Callable[[Event], None]]:
    """An observer that writes scalars into `folder`, over the epochs of the whole run; one that does nothing for None.

    Tags are ``loss``, ``distance``, ``constraint/LABEL``, ``price/LABEL`` and ``level/NAME``. Errors: `FileProblem`
    P568 where the package tensorboard is not installed, before anything is run.
    """
    if folder is None:
        yield lambda event: None
        return
    if find_spec("tensorboard") is None:
        hint = "pip install 'prunelang[tensorboard]', or leave --tensorboard out."
        raise FileProblem("P568", "TensorBoard's files need the package tensorboard, which is not installed", hint)
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    epochs = 0

    def observe(event: Event) -> None:
        nonlocal epochs
        epochs += event["event"] == "epoch"
        for tag, value in numbers_of(event):
            writer.add_scalar(tag, value, epochs)

    try:
        yield observe
    finally:
        writer.close()
