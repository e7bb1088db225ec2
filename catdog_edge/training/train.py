"""What `catdog-edge train` does, from options to files and words.

Joins the rooms of training; knows nothing of click's options. Words go to stderr.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from catdog_edge import __version__
from catdog_edge.errors import CatdogError, ModelError
from catdog_edge.runtime.threads import choose_threads
from catdog_edge.spec import ModelSpec, Rejection, ResizeStep, squash
from catdog_edge.system.signals import interruption_as_error, stop_requests
from catdog_edge.training.config.options import (
    TrainOptions,
    check_batch,
    check_scales,
    settled_recipe,
)
from catdog_edge.training.config.recipe_files import from_dict, recipe
from catdog_edge.training.config.recipes import Recipe
from catdog_edge.training.data.dataset import Dataset
from catdog_edge.training.data.load import open_dataset, pixels
from catdog_edge.training.data.negatives import (
    Negatives,
    NegativeSampler,
    check_negatives,
    open_negatives,
)
from catdog_edge.training.engine import trainer as loop
from catdog_edge.training.engine.batches import resized
from catdog_edge.training.engine.device import choose_device, torch_threads
from catdog_edge.training.engine.distillation import Teacher, check_teacher_file
from catdog_edge.training.engine.distributed import Ranks, among_others, ranks, told_once
from catdog_edge.training.engine.precision import choose_precision, trial_batch
from catdog_edge.training.models.batch_norm import add_batch_norms
from catdog_edge.training.models.checkpoint import load_checkpoint
from catdog_edge.training.models.pretrained import check_pretrained, load_pretrained
from catdog_edge.training.models.registry import architecture
from catdog_edge.training.runs.finish import finish
from catdog_edge.training.runs.overview import save_overview
from catdog_edge.training.runs.progress import Progress, Reading
from catdog_edge.training.runs.provenance import arguments, git_commit, trained_on
from catdog_edge.training.runs.run_folder import ROOT, Run, check_name, new_run, newest_unfinished
from catdog_edge.training.whereabouts import Whereabouts, again

log = logging.getLogger(__name__)


def train(options: TrainOptions) -> Run:
    """Train from fresh or pretrained weights, into a new run folder.

    Raises:
        CatdogError: The data, the device or a folder is not what it must be, the loss
            diverged, or the run was interrupted (it says how to go on).
    """
    at = Whereabouts()
    with told_once(), interruption_as_error(at.words, last=among_others()):
        device = choose_device(options.device)
        with (
            ranks(device) as me,
            torch_threads(_share(me)) as threads,
            contextlib.ExitStack() as held,
        ):
            return _train(options, me.own_device(device), threads, me, at, held)


def _train(
    options: TrainOptions,
    device: str,
    threads: int,
    me: Ranks,
    at: Whereabouts,
    held: contextlib.ExitStack,
) -> Run:
    with me.together():
        arch = architecture(options.arch)
        chosen = settled_recipe(options, arch.recipe)
        size = options.size or arch.size
        if arch.fixed_size and size != arch.size:
            raise CatdogError(
                f"{arch.name} takes pictures of {arch.size} x {arch.size} alone; leave out --size"
            )
        check_batch(chosen.batch_size, me.processes)
        # What can be known before the pictures are read, which may take hours.
        if me.first:
            check_name(options.name)
        if chosen.pretrained:
            check_pretrained(arch.name)
        check_teacher_file(options.teacher)
        check_negatives(options.other)
    if chosen.freeze and not chosen.pretrained:
        log.warning("--freeze without --pretrained keeps the features as they are drawn at random")
    steps = squash(size, size)
    with me.one_first():  # the others find what it has cached
        dataset = open_dataset(
            options.data,
            labels=options.labels,
            split=options.split,
            limit=options.limit,
            seed=options.seed,
            steps=steps,
            progress=Reading() if me.first else None,
        )
        dataset.log_summary()
        train_set = pixels(dataset, "train", _detailed(steps, chosen))
        others = open_negatives(options.other, steps, Reading() if me.first else None)
        if others is not None:
            others.log_summary()
    if len(train_set[1]) < 2 * me.processes:
        raise CatdogError(
            f"{len(train_set[1])} training pictures are too few for {me.processes} processes; "
            "start fewer, or add pictures"
        )
    spec = ModelSpec(
        architecture=arch.name,
        labels=dataset.labels,
        height=size,
        width=size,
        resize=steps,
        normalization=arch.normalization,
        # The threshold is chosen after training.
        rejection=Rejection("known", 0.5) if others else None,
        tool_version=__version__,
        git_commit=git_commit(),
    )
    torch.manual_seed(options.seed)
    network = arch.build(spec.logits)
    check_scales(network, spec, chosen)
    if chosen.pretrained:
        with me.one_first():
            log.info(f"train: starting from {load_pretrained(network, arch.name)}")
    precision = options.precision
    if precision == "auto":
        precision = me.agreed(_faster_precision(network, spec, chosen, train_set[0], device, me))
    teacher = None
    if options.teacher is not None:
        with me.together():
            teacher = Teacher(
                options.teacher,
                spec.labels,
                torch.device(device),
                precision,
                others=others is not None,
            )
        log.info(
            f"train: {options.teacher} ({teacher.spec.architecture}) teaches"
            f"{', the logit for none of the classes too' * teacher.knows_others}"
        )
    if chosen.views and options.teacher is None:
        log.warning(
            f"the recipe {chosen.name} is meant for a --teacher: without one, the same "
            f"{chosen.views} drawings of the pictures come again and again for nothing"
        )
    plan = loop.Plan(
        recipe=chosen,
        epochs=chosen.epochs_for(len(train_set[1]), chosen.batch_size),
        batch_size=chosen.batch_size,
        lr=chosen.lr,
        seed=options.seed,
        patience=options.patience,
        precision=precision,
        device=device,
    )
    spec = spec.replace(trained_on=trained_on(dataset, plan, teacher, others, options.split))
    trainer = _trainer(dataset, spec, plan, network, teacher, others, me)
    # The others write nothing, but name the folder in what they say.
    folder = Path()
    with me.together():
        if me.first:
            run = new_run(options.name, f"{Path(dataset.source).stem}-{arch.name}")
            trainer.folder = folder = run.folder
            try:
                held.enter_context(run.held())
                dataset.write_split_csv(run.split_csv)
                trainer.save()
                # Last: with it the folder is a run, and can be gone on with.
                run.write_args(arguments(dataset, options, plan, threads, teacher, me))
            except BaseException:
                # A folder that nothing can go on from would only be in the way.
                shutil.rmtree(folder, ignore_errors=True)
                raise
            at.reached(run, me)
    trainer.folder = me.agreed(folder)
    run = Run(trainer.folder)
    at.reached(run, me)
    with me.together():
        _show_data(run, dataset, me)
    passes = f"{plan.epochs} epoch{'s' * (plan.epochs != 1)}"
    log.info(
        f"train: {arch.name} at {size} x {size}, recipe {chosen.name}, {passes}, "
        f"batch {plan.batch_size}, learning rate {plan.lr:g}, {precision} on {device}"
        f"{f' in {me.processes} processes' * (not me.alone)}, into {run.folder}"
    )
    return _fit(run, dataset, trainer, others, me, at)


def _show_data(run: Run, dataset: Dataset, me: Ranks) -> None:
    """What is worth a look before the first epoch, where it is not there yet."""
    if me.first:
        if not (run.folder / "skipped.csv").is_file():
            dataset.write_skipped_csv(run.folder / "skipped.csv")
        if not (run.folder / "data.png").is_file():
            save_overview(run.folder / "data.png", dataset)


def _detailed(steps: tuple[ResizeStep, ...], chosen: Recipe) -> tuple[ResizeStep, ...]:
    """The resize rule of the training pictures, which are changed before they get their size."""
    if chosen.detail == 1:
        return steps
    last = steps[-1]
    return squash(round(last.height * chosen.detail), round(last.width * chosen.detail))


def _share(me: Ranks) -> int | None:
    """Threads of each process where several share a machine."""
    return None if me.per_machine == 1 else max(1, choose_threads().count // me.per_machine)


def _faster_precision(
    network: torch.nn.Module,
    spec: ModelSpec,
    chosen: Recipe,
    pictures: loop.Pixels,
    device: str,
    me: Ranks,
) -> str:
    """Timed in the first process alone: others that compute beside it would disturb it."""
    if not me.first:
        return ""
    few = resized(pictures[: min(trial_batch(spec.height), chosen.batch_size)], *spec.size)
    if chosen.norms == "folded":
        network = add_batch_norms(network)
    frozen = chosen.freeze or chosen.norms == "frozen"
    precision, gain = choose_precision(network, spec, few, device, frozen)
    log.info(f"train: {precision} (a bfloat16 step was timed {gain:.2f} times as fast as float32)")
    return precision


def resume(name: str | None, device: str) -> Run:
    """Go on with an interrupted run, with the settings it was started with.

    Args:
        name: The run's name below `runs/`; `None` takes the newest that is not finished.
        device: Where to train; the result is the same figures only on the same device.

    Raises:
        CatdogError: There is no such run, nothing is left to do, another process is training
            it, its `args.yaml` was changed in what must stay, or see `train`.
    """
    at = Whereabouts()
    with told_once(), interruption_as_error(at.words, last=among_others()):
        run = Run(ROOT / name) if name else newest_unfinished()
        args = run.settings()
        if not run.last.is_file():
            raise CatdogError(
                f"{run.folder} has no last.pt to go on from; remove that folder, and start again "
                "with: catdog-edge train"
            )
        device = choose_device(args["device"] if device.strip().lower() == "auto" else device)
        with (
            ranks(device) as me,
            torch_threads(args.get("threads") if me.alone else _share(me)),
            contextlib.ExitStack() as held,
        ):
            at.reached(run, me)
            # All have joined, so all have chosen this run: now it may be held.
            with me.together():
                if me.first:
                    held.enter_context(run.held())
            return _resume(run, args, me.own_device(device), me, at)


def _resume(run: Run, args: dict[str, Any], device: str, me: Ranks, at: Whereabouts) -> Run:
    with me.one_first():
        chosen = _recipe_of(run, args)
        check_batch(args["batch_size"], me.processes)
        try:
            network, spec = load_checkpoint(run.last)
        except ModelError as error:
            kept = f"; the best weights so far are in {run.weights}" * run.weights.is_file()
            raise CatdogError(
                f"{run.last} is damaged, or of another version, and cannot be gone on with; start "
                f"again with: catdog-edge train{kept}"
            ) from error
        if (args.get("other") is None) != (spec.rejection is None):
            raise _changed(run, f"other was {'a path or drawn' if spec.rejection else 'null'}")
        dataset = run.dataset(progress=Reading() if me.first else None)
        if dataset.labels != spec.labels:
            raise _changed(run, f"labels were {', '.join(spec.labels)}")
        others = open_negatives(args.get("other"), spec.resize, Reading() if me.first else None)
    plan = loop.Plan(
        recipe=chosen,
        epochs=args["epochs"],
        batch_size=args["batch_size"],
        lr=args["lr"],
        seed=args["seed"],
        patience=args["patience"],
        precision=args["precision"],
        device=device,
    )
    log.info(f"train: going on with {run.folder}")
    dataset.log_summary()
    if others is not None:
        others.log_summary()
    trainer = _trainer(dataset, spec, plan, network, None, others, me)
    trainer.folder = run.folder
    trainer.restore(run.last)
    if args.get("teacher") and not trainer.finished:
        with me.together():
            trainer.teacher = Teacher(
                Path(args["teacher"]["file"]),
                spec.labels,
                torch.device(device),
                plan.precision,
                args["teacher"]["sha256"],
                others is not None,
            )
    with me.together():
        _show_data(run, dataset, me)
    if trainer.finished:
        log.info(f"train: {run.folder} has done its {trainer.epoch} epochs; nothing left to train")
    else:
        log.info(f"train: at epoch {trainer.epoch + 1}, step {trainer.step + 1}")
    return _fit(run, dataset, trainer, others, me, at)


def _changed(run: Run, what: str) -> CatdogError:
    return CatdogError(
        f"{run.folder / 'args.yaml'}: {what} when the run began; put that back, or start again "
        "with: catdog-edge train"
    )


def _recipe_of(run: Run, args: dict[str, Any]) -> Recipe:
    """The recipe in `args.yaml`, of which this version leaves nothing to a default."""
    known = args["recipe"]
    if isinstance(known, str):  # a run of an older version names its recipe only
        return recipe(known)
    file = run.folder / "args.yaml"
    missing = [field.name for field in fields(Recipe) if field.name not in known]
    if missing and args.get("catdog_edge") == __version__:
        raise CatdogError(
            f"{file}: the recipe lacks {', '.join(missing)}; put it back, or train again"
        )
    return from_dict(known, str(file))


def _trainer(
    dataset: Dataset,
    spec: ModelSpec,
    plan: loop.Plan,
    network: torch.nn.Module,
    teacher: Teacher | None,
    others: Negatives | None,
    me: Ranks,
) -> loop.Trainer:
    """A trainer whose folder is still to be named."""
    with me.one_first():
        steps = _detailed(spec.resize, plan.recipe)
        train_set = pixels(dataset, "train", steps)[:2]
        val_set = pixels(dataset, "val", spec.resize)[:2]
        mixed_in = None
        if others is not None:
            mixed_in = NegativeSampler(
                others.photographs("train", steps),
                label=len(spec.labels),
                share=plan.recipe.negatives,
                images=train_set[0],
                backgrounds=plan.recipe.backgrounds,
            )
    return loop.Trainer(network, spec, plan, train_set, val_set, Path(), teacher, me, mixed_in)


def _fit(
    run: Run,
    dataset: Dataset,
    trainer: loop.Trainer,
    others: Negatives | None,
    me: Ranks,
    at: Whereabouts,
) -> Run:
    progress = Progress(trainer.plan.epochs, shown=me.first)
    again_at_once = "" if among_others() else " (again: at once)"
    with stop_requests(
        lambda: log.info(f"\nstopping after this step{again_at_once}"),
        # torchrun sends SIGTERM to those that Ctrl-C has reached already.
        again=not among_others(),
    ) as asked:
        finished = trainer.run(asked.is_set, progress.step, progress.epoch)
    if not finished:
        raise CatdogError(
            f"stopped in epoch {trainer.epoch + 1} of {trainer.plan.epochs}; all is saved, go on "
            f"with: {again(run, me)}"
        )
    at.reached(run, me, trained=True)
    if me.first:
        finish(run, dataset, trainer, [item.file for item in dataset.items_of("val")], others)
    return run
