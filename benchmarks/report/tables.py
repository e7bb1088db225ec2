"""The document of `bench.json` as tables of text, and the environment card as pairs.

Knows the document's keys (docs/bench.md), nothing of how its figures came about or where the
tables are shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.report.text import (
    MISSING,
    listed,
    megabytes,
    milliseconds,
    p_value,
    percent,
    points,
    ratio,
)

Document = Mapping[str, Any]
Table = tuple[str, list[str], list[list[str]]]
"""Title, heads, rows; the first column is a name, the others are figures."""


def tables(document: Document, *, brief: bool = False) -> list[Table]:
    """The document as tables of text.

    Args:
        document: What `bench.json` holds.
        brief: Leave out what a terminal has no room for.

    Returns:
        Latency, answers, classes (not in brief), stages and fresh processes; corruptions and
        originals where they were measured.
    """
    found = [_latency(document), _answers(document, brief)]
    if not brief:
        found.append(_classes(document))
    found += [table for table in (_fresh(document), _corruptions(document)) if table is not None]
    if document["originals"] is not None:
        found.append(_originals(document["originals"]))
    if document["loadgen"] is not None:
        found.append(_loadgen(document["loadgen"]))
    return found


def _latency(document: Document) -> Table:
    rows = []
    for row in document["rows"]:
        latency = row["latency"]
        rows.append(
            [
                row["name"],
                ratio(row["ratio"]) if row["name"] != row["ratio"]["to"] else "1",
                milliseconds(latency["p50_ms"]),
                milliseconds(latency["p95_ms"]),
                milliseconds(latency["p99_ms"]),
                milliseconds(latency["mean_ms"]),
                milliseconds(latency["std_ms"]),
                f"{latency['pictures_per_second']:,.0f}",
                megabytes(row["size_bytes"], 2),
            ]
        )
    heads = ["row", "time / PyTorch's", "p50 ms", "p95", "p99", "mean", "sd", "pict./s", "MB"]
    several = any(row["batch"] > 1 for row in document["rows"])
    what = "the frames of a call to their" if several else "a frame to its"
    return f"Latency: {what} probabilities", heads, rows


def _answers(document: Document, brief: bool) -> Table:
    rows = []
    for row in bases(document):
        answers = row["answers"]
        same = row["is_reference"]
        rows.append(
            [
                row["base"],
                percent(answers["accuracy"]),
                f"{100 * answers['accuracy_low']:.1f}-{100 * answers['accuracy_high']:.1f}",
                MISSING if same else points(answers),
                MISSING if same else p_value(answers["mcnemar_p"]),
                MISSING if same else percent(answers["agreement"]),
                MISSING if same else f"{answers['flips']:,}",
                MISSING if same else f"{answers['max_difference']:.1e}",
                MISSING if same else f"{answers['mean_difference']:.1e}",
                percent(answers["expected_calibration_error"]),
            ]
        )
    heads = [
        "row", "accuracy", "95 %", "points to PyTorch", "p", "agree", "flips", "max dp", "mean",
        "ECE",
    ]  # fmt: skip
    if brief:
        mean = heads.index("mean")
        del heads[mean]
        for figures in rows:
            del figures[mean]
    pictures = f"{document['data']['pictures']:,} test pictures"
    return f"Answers: one picture at a time, on {pictures}", heads, rows


def _classes(document: Document) -> Table:
    labels = document["model"]["labels"]
    rows = []
    for row in bases(document):
        answers = row["answers"]
        figures = [row["base"]]
        for index in range(len(labels)):
            for name in ("precision", "recall"):
                share = answers[name][index]  # none where the class is never answered
                figures.append(MISSING if share is None else percent(share))
            others = sum(answers["confusion"][index]) - answers["confusion"][index][index]
            figures.append(f"{others:,}")
        rows.append(figures)
    heads = ["row"]
    for label in labels:
        heads += [f"{label}: precision", "recall", "missed"]
    return "Class by class: how often the answer is right, how many are found", heads, rows


def _fresh(document: Document) -> Table | None:
    rows = []
    for row in document["rows"]:
        cold, stages = row["cold"], row["stages_ms"]
        if cold is None and stages is None:
            continue
        figures = [row["name"]]
        figures += (
            [MISSING] * 4
            if cold is None
            else [
                f"{cold['first_answer_s']:.2f}",
                milliseconds(1e3 * cold["load_s"]),
                megabytes(cold["peak_rss_bytes"], 0),
                milliseconds(cold["cpu_ms"]),
            ]
        )
        figures += (
            [MISSING] * 4
            if stages is None
            else [milliseconds(stages[name]) for name in ("decode", "resize", "session", "rest")]
        )
        rows.append(figures)
    if not rows:
        return None
    heads = [
        "row", "1st answer s", "load ms", "peak MB", "CPU ms", "decode", "resize", "session",
        "rest",
    ]  # fmt: skip
    return "A fresh process, and the stages of a call in milliseconds", heads, rows


def _corruptions(document: Document) -> Table | None:
    spoiled = document["corruptions"]
    if spoiled is None:
        return None
    results = spoiled["results"]
    rows = [
        [base, *(_accuracy_and_agreement(by_row[base], base) for by_row in results.values())]
        for base in results["clean"]
    ]
    title = (
        f"Spoiled pictures: accuracy / agreement with PyTorch, in %, on {spoiled['pictures']} "
        "test pictures"
    )
    return title, ["row", *results], rows


def _originals(originals: Mapping[str, Any]) -> Table:
    rows = [
        [
            base,
            percent(found["accuracy"]),
            points(found),
            percent(found["agreement"]),
            f"{found['flips']:,}",
            f"{found['max_difference']:.1e}",
        ]
        for base, found in originals["rows"].items()
    ]
    title = (
        f"{originals['pictures']:,} pictures of {originals['name']}, about "
        f"{originals['median_width']}x{originals['median_height']} (used in training or not)"
    )
    return title, ["row", "accuracy", "points to PyTorch", "agree", "flips", "max dp"], rows


def _loadgen(loadgen: Mapping[str, Any]) -> Table:
    heads = ["row", "p50 ms", "p90", "p99", "mean", "per second", "result"]
    rows = []
    for name, found in loadgen["rows"].items():
        times = (found.get(f"{which}_ns") for which in ("p50", "p90", "p99", "mean"))
        speed = found.get("samples_per_second") or found.get("queries_per_second")
        rows.append(
            [
                name,
                *(MISSING if one is None else milliseconds(one / 1e6) for one in times),
                MISSING if speed is None else f"{speed:,.1f}",
                "valid" if found["valid"] else _invalid(found),
            ]
        )
    title = (
        f"LoadGen {loadgen['loadgen']}, {loadgen['scenario']}, at least {loadgen['seconds']:g} s a "
        "row"
    )
    if loadgen["scenario"] == "offline":
        title += "; all are asked for at the start, and times count from there"
    return title, heads, rows


def _invalid(found: Mapping[str, Any]) -> str:
    why = ", ".join(found.get("unsatisfied", ()))
    return f"INVALID ({why})" if why else "INVALID"


def _accuracy_and_agreement(found: Mapping[str, float], base: str) -> str:
    accuracy = f"{100 * found['accuracy']:.1f}"
    return accuracy if base == "pytorch" else f"{accuracy}/{100 * found['agreement']:.0f}"


def bases(document: Document) -> list[Mapping[str, Any]]:
    """The first row of each base: one for each file and provider, whatever threads and batch."""
    found: dict[str, Mapping[str, Any]] = {}
    for row in document["rows"]:
        found.setdefault(row["base"], row)
    return list(found.values())


def card(document: Document) -> list[tuple[str, str]]:
    """The environment card, in pairs of name and text."""
    found, quiet = document["environment"], document["quiet"]
    # Of a bench; peers have one count.
    threads = document.get("settings", {}).get("threads", [found["threads"]])
    load = found["load_before"]
    during, after = quiet["load_during"], quiet["load_after"]
    pairs = [
        ("processor", found["processor"] + (", virtual machine" if found["hypervisor"] else "")),
        ("instructions", ", ".join(found["flags"]) or "none of those that matter"),
        (
            "processors",
            f"{found['processors_usable']} usable of {found['processors_shown']}"
            + (f", cgroup quota {found['quota']:g}" if found["quota"] else ""),
        ),
        ("threads", f"{listed(threads)}, from {found['threads_source']}"),
        (
            "memory",
            f"{(found['memory_bytes'] or 0) / 2**30:.1f} GiB, "
            f"{(found['memory_available_bytes'] or 0) / 2**30:.1f} GiB free at the start",
        ),
        ("system", found["system"]),
        ("governor", found["governor"] or "not told"),
        ("python", found["python"]),
        ("packages", ", ".join(f"{name} {value}" for name, value in found["packages"].items())),
        (
            "load",
            (f"{load[0]:.2f} before, " if load else "")
            + (f"{during[0]:.2f} (up to {during[1]:.2f}) during, " if during else "")
            + (f"{after[0]:.2f} after (with this process)" if after else "not told"),
        ),
        (
            "others",
            "not told"
            if quiet["others_busy"] is None
            else f"{quiet['others_busy']:.2f} processors busy with other processes, "
            f"{quiet['stolen']:.2f} taken by the hypervisor, over {quiet['seconds']:.0f} s",
        ),
    ]
    if "providers_asked" in found:  # of a bench; peers are not all of ONNX Runtime
        asked, obtained = (", ".join(found[f"providers_{how}"]) for how in ("asked", "obtained"))
        pairs.append(("providers", f"asked for {asked}; obtained {obtained or 'none'}"))
    if found["variables"]:
        pairs.append(
            (
                "variables",
                ", ".join(f"{name}={value}" for name, value in found["variables"].items()),
            )
        )
    return pairs
