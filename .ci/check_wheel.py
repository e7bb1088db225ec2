"""Check what a built wheel holds: three packages, the typing marker, the licence, no studies."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

LIMIT = 25_000_000
"""Bytes. The models that ship are part of it."""

wheel = Path(sys.argv[1])
names = zipfile.ZipFile(wheel).namelist()
tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
problems = []
if tops != {"catdog_edge", "exporters", "benchmarks"}:
    problems.append(f"top level is {sorted(tops)}")
for wanted in (
    "catdog_edge/py.typed",
    "catdog_edge/cli/main.py",
    "catdog_edge/training/engine/trainer.py",
    "catdog_edge/training/config/recipes.yaml",
    "benchmarks/report/templates/page.html",
    "benchmarks/report/templates/page.css",
):
    if wanted not in names:
        problems.append(f"{wanted} is missing")
if any(name.startswith("benchmarks/studies/") for name in names):
    problems.append("benchmarks/studies is in it: programs of their own, run from a checkout")
if not any(name.endswith("licenses/LICENSE") for name in names):
    problems.append("the licence is missing")
if wheel.stat().st_size > LIMIT:
    problems.append(f"{wheel.stat().st_size:,} bytes, more than {LIMIT:,}")
print(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size:,} bytes")
if problems:
    sys.exit("\n".join(problems))
