"""How long every form of a network takes next to fp32; for the table in docs/export.md.

    python tests/support/programs/format_timing.py simple_cnn edge_cnn ...

Weights are random: they decide accuracy, not time.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from onnxruntime.quantization import QuantType
from onnxruntime.quantization import quantize_dynamic as everything_dynamic

from catdog_edge.spec import ModelSpec, squash
from catdog_edge.training.models.registry import architecture
from exporters.checks.predictors import open_session
from exporters.checks.timing import compare
from exporters.formats.dynamic_int8 import quantize_dynamic
from exporters.formats.fp16 import convert_fp16
from exporters.formats.ort import write_ort
from exporters.formats.torch_export import export_onnx
from exporters.graph.onnx_file import write_model
from exporters.info import megabytes
from exporters.static_int8 import quantize


def forms(name: str, folder: Path) -> dict[str, Path]:
    arch = architecture(name)
    torch.manual_seed(0)
    steps = squash(arch.size, arch.size)
    spec = ModelSpec(name, ("cat", "dog"), arch.size, arch.size, steps, arch.normalization)
    fp32 = export_onnx(arch.build(2), spec, folder / "fp32.onnx").path
    made = {"fp32": fp32, "dynamic": quantize_dynamic(fp32, folder / "dynamic.onnx").path}
    frames = np.random.default_rng(0).integers(0, 256, (8, arch.size, arch.size, 3), np.uint8)
    calibrated = quantize.calibrate(fp32, frames)
    for scheme in quantize.SCHEMES:
        model = quantize.quantize(calibrated, scheme)
        made[f"static {scheme}"] = folder / f"{scheme}.onnx"
        write_model(model, made[f"static {scheme}"], calibrated.spec)
    made |= {"half": folder / "half.onnx", "ort": folder / "model.ort"}
    convert_fp16(fp32, made["half"])
    write_ort(fp32, made["ort"])
    made["convolutions dynamic too"] = folder / "everything.onnx"
    everything_dynamic(fp32, made["convolutions dynamic too"], weight_type=QuantType.QUInt8)
    return made


for name in sys.argv[1:]:
    with tempfile.TemporaryDirectory() as folder:
        files = forms(name, Path(folder))
        calls = {}
        for title, path in files.items():
            session = open_session(path)
            frame = np.zeros((1, *session.get_inputs()[0].shape[1:]), np.uint8)
            calls[title] = lambda session=session, frame=frame: session.run(None, {"frames": frame})
        timing = compare(calls, 12.0)
        for title, path in files.items():
            row = timing.rows[title]
            print(
                f"{name:20} {title:26} {megabytes(path.stat().st_size):>9} "
                f"{row.p50 * 1e3:7.2f} ms  {timing.ratio(title)}"
            )
