"""Gates: limits for a bench, and the comparison with the `bench.json` of an earlier run.

The command exits with code 3 where a gate is not met.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.bench_rows import REFERENCE
from benchmarks.measure.environment import machine_of
from benchmarks.report.document import SCHEMA
from benchmarks.report.tables import Document, bases, reference_name
from benchmarks.report.text import few
from catdog_edge.errors import CatdogError, GateError
from exporters.checks.acceptance import LIMITS, Verdict, judge_drop, judge_share
from exporters.export_report import AS_FAST

NEW_BASELINE = "make a new one with: catdog-edge bench"
TOLERANCE = 10.0  # percent by which a ratio or a size may exceed the baseline's
BASELINE_DROP = 0.5  # percentage points of accuracy that a row may lose against the baseline
EPSILON = 1e-9  # rounding error allowed for a figure that equals its limit
MAX_RESIZE = 1.5
"""Least limit for the time of the resize over the baseline's; a higher tolerance raises it.
PyTorch's row resizes as well, so the ratios do not show it; and one short run differs from the
next by a tenth or two."""


@dataclass(frozen=True)
class Limits:
    """The limits given on the command line; `None` or empty: not given.

    `max_drop` and `min_agreement` are in percentage points and percent of the test images,
    against PyTorch; `max_ratio` in times PyTorch's time, by row; `tolerance` in percent of the
    baseline's time and size. `strict` takes an estimated loss as it is, however few the images.
    """

    max_drop: float | None = None
    min_agreement: float | None = None
    max_ratio: Mapping[str, float] = field(default_factory=dict)
    tolerance: float = TOLERANCE
    strict: bool = False


@dataclass(frozen=True)
class Gate:
    """One limit and the measured value, both in the gate's own unit, `None` where a row is missing.

    `says` has both in words.
    """

    gate: str
    row: str
    limit: float | None
    value: float | None
    met: bool
    says: str

    @classmethod
    def at_most(cls, gate: str, row: str, value: float, limit: float, says: str) -> Gate:
        """Create a gate whose value must not exceed its limit."""
        return cls(gate, row, limit, value, value <= limit + EPSILON, says)


def parse_max_ratio(texts: Sequence[str]) -> dict[str, float]:
    """Parse `ROW=X` pairs; a `ValueError` quotes one of another form, or a second one of a row."""
    result = {}
    for text in texts:
        row, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if not row or not (math.isfinite(value) and value > 0):
            raise ValueError(f"{text!r} is not ROW=X with a number above 0, like: model.static=0.4")
        if row in result:
            raise ValueError(f"{text!r} is a second limit for {row}; give one")
        result[row] = value
    return result


def read_baseline(path: Path, written: Path | None = None) -> dict[str, Any]:
    """Read an earlier `bench.json`; `CatdogError` for none, a damaged, foreign or older one."""
    if written is not None and path.resolve() == written.resolve():
        # A regression would be the next run's baseline.
        raise CatdogError(
            f"the baseline {path} is where this run writes its own figures; name "
            "another folder for them with --out, or copy the baseline away first"
        )

    def refuse(name: str) -> float:
        raise ValueError(f"a figure is {name}")

    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
        if not isinstance(document, dict) or document.get("kind") != "catdog-edge bench":
            raise CatdogError(f"{path} is not a bench.json of catdog-edge; name one that is")
        if document.get("schema") != SCHEMA:
            raise CatdogError(
                f"the baseline {path} has schema {document.get('schema')}, this catdog-edge "
                f"compares schema {SCHEMA}; {NEW_BASELINE}"
            )
        if not any(row["engine"] == "onnxruntime" for row in document["rows"]):
            raise ValueError("it has no exported file")
        list(_baseline_gates({**document, "noise": []}, Limits(), document))  # reads all figures
    except OSError as error:
        raise CatdogError(
            f"cannot read the baseline {path}: {error.strerror}; keep the bench.json of a run "
            "that was good, and name it with --baseline"
        ) from error
    except (KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise CatdogError(f"the baseline {path} is damaged ({error}); {NEW_BASELINE}") from error
    return document


def check_comparable(baseline: Document, path: Path, here: Document) -> None:
    """Refuse a baseline of another machine, PyTorch, model, test set, thread count or batch.

    `path` is its file, for the message; `here` is `BenchPlan.describe()` of this run.
    """
    try:
        difference = next(_differences(baseline, here), None)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CatdogError(
            f"the baseline {path} is damaged (it lacks {error}); {NEW_BASELINE}"
        ) from error
    if difference is not None:
        raise CatdogError(
            f"the baseline {path} {difference}; measure a baseline here, or compare all the same "
            "with --force"
        )


def _differences(baseline: Document, here: Document) -> Iterator[str]:
    then, now = (machine_of(one["environment"]) for one in (baseline, here))
    if then != now:
        yield f"is of another machine: {then}; here: {now}"
    gpus = [one["environment"].get("gpu") for one in (baseline, here)]
    if all(gpus) and gpus[0]["name"] != gpus[1]["name"]:  # one of them may have no row there
        yield f"is of another machine: its GPU is {gpus[0]['name']}, here {gpus[1]['name']}"
    for name in ("architecture", "labels", "height", "width"):
        then, now = (one["model"][name] for one in (baseline, here))
        if then != now:
            then, now = (few(one) if name == "labels" else one for one in (then, now))
            yield f"is of another model: its {name} is {then}, here {now}"
    if baseline["data"]["digest"] != here["data"]["digest"]:
        yield f"was measured on other test images ({baseline['data']['name']})"
    then, now = (one["environment"]["packages"].get("torch") for one in (baseline, here))
    if then != now:
        yield (
            f"was measured against PyTorch {then}, here it is {now}: its speed is what all ratios "
            "are to"
        )
    rows = {row["name"]: row for row in here["rows"]}
    same = "give the same --threads and --batch"
    for before in baseline["rows"]:
        name, shape = before["name"], _shape(before)
        base = name.partition(":")[0]
        same_base = [other for other in rows if other.partition(":")[0] == base]
        if name in rows:
            then, now = before["architecture"], rows[name]["architecture"]
            if then != now:
                yield f"is of another model: its row {name} is {then}, here {now}"
            if shape != _shape(rows[name]):
                yield f"measured {name} with {shape}, here with {_shape(rows[name])}; {same}"
            then, now = (one["ratio"]["to"] for one in (before, rows[name]))
            if then != now:
                yield f"timed {name} against {then}, here it is against {now}"
        elif same_base and before["engine"] == "onnxruntime":  # not missing: named otherwise
            yield f"has the row {name} ({shape}), here it is: {', '.join(same_base)}; {same}"


def _shape(row: Mapping[str, Any]) -> str:
    return f"{row['threads']} threads, batch {row['batch']}"


def check(document: Document, limits: Limits, baseline: Document | None = None) -> list[Gate]:
    """Check a bench against its limits and an earlier one: an entry per limit and row.

    Examples:
        >>> [gate.row for gate in check(document, Limits(max_drop=1.0)) if not gate.met]
        ['model.static']
    """
    gates = [*_accuracy_gates(document, limits), *_time_gates(document, limits)]
    if baseline is not None:
        gates += _baseline_gates(document, limits, baseline)
    return gates


def _accuracy_gates(document: Document, limits: Limits) -> Iterator[Gate]:
    reference = reference_name(document)
    for row in bases(document):
        if row["is_reference"]:
            continue
        if limits.max_drop is not None:
            yield _drop_gate(row, limits.max_drop, limits.strict, reference)
        if (wanted := limits.min_agreement) is not None:
            agreement = 100 * row["answers"]["agreement"]
            says = f"agrees with {reference} on {agreement:.2f} %, required {wanted:g} %"
            met = agreement >= wanted - EPSILON
            yield Gate("min-agreement", row["base"], wanted, agreement, met, says)


def advice(document: Document, folder: Path) -> str:
    """Say which file to ship, and why: of those that are as fast as any on the CPU, the smallest.

    `folder` holds the files. Files that lose more accuracy than `BASELINE_DROP` do not count.
    """
    right = reference_name(document)
    first = next(row for row in document["rows"] if row["is_reference"])
    rows = [
        row
        for row in bases(document)
        if row["engine"] == "onnxruntime"
        and row["provider"] == "cpu"
        and row["file"].endswith(".onnx")
        and _has(folder, row)
        and _drop_gate(row, BASELINE_DROP, False, right).met
    ]
    if not rows:
        return f"no exported file on the CPU answers as well as {right}"
    best = min(row["ratio"]["value"] for row in rows)
    fast = [row for row in rows if row["ratio"]["value"] <= best * AS_FAST]
    row = min(fast, key=lambda row: row["size_bytes"])
    doubt = " (NOISY RUN: measure again before you quote it)" if document["noise"] else ""
    if row["is_reference"]:  # an imported file
        return f"no other file beside it is as fast and as good{doubt}; ship {folder / row['file']}"
    times, smaller = 1 / row["ratio"]["value"], first["size_bytes"] / row["size_bytes"]
    agreement = 100 * row["answers"]["agreement"]
    return (
        f"{times:.1f} times as fast as {right}{doubt}, {smaller:.1f} times smaller, "
        f"{agreement:.4g} % the same answers; ship {folder / row['file']}"
    )


def _has(folder: Path, row: Mapping[str, Any]) -> bool:
    """Whether the file of a row is in a folder: one of `--also` may have a name that is there."""
    path = folder / row["file"]
    if not path.is_file():
        return False
    digest: str = row["sha256"]
    return hashlib.sha256(path.read_bytes()).hexdigest() == digest


def _drop_gate(row: Mapping[str, Any], most: float, strict: bool, reference: str) -> Gate:
    """Judge a loss of accuracy as `export` and `verify` do, see docs/export.md."""
    answers = row["answers"]
    drop = 0.0 - 100 * answers["difference"]  # 0.0 -: no drop is 0, not -0
    says = f"loses {drop:.2f} points of accuracy against {reference}, allowed {most:g}"
    verdict = judge_drop(answers["difference"], answers["difference_high"], most, strict)
    if verdict is Verdict.UNDECIDED:
        wanted, clear = LIMITS[row["precision"]], answers["clear"]
        if judge_share(clear - answers["clear_flips"], clear, wanted.agreement) is Verdict.EXCEEDED:
            verdict, why = Verdict.EXCEEDED, "but clear answers differ"
        elif answers["log_odds_difference"] > wanted.logits:
            verdict, why = Verdict.EXCEEDED, "but the logits differ"
        else:
            why = "and no other check fails"
        says += f"; not statistically significant on {answers['pictures']:,} images, {why}"
    return Gate("max-drop", row["base"], most, drop, verdict is not Verdict.EXCEEDED, says)


def _time_gates(document: Document, limits: Limits) -> Iterator[Gate]:
    ratios = {row["name"]: row["ratio"] for row in document["rows"]}
    reasons = {one["row"]: one["reason"] for one in document["left_out"]}
    for name, limit in limits.max_ratio.items():
        if name in ratios:
            says = f"takes {_times(ratios[name])}, allowed {limit:g}"
            yield Gate.at_most("max-ratio", name, ratios[name]["value"], limit, says)
        else:
            says = f"was left out: {reasons.get(name, '')}"
            yield Gate("max-ratio", name, limit, None, False, says)


def _baseline_gates(document: Document, limits: Limits, baseline: Document) -> Iterator[Gate]:
    doubt = "; this run is noisy" if document["noise"] else ""
    doubt += "; the baseline was noisy" if baseline.get("noise") else ""
    rows = {row["name"]: row for row in document["rows"]}
    factor, more = 1 + limits.tolerance / 100, f"allowed {limits.tolerance:g} % more"
    allowed = BASELINE_DROP if limits.max_drop is None else limits.max_drop
    for before in baseline["rows"]:
        name = before["name"]
        now = rows.get(name)
        if now is None:
            if before["engine"] == "onnxruntime":
                says = "is in the baseline, but not in this run"
                yield Gate("baseline-row", name, None, None, False, says)
            continue
        old, new = before["ratio"], now["ratio"]
        # Beyond the tolerance, and by more than the uncertainty of the two runs.
        worse = new["value"] > old["value"] * factor + EPSILON and new["low"] > old["high"]
        says = f"takes {_times(new)}, in the baseline {_interval(old)}, {more}{doubt}"
        yield Gate("baseline-ratio", name, old["value"] * factor, new["value"], not worse, says)
        if before["stages_ms"] and now["stages_ms"]:
            # Decoding the same frame is OpenCV's code alone.
            stages = before["stages_ms"], now["stages_ms"]
            old, new = (one["resize"] / max(one["decode"], 1e-6) for one in stages)
            most = max(MAX_RESIZE, factor)
            says = (
                f"takes {new:.2f} times as long to resize a frame as to decode it, in the "
                f"baseline {old:.2f}, allowed {most:g} times that{doubt}"
            )
            yield Gate.at_most("baseline-resize", name, new, old * most, says)
        old, new = before["size_bytes"], now["size_bytes"]
        says = f"has {new / 1e6:.2f} MB, in the baseline {old / 1e6:.2f} MB, {more}"
        yield Gate.at_most("baseline-size", name, new, old * factor, says)
        old, new = before["answers"]["accuracy"], now["answers"]["accuracy"]
        says = (
            f"is right on {new:.2%}, in the baseline on {old:.2%}, allowed {allowed:g} points less"
        )
        yield Gate.at_most("baseline-accuracy", name, 100 * (old - new), allowed, says)


def enforce(gates: Sequence[Gate]) -> None:
    """Raise a `GateError` (exit code 3) with every row and gate that is not met, on one line."""
    broken = [gate for gate in gates if not gate.met]
    if broken:
        listed = "; ".join(
            f"{gate.row} {gate.says} "
            f"(--{'baseline' if gate.gate.startswith('baseline') else gate.gate})"
            for gate in broken
        )
        raise GateError(f"{len(broken)} of {len(gates)} gates not met: {listed}")


def _interval(ratio: Mapping[str, float]) -> str:
    return f"{ratio['value']:.3g} ({ratio['low']:.3g} to {ratio['high']:.3g})"


def _times(ratio: Mapping[str, Any]) -> str:
    base = str(ratio["to"]).partition(":")[0]  # on a GPU it is `pytorch@cuda`
    return f"{_interval(ratio)} times {'PyTorch' if base == REFERENCE else base}'s time"
