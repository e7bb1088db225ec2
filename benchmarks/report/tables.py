"""The document of `bench.json` (docs/bench-json.md) as tables of text, and the environment card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.report import text as words

Document = Mapping[str, Any]
TitledTable = tuple[str, list[str], list[list[str]]]
"""Title, heads, rows; the first column is a name, the others are figures."""

FEW_CLASSES = 3  # with more classes, the table of classes has a line for each of the worst ones
WORST = 10  # how many of them


def tables(document: Document, *, brief: bool = False) -> list[TitledTable]:
    """Return latency, answers, classes, stages and fresh processes, and what else was measured.

    `brief` leaves out what does not fit a terminal.
    """
    classes = _worst_classes if len(document["model"]["labels"]) > FEW_CLASSES else _classes
    found = [_latency(document), _answers(document, brief)]
    found += [*([] if brief else [classes(document)]), _fresh(document)]
    others = {"corruptions": _corruptions, "originals": _originals, "loadgen": _loadgen}
    found += [make(document) for name, make in others.items() if document[name] is not None]
    return [table for table in found if table[2]]


def reference_name(document: Document) -> str:
    """Return the name of the reference: `PyTorch`, or that of an imported file."""
    name = str(document.get("answers_to", "pytorch"))
    return "PyTorch" if name.startswith("pytorch") else name


def bases(document: Document) -> list[Mapping[str, Any]]:
    """Return the first row of each file and provider, whatever its threads and batch."""
    found: dict[str, Mapping[str, Any]] = {}
    for row in document["rows"]:
        found.setdefault(row["base"], row)
    return list(found.values())


def _head(document: Document) -> str:
    """Return `reference_name`, short enough for the head of a column."""
    return "PyTorch" if reference_name(document) == "PyTorch" else "reference"


def _latency(document: Document) -> TitledTable:
    rows = []
    for row in document["rows"]:
        latency = row["latency"]
        times = (latency[f"{name}_ms"] for name in ("p50", "p95", "p99", "mean", "std"))
        to_first = words.ratio(row["ratio"]) if row["name"] != row["ratio"]["to"] else "1"
        speed, size = f"{latency['pictures_per_second']:,.0f}", f"{row['size_bytes'] / 1e6:.2f}"
        rows.append([row["name"], to_first, *map(words.milliseconds, times), speed, size])
    heads = [
        "row",
        f"time / {_head(document)}'s",
        "p50 ms",
        "p95",
        "p99",
        "mean",
        "sd",
        "pict./s",
        "MB",
    ]
    several = any(row["batch"] > 1 for row in document["rows"])
    what = "the frames of a call to their" if several else "a frame to its"
    devices = {row["device"] for row in document["rows"]}
    against = ", compared on the same device" if len(devices) > 1 else ""
    if (reference := reference_name(document)) != "PyTorch":
        against = f"; the reference is {reference}"
    return f"Latency: {what} probabilities{against}", heads, rows


def _compared(found: Mapping[str, float], reference: str) -> dict[str, str]:
    """Format the comparison with the reference, by column head."""
    return {
        f"points to {reference}": words.points(found),
        "p": words.p_value(found["mcnemar_p"]),
        "agree": words.percentage(found["agreement"]),
        "flips": f"{found['flips']:,}",
        "max dp": f"{found['max_difference']:.1e}",
        "mean": f"{found['mean_difference']:.1e}",
    }


def _answers(document: Document, brief: bool) -> TitledTable:
    to = _head(document)
    shown = [f"points to {to}", "p", "agree", "flips", "max dp", *([] if brief else ["mean"])]
    rows = []
    for row in bases(document):
        found = row["answers"]
        compared = _compared(found, to)
        interval = f"{100 * found['accuracy_low']:.1f}-{100 * found['accuracy_high']:.1f}"
        cells = [words.MISSING if row["is_reference"] else compared[head] for head in shown]
        error = words.percentage(found["expected_calibration_error"])
        rows.append([row["base"], words.percentage(found["accuracy"]), interval, *cells, error])
    title = f"Answers: one image at a time, on {document['data']['pictures']:,} test images"
    if tf32 := [row["base"] for row in bases(document) if row["tf32"]]:
        title += f", to {document['answers_to']}; float32 with TF32: {', '.join(tf32)}"
    return title, ["row", "accuracy", "95 %", *shown, "ECE"], rows


def _classes(document: Document) -> TitledTable:
    counts, heads, rows = document["data"]["counts"], ["row"], []
    labels = document["model"]["labels"]
    for label in labels:
        heads += [f"{label}: precision", "recall", "missed"]
    for base, found in document["classes"]["rows"].items():
        cells = [base]
        for label, right, recall in zip(labels, found["precision"], found["recall"], strict=True):
            missed = round(counts[label] * (1 - (recall or 0.0)))
            cells += [words.percentage(right), words.percentage(recall), f"{missed:,}"]
        rows.append(cells)
    return "Class by class: how often the answer is right, how many are found", heads, rows


def _worst_classes(document: Document) -> TitledTable:
    labels, counts = document["model"]["labels"], document["data"]["counts"]
    by_row: Mapping[str, Any] = document["classes"]["rows"]
    first = next(iter(by_row.values()))["recall"]
    present = [index for index, recall in enumerate(first) if recall is not None]
    worst = sorted(present, key=lambda index: first[index])[:WORST]

    def cell(found: Mapping[str, Any], index: int) -> str:
        shares = (found[name][index] for name in ("recall", "precision"))
        return " / ".join(words.MISSING if one is None else f"{100 * one:.1f}" for one in shares)

    rows = [
        [labels[i], f"{counts[labels[i]]:,}", *(cell(found, i) for found in by_row.values())]
        for i in worst
    ]
    title = (
        f"Recall / precision in % of the {len(worst)} of {len(labels):,} classes that "
        f"{reference_name(document)} finds least often"
    )
    return title, ["class", "pictures", *by_row], rows


def _fresh(document: Document) -> TitledTable:
    rows = []
    names = ("decode", "resize", "session", "rest")
    on_gpu = any(row["cold"] and row["cold"]["gpu_bytes"] is not None for row in document["rows"])
    for row in document["rows"]:
        cold, stages = row["cold"], row["stages_ms"] or {}
        if cold is None and not stages:
            continue
        cells = [words.MISSING] * (4 + on_gpu)
        if cold is not None:
            memory = (cold["peak_rss_bytes"], *([cold["gpu_bytes"]] if on_gpu else []))
            cells = [f"{cold['first_answer_s']:.2f}", words.milliseconds(1e3 * cold["load_s"])]
            cells += [words.MISSING if one is None else f"{one / 1e6:.0f}" for one in memory]
            cells.append(words.milliseconds(cold["cpu_ms"]))
        rows.append(
            [row["name"], *cells, *(words.milliseconds(stages.get(name)) for name in names)]
        )
    of_gpu = ["GPU MB"] if on_gpu else []
    heads = ["row", "1st answer s", "load ms", "peak MB", *of_gpu, "CPU ms", *names]
    return "A fresh process, and the stages of a call in milliseconds", heads, rows


def _corruptions(document: Document) -> TitledTable:
    found = document["corruptions"]
    results = found["results"]
    reference = next(iter(results["clean"]))

    def cell(figures: Mapping[str, float], base: str) -> str:
        accuracy = f"{100 * figures['accuracy']:.1f}"
        return accuracy if base == reference else f"{accuracy}/{100 * figures['agreement']:.0f}"

    rows = [
        [base, *(cell(by_row[base], base) for by_row in results.values())]
        for base in results["clean"]
    ]
    title = (
        f"Corrupted images: accuracy / agreement with {reference_name(document)}, in %, on "
        f"{found['pictures']} test images"
    )
    return title, ["row", *results], rows


def _originals(document: Document) -> TitledTable:
    found, to = document["originals"], _head(document)
    shown = [f"points to {to}", "agree", "flips", "max dp"]
    rows = []
    for base, figures in found["rows"].items():
        compared = _compared(figures, to)
        rows.append(
            [base, words.percentage(figures["accuracy"]), *(compared[head] for head in shown)]
        )
    title = (
        f"{found['pictures']:,} images of {found['name']}, about "
        f"{found['median_width']}x{found['median_height']} (used in training or not)"
    )
    return title, ["row", "accuracy", *shown], rows


def _loadgen(document: Document) -> TitledTable:
    found, rows = document["loadgen"], []
    for name, figures in found["rows"].items():
        times = (figures.get(f"{which}_ns") for which in ("p50", "p90", "p99", "mean"))
        speed = figures.get("samples_per_second") or figures.get("queries_per_second")
        why = ", ".join(figures.get("unsatisfied", ()))
        result = "valid" if figures["valid"] else f"INVALID ({why})" if why else "INVALID"
        cells = [words.milliseconds(None if one is None else one / 1e6) for one in times]
        rows.append([name, *cells, words.MISSING if speed is None else f"{speed:,.1f}", result])
    title = (
        f"LoadGen {found['loadgen']}, {found['scenario']}, at least {found['seconds']:g} s a row"
    )
    if found["scenario"] == "offline":
        title += "; all are asked for at the start, and times count from there"
    return title, ["row", "p50 ms", "p90", "p99", "mean", "per second", "result"], rows


def card(document: Document) -> list[tuple[str, str]]:
    """Return the environment card as pairs of name and text."""
    found, quiet = document["environment"], document["quiet"]
    # A bench may have several counts, a study has one.
    counts = {row.get("threads", found["threads"]) for row in document.get("rows", ())}
    threads = words.listed(sorted(counts) or [found["threads"]])
    quota = f", cgroup quota {found['quota']:g}" if found["quota"] else ""
    memory, free = (found[f"memory{which}_bytes"] / 2**30 for which in ("", "_available"))
    before, during, after = found["load_before"], quiet["load_during"], quiet["load_after"]
    pairs = {
        "processor": found["processor"] + (", virtual machine" if found["hypervisor"] else ""),
        "instructions": ", ".join(found["flags"]) or "none of those that matter",
        "processors": f"{found['processors_usable']} usable of {found['processors_shown']}{quota}",
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
    if found.get("gpu"):
        pairs["gpu"] = _gpu(found["gpu"], quiet["gpu"])
    if found["variables"]:
        pairs["variables"] = ", ".join(f"{n}={value}" for n, value in found["variables"].items())
    return list(pairs.items())


def _gpu(card: Mapping[str, Any], during: Mapping[str, Any] | None) -> str:
    known = [card["name"]]
    if card["memory_bytes"] is not None:
        known.append(f"{card['memory_bytes'] / 2**30:.0f} GiB")
    known += [f"{name} {card[name]}" for name in ("driver", "cuda", "cudnn") if card[name]]
    if card["clock_mhz"] is not None:
        known.append(f"{card['clock_mhz']} of {card['max_clock_mhz']} MHz before the start")
    if during is not None and during["clock_mhz"]:
        low, high = during["clock_mhz"]
        known.append(f"{low} to {high} MHz in {during['readings']} readings while measuring")
    if card["processes"] is not None:
        busy = "" if card["busy"] is None else f", busy {card['busy']:.0%}"
        used = card["used_bytes"]
        used = "" if used is None else f"{used / 2**30:.1f} GiB in use by "
        known.append(f"before the start {used}{card['processes']} visible processes{busy}")
    else:
        known.append("clocks and other processes not known (install nvidia-ml-py)")
    return ", ".join(known)
