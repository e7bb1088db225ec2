"""The heat map of a file: exact, in every precision, and beside a graph that stays as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch; install [train]")
onnx = pytest.importorskip("onnx", reason="exporting needs onnx; install [train]")
pytestmark = [pytest.mark.train, pytest.mark.slow]

from support.models.tiny_nets import FRAMES, LABELS, pictures, settle, spec_for, trained
from torch import nn

from catdog_edge import Classifier
from catdog_edge.errors import ModelError
from catdog_edge.runtime.heat_map import HEAT_MAP
from catdog_edge.runtime.model_file import find_model
from catdog_edge.runtime.providers.start import Settings
from catdog_edge.runtime.session import ModelSession
from catdog_edge.spec import ModelSpec, Rejection
from catdog_edge.training.evaluation.inference import logits
from catdog_edge.training.models.imagenet_head import (
    build_grouped,
    calibrate_known,
    class_groups,
    set_group_temperature,
)
from catdog_edge.training.models.registry import architecture
from exporters.checks.map_correlation import map_correlation
from exporters.checks.predictors import OnnxPredictor
from exporters.formats.dynamic_int8 import quantize_dynamic
from exporters.formats.fp16 import convert_fp16, pack_weights
from exporters.formats.torch_export import export_onnx
from exporters.graph.add_heat_map import add_heat_map
from exporters.graph.onnx_file import read_proto, write_model
from exporters.static_int8.quantize import calibrate, quantize

KNOWN = Rejection("known", 0.5)


def maps_of(path: Path, frames: np.ndarray) -> np.ndarray:
    """`float32 [N,K,h,w]`."""
    session = ModelSession(find_model(path), "cpu", Settings(1, spin=False)).heat_map()
    return session.run(list(frames))[1]


def grouped() -> tuple[nn.Module, ModelSpec]:
    """A network with nine categories in two classes and the rest, scaled and shifted."""
    torch.manual_seed(0)
    arch = architecture("edge_cnn")
    spec = spec_for(arch.normalization, ("cat", "dog"), 64, "edge_cnn").replace(rejection=KNOWN)
    network = settle(build_grouped("edge_cnn", [2, 3, 4]), spec, pictures(12, 64))
    set_group_temperature(network, 0.5)
    calibrate_known(network, 1.7, 0.3)
    return network, spec


def one_more_logit() -> tuple[nn.Module, ModelSpec]:
    torch.manual_seed(0)
    arch = architecture("edge_cnn")
    spec = spec_for(arch.normalization, LABELS, 64, "edge_cnn").replace(rejection=KNOWN)
    return settle(arch.build(4), spec, pictures(12, 64)), spec


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A network with groups in every form, without heat maps."""
    folder = tmp_path_factory.mktemp("forms")
    network, spec = grouped()
    made = {one: folder / f"{one}.onnx" for one in ("fp32", "half", "packed", "dynamic", "static")}
    export_onnx(network, spec, made["fp32"], logits=True)
    convert_fp16(made["fp32"], made["half"])
    pack_weights(made["half"], made["packed"])
    quantize_dynamic(made["fp32"], made["dynamic"])
    calibrated = calibrate(made["fp32"], pictures(24, 64, seed=1))
    write_model(quantize(calibrated), made["static"], calibrated.spec)
    return made


@pytest.mark.parametrize("make", [trained, one_more_logit])
def test_the_mean_of_the_map_and_the_bias_are_the_logit(make, tmp_path: Path) -> None:
    network, spec = make()
    path = export_onnx(network, spec, tmp_path / "model.onnx").path
    add_heat_map(path)
    frames = pictures(5, spec.height)
    maps = maps_of(path, frames)
    assert maps.dtype == np.float32
    assert maps.shape[:2] == (5, len(LABELS))
    assert min(maps.shape[2:]) > 1
    head = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    found = maps.mean((2, 3)) + head.bias.detach().numpy()[: len(LABELS)]
    expected = logits(network, spec.normalization, frames)[:, : len(LABELS)]
    assert np.abs(found - expected).max() < 1e-5 * max(1, np.abs(expected).max())


