"""Classify every image of a folder, in batches, into a CSV file.

python folder_to_csv.py FOLDER FILE.csv [MODEL]
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from catdog_edge import CatdogError, Classifier, PictureError
from catdog_edge.images.read import is_picture, read_picture

if len(sys.argv) < 3:
    sys.exit("usage: python folder_to_csv.py FOLDER FILE.csv [MODEL]")
folder, target = Path(sys.argv[1]), Path(sys.argv[2])
files = sorted(file for file in folder.rglob("*") if is_picture(file))
if not files:
    sys.exit(f"folder_to_csv.py: there are no images in {folder}")
try:
    pets = Classifier(*sys.argv[3:4])
    with target.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "label", *pets.spec.labels])
        for start in range(0, len(files), 16):
            frames = {}
            for file in files[start : start + 16]:
                try:
                    frames[file] = read_picture(file)
                except PictureError as error:
                    print(f"{file}: {error}", file=sys.stderr)
            for file, answer in zip(frames, pets.batch(frames.values()), strict=True):
                values = [f"{value:.4f}" for value in answer.probabilities]
                rows.writerow([file.relative_to(folder), answer.label, *values])
except (CatdogError, OSError) as error:
    sys.exit(f"folder_to_csv.py: {error}")
