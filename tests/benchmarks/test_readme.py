"""The pages show the numbers that the benchmarks wrote, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import readme

SPREAD = {"mean": 1.234, "low": 1.0, "high": 2.0, "seeds": 3}
RESULTS = {
    "lenet300": {
        "summary": {
            "dense at 100%": {"mean": 1.7, "low": 1.6, "high": 1.8, "seeds": 3},
            "lc at 5%": {"mean": 1.664, "low": 1.5, "high": 1.9, "seeds": 3},
            "ista at 1%": {"mean": 2.5, "low": 2.5, "high": 2.5, "seeds": 1},
        }
    },
    "lc_toolkit": {
        "what": "a schedule",
        "test error, %": 1.97,
        "published": {"test error of the LC toolkit, %": 2.18, "test error of its reference network, %": 2.13},
        "got": 13310,
        "status": "feasible-verified",
        "seed": 0,
    },
    "l0_methods": {
        "drop": 0.5,
        "epochs": {"lenet_5": {"dense": 5, "solve": 12, "finetune": 4}},
        "summary": {
            "lenet_5": {
                "dense": {"error": SPREAD, "bytes": {**SPREAD, "mean": 123456.4}},
                "drr": {
                    "strength": "1e-4",
                    "within": False,
                    **dict.fromkeys(("error", "drop", "ratio", "kept", "bytes"), SPREAD),
                },
            }
        },
    },
    "factors": {
        "published": {"reference": 2.13, "codebook": 2.56},
        "summary": {
            "reference": {"error": SPREAD, "bytes": {**SPREAD, "mean": 1066000}, "met": 3},
            "codebook": {**dict.fromkeys(("error", "params", "bytes"), SPREAD), "met": 2},
        },
    },
    "bcd": {
        "passes": {"mlp": 60},
        "published": {"cnn": {"0.18": 98.4}},
        "summary": {
            "decrease": {
                "mlp/tt": {
                    "iterations": 1500,
                    "accepted": 1490,
                    "violations": 0,
                    "runs": 5,
                    "failed": 0,
                    "accuracy": SPREAD,
                }
            },
            "compare": {
                "mlp/0.09/bcd/passes": {
                    "accuracy": SPREAD,
                    "processor": {**SPREAD, "mean": 61.2},
                    "iterations": 60,
                    "violations": 0,
                }
            },
        },
    },
    "train_layers": {
        "device": "cpu",
        "threads": 1,
        "torch": "2",
        "rounds": 15,
        "runs": {
            "linear/32/low rank/4": {
                "parameters": 0.0078,
                "macs": 0.5,
                "forward": {"median": 0.31},
                "step": {"median": 1.2},
            },
            "linear/1/low rank/4": {
                "parameters": 0.0078,
                "macs": 0.5,
                "forward": {"median": 1.05},
                "step": {"median": 0.9},
            },
        },
    },
    "minimax": {
        "others": {"2%": {"method": "drr", **SPREAD}},
        "summary": {
            "lenet_300_100": {
                "dense": {"error": SPREAD},
                "2%": {
                    "gda": {"error": {**SPREAD, "mean": 1.2}, "kept": SPREAD, "met": 3},
                    "lc": {"error": SPREAD, "kept": SPREAD, "met": 2},
                },
            },
            "lenet_5": {"2%, all": {"gda": {"error": SPREAD, "kept": SPREAD, "met": 3}}},
        },
    },
    "one_default": {
        "runs": {
            "lenet_5, macs/0": {
                "status": "feasible-verified",
                "constraints": {"compute": {"got": 1145000, "bound": 1146500}},
                "error": 1.234,
                "largest y": 0.0412,
                "largest z": 12.345,
                "course": {
                    "levels": ["conv1"],
                    "budget": {"compute": 0.5},
                    "epochs": [
                        {"p": 1.0, "kept": [0.4], "cost": {"compute": 0.49995}, "y": [0.1], "z": {"compute": 9}}
                    ],
                },
            },
            "snn_mlp/1": {"status": "failed: a loss is not finite", "seconds": 1.0},
        }
    },
    "spiking": {
        "networks": {"snn_mlp": "snn_mlp([2, 2])"},
        "epochs": {"snn_mlp": {"dense": 1, "solve": 2, "finetune": 3}},
        "summary": {
            "snn_mlp": {
                "dense": {x: {**SPREAD, "mean": 10.0} for x in ("accuracy", "synops", "spikes", "kept")},
                "0.73%": {"gda": {"accuracy": SPREAD}},
                "synops": {
                    "gda": {
                        **dict.fromkeys(("accuracy", "kept", "synops", "spikes"), SPREAD),
                        "share": {**SPREAD, "mean": 0.2912},
                        "met": 2,
                        "statement": "0.3 holds",
                    },
                },
            }
        },
    },
    "reversed": {
        "summary": {
            "98%": {**dict.fromkeys(("kept", "ratio", "certified accuracy", "test accuracy"), SPREAD), "met": 2},
        },
    },
    "teacher_student": {
        "noise": 0.08,
        "parameters": 751,
        "summary": {
            "2000": {
                "least test loss": 101.5,
                "least description": 50.0,
                "best by seed": {"test": [90, 81], "description": [50]},
            }
        },
    },
    "pmmp_study": {
        "summary": {
            "optimistic driven": {"error": 2.19, "before": 2.614, "cut": 2.65, "removed": 0.0018, "seeds": 1},
            "drr α=0.0001": {"error": 2.2867, "before": 2.55, "cut": 2.55, "removed": 0.0007, "seeds": 3},
        }
    },
    "coded": {
        "runs": {
            "5%": {
                "formats": {"coded": 1960, "csr": 8358, "bitmask": 8904, "dense": 106696},
                "entropy bound": 2152,
                "pruned and rounded": {"zstd -19": 2342},
                "pruned float32": {"zstd -19": 6192},
                "dense float32": {"zstd -19": 98855},
                "accuracy before rounding": 0.9827,
                "accuracy after rounding": 0.98264,
            }
        }
    },
    "description_length": {
        "what": "bits for a/text, 900 bytes, the model's own bits counted",
        "compressors": {"LZMA2 (xz -9e)": {"total bytes": 500}},
        "byte_transformer": {
            "layers": 2,
            "width": 64,
            "kernel weights kept": 93,
            "model bytes, coded": 200,
            "total bytes": 1800,
            "on coarser grids": {"6 bits": {"model bytes, coded": 100, "total bytes": 600}},
        },
    },
    "overhead": {
        "rounds": 15,
        "device": "cpu",
        "threads": 1,
        "torch": "2",
        "networks": {
            "net": {
                "step_ms": {"bare": 3.1},
                "over_bare": {x: {"median": 1.041, "quartiles": [1.0, 1.1]} for x in ("lc", "ista", "gda")},
                "over_bare_fused": {x: {"median": 1.06, "quartiles": [1.0, 1.1]} for x in ("lc", "ista", "gda")},
            }
        },
    },
    "emitted": {"a": {"its own": "equal", "lc": "equal", "gda": "P414"}, "b": {"lc": "differs"}},
    "resume": {
        "kills": {"lc": {"killed": 20, "same": 19, "from a checkpoint": 13}},
        "cost": {"net": {"bytes": 47351, "milliseconds": 33.9}},
    },
    "projection": {
        "kept": 0.05,
        "weights": 25_500_000,
        "device": "cpu",
        "threads": 2,
        "torch": "2",
        "sum_ms": {"median": 7.8},
        "ratio_to_sum": {"selection, warm": {"min": 2.0, "median": 4.12, "max": 8.0, "limit": 5.0}},
    },
    "check": {
        "rounds": 10,
        "python": "3.11",
        "machine": "x86_64",
        "seconds": {x: {"cpu_median": 0.246, "wall_median": 0.31} for x in ("import torch", "ResNet-50")},
    },
    "gpu": {
        "device": "a card",
        "torch": "2",
        "checks": [{"name": "laws", "outcome": "passed", "detail": "9 passed"}],
    },
}
SHOWN = {
    "lenet300": "| `lc` | 1.66 [1.50, 1.90] (3) | – |",
    "lc_toolkit": "Test error 1.97 % with 13 310 weights",
    "factors": "| codebooks of two values, one for each layer | 1.23 [1.00, 2.00] (3) | 2.56 | 1 | 1 |",
    "bcd": "| mlp, tt | 1 500 | 1 490 | 0 | 0 | 1.23 [1.00, 2.00] (3) |",
    "train_layers": "| linear, low rank, rank 4 | 0.8 | 50.0 | 1.05, 0.90 | 0.31, 1.20 |",
    "l0_methods": "| `drr`, 1e-4 † | 1.23 [1.00, 2.00] (3) | 1.23 [1.00, 2.00] (3) | 1.2 [1.0, 2.0] (3) | 1 |",
    "minimax": "| 1.20 [1.00, 2.00] (3) | 1.23 [1.00, 2.00] (3) | – | 1.23 [1.00, 2.00] (3), `drr` |",
    "one_default": "| LeNet-5, macs | 1 145 000 MACs | 1 146 500 | 0.9999 | 0.0412 | 12.3 | 1.23 |\n"
    "| `snn_mlp`, seed 1: failed: a loss is not finite | – |",
    "spiking": "| snn_mlp, `gda` | 1 | 1 | 29.1 | 12.34 | 1.23 [1.00, 2.00] (3) | 2 of 3 |",
    "reversed": "| 98% | 1 [1, 2] (3) | 1.2 [1.0, 2.0] (3) | 1.23 [1.00, 2.00] (3) | 1.23 [1.00, 2.00] (3) | 2 of 3 |",
    "teacher_student": "| 2 000 | 102 | 81, 90 | 50 | 50 |",
    "pmmp_study": "| `drr`, α = 1e-4 | 2.29 | 2.55 | 2.55 | 0.001 | 3 |\n| α steered until the cut is small; u along",
    "coded": "| zstd -19, of the pruned and rounded weights | 2 342 |",
    "description_length": "1.20 times the bytes",
    "overhead": "| net | `gda` | 3.1 ms | 1.04 [1.00, 1.10] | 1.06 [1.00, 1.10] |",
    "emitted": "| `lc` | 2 | 1 |\n| `gda` | 0 | 0 |\n| all | 3 | 2 |",
    "resume": "Of 20 runs 19 ended",
    "projection": "| selection, warm | 2.0 | 4.1 | 8.0 | 5 |",
    "check": "| ResNet-50 | 0.25 s | 0.31 s |",
    "gpu": "| laws | passed | 9 passed |",
}


def test_the_pages_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert readme.main(["--check"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_becomes_a_table(name: str, tmp_path: Path) -> None:
    assert "makes one" in readme.section(name, tmp_path)
    (tmp_path / name).mkdir()
    (tmp_path / name / "result.json").write_text(json.dumps(RESULTS[name]))
    assert SHOWN[name] in readme.section(name, tmp_path)


def test_what_loses_is_said_to_lose() -> None:
    study: Any = RESULTS["pmmp_study"]
    assert "2.19 % (1) and is ahead of `drr` with 2.29 % (3)" in readme.pmmp_study(study)
    study = {"summary": {**study["summary"], "simultaneous": {**study["summary"]["drr α=0.0001"], "error": 2.3}}}
    assert "2.30 % (3) and is not ahead of `drr` with 2.29 % (3)" in readme.pmmp_study(study)
    found: Any = RESULTS["description_length"]
    assert "It loses to LZMA2" in readme.description_length(found)
    better = {**found, "compressors": {"LZMA2 (xz -9e)": {"total bytes": 700}}}
    assert "It beats LZMA2" in readme.description_length(better)


def test_minimax_says_where_it_is_ahead() -> None:
    found: Any = RESULTS["minimax"]
    shown = readme.minimax.section(found)
    assert "Budgets met: 8 of 9 runs. `gda` has the least mean error of the methods measured at 1 of 1 points." in shown


def test_links_lead_from_every_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readme, "section", lambda name: f"![{name}](docs/images/x.svg)\n")
    page = "<!-- numbers: check -->\n<!-- end -->"
    assert "](docs/images/x.svg)" in readme.written(page)
    assert "](../docs/images/x.svg)" in readme.written(page, "../")


def test_a_stale_page_is_found_and_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- numbers: projection -->\nold\n<!-- end -->\nafter\n")
    monkeypatch.setattr(readme, "PAGES", (page,))
    assert readme.main(["--check"]) == 1
    assert "page.md" in capsys.readouterr().err
    assert "old" in page.read_text()
    assert readme.main([]) == 0
    assert readme.main(["--check"]) == 0
    assert page.read_text().startswith("before\n<!-- numbers: projection -->\n")
    assert page.read_text().endswith("<!-- end -->\nafter\n")


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda p: p.parent.name)
def test_every_benchmark_is_on_every_page(page: Path) -> None:
    marked = [m[2] for m in readme.MARKED.finditer(page.read_text(encoding="utf-8"))]
    assert marked == list(readme.WRITERS)
