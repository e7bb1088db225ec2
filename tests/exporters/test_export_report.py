"""The figures of an export as a table, and the file to ship."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch; install [train]")
onnx = pytest.importorskip("onnx", reason="exporting needs onnx; install [train]")
pytestmark = [pytest.mark.train]

from support.models.tiny_nets import spec_for

from catdog_edge.errors import GateError
from catdog_edge.training.models.registry import CENTRED
from exporters import export_report
from exporters.checks.acceptance import judge
from exporters.checks.predictors import Answers
from exporters.checks.timing import Ratio
from exporters.export_report import Exported, ExportedFile


def file_of(name: str, size: float, ratio: float, refused: str = "") -> ExportedFile:
    answers = np.float32([[0.9, 0.1], [0.2, 0.8]])
    verification = judge(Answers(answers), Answers(answers), None, spec_for(CENTRED))
    precision = "int8-static" if "static" in name else "int8-dynamic" if "dyn" in name else "fp32"
    timed = None if name == "model.onnx" else Ratio(ratio, ratio, ratio)
    return ExportedFile(
        name, precision, int(size * 1e6), verification, "", 1.0, timed, refused=refused
    )


@pytest.mark.parametrize(
    ("others", "said", "code"),
    [
        (
            [("model.dynamic.onnx", 4, 1, "saves nothing"), ("model.static.onnx", 1, 0.4, "")],
            "model.static.onnx: 2.5 times as fast as model.onnx (95 % interval 2.5 to 2.5), "
            "4.0 times smaller, the same answer on 100 % of 2 images",
            None,
        ),
        (
            [("model.dynamic.onnx", 1.1, 1.02, ""), ("model.static.onnx", 0.8, 1.7, "too slow")],
            "model.dynamic.onnx: as fast as model.onnx (95 % interval 1.0 to 1.0), 3.6 times "
            "smaller, the same answer on 100 % of 2 images",
            None,
        ),
        (
            [("model.dynamic.onnx", 4, 1, "saves nothing"), ("model.static.onnx", 1, 2, "slow")],
            "model.onnx: no smaller file passed its checks and is as fast",
            "not kept: model.dynamic.onnx: saves nothing; model.static.onnx: slow",
        ),
        ([], "model.onnx: it answers as PyTorch does; for a smaller one", None),
    ],
)
def test_one_line_says_which_file_to_ship(
    others: list[tuple[str, float, float, str]], said: str, code: str | None
) -> None:
    files = (file_of("model.onnx", 4, 1), *(file_of(*one) for one in others))
    exported = Exported(files, {"options": {"quantize": "auto"}}, Path("runs/x"))
    assert exported.advice().startswith(f"ship runs/x/{said}")
    if code is None:
        exported.require()
    else:
        with pytest.raises(GateError, match=re.escape(code)):
            exported.require()


def test_an_imported_file_is_not_said_to_be_pytorchs() -> None:
    file = replace(file_of("model.onnx", 4, 1), reference="theirs-imported.onnx")
    said = Exported((file,), {}, Path("runs/x")).advice()
    assert said.startswith("ship runs/x/model.onnx: it is theirs-imported.onnx; for a smaller one")


def test_the_table_says_what_is_kept_and_how_it_compares() -> None:
    verification = judge(
        Answers(np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)),
        Answers(np.array([[0.9, 0.1], [0.6, 0.4]], np.float32)),
        np.array([0, 1]),
        spec_for().replace(precision="int8-static"),
    )
    rows = [
        export_report.ExportedFile("model.onnx", "fp32", 4_420_000, verification, "best.pt", 1.25),
        export_report.ExportedFile(
            "model.static.onnx", "int8-static", 1_130_000, verification, "model.onnx", 0.4,
            Ratio(0.3, 0.29, 0.31), refused="too bad",
        ),
    ]  # fmt: skip
    caption, head, *lines = export_report.table(rows).splitlines()
    assert "a call of one image" in caption
    first = next(line for line in lines if line.startswith("model.onnx"))
    second = next(line for line in lines if line.startswith("model.static.onnx"))
    below = lines[lines.index(second) + 1]
    assert head.index("MB") + len("MB") == first.index("4.42") + len("4.42")
    for cell in ("1.13", "0.40", "0.30", "50.00%", "-50.00"):
        assert cell in second
    assert below.startswith("  refused")
    assert "0.29..0.31" in below
    assert below.index("0.29..0.31") + len("0.29..0.31") == second.index("0.30") + len("0.30")
    assert max(map(len, (caption, head, *lines))) <= 80
    assert "refused" not in lines[lines.index(first) + 1]


def test_the_table_says_how_many_pictures_a_call_holds() -> None:
    same = Answers(np.array([[0.9, 0.1]], np.float32))
    verification = judge(same, same, None, spec_for())
    row = export_report.ExportedFile("model.onnx", "fp32", 1, verification, "best.pt", 3.0, batch=3)
    assert "a call of 3 images" in export_report.table([row]).splitlines()[0]
    assert row.to_dict()["pictures_a_call"] == 3
