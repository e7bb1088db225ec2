"""The document of `bench.json` (docs/bench.md) as tables of text, and the environment card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.report.text import (
    MISSING,
    few,
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

FEW_CLASSES = 3
"""With more classes, the table of classes has a line for each of the worst ones."""

WORST = 10
"""How many of them."""


def tables(document: Document, *, brief: bool = False) -> list[Table]:
    """Return latency, answers, classes, stages and fresh processes, and what else was measured.

    Args:
        document: The content of `bench.json`.
        brief: Leave out what does not fit a terminal.
    """
    found = [
        _latency(document),
        _answers(document, brief),
        None if brief else _classes(document),
        _fresh(document),
        _corruptions(document["corruptions"]),
        _originals(document["originals"]),
        _loadgen(document["loadgen"]),
    ]
    return [table for table in found if table is not None]


def bases(document: Document) -> list[Mapping[str, Any]]:
    """The first row of each file and provider, whatever its threads and batch."""
    found: dict[str, Mapping[str, Any]] = {}
    for row in document["rows"]:
        found.setdefault(row["base"], row)
    return list(found.values())


def _latency(document: Document) -> Table:
    rows = []
    for row in document["rows"]:
        latency = row["latency"]
        times = (latency[f"{name}_ms"] for name in ("p50", "p95", "p99", "mean", "std"))
        rows.append(
            [
                row["name"],
                ratio(row["ratio"]) if row["name"] != row["ratio"]["to"] else "1",
                *map(milliseconds, times),
                f"{latency['pictures_per_second']:,.0f}",
                megabytes(row["size_bytes"], 2),
            ]
        )
    heads = ["row", "time / PyTorch's", "p50 ms", "p95", "p99", "mean", "sd", "pict./s", "MB"]
    several = any(row["batch"] > 1 for row in document["rows"])
    what = "the frames of a call to their" if several else "a frame to its"
    return f"Latency: {what} probabilities", heads, rows


def _answers(document: Document, brief: bool) -> Table:
    heads = ["row", "accuracy", "95 %", "points to PyTorch", "p", "agree", "flips", "max dp"]
    heads += ["ECE"] if brief else ["mean", "ECE"]
    rows = []
    for row in bases(document):
        found = row["answers"]
        compared = [
            points(found),
            p_value(found["mcnemar_p"]),
            percent(found["agreement"]),
            f"{found['flips']:,}",
            f"{found['max_difference']:.1e}",
        ]
        compared += [] if brief else [f"{found['mean_difference']:.1e}"]
        rows.append(
            [
                row["base"],
                percent(found["accuracy"]),
                f"{100 * found['accuracy_low']:.1f}-{100 * found['accuracy_high']:.1f}",
                *([MISSING] * len(compared) if row["is_reference"] else compared),
                percent(found["expected_calibration_error"]),
            ]
        )
    pictures = f"{document['data']['pictures']:,} test pictures"
    return f"Answers: one picture at a time, on {pictures}", heads, rows


def _classes(document: Document) -> Table:
    labels, counts = document["model"]["labels"], document["data"]["counts"]
    by_row: Mapping[str, Any] = document["classes"]["rows"]
    if len(labels) > FEW_CLASSES:
        return _worst_classes(labels, counts, by_row)
    rows = []
    for base, found in by_row.items():
        cells = [base]
        for label, precision, recall in zip(
            labels, found["precision"], found["recall"], strict=True
        ):
            missed = round(counts[label] * (1 - (recall or 0.0)))
            cells += [percent(precision), percent(recall), f"{missed:,}"]
        rows.append(cells)
    heads = ["row"]
    for label in labels:
        heads += [f"{label}: precision", "recall", "missed"]
    return "Class by class: how often the answer is right, how many are found", heads, rows


def _worst_classes(
    labels: list[str], counts: Mapping[str, int], by_row: Mapping[str, Any]
) -> Table:
    first = next(iter(by_row.values()))["recall"]
    present = [index for index, recall in enumerate(first) if recall is not None]
    worst = sorted(present, key=lambda index: first[index])[:WORST]
    rows = [
        [
            labels[index],
            f"{counts[labels[index]]:,}",
            *(
                " / ".join(
                    MISSING if found[name][index] is None else f"{100 * found[name][index]:.1f}"
                    for name in ("recall", "precision")
                )
                for found in by_row.values()
            ),
        ]
        for index in worst
    ]
    title = (
        f"Recall / precision in % of the {len(worst)} of {len(labels):,} classes that PyTorch "
        "finds least often"
    )
    return title, ["class", "pictures", *by_row], rows


def _fresh(document: Document) -> Table | None:
    rows = []
    for row in document["rows"]:
        cold, stages = row["cold"], row["stages_ms"]
        if cold is None and stages is None:
            continue
        cells = [MISSING] * 4
        if cold is not None:
            cells = [
                f"{cold['first_answer_s']:.2f}",
                milliseconds(1e3 * cold["load_s"]),
                megabytes(cold["peak_rss_bytes"], 0),
                milliseconds(cold["cpu_ms"]),
            ]
        names = ("decode", "resize", "session", "rest")
        rows.append([row["name"], *cells, *(milliseconds((stages or {}).get(n)) for n in names)])
    if not rows:
        return None
    heads = [
        "row", "1st answer s", "load ms", "peak MB", "CPU ms", "decode", "resize", "session",
        "rest",
    ]  # fmt: skip
    return "A fresh process, and the stages of a call in milliseconds", heads, rows


def _corruptions(found: Document | None) -> Table | None:
    if found is None:
        return None
    results = found["results"]

    def cell(figures: Mapping[str, float], base: str) -> str:
        accuracy = f"{100 * figures['accuracy']:.1f}"
        return accuracy if base == "pytorch" else f"{accuracy}/{100 * figures['agreement']:.0f}"

    rows = [
        [base, *(cell(by_row[base], base) for by_row in results.values())]
        for base in results["clean"]
    ]
    title = (
        f"Corrupted pictures: accuracy / agreement with PyTorch, in %, on {found['pictures']} "
        "test pictures"
    )
    return title, ["row", *results], rows


def _originals(found: Document | None) -> Table | None:
    if found is None:
        return None
    rows = [
        [
            base,
            percent(figures["accuracy"]),
            points(figures),
            percent(figures["agreement"]),
            f"{figures['flips']:,}",
            f"{figures['max_difference']:.1e}",
        ]
        for base, figures in found["rows"].items()
    ]
    title = (
        f"{found['pictures']:,} pictures of {found['name']}, about "
        f"{found['median_width']}x{found['median_height']} (used in training or not)"
    )
    return title, ["row", "accuracy", "points to PyTorch", "agree", "flips", "max dp"], rows


def _loadgen(found: Document | None) -> Table | None:
    if found is None:
        return None
    rows = []
    for name, figures in found["rows"].items():
        times = (figures.get(f"{which}_ns") for which in ("p50", "p90", "p99", "mean"))
        speed = figures.get("samples_per_second") or figures.get("queries_per_second")
        why = ", ".join(figures.get("unsatisfied", ()))
        invalid = f"INVALID ({why})" if why else "INVALID"
        rows.append(
            [
                name,
                *(milliseconds(None if one is None else one / 1e6) for one in times),
                MISSING if speed is None else f"{speed:,.1f}",
                "valid" if figures["valid"] else invalid,
            ]
        )
    title = (
        f"LoadGen {found['loadgen']}, {found['scenario']}, at least {found['seconds']:g} s a row"
    )
    if found["scenario"] == "offline":
        title += "; all are asked for at the start, and times count from there"
    return title, ["row", "p50 ms", "p90", "p99", "mean", "per second", "result"], rows


def card(document: Document) -> list[tuple[str, str]]:
    """The environment card, in pairs of name and text."""
    found, quiet = document["environment"], document["quiet"]
    # A bench may have several counts, a study has one.
    counts = {row.get("threads", found["threads"]) for row in document.get("rows", ())}
    threads = listed(sorted(counts) or [found["threads"]])
    quota = f", cgroup quota {found['quota']:g}" if found["quota"] else ""
    memory, free = (found[f"memory{which}_bytes"] / 2**30 for which in ("", "_available"))
    before, during, after = found["load_before"], quiet["load_during"], quiet["load_after"]
    pairs = {
        "processor": found["processor"] + (", virtual machine" if found["hypervisor"] else ""),
        "instructions": ", ".join(found["flags"]) or "none of those that matter",
        "processors": (
            f"{found['processors_usable']} usable of {found['processors_shown']}{quota}"
        ),
        "threads": f"{threads}, from {found['threads_source']}",
        "memory": f"{memory:.1f} GiB, {free:.1f} GiB free at the start",
        "system": found["system"],
        "governor": found["governor"] or "not known",
        "python": found["python"],
        "packages": ", ".join(f"{name} {value}" for name, value in found["packages"].items()),
        "load": (
            f"{before[0]:.2f} before, {during[0]:.2f} (up to {during[1]:.2f}) during, "
            f"{after[0]:.2f} after (with this process)"
        ),
        "others": (
            f"{quiet['others_busy']:.2f} processors busy with other processes, "
            f"{quiet['stolen']:.2f} taken by the hypervisor, over {quiet['seconds']:.0f} s"
        ),
    }
    if "providers_asked" in found:  # of a bench; peers are not all of ONNX Runtime
        asked, obtained = (", ".join(found[f"providers_{how}"]) for how in ("asked", "obtained"))
        pairs["providers"] = f"asked for {asked}; obtained {obtained or 'none'}"
    if found["variables"]:
        pairs["variables"] = ", ".join(f"{n}={value}" for n, value in found["variables"].items())
    return list(pairs.items())


def counts_text(document: Document) -> str:
    """Test images by class: `300 cat, 300 dog`, of many classes the first ones."""
    return few([f"{count:,} {label}" for label, count in document["data"]["counts"].items()], 5)
