"""The public API is typed: `mypy --strict` on a user's file, and what it knows there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import prunelang

USER = Path(__file__).with_name("user.py")


@pytest.mark.slow
def test_mypy_knows_every_type(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    root = Path(__file__).parents[2]
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nfollow_imports = silent\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(config), "--cache-dir", str(tmp_path / "cache"), str(USER)]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, check=False, env={**os.environ, "MYPYPATH": str(root)}
    )
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert errors == [], done.stdout + done.stderr
    revealed = re.findall(r'Revealed type is "(.*)"', done.stdout)
    assert len(revealed) == 6, done.stdout
    assert "Any" not in revealed


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(prunelang.__file__).parent / "py.typed").is_file()
