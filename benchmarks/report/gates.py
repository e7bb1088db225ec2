"""Gates: limits that a bench must keep, and the baseline that it is held against.

Knows the document of `bench.json`, nothing of how it was measured. A gate that is not met is
told by the row's name, and the command ends with exit code 3.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure.environment import machine_of
from benchmarks.report.document import SCHEMA
from catdog_edge.errors import CatdogError, GateError

TOLERANCE = 10.0
"""Percent by which a ratio or a size may exceed the baseline's."""

BASELINE_DROP = 0.5
"""Percentage points of accuracy that a row may lose against the baseline."""

RESIZE = 1.5
"""How many times the baseline's share the resize may take: PyTorch's row resizes as well, so the
ratios do not tell; and one short run differs from the next by a tenth or two."""

EPSILON = 1e-9
"""What rounding may add to a figure that just keeps its limit."""


@dataclass(frozen=True)
class Limits:
    """What was asked for on the command line; `None` or empty: not asked for.

    Attributes:
        max_drop: Percentage points of accuracy that a row may lose against PyTorch.
        min_agreement: Percent of the pictures on which a row must agree with PyTorch.
        max_ratio: By row, how many times PyTorch's time it may take.
        tolerance: Percent by which a ratio or a size may exceed the baseline's.
    """

    max_drop: float | None = None
    min_agreement: float | None = None
    max_ratio: Mapping[str, float] = field(default_factory=dict)
    tolerance: float = TOLERANCE


@dataclass(frozen=True)
class Gate:
    """One limit and what was measured.

    Attributes:
        gate: `max-drop`, `min-agreement`, `max-ratio`, `baseline-ratio`, `baseline-resize`,
            `baseline-size`, `baseline-accuracy` or `baseline-row`.
        row: The row that it is about.
        limit: The limit, in the gate's own unit; `None` where there is no number.
        value: What was measured, in the same unit; `None` where the row is missing.
        met: Whether it is kept.
        says: The same in words, with both figures.
    """

    gate: str
    row: str
    limit: float | None
    value: float | None
    met: bool
    says: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def parse_max_ratio(texts: Sequence[str]) -> dict[str, float]:
    """Read `ROW=X` pairs.

    Raises:
        ValueError: One is not of that form, or a row is named twice; the message quotes it.
    """
    result = {}
    for text in texts:
        row, separator, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if not separator or not row or not (math.isfinite(value) and value > 0):
            raise ValueError(f"{text!r} is not ROW=X with a number above 0, like: model.static=0.4")
        if row in result:
            raise ValueError(f"{text!r} is a second limit for {row}; give one")
        result[row] = value
    return result


