"""Small data sets for tests: JPEGs of a few pixels, in folders, zips and tables."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from catdog_edge.training.data.dataset import Dataset


def image(seed: int) -> bytes:
    """A small JPEG; another seed, another image."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    frame = cv2.resize(coarse, (32, 24), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", frame)[1].tobytes()


def images(*folders: str, count: int = 20) -> dict[str, bytes]:
    """`FOLDER/0.jpg`, `FOLDER/1.jpg`, ... in each folder, all different."""
    return {
        f"{folder}/{number}.jpg": image(1000 * index + number)
        for index, folder in enumerate(folders)
        for number in range(count)
    }


def named(count: int = 40, prefixes: tuple[str, ...] = ("cat", "dog")) -> dict[str, bytes]:
    """`cat.0.jpg`, `dog.0.jpg`, ...: enough that every split has every class."""
    return {
        f"{prefix}.{number}.jpg": image(1000 * index + number)
        for index, prefix in enumerate(prefixes)
        for number in range(count)
    }


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files below a folder, and return the folder."""
    for name, data in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return folder


def write_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """Write files into a zip, and return its path."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def splits(dataset: Dataset) -> dict[str, str]:
    """Split by file."""
    return {item.file: item.split for item in dataset.items}


def labels(dataset: Dataset) -> dict[str, str]:
    """Label by file."""
    return {item.file: dataset.labels[item.label] for item in dataset.items}


def looks(frames: Iterable[np.ndarray]) -> np.ndarray:
    """Each image as 4 x 4 grey levels: `int [N,4,4]`, the same but for OpenCV's rounding."""
    grey = (cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames)
    small = [cv2.resize(one, (4, 4), interpolation=cv2.INTER_AREA) for one in grey]
    return np.array(small).astype(int)


def assert_looks(frames: Iterable[np.ndarray], levels: np.ndarray, most: int = 1) -> None:
    """Assert that images look as ever: rounding moves a level either way, and none on average."""
    apart = looks(frames) - levels
    assert np.abs(apart).max() <= most
    assert abs(apart.mean()) < 0.1


def looked(levels: str) -> np.ndarray:
    """What `looks` has returned, from hexadecimal digits."""
    return np.frombuffer(bytes.fromhex(levels), np.uint8).reshape(-1, 4, 4).astype(int)
