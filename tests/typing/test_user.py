"""The public API is typed: `mypy --strict` on a user's file, and what it knows there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import prunelang

USER = Path(__file__).with_name("user.py")


@pytest.mark.slow
def test_mypy_knows_every_type(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nfollow_imports = silent\n")
    options = ["--strict", "--config-file", str(config), "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(USER)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        env={**os.environ, "MYPYPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(prunelang.__file__).parent / "py.typed").is_file()