def test_a_class_of_several_categories_is_exact_as_well(files: dict[str, Path]) -> None:
    """Its logit is the mean of theirs by their shares, plus the entropy of the shares."""
    network, spec = grouped()
    add_heat_map(files["fp32"])
    frames = pictures(5, 64)
    held: list[torch.Tensor] = []
    groups = class_groups(network)
    hook = groups.register_forward_hook(lambda module, inputs, output: held.append(inputs[0]))
    expected = logits(network, spec.normalization, frames)[:, :2]
    hook.remove()
    linear = next(module for module in network.classifier if isinstance(module, nn.Linear))
    categories, bias = torch.cat(held), linear.bias.detach()
    means = maps_of(files["fp32"], frames).mean((2, 3))
    for number, part in enumerate((slice(0, 2), slice(2, 5))):
        shares = categories[:, part].softmax(1)
        rest = shares @ bias[part] - (shares * shares.log()).sum(1)
        rest = groups.scale[number] * rest + groups.shift[number]
        assert np.abs(means[:, number] + rest.numpy() - expected[:, number]).max() < 1e-4


@pytest.mark.parametrize("form", ["half", "packed", "dynamic", "static"])
def test_every_form_has_the_map_of_fp32(form: str, files: dict[str, Path]) -> None:
    add_heat_map(files["fp32"])
    add_heat_map(files[form])
    found = map_correlation(files["fp32"], files[form], pictures(12, 64, seed=2))
    assert found.images == 12
    assert 0.97 < found.lowest <= found.median <= 1 + 1e-6
    assert f"by {found.median:.3f}" in str(found)


def test_graph_and_answers_stay_as_they_are(files: dict[str, Path]) -> None:
    frames = pictures(4, 64)
    for path in files.values():
        before, answers = read_proto(path), OnnxPredictor(path).predict(frames)
        add_heat_map(path)
        after, again = read_proto(path), OnnxPredictor(path).predict(frames)
        assert after.graph == before.graph
        assert np.array_equal(answers.probabilities, again.probabilities)
        assert len(after.metadata_props) <= len(before.metadata_props) + 1


def test_any_program_gets_the_output_by_adding_bytes(tmp_path: Path) -> None:
    """As docs/heat-maps.md says."""
    import base64

    import onnxruntime

    path = export_onnx(*trained(), tmp_path / "model.onnx").path
    add_heat_map(path)
    session = onnxruntime.InferenceSession(path)
    more = session.get_modelmeta().custom_metadata_map["catdog_edge_heat_map"]
    data = path.read_bytes() + base64.b64decode(more)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    session = onnxruntime.InferenceSession(data)
    assert session.get_outputs()[-1].shape == ["N", 3, 8, 8]
    [maps] = session.run([HEAT_MAP], {"frames": FRAMES[:2]})
    assert np.array_equal(maps, maps_of(path, FRAMES[:2]))


def test_it_shows_where_the_class_is(tmp_path: Path) -> None:
    network, spec = trained()
    path = export_onnx(network, spec, tmp_path / "model.onnx").path
    add_heat_map(path)
    frame = pictures(2)[1].copy()  # dark
    frame[:16, 16:] = pictures(1)[0, :16, 16:]  # bright on the upper right
    model = Classifier(path, "cpu", threads=1)
    bright, dark = (model.explain(frame, label) for label in ("bright", "dark"))
    quarter = bright[:16, 16:]
    assert quarter.mean() > 2 * (bright.sum() - quarter.sum()) / 768
    assert dark[:16, 16:].mean() < 0.5 * dark.mean()
    assert np.array_equal(model.explain(frame), model.explain(frame, model(frame).label))


@pytest.mark.parametrize("head", ["flat", "two layers"])
def test_another_head_is_one_line(head: str, tmp_path: Path) -> None:
    """As those of simple_cnn and mobilenet_v3_small."""
    layers = [nn.Conv2d(3, 4, 3, stride=8), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1)] * (head != "flat") + [nn.Flatten()]
    layers += [nn.Linear(4 if head != "flat" else 64, 8), nn.Hardswish()] * (head != "flat")
    layers += [nn.Linear(8 if head != "flat" else 64, 3)]
    path = export_onnx(nn.Sequential(*layers), spec_for(), tmp_path / "model.onnx").path
    before = path.read_bytes()
    with pytest.raises(ModelError, match="tiny has no heat map: its head is not a global average"):
        add_heat_map(path)
    assert path.read_bytes() == before
