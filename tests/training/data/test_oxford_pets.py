"""Oxford-IIIT Pet, fetched from a small archive of the same shape on loopback."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from catdog_edge.errors import DataError
from catdog_edge.training.data import oxford_pets
from catdog_edge.training.data.open_dataset import open_dataset

pytestmark = pytest.mark.train
torchvision = pytest.importorskip("torchvision")

BREEDS = (("Abyssinian", 1), ("american_bulldog", 2), ("Birman", 1), ("beagle", 2))


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            packed.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def small_pets() -> dict[str, bytes]:
    images, lists = {}, {"trainval": "", "test": ""}
    for index, (breed, species) in enumerate(BREEDS):
        for number in range(30):
            coarse = np.random.default_rng([index, number]).integers(0, 256, (3, 4, 3), np.uint8)
            frame = cv2.resize(coarse, (32, 24), interpolation=cv2.INTER_CUBIC)
            images[f"images/{breed}_{number}.jpg"] = cv2.imencode(".jpg", frame)[1].tobytes()
            side = "trainval" if number % 2 else "test"
            lists[side] += f"{breed}_{number} {index + 1} {species} 1\n"
    notes = {f"annotations/{name}.txt": text.encode() for name, text in lists.items()}
    # The real archive has masks beside the lists; they must not be taken for pictures.
    notes["annotations/trimaps/beagle_1.png"] = images["images/beagle_1.jpg"]
    return {"images.tar.gz": archive(images), "annotations.tar.gz": archive(notes)}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Torchvision's two archives, small and on loopback; yields the paths that are asked for."""
    asked: list[str] = []
    folder = tmp_path / "www"
    folder.mkdir()
    files = small_pets()
    for name, data in files.items():
        (folder / name).write_bytes(data)

    class Handler(Quiet):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

    handler = functools.partial(Handler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    resources = tuple(
        (f"http://127.0.0.1:{server.server_port}/{name}", hashlib.md5(data).hexdigest())
        for name, data in files.items()
    )
    monkeypatch.setattr(torchvision.datasets.OxfordIIITPet, "_RESOURCES", resources)
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path / "cache"))
    yield asked
    server.shutdown()
    server.server_close()


def test_fetched_once_and_labelled_by_species(served: list[str], tmp_path: Path) -> None:
    dataset = open_dataset("oxford-pets")
    assert dataset.labels == ("cat", "dog")
    assert len(dataset.items) == 120
    assert dataset.skipped == dataset.notes == ()
    cats = {item.file.rsplit("_", 1)[0] for item in dataset.items if item.label == 0}
    assert cats == {"Abyssinian", "Birman"}
    assert set(served) == {"/images.tar.gz", "/annotations.tar.gz"}
    requests = len(served)
    # The second time there is no network at all; the run's own record opens it as a folder.
    again = open_dataset(dataset.source)
    assert again.items == open_dataset("oxford-pets").items == dataset.items
    assert len(served) == requests
    assert Path(dataset.source).is_relative_to(tmp_path / "cache")


