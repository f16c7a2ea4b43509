"""Checkpoints as files: whole or not there, and no bit of them taken for another."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prunelang.compiler.codes import CODES
from prunelang.runtime.checkpoints import folder
from prunelang.runtime.checkpoints.state import FIELDS, KINDS, dump, restore
from prunelang.runtime.checkpoints.tree import Packer, Unpacker
from prunelang.runtime.execute import run
from prunelang.runtime.files import FileProblem
from prunelang.runtime.machine import Machine
from prunelang.runtime.price import Price
from tests.resuming.problems import PROBLEMS
from tests.runtime.solving import prepare

TENSORS = {"a": torch.arange(6.0).reshape(2, 3).t(), "b": torch.tensor([True, False]), "c": torch.zeros(0)}


def round_trip(value: Any) -> Any:
    packer = Packer(KINDS)
    plain = json.loads(json.dumps(packer.pack(value, "x"), allow_nan=False))
    return Unpacker(KINDS, packer.tensors, torch.device("cpu")).unpack(plain)


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_field_of_a_machine_has_its_line() -> None:
    assert FIELDS.keys() == {f.name for f in fields(Machine)}


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 3, 0.1, -0.0, 5e-324, "κ", [1, 2.0], (1, (2,)), {}, {"a": None}, {1: "x", (2, "y"): 3.0}),
        *({"is": "Price", "of": {}}, {"tensor": "a", "on": "cpu"}, float("inf"), Price(1.5, "surrogate", None)),
    ],
)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    found = round_trip(value)
    assert (found, type(found), repr(found)) == (value, type(value), repr(value))


def test_tensors_come_back_bit_for_bit_in_their_layout_and_shared_ones_shared() -> None:
    x = torch.randn(4, 5).t()
    x[0, 0] = float("nan")
    found = round_trip({"one": x, "other": [x], "array": np.arange(3), "nan": float("nan")})
    assert found["one"] is found["other"][0]
    assert found["one"].stride() == x.stride()
    assert found["one"].contiguous().view(torch.int32).equal(x.contiguous().view(torch.int32))
    assert found["array"].tolist() == [0, 1, 2]
    assert found["nan"] != found["nan"]


def test_what_has_no_form_is_an_error_and_not_left_out() -> None:
    with pytest.raises(TypeError, match="x/key: object has no form"):
        round_trip({"key": object()})


def test_a_state_names_no_code() -> None:
    with pytest.raises(FileProblem) as error:
        Unpacker(KINDS, {}, torch.device("cpu")).unpack({"is": "os.system", "of": {"command": "true"}})
    assert error.value.code == "P522"


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def written(tmp_path: Path) -> Path:
    folder.write(tmp_path, {"machine": {"x": 1.0}}, TENSORS, {"meaning": "m"})
    return tmp_path


def files(out: Path) -> Iterator[Path]:
    yield from sorted((out / "checkpoints" / "000001").iterdir())


def test_a_checkpoint_comes_back_bit_for_bit(written: Path) -> None:
    found = folder.read(written, 1)
    assert (found.state, found.facts, found.number) == ({"machine": {"x": 1.0}}, {"meaning": "m"}, 1)
    assert all(found.tensors[n].equal(t) for n, t in TENSORS.items())


def test_no_flipped_bit_and_no_cut_is_accepted(written: Path) -> None:
    """200 damages, each of one bit or one cut, all over the files; every single one is found."""
    rng = random.Random(0)
    found = 0
    for turn in range(200):
        path = rng.choice(list(files(written)))
        raw = path.read_bytes()
        if turn % 5 == 4:
            path.write_bytes(raw[: rng.randrange(len(raw))])
        else:
            at, bit = rng.randrange(len(raw)), rng.randrange(8)
            path.write_bytes(raw[:at] + bytes([raw[at] ^ (1 << bit)]) + raw[at + 1 :])
        with pytest.raises(FileProblem) as error:
            folder.read(written, 1)
        found += error.value.code in ("P520", "P521")
        path.write_bytes(raw)
    assert found == 200
    folder.read(written, 1)


@pytest.mark.parametrize("name", [folder.TENSORS, folder.STATE, folder.META])
def test_a_missing_file_is_damage(written: Path, name: str) -> None:
    (written / "checkpoints" / "000001" / name).unlink()
    with pytest.raises(FileProblem, match="P520"):
        folder.read(written, 1)


def test_a_checkpoint_under_another_number_is_damage(written: Path) -> None:
    shutil.copytree(written / "checkpoints" / "000001", written / "checkpoints" / "000007")
    with pytest.raises(FileProblem, match="it says that it is number 1"):
        folder.read(written, 7)


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for _ in range(5):
        folder.write(tmp_path, {}, TENSORS, {})
    assert folder.numbers(tmp_path) == [4, 5]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["000004", "000005"]


@pytest.mark.parametrize("call", ["write", "rename", "fsync"])
def test_a_full_disk_leaves_what_was_there(written: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    if call == "write":
        monkeypatch.setattr(folder, "_written", full)
    else:
        monkeypatch.setattr(os, call, full)
    with pytest.raises(FileProblem, match="No space left on device") as error:
        folder.write(written, {}, TENSORS, {})
    assert error.value.code == "P525"
    assert "Checkpoint 000001 is whole" in error.value.hint
    monkeypatch.undo()
    assert [p.name for p in (written / "checkpoints").iterdir()] == ["000001"]
    folder.read(written, 1)


def test_what_a_killed_writer_left_is_swept(written: Path) -> None:
    left = written / "checkpoints" / ".tmp-abc"
    left.mkdir()
    (left / "state.json").write_text("{")
    folder.sweep(written)
    assert [p.name for p in (written / "checkpoints").iterdir()] == ["000001"]


# ── states that do not fit ───────────────────────────────────────────────────────────────────────────────────────


def test_a_state_of_another_network_is_refused(tmp_path: Path) -> None:
    one = prepare(PROBLEMS["ista"], tmp_path).machine(lambda event: None, lambda: False)
    plain, tensors = dump(one)
    other = prepare(PROBLEMS["ista"].replace("[64, 12, 10]", "[64, 13, 10]"), tmp_path)
    with pytest.raises(FileProblem) as error:
        restore(other.machine(lambda event: None, lambda: False), plain, tensors)
    assert error.value.code == "P522"


def test_saving_a_state_changes_nothing(tmp_path: Path) -> None:
    def trained(keep: bool) -> dict[str, torch.Tensor]:
        machine = prepare(PROBLEMS["gda"], tmp_path).machine(lambda event: None, lambda: False)
        if keep:
            machine.checkpoint = lambda m, due: dump(m) and None
        run(machine)
        return {n: t.detach() for n, t in machine.tensors.items()}

    one, other = trained(True), trained(False)
    assert all(t.equal(other[n]) for n, t in one.items())


def test_every_code_has_its_page() -> None:
    assert {f"P52{i}" for i in range(10)} <= CODES.keys()
