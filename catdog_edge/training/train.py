"""`catdog-edge train`: from options to a finished run folder."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from catdog_edge import __version__
from catdog_edge.errors import CatdogError, ModelError, label_difference, list_names
from catdog_edge.spec import ModelSpec, Rejection, ResizeStep, crop_and_squash
from catdog_edge.system.signals import stop_requests
from catdog_edge.training.config.recipes import Recipe, from_dict
from catdog_edge.training.config.train_options import (
    TrainOptions,
    check_batch,
    check_scales,
    settled_recipe,
)
from catdog_edge.training.data.dataset import Dataset
from catdog_edge.training.data.negatives import (
    Negatives,
    NegativeSampler,
    check_negatives,
    negatives_split,
    open_negatives,
)
from catdog_edge.training.data.open_dataset import open_dataset
from catdog_edge.training.data.source_groups import (
    balanced_shares,
    check_left_out,
    combined_pixels,
    sources_of,
    without_sources,
)
from catdog_edge.training.engine.device import choose_device
from catdog_edge.training.engine.distillation import Teacher, check_teacher_file
from catdog_edge.training.engine.distributed import ProcessGroup, is_distributed
from catdog_edge.training.engine.precision import choose_precision
from catdog_edge.training.engine.trainer import Plan, Trainer, TrainingData
from catdog_edge.training.evaluation.rejection import ThresholdRule
from catdog_edge.training.models.checkpoint import load_checkpoint
from catdog_edge.training.models.imagenet_head import pretrained_grouped
from catdog_edge.training.models.pretrained import check_pretrained, load_pretrained
from catdog_edge.training.models.registry import Architecture, architecture
from catdog_edge.training.runs.job import TrainingJob, training_job
from catdog_edge.training.runs.plots import save_overview
from catdog_edge.training.runs.progress import ReadingProgress, TrainingProgress
from catdog_edge.training.runs.provenance import arguments, git_commit, trained_on
from catdog_edge.training.runs.run_folder import ROOT, Run, check_name, new_run, newest_unfinished
from catdog_edge.training.runs.validation_report import finish

log = logging.getLogger(__name__)


def train(options: TrainOptions) -> Run:
    """Train from random or pretrained weights, into a new run folder.

    Raises:
        CatdogError: The data, the device or a folder cannot be used, the loss diverged, or the
            run was interrupted (the message says how to resume it).
    """
    with training_job() as job:
        job.join(choose_device(options.device))
        return _train(job, options)


def resume(name: str | None, device: str) -> Run:
    """Resume an interrupted run, with the settings it was started with.

    Args:
        name: The run's name below `runs/`; `None` takes the newest that is not finished.
        device: Where to train; the result is the same figures only on the same device.

    Raises:
        CatdogError: There is no such run, nothing is left to do, another process is training
            it, its `args.yaml` was changed in what must stay, or see `train`.
    """
    with training_job() as job:
        run = Run(ROOT / name) if name else newest_unfinished()
        args = run.settings()
        if not run.last.is_file():
            raise CatdogError(
                f"{run.folder} has no last.pt to resume from; remove that folder, and start again "
                "with: catdog-edge train"
            )
        device = choose_device(args["device"] if device.strip().lower() == "auto" else device)
        job.join(device, args.get("threads"))
        job.run = run
        # All processes have joined, so all have chosen this run: now it may be locked.
        with job.group.shared_errors():
            if job.group.is_main:
                job.stack.enter_context(run.lock())
        return _resume(job, run, args)


def _train(job: TrainingJob, options: TrainOptions) -> Run:
    group = job.group
    arch = architecture(options.arch)
    size = options.size or arch.size
    with group.shared_errors():
        chosen = _check(options, arch, group)
    steps = crop_and_squash(size, size)
    with group.local_main_first():
        progress = ReadingProgress()
        datasets = _open_data(options, steps, progress)
        negatives = open_negatives(
            options.other, steps, progress, keep_damaged=options.keep_damaged
        )
        every = (*datasets, *(negatives.datasets if negatives else ()))
        check_left_out(every, options.leave_out)
        datasets = tuple(without_sources(one, options.leave_out) for one in datasets)
        negatives = _without(negatives, options.leave_out)
        _log_data(datasets, negatives)
        data = _training_data(datasets, negatives, chosen, steps)
    if len(data.train[1]) < 2 * group.world_size:
        raise CatdogError(
            f"{len(data.train[1])} training pictures are too few for {group.world_size} "
            "processes; start fewer, or add pictures"
        )
    spec = ModelSpec(
        architecture=arch.name,
        labels=datasets[0].labels,
        height=size,
        width=size,
        resize=steps,
        normalization=arch.normalization,
        # The threshold is chosen after training.
        rejection=Rejection("known", 0.5) if negatives else None,
        tool_version=__version__,
        git_commit=git_commit(),
    )
    network = _build(options.seed, arch, spec, chosen, group)
    precision = options.precision
    if precision == "auto":
        precision, reason = group.broadcast(choose_precision(network, job.device))
        log.info(f"train: {precision}: {reason}; elsewhere, --precision {precision} repeats this")
    teacher = _load_teacher(job, options.teacher, spec, precision)
    if chosen.views and teacher is None:
        log.warning(
            f"the recipe {chosen.name} is meant for a --teacher: without one, its {chosen.views} "
            "views of the pictures only take variety away"
        )
    plan = Plan(
        recipe=chosen,
        epochs=chosen.epochs_for(len(data.train[1]), chosen.batch_size),
        batch_size=chosen.batch_size,
        lr=chosen.lr,
        seed=options.seed,
        patience=options.patience,
        precision=precision,
        device=job.device,
    )
    spec = spec.replace(trained_on=trained_on(datasets, plan, teacher, negatives, options))
    trainer = Trainer(network, spec, plan, data, Path(), teacher, group)
    run = _create_run(job, options, datasets, negatives, trainer)
    log.info(
        f"train: {arch.name} at {size} x {size}, recipe {chosen.name}, "
        f"{plan.epochs} epoch{'s' * (plan.epochs != 1)}, batch {plan.batch_size}, "
        f"learning rate {plan.lr:g}, {precision} on {job.device}, "
        f"{job.threads} thread{'s' * (job.threads != 1)}"
        f"{f' in {group.world_size} processes' * (not group.is_single)}, into {run.folder}"
    )
    return _fit(job, run, datasets, trainer, negatives)


def _open_data(
    options: TrainOptions, steps: tuple[ResizeStep, ...], progress: ReadingProgress
) -> tuple[Dataset, ...]:
    """Open what each `--data` names; the first decides the labels and their order."""
    first = open_dataset(
        options.data[0] if options.data else None,
        labels=options.labels,
        split=options.split,
        limit=options.limit,
        seed=options.seed,
        steps=steps,
        progress=progress,
        keep_damaged=options.keep_damaged,
    )
    more = (
        open_dataset(
            source,
            labels=first.labels,
            split=options.split,
            limit=options.limit,
            seed=options.seed,
            steps=steps,
            progress=progress,
            required=("train",),
            keep_damaged=options.keep_damaged,
        )
        for source in options.data[1:]
    )
    return first, *more


def _without(negatives: Negatives | None, left_out: Sequence[str]) -> Negatives | None:
    if negatives is None:
        return None
    kept = tuple(without_sources(one, left_out) for one in negatives.datasets)
    return replace(negatives, datasets=kept)


def _log_data(datasets: Sequence[Dataset], negatives: Negatives | None) -> None:
    for dataset in datasets:
        dataset.log_summary()
    if negatives is not None:
        negatives.log_summary()
    sources = sorted({name for one in datasets for name in sources_of(one, "train")})
    if len(sources) > 1:
        log.info(f"sources: {list_names(sources)}; each with its own row in the reports")
    elif not datasets[0].is_sample:
        log.warning(
            f"all images of the classes are of one source, {sources[0]}: what a model does on its "
            "test split says little about another camera; add images of other sources with a "
            "second --data"
        )


def _check(options: TrainOptions, arch: Architecture, group: ProcessGroup) -> Recipe:
    """Reject what cannot work before the images are read, which may take hours."""
    chosen = settled_recipe(options, arch.recipe)
    if arch.fixed_size and options.size not in (None, arch.size):
        raise CatdogError(
            f"{arch.name} takes pictures of {arch.size} x {arch.size} alone; leave out --size"
        )
    check_batch(chosen.batch_size, group.world_size)
    if group.is_main:
        check_name(options.name)
    if chosen.pretrained:
        check_pretrained(arch.name)
    if options.teacher is not None:
        check_teacher_file(options.teacher)
    check_negatives(options.other)
    ThresholdRule.parse(options.reject_at)
    if chosen.freeze and not chosen.pretrained:
        log.warning("--freeze without --pretrained trains only the head of a random network")
    return chosen


def _training_data(
    datasets: Sequence[Dataset],
    negatives: Negatives | None,
    chosen: Recipe,
    steps: tuple[ResizeStep, ...],
) -> TrainingData:
    detailed = steps
    if chosen.detail != 1:
        height, width = (
            round(side * chosen.detail) for side in (steps[-1].height, steps[-1].width)
        )
        detailed = crop_and_squash(height, width)
    images, labels, sources = combined_pixels(datasets, "train", detailed)
    several = len(set(sources)) > 1
    shares = balanced_shares(sources, chosen.source_balance) if several else None
    sampler = None
    if negatives is not None:
        groups = negatives.groups("train")
        sampler = NegativeSampler(
            negatives.photographs("train", detailed),
            len(datasets[0].labels),
            chosen.negatives,
            images,
            chosen.backgrounds,
            chosen.drawn,
            balanced_shares(groups, chosen.source_balance) if len(set(groups)) > 1 else None,
        )
    val = combined_pixels(datasets, "val", steps)[:2]
    return TrainingData((images, labels), val, sampler, shares)


def _build(
    seed: int, arch: Architecture, spec: ModelSpec, chosen: Recipe, group: ProcessGroup
) -> nn.Module:
    torch.manual_seed(seed)
    if chosen.head == "imagenet" and chosen.pretrained and spec.rejection is not None:
        with group.local_main_first():
            built = pretrained_grouped(arch.name, spec.labels)
        if built is not None:
            check_scales(built[0], spec, chosen)
            log.info(f"train: starting from {built[1]}, its categories added up to the classes")
            return built[0]
        log.warning(
            f"ImageNet has no category for one of {list_names(spec.labels)}, or {arch.name} no "
            "head of its own form: the last layer is fresh, and what is none of the classes is "
            "learnt from --other alone"
        )
    network = arch.build(spec.logits)
    check_scales(network, spec, chosen)
    if chosen.pretrained:
        with group.local_main_first():
            log.info(f"train: starting from {load_pretrained(network, arch.name)}")
    return network


def _load_teacher(
    job: TrainingJob, path: Path | None, spec: ModelSpec, precision: str, sha256: str = ""
) -> Teacher | None:
    if path is None:
        return None
    device, negatives = torch.device(job.device), spec.rejection is not None
    with job.group.shared_errors():
        teacher = Teacher(path, spec.labels, device, precision, sha256, negatives)
    log.info(
        f"train: {path} ({teacher.spec.architecture}) teaches"
        f"{', also the logit for negatives' * teacher.knows_negatives}"
    )
    return teacher


def _create_run(
    job: TrainingJob,
    options: TrainOptions,
    datasets: Sequence[Dataset],
    negatives: Negatives | None,
    trainer: Trainer,
) -> Run:
    """Create the run folder with all that a resume needs, and lock it."""
    folder = Path()
    with job.group.shared_errors():
        if job.group.is_main:
            dataset = datasets[0]
            stem = f"{Path(dataset.source).stem}-{trainer.spec.architecture}"
            run = new_run(options.name, stem)
            trainer.folder = folder = run.folder
            try:
                job.stack.enter_context(run.lock())
                dataset.write_split_csv(run.split_csv)
                trainer.save()
                # Last: with it the folder is a run that can be resumed.
                machine = {"threads": job.threads, "processes": job.group.world_size}
                run.write_args(arguments(datasets, negatives, options, trainer, machine))
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            job.run = run
            _write_data_files(run, dataset)
    trainer.folder = job.group.broadcast(folder)
    job.run = Run(trainer.folder)
    return job.run


def _write_data_files(run: Run, dataset: Dataset) -> None:
    """Write what is worth a look before the first epoch, where it is missing."""
    if not (run.folder / "skipped.csv").is_file():
        dataset.write_skipped_csv(run.folder / "skipped.csv")
    if not (run.folder / "data.png").is_file():
        save_overview(run.folder / "data.png", dataset)


def _resume(job: TrainingJob, run: Run, args: dict[str, Any]) -> Run:
    group = job.group
    with group.local_main_first():
        chosen = _recipe_of(run, args)
        check_batch(args["batch_size"], group.world_size)
        network, spec = _load_last(run)
        if (not run.negatives) != (spec.rejection is None):
            raise _changed(run, f"other was {'a path or drawn' if spec.rejection else 'null'}")
        progress = ReadingProgress()
        datasets = (run.dataset(progress=progress), *run.more_datasets(progress=progress))
        if datasets[0].labels != spec.labels:
            difference = label_difference(spec.labels, datasets[0].labels)
            raise _changed(run, f"labels were different ({difference})")
        negatives = open_negatives(
            run.negatives,
            spec.resize,
            progress,
            negatives_split(spec.trained_on),
            keep_damaged=bool(args.get("keep_damaged")),
        )
        negatives = _without(negatives, run.left_out)
        data = _training_data(datasets, negatives, chosen, spec.resize)
    if chosen.keep_imagenet or chosen.start_share:
        # These look back at the weights that the run began with.
        network = _build(args["seed"], architecture(spec.architecture), spec, chosen, group)
    settings = {field.name: args[field.name] for field in fields(Plan)}
    plan = Plan(**{**settings, "recipe": chosen, "device": job.device})
    log.info(f"train: resuming {run.folder}")
    _log_data(datasets, negatives)
    trainer = Trainer(network, spec, plan, data, run.folder, None, group)
    trainer.restore(run.last)
    teacher = args.get("teacher")
    if teacher and not trainer.finished:
        trainer.teacher = _load_teacher(
            job, Path(teacher["file"]), spec, plan.precision, teacher["sha256"]
        )
    with group.shared_errors():
        if group.is_main:
            _write_data_files(run, datasets[0])
    if trainer.finished:
        log.info(f"train: all {trainer.epoch} epochs of {run.folder} are done")
    else:
        log.info(f"train: at epoch {trainer.epoch + 1}, step {trainer.step + 1}")
    return _fit(job, run, datasets, trainer, negatives)


def _load_last(run: Run) -> tuple[nn.Module, ModelSpec]:
    try:
        return load_checkpoint(run.last)
    except ModelError as error:
        kept = f"; the best weights so far are in {run.weights}" * run.weights.is_file()
        raise CatdogError(
            f"{run.last} is damaged, or of another version, and cannot be resumed; start again "
            f"with: catdog-edge train{kept}"
        ) from error


def _changed(run: Run, what: str) -> CatdogError:
    return CatdogError(
        f"{run.folder / 'args.yaml'}: {what} when the run began; put that back, or start again "
        "with: catdog-edge train"
    )


def _recipe_of(run: Run, args: dict[str, Any]) -> Recipe:
    """The recipe in `args.yaml`; this version leaves nothing in it to a default."""
    known = args["recipe"]
    file = run.folder / "args.yaml"
    missing = [field.name for field in fields(Recipe) if field.name not in known]
    if missing and args.get("catdog_edge") == __version__:
        raise CatdogError(
            f"{file}: the recipe lacks {', '.join(missing)}; put it back, or train again"
        )
    return from_dict(known, str(file))


def _fit(
    job: TrainingJob,
    run: Run,
    datasets: Sequence[Dataset],
    trainer: Trainer,
    negatives: Negatives | None,
) -> Run:
    progress = TrainingProgress(trainer.plan.epochs)
    again = not is_distributed()
    hint = " (again: at once)" * again

    def notify() -> None:
        log.info(f"\nstopping after this step{hint}")

    # torchrun sends SIGTERM to processes that Ctrl-C has already reached.
    with stop_requests(notify, again=again) as stop:
        finished = trainer.run(stop.is_set, progress.step, progress.epoch)
    if not finished:
        raise CatdogError(
            f"stopped in epoch {trainer.epoch + 1} of {trainer.plan.epochs}, everything is saved; "
            f"resume with: {job.resume_command}"
        )
    job.trained = True
    if job.group.is_main:
        finish(run, datasets, trainer, negatives)
    return run
