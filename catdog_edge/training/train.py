"""`catdog-edge train`: from options to a finished run folder."""

from __future__ import annotations

import logging
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from catdog_edge.errors import (
    CatdogError,
    MissingPackageError,
    ModelError,
    label_difference,
)
from catdog_edge.runtime.onnxruntime_errors import is_memory_error
from catdog_edge.spec import ModelSpec, Rejection, ResizeStep, crop_and_squash
from catdog_edge.system.signals import stop_requests
from catdog_edge.system.version import __version__
from catdog_edge.training.config import train_options
from catdog_edge.training.config.recipes import Recipe, from_dict
from catdog_edge.training.config.train_options import TrainOptions
from catdog_edge.training.data.folder_or_zip import is_sample
from catdog_edge.training.data.negatives import check_negatives, negatives_split, open_negatives
from catdog_edge.training.data.open_dataset import count_training, open_datasets
from catdog_edge.training.engine.device import choose_device
from catdog_edge.training.engine.distillation import Teacher, check_teacher_file
from catdog_edge.training.engine.distributed import ProcessGroup, is_distributed
from catdog_edge.training.engine.precision import choose_precision
from catdog_edge.training.engine.trainer import Plan, Trainer
from catdog_edge.training.evaluation.rejection import EER, ThresholdRule
from catdog_edge.training.models import registry
from catdog_edge.training.models.checkpoint import load_checkpoint
from catdog_edge.training.models.imagenet_head import pretrained_grouped, ungrouped_reason
from catdog_edge.training.models.pretrained import check_pretrained, load_pretrained
from catdog_edge.training.models.registry import Architecture, architecture
from catdog_edge.training.runs.plots import save_overview
from catdog_edge.training.runs.process_setup import TrainingJob, training_job
from catdog_edge.training.runs.progress import TrainingProgress
from catdog_edge.training.runs.provenance import arguments, git_commit, trained_on
from catdog_edge.training.runs.run_data import RunData
from catdog_edge.training.runs.run_folder import ROOT, Run, check_name, new_run, newest_unfinished
from catdog_edge.training.runs.validation_report import finish

log = logging.getLogger(__name__)