def read_baseline(path: Path) -> dict[str, Any]:
    """Read an earlier `bench.json`.

    Raises:
        CatdogError: There is none, or it is damaged, foreign or of another schema.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CatdogError(
            f"cannot read the baseline {path}: {error.strerror}; keep the bench.json of a run "
            "that was good, and name it with --baseline"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CatdogError(
            f"the baseline {path} is damaged ({error}); make a new one with: catdog-edge bench"
        ) from error
    if not isinstance(document, dict) or document.get("kind") != "catdog-edge bench":
        raise CatdogError(f"{path} is not a bench.json of catdog-edge; name one that is")
    if document.get("schema") != SCHEMA:
        raise CatdogError(
            f"the baseline {path} has schema {document.get('schema')}, this catdog-edge compares "
            f"schema {SCHEMA}; make a new one with: catdog-edge bench"
        )
    try:
        _check_rows(document["rows"])
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise CatdogError(
            f"the baseline {path} is damaged (its rows lack {error}); make a new one with: "
            "catdog-edge bench"
        ) from error
    return document


def _check_rows(rows: Any) -> None:
    """Look at every figure that a comparison will ask for."""
    if not isinstance(rows, list) or not any(row["engine"] == "onnxruntime" for row in rows):
        raise ValueError("an exported file")
    for row in rows:
        needed = [row["ratio"][end] for end in ("value", "low", "high")]
        needed += [row["threads"], row["batch"], row["size_bytes"] or 0]
        needed += [row["answers"]["accuracy"]] if row["answers"] else []
        stages = row["stages_ms"] or {"resize": 0, "decode": 0}
        needed += [stages["resize"], stages["decode"]]
        if not all(isinstance(one, int | float) and math.isfinite(one) for one in needed):
            raise ValueError("a number")
        if not all(isinstance(row[name], str) for name in ("name", "engine")):
            raise ValueError("a name")


def check_comparable(
    baseline: Mapping[str, Any],
    path: Path,
    *,
    environment: Mapping[str, Any],
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    rows: Mapping[str, tuple[int, int, str]],
) -> None:
    """Refuse a baseline that was measured on something else.

    Args:
        baseline: The document of the baseline.
        path: Where it was read, for the message.
        environment: The card of this run.
        model: `architecture`, `labels`, `height` and `width` of this run's model.
        data: `digest` of this run's test pictures.
        rows: Threads, batch and architecture of this run's rows, by name.

    Raises:
        CatdogError: The machine, PyTorch, the model or the test pictures are others, or a row
            of the same name was of another model, or had other threads or another batch.
    """
    remedy = "measure a baseline here, or compare all the same with --force"
    try:
        there, here = machine_of(dict(baseline["environment"])), machine_of(dict(environment))
        if there != here:
            raise CatdogError(
                f"the baseline {path} is of another machine: {there}; here: {here}; {remedy}"
            )
        for name in ("architecture", "labels", "height", "width"):
            if baseline["model"][name] != model[name]:
                raise CatdogError(
                    f"the baseline {path} is of another model: its {name} is "
                    f"{_words(baseline['model'][name])}, here {_words(model[name])}; {remedy}"
                )
        if baseline["data"]["digest"] != data["digest"]:
            raise CatdogError(
                f"the baseline {path} was measured on other test pictures "
                f"({baseline['data']['name']}); {remedy}"
            )
        then, now = (one["packages"].get("torch") for one in (baseline["environment"], environment))
        if then != now:
            raise CatdogError(
                f"the baseline {path} was measured against PyTorch {then}, here it is {now}: its "
                f"speed is what all ratios are to; {remedy}"
            )
        _check_names(baseline["rows"], path, rows)
        for row in baseline["rows"]:
            if row["name"] not in rows:
                continue
            threads, batch, architecture = rows[row["name"]]
            if row["architecture"] != architecture:
                raise CatdogError(
                    f"the baseline {path} is of another model: its row {row['name']} is "
                    f"{row['architecture']}, here {architecture}; {remedy}"
                )
            then, now = (row["threads"], row["batch"]), (threads, batch)
            if now != then:
                raise CatdogError(
                    f"the baseline {path} measured {row['name']} with {then[0]} threads, batch "
                    f"{then[1]}, here with {now[0]} threads, batch {now[1]}; give the same "
                    "--threads and --batch, or compare all the same with --force"
                )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CatdogError(
            f"the baseline {path} is damaged (it lacks {error}); make a new one with: "
            "catdog-edge bench"
        ) from error


def _check_names(
    before: Sequence[Mapping[str, Any]], path: Path, rows: Mapping[str, tuple[int, int, str]]
) -> None:
    """Tell a file that is missing from one whose rows have other names: other threads or batches.

    Raises:
        CatdogError: A file of the baseline is here, but with other threads or batches alone.
    """
    bases = {name.partition(":")[0] for name in rows}
    for row in before:
        name, base = row["name"], row["name"].partition(":")[0]
        if row["engine"] == "onnxruntime" and name not in rows and base in bases:
            here = ", ".join(other for other in rows if other.partition(":")[0] == base)
            raise CatdogError(
                f"the baseline {path} has the row {name} ({row['threads']} threads, batch "
                f"{row['batch']}), here it is: {here}; give the same --threads and --batch, or "
                "compare all the same with --force"
            )


def check(
    document: Mapping[str, Any], limits: Limits, baseline: Mapping[str, Any] | None = None
) -> list[Gate]:
    """Hold a bench against its limits.

    Args:
        document: What `bench.json` will hold: `rows`, `left_out`.
        limits: What was asked for.
        baseline: The document of an earlier run, made comparable.

    Returns:
        One entry per limit and row, met or not, in the order of the rows.
    """
    gates: list[Gate] = []
    rows = {row["name"]: row for row in document["rows"]}
    first_of_base: dict[str, Mapping[str, Any]] = {}
    for row in rows.values():
        first_of_base.setdefault(row["base"], row)
    for base, row in first_of_base.items():
        answers = row["answers"]
        if answers is None or row["is_reference"]:
            continue
        if limits.max_drop is not None:
            drop = 0.0 - 100 * answers["difference"]  # 0.0 -: no drop is 0, not -0
            gates.append(
                Gate(
                    "max-drop",
                    base,
                    limits.max_drop,
                    drop,
                    drop <= limits.max_drop + EPSILON,
                    f"loses {drop:.2f} points of accuracy against PyTorch, "
                    f"allowed {limits.max_drop:g}",
                )
            )
        if limits.min_agreement is not None:
            agreement = 100 * answers["agreement"]
            gates.append(
                Gate(
                    "min-agreement",
                    base,
                    limits.min_agreement,
                    agreement,
                    agreement >= limits.min_agreement - EPSILON,
                    f"agrees with PyTorch on {agreement:.2f} %, wanted {limits.min_agreement:g} %",
                )
            )
    for name, limit in limits.max_ratio.items():
        if name not in rows:
            reason = {one["row"]: one["reason"] for one in document["left_out"]}.get(name, "")
            gates.append(Gate("max-ratio", name, limit, None, False, f"was left out: {reason}"))
            continue
        ratio = rows[name]["ratio"]
        gates.append(
            Gate(
                "max-ratio",
                name,
                limit,
                ratio["value"],
                ratio["value"] <= limit + EPSILON,
                f"takes {_interval(ratio)} times PyTorch's time, allowed {limit:g}",
            )
        )
    if baseline is not None:
        noisy = [
            words
            for words, run in (
                ("this run is noisy", document),
                ("the baseline was noisy", baseline),
            )
            if run.get("noise")
        ]
        gates += _against(baseline, rows, limits, "".join(f"; {words}" for words in noisy))
    return gates


def _against(
    baseline: Mapping[str, Any],
    rows: Mapping[str, Mapping[str, Any]],
    limits: Limits,
    doubt: str,
) -> list[Gate]:
    gates = []
    more = 1 + limits.tolerance / 100
    allowed_drop = BASELINE_DROP if limits.max_drop is None else limits.max_drop
    for before in baseline["rows"]:
        name = before["name"]
        now = rows.get(name)
        if now is None:
            if before["engine"] == "onnxruntime":
                says = "is in the baseline, but not in this run"
                gates.append(Gate("baseline-row", name, None, None, False, says))
            continue
        old, new = before["ratio"], now["ratio"]
        # Slower beyond the tolerance, and by more than the two runs' own uncertainty.
        worse = new["value"] > old["value"] * more + EPSILON and new["low"] > old["high"]
        gates.append(
            Gate(
                "baseline-ratio",
                name,
                old["value"] * more,
                new["value"],
                not worse,
                f"takes {_interval(new)} times PyTorch's time, in the baseline {_interval(old)}, "
                f"allowed {limits.tolerance:g} % more{doubt}",
            )
        )
        if before["stages_ms"] and now["stages_ms"]:
            then, here = (_resize_share(row["stages_ms"]) for row in (before, now))
            gates.append(
                Gate(
                    "baseline-resize",
                    name,
                    then * RESIZE,
                    here,
                    here <= then * RESIZE,
                    f"takes {here:.2f} times as long to resize a frame as to decode it, in the "
                    f"baseline {then:.2f}, allowed {RESIZE:g} times that{doubt}",
                )
            )
        if before["size_bytes"] and now["size_bytes"]:
            gates.append(
                Gate(
                    "baseline-size",
                    name,
                    before["size_bytes"] * more,
                    now["size_bytes"],
                    now["size_bytes"] <= before["size_bytes"] * more,
                    f"has {now['size_bytes'] / 1e6:.2f} MB, in the baseline "
                    f"{before['size_bytes'] / 1e6:.2f} MB, allowed {limits.tolerance:g} % more",
                )
            )
        if before["answers"] and now["answers"]:
            drop = 100 * (before["answers"]["accuracy"] - now["answers"]["accuracy"])
            gates.append(
                Gate(
                    "baseline-accuracy",
                    name,
                    allowed_drop,
                    drop,
                    drop <= allowed_drop + EPSILON,
                    f"is right on {now['answers']['accuracy']:.2%}, in the baseline on "
                    f"{before['answers']['accuracy']:.2%}, allowed {allowed_drop:g} points less",
                )
            )
    return gates


def _resize_share(stages: Mapping[str, float]) -> float:
    """The preprocessing against the decoding of the same frame, which no code of ours is in."""
    return stages["resize"] / max(stages["decode"], 1e-6)


def enforce(gates: Sequence[Gate]) -> None:
    """End with exit code 3 where a gate is not met.

    Raises:
        GateError: One line with every row and gate that is not met.
    """
    broken = [gate for gate in gates if not gate.met]
    if broken:
        listed = "; ".join(f"{gate.row} {gate.says} (--{_option(gate)})" for gate in broken)
        raise GateError(f"{len(broken)} of {len(gates)} gates not met: {listed}")


def _option(gate: Gate) -> str:
    return "baseline" if gate.gate.startswith("baseline") else gate.gate


def _interval(ratio: Mapping[str, float]) -> str:
    return f"{ratio['value']:.3g} ({ratio['low']:.3g} to {ratio['high']:.3g})"


def _words(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list | tuple) else str(value)
