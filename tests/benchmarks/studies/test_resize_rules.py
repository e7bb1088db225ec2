"""The ways to squash a frame: what they are, and the table that compares them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")

from support.paths import DATA, TINY

from benchmarks.studies import resize_rules

pytestmark = pytest.mark.train


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Red cats and blue dogs with some noise."""
    generator = np.random.default_rng(4)
    for number in range(6):
        frame = generator.integers(0, 60, (90 + number, 120, 3), dtype=np.uint8)
        frame[..., 2 if number % 2 == 0 else 0] += 190
        cv2.imwrite(str(tmp_path / f"{('cat', 'dog')[number % 2]}.{number}.png"), frame)
    return tmp_path


def test_the_rules_end_at_the_size_and_shrink_in_between() -> None:
    rules = resize_rules.rules(32)
    assert next(iter(rules)) == "area"
    assert {(steps[-1].width, steps[-1].height) for steps in rules.values()} == {(32, 32)}
    assert [rules[f"linear to {n}x, then area"][0].width for n in (2, 3)] == [64, 96]
    assert all(steps[0].shrink_only for name, steps in rules.items() if " to " in name)


def test_a_mosaic_has_all_photographs_in_order() -> None:
    frames = [np.full((90, 120, 3), 10 * number, np.uint8) for number in range(5)]
    made = resize_rules.mosaic(frames)
    assert made.shape == (1080, 1920, 3)
    assert [int(made[y, x, 0]) // 10 for y in (0, 400, 800) for x in (0, 500, 1000, 1500)] == [
        0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1,
    ]  # fmt: skip


@pytest.mark.slow
def test_the_table_has_times_differences_and_accuracy(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(DATA / "tiny_known.onnx")
    assert resize_rules.main([str(pictures), "--model", model, "--seconds", "0.1"]) == 0
    first, heads, _, *lines = capsys.readouterr().out.splitlines()
    rows = {line.strip("| ").split(" | ")[0]: line.strip("| ").split(" | ")[1:] for line in lines}
    assert first.startswith("6 photographs, median height 93 pixels, to ")
    assert list(rows) == list(resize_rules.rules(32))
    assert heads.endswith("answers that change | mean shift of a probability |")
    area, linear = rows["area"], rows["linear"]
    assert area[2:] == ["0.00", "0.00", "100.0% (61.0% to 100.0%)", "0", "0.0000"]
    assert all(float(row[2]) < float(linear[2]) for name, row in rows.items() if name != "linear")
    assert 1 < float(linear[3]) < 60
    assert all(0 < float(time) < 1000 for row in rows.values() for time in row[:2])
    assert float(area[0]) > float(area[1])


@pytest.mark.slow
def test_without_a_model_there_is_no_accuracy(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert resize_rules.main([str(pictures), "--size", "16", "--seconds", "0.1"]) == 0
    out = capsys.readouterr().out
    assert "to 16x16; one thread" in out
    assert "| rule | 1080p frame, ms | 24x24 frame, ms |" in out
    assert "accuracy" not in out
    assert resize_rules.main([str(pictures / "none"), "--model", str(TINY)]) == 1