MANY = 20_000  # training images from which on the default is to start from random weights


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
    """Resume a run by its name below `runs/`, or the newest that is not finished.

    Results are reproduced only on the same device.

    Raises:
        CatdogError: There is no such run, it is finished, another process is training it, a
            fixed value in its `args.yaml` was changed, or see `train`.
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
    with group.local_main_first():  # it may download the data
        options = settle_architecture(options)
    arch = architecture(options.arch or registry.DEFAULT)
    size = options.size or arch.size
    steps = crop_and_squash(size, size)
    with group.shared_errors():
        chosen = _check(options, arch, group)
    with group.local_main_first():
        data = _open_data(options, steps)
        data.log_summary()
        images = data.images(chosen, steps)
    count = len(images.train[1])
    train_options.check_count(count, group.world_size)
    spec = _untrained_spec(arch, size, steps, data)
    network = _build(options.seed, arch, spec, chosen, group)
    precision = options.precision
    if precision == "auto":
        precision, reason = group.broadcast(choose_precision(network, job.device))
        log.info(f"train: {precision}: {reason}; elsewhere, --precision {precision} repeats this")
    teacher = _load_teacher(job, options.teacher, spec, precision)
    if chosen.views and teacher is None:
        log.warning(
            f"the recipe {chosen.name} is meant for a --teacher: without one, its {chosen.views} "
            "views of the images only take variety away"
        )
    plan = Plan(
        recipe=chosen,
        epochs=chosen.epochs_for(count, chosen.batch_size),
        batch_size=chosen.batch_size,
        lr=chosen.lr,
        seed=options.seed,
        patience=options.patience,
        precision=precision,
        device=job.device,
    )
    spec = spec.replace(trained_on=trained_on(data, plan, teacher, options))
    trainer = Trainer(network, spec, plan, images, Path(), teacher, group)
    run = _create_run(job, options, data, trainer)
    log.info(
        f"train: {arch.name} at {size} x {size}, recipe {chosen.name}, "
        f"{plan.epochs} epoch{'s' * (plan.epochs != 1)}, batch {plan.batch_size}, "
        f"learning rate {plan.lr:g}, {precision} on {job.device}, "
        f"{job.threads} thread{'s' * (job.threads != 1)}"
        f"{f' in {group.world_size} processes' * (not group.is_single)}, into {run.folder}"
    )
    return _fit(job, run, data, trainer)


def _untrained_spec(
    arch: Architecture, size: int, steps: tuple[ResizeStep, ...], data: RunData
) -> ModelSpec:
    return ModelSpec(
        architecture=arch.name,
        labels=data.datasets[0].labels,
        height=size,
        width=size,
        resize=steps,
        normalization=arch.normalization,
        # The threshold is chosen after training.
        rejection=Rejection("known", 0.5) if data.negatives else None,
        tool_version=__version__,
        git_commit=git_commit(),
    )


def settle_architecture(options: TrainOptions) -> TrainOptions:
    """Choose the default architecture: for a small set, one with ImageNet weights."""
    if options.arch is not None:
        return options
    wanted = train_options.wants_pretrained(options)
    if wanted is not None:
        arch = registry.DEFAULT_PRETRAINED if wanted else registry.DEFAULT
        return replace(options, arch=arch, pretrained=wanted or options.pretrained)
    random_weights = replace(options, arch=registry.DEFAULT)
    sources = options.data or (None,)
    if all(is_sample(source) for source in sources):
        return random_weights
    count = count_training(sources, options.labels, options.split, options.limit)
    if count >= MANY:
        return random_weights
    few = f"about {count:,} training images are fewer than {MANY:,}"
    try:
        check_pretrained(registry.DEFAULT_PRETRAINED)
    except MissingPackageError as error:
        log.warning(
            f"{few}: ImageNet weights would do far better ({error}); "
            f"--arch {registry.DEFAULT}, which starts from random weights, is taken"
        )
        return random_weights
    log.info(
        f"train: {few}: {registry.DEFAULT_PRETRAINED} from ImageNet weights "
        f"(--arch {registry.DEFAULT}: a smaller network, from random weights)"
    )
    return replace(options, arch=registry.DEFAULT_PRETRAINED, pretrained=True)


def _check(options: TrainOptions, arch: Architecture, group: ProcessGroup) -> Recipe:
    """Reject invalid options before the images are read, which may take hours."""
    chosen = train_options.settled_recipe(options, arch.recipe)
    if arch.fixed_size and options.size not in (None, arch.size):
        raise CatdogError(
            f"{arch.name} takes images of {arch.size} x {arch.size} alone; leave out --size"
        )
    train_options.check_batch(chosen.batch_size, group.world_size)
    if group.is_main:
        check_name(options.name)
    if chosen.pretrained:
        check_pretrained(arch.name)
    if options.teacher is not None:
        check_teacher_file(options.teacher)
    check_negatives(options.other)
    if ThresholdRule.parse(options.reject_at) != EER and not options.other:
        raise CatdogError(
            f"--reject-at {options.reject_at} needs --other: it chooses a threshold by negatives"
        )
    if chosen.freeze and not chosen.pretrained:
        log.warning("--freeze without --pretrained trains only the head of a random network")
    return chosen


def _open_data(options: TrainOptions, steps: tuple[ResizeStep, ...]) -> RunData:
    keep = options.keep_damaged
    datasets = open_datasets(
        options.data or (None,),
        labels=options.labels,
        split=options.split,
        limit=options.limit,
        seed=options.seed,
        steps=steps,
        keep_damaged=keep,
        known=options.leave_out,
    )
    negatives = open_negatives(options.other, steps, keep_damaged=keep, known=options.leave_out)
    data = RunData(datasets, negatives)
    data.check_left_out(options.leave_out)
    return data.without(options.leave_out)


def _build(
    seed: int, arch: Architecture, spec: ModelSpec, chosen: Recipe, group: ProcessGroup
) -> nn.Module:
    torch.manual_seed(seed)
    if chosen.head == "imagenet" and chosen.pretrained and spec.rejection is not None:
        with group.local_main_first():
            built = pretrained_grouped(arch.name, spec.labels)
        if built is not None:
            train_options.check_scales(built[0], spec, chosen)
            log.info(f"train: starting from {built[1]}, its categories added up to the classes")
            return built[0]
        kept = f"ImageNet's categories cannot be kept in the head of {arch.name}"
        log.warning(
            f"{ungrouped_reason(spec.labels) or kept}: the last layer starts from random weights, "
            "and negatives are learnt from --other alone"
        )
    network = arch.build(spec.logits)
    train_options.check_scales(network, spec, chosen)
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


def _create_run(job: TrainingJob, options: TrainOptions, data: RunData, trainer: Trainer) -> Run:
    """Create the run folder with everything that a resume needs, and lock it."""
    folder = Path()
    with job.group.shared_errors():
        if job.group.is_main:
            dataset = data.datasets[0]
            arch = trainer.spec.architecture.replace(":", "-")  # of timm
            stem = f"{Path(dataset.source).stem}-{arch}"
            run = new_run(options.name, stem)
            trainer.folder = folder = run.folder
            try:
                job.stack.enter_context(run.lock())
                for number, one in enumerate(data.datasets):
                    one.write_split_csv(run.split_file(number))
                trainer.save()
                # Last: with it the folder is a run that can be resumed.
                machine = {"threads": job.threads, "processes": job.group.world_size}
                run.write_args(arguments(data, options, trainer, machine))
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            job.run = run
            _write_data_files(run, data)
    trainer.folder = job.group.broadcast(folder)
    job.run = Run(trainer.folder)
    return job.run


def _write_data_files(run: Run, data: RunData) -> None:
    """Write the reports on the data before the first epoch, if missing."""
    if not (run.folder / "skipped.csv").is_file():
        data.write_skipped_csv(run.folder / "skipped.csv")
    if not (run.folder / "data.png").is_file():
        save_overview(run.folder / "data.png", data.datasets[0])


def _resume(job: TrainingJob, run: Run, args: dict[str, Any]) -> Run:
    group = job.group
    with group.local_main_first():
        chosen = _recipe_of(run, args)
        train_options.check_batch(args["batch_size"], group.world_size)
        network, spec = _load_last(run)
        changed = ""
        if (not run.negatives) != (spec.rejection is None):
            changed = f"other was {'a path or drawn' if spec.rejection else 'null'}"
        datasets = run.datasets()
        if datasets[0].labels != spec.labels:
            changed = f"labels were different ({label_difference(spec.labels, datasets[0].labels)})"
        if changed:
            raise CatdogError(
                f"{run.folder / 'args.yaml'}: {changed} when the run began; put that back, or "
                "start again with: catdog-edge train"
            )
        split = negatives_split(spec.trained_on)
        negatives = open_negatives(
            run.negatives, spec.resize, split, run.keep_damaged, run.left_out
        )
        data = RunData(datasets, negatives).without(run.left_out)
        images = data.images(chosen, spec.resize)
    if chosen.keep_imagenet or chosen.start_share:
        # These look back at the weights that the run began with.
        network = _build(args["seed"], architecture(spec.architecture), spec, chosen, group)
    settings = {field.name: args[field.name] for field in fields(Plan)}
    plan = Plan(**{**settings, "recipe": chosen, "device": job.device})
    log.info(f"train: resuming {run.folder}")
    data.log_summary()
    trainer = Trainer(network, spec, plan, images, run.folder, None, group)
    trainer.restore(run.last)
    teacher = args.get("teacher")
    if teacher and not trainer.finished:
        trainer.teacher = _load_teacher(
            job, Path(teacher["file"]), spec, plan.precision, teacher["sha256"]
        )
    with group.shared_errors():
        if group.is_main:
            _write_data_files(run, data)
    if trainer.finished:
        log.info(f"train: all {trainer.epoch} epochs of {run.folder} are done")
    else:
        log.info(f"train: at epoch {trainer.epoch + 1}, step {trainer.step + 1}")
    return _fit(job, run, data, trainer)


def _load_last(run: Run) -> tuple[nn.Module, ModelSpec]:
    try:
        return load_checkpoint(run.last)
    except ModelError as error:
        kept = f"; the best weights so far are in {run.weights}" * run.weights.is_file()
        raise CatdogError(
            f"{run.last} is damaged, or of another version, and cannot be resumed; start again "
            f"with: catdog-edge train{kept}"
        ) from error


def _recipe_of(run: Run, args: dict[str, Any]) -> Recipe:
    """Read the recipe in `args.yaml`, which this version writes without defaults."""
    known, file = args["recipe"], run.folder / "args.yaml"
    missing = [field.name for field in fields(Recipe) if field.name not in known]
    if missing and args.get("catdog_edge") == __version__:
        raise CatdogError(
            f"{file}: the recipe lacks {', '.join(missing)}; put it back, or train again"
        )
    return from_dict(known, str(file))


def _fit(job: TrainingJob, run: Run, data: RunData, trainer: Trainer) -> Run:
    progress = TrainingProgress(trainer.plan.epochs)
    again = not is_distributed()

    def notify() -> None:
        log.info(f"\nstopping after this step{' (again: at once)' * again}")

    # torchrun sends SIGTERM to processes that Ctrl-C has already reached.
    try:
        with stop_requests(notify, again=again) as stop:
            finished = trainer.run(stop.is_set, progress.step, progress.epoch)
    except (RuntimeError, MemoryError) as error:
        if not is_memory_error(error):
            raise
        size = trainer.plan.batch_size
        raise CatdogError(
            f"there is not enough memory on {job.device} in epoch {trainer.epoch + 1} with batches "
            f"of {size}; free some and resume with: {job.resume_command}, or train again with a "
            f"--batch-size below {size}"
        ) from error
    if not finished:
        raise CatdogError(
            f"stopped in epoch {trainer.epoch + 1} of {trainer.plan.epochs}, everything is saved; "
            f"resume with: {job.resume_command}"
        )
    job.trained = True
    if job.group.is_main:
        finish(run, data, trainer)
    return run
