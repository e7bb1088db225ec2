from __future__ import annotations

import onnxruntime
import pytest
from click.testing import CliRunner
from support.paths import TINY

from catdog_edge.cli.main import main
from catdog_edge.runtime.providers.start import NAMES


def test_build_says_why_it_cannot() -> None:
    if NAMES["tensorrt"] in onnxruntime.get_available_providers():
        pytest.skip("this build of onnxruntime may have TensorRT")
    done = CliRunner().invoke(main, ["build", str(TINY)])
    assert done.exit_code == 1
    assert done.stderr.startswith("catdog-edge: tensorrt does not run here: ")
    assert done.stderr.count("\n") == 1