def test_those_that_start_together_fetch_once(
    served: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched, fetch = [], oxford_pets._download
    monkeypatch.setattr(oxford_pets, "_download", lambda base: (fetched.append(base), fetch(base)))
    with ThreadPoolExecutor(4) as pool:
        sets = list(pool.map(open_dataset, ["oxford-pets"] * 4))
    assert [len(dataset.items) for dataset in sets] == [120] * 4
    assert len(fetched) == 1


def test_no_network_is_one_line(served: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = (("http://127.0.0.1:9/images.tar.gz", "0" * 32),) * 2
    monkeypatch.setattr(torchvision.datasets.OxfordIIITPet, "_RESOURCES", nowhere)
    with pytest.raises(DataError, match="cannot be downloaded") as caught:
        open_dataset("oxford-pets")
    assert "check the network" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_archive_is_refused_and_fetched_again(
    served: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = torchvision.datasets.OxfordIIITPet._RESOURCES
    wrong = tuple((url, "0" * 32) for url, _ in good)
    monkeypatch.setattr(torchvision.datasets.OxfordIIITPet, "_RESOURCES", wrong)
    with pytest.raises(DataError, match="cannot be downloaded"):
        open_dataset("oxford-pets")
    monkeypatch.setattr(torchvision.datasets.OxfordIIITPet, "_RESOURCES", good)
    assert len(open_dataset("oxford-pets").items) == 120


def spoil_table(base: Path) -> None:
    (base / "images" / "labels.csv").write_bytes(b"")


def spoil_half_of_the_pictures(base: Path) -> None:
    for path in sorted((base / "images").glob("*.jpg"))[::2]:
        path.unlink()


def spoil_images(base: Path) -> None:
    """As an interrupted unpacking leaves them."""
    (base / "images" / "labels.csv").unlink()
    for path in sorted((base / "images").glob("*.jpg"))[60:]:
        path.unlink()
    first = min((base / "images").glob("*.jpg"))
    first.write_bytes(first.read_bytes()[:100])


def spoil_annotations(base: Path) -> None:
    (base / "images" / "labels.csv").unlink()
    (base / "annotations" / "test.txt").unlink()


SPOILT = (spoil_table, spoil_half_of_the_pictures, spoil_images, spoil_annotations)


@pytest.mark.parametrize("spoil", SPOILT)
@pytest.mark.parametrize("archives", [True, False])
def test_an_incomplete_folder_is_mended(
    spoil: Callable[[Path], None], archives: bool, served: list[str]
) -> None:
    dataset = open_dataset("oxford-pets")
    base = Path(dataset.source).parent
    spoil(base)
    if not archives:
        for path in base.glob("*.tar.gz"):
            path.unlink()
    requests = len(served)
    again = open_dataset("oxford-pets")
    assert again.items == dataset.items
    if archives:
        assert len(served) == requests  # the archives were there, whole


@pytest.mark.parametrize("spoil", SPOILT[1:])
def test_an_incomplete_folder_without_a_network_is_one_line_that_names_it(
    spoil: Callable[[Path], None], served: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Path(open_dataset("oxford-pets").source).parent
    for path in base.glob("*.tar.gz"):
        path.unlink()
    spoil(base)
    if spoil is spoil_images:
        (base / "annotations").rename(base / "other")
    nowhere = (("http://127.0.0.1:9/images.tar.gz", "0" * 32),) * 2
    monkeypatch.setattr(torchvision.datasets.OxfordIIITPet, "_RESOURCES", nowhere)
    with pytest.raises(DataError, match="what is there is incomplete") as caught:
        open_dataset("oxford-pets")
    assert f"delete {base}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_without_bytes_is_missing_and_a_row_without_a_label_spoils_a_table(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"1")
    (tmp_path / "b.jpg").write_bytes(b"")
    assert oxford_pets._is_complete(tmp_path, [("a.jpg", "cat")])
    assert not oxford_pets._is_complete(tmp_path, [("a.jpg", "cat"), ("b.jpg", "dog")])
    assert not oxford_pets._is_complete(tmp_path, [])
    assert not oxford_pets._is_complete(tmp_path / "absent", [("a.jpg", "cat")])
    for text, rows in (("a.jpg,cat\n", [("a.jpg", "cat")]), ("a.jpg,cat\nb.jpg,\n", [])):
        (tmp_path / "labels.csv").write_text(f"image,label\n{text}")
        assert oxford_pets._table(tmp_path) == rows
    (tmp_path / "annotations").mkdir()
    lists = {
        "trainval": "#Image CLASS-ID SPECIES BREED ID\n\nAby_1 1 1 1\n",
        "test": "pug_2 9 2 7\n",
    }
    for name, text in lists.items():
        (tmp_path / "annotations" / f"{name}.txt").write_text(text)
    assert oxford_pets._annotations(tmp_path) == [("Aby_1.jpg", "cat"), ("pug_2.jpg", "dog")]


def test_a_cache_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "oxford-pets").touch()
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"cannot write .*oxford-pets: File exists; free some"):
        oxford_pets.pets_folder()


def test_archives_that_a_person_has_unpacked_need_no_network(
    served: list[str], tmp_path: Path
) -> None:
    base = tmp_path / "cache" / "oxford-pets" / "oxford-iiit-pet"
    safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # from Python 3.11.4
    for data in small_pets().values():
        with tarfile.open(fileobj=io.BytesIO(data)) as packed:
            packed.extractall(base, **safely)
    assert len(open_dataset("oxford-pets").items) == 120
    assert served == []


def test_a_corrected_table_stays(served: list[str]) -> None:
    table = Path(open_dataset("oxford-pets").source) / "labels.csv"
    corrected = table.read_text().replace("beagle_1.jpg,dog", "beagle_1.jpg,cat")
    table.write_text(corrected)
    (table.parent / "beagle_2.jpg").unlink()
    assert len(open_dataset("oxford-pets").items) == 120
    assert table.read_text() == corrected


def test_a_download_ends_after_half_a_minute_without_a_response(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def hang(*_: object, **__: object) -> None:
        seen.append(socket.getdefaulttimeout())
        raise OSError("timed out")

    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", hang)
    with pytest.raises(DataError, match=r"cannot be downloaded \(timed out\); check the network"):
        oxford_pets._download(tmp_path / "pets")
    assert seen == [30.0]
    assert socket.getdefaulttimeout() is None
