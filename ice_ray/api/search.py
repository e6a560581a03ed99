"""Both stages on Ray from Python: objects or names in, a `Study` out; the same functions as the jobs call."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import nn

from ice_ray.address import StoragePath
from ice_ray.api.arguments import check_preprocessing, keywords_of, pipeline_config, rungs_of, validated, whole
from ice_ray.api.data import given_images
from ice_ray.api.run import Study, told_in_arguments
from ice_ray.cluster.session import ray_session
from ice_ray.config.preset import load_preset
from ice_ray.config.run import RunConfig, default_run, run_kind
from ice_ray.data.images import ImageSet, ImageSource, Preprocessing
from ice_ray.errors import UserError, nearest
from ice_ray.ingest.datasets.held import HeldDataset
from ice_ray.models.registry import name_of
from ice_ray.pipelines.base import PipelineConfig
from ice_ray.replay.config import ReplayConfig
from ice_ray.torch_defaults import usual_defaults
from ice_ray.trials.config import SearchConfig
from ice_ray.trials.space import load_space
from ice_ray.workflow.given import OBJECTS, Given
from ice_ray.workflow.jobs import prune_job, search_job

_OF_DATA_BY_NAME = ("image_size", "data_errors")
_IN_PREPROCESSING = ("mean", "std", "augment")
_BY_THEIR_OWN_NAME = ("model", "data", "options")
"""Fields of a run's description that are no options here: arguments of other names or kinds stand for them."""


@usual_defaults()
def search(
    model: nn.Module | str,
    train: Any,
    val: Any = None,
    test: Any = None,
    *,
    target: str | None = None,
    ratio: float | None = None,
    trials: int | None = None,
    space: str | Path | None = None,
    pipeline: str | None = None,
    config: PipelineConfig | None = None,
    preset: str | None = None,
    weights: str | Path | None = None,
    preprocessing: Preprocessing | None = None,
    search: SearchConfig | None = None,
    replay: ReplayConfig | bool = True,
    storage: str | Path | StoragePath = "runs",
    name: str | None = None,
    resume: bool = False,
    **options: Any,
) -> Study:
    """Search the pruning's hyperparameters with Ray Tune on a part of the images (stage 1), then prune with the best of
    them on all the images with Ray Train (stage 2), as `jobs/ice_prune.py` does. `model` itself is left as it is.

    Ray: that of this process, where it runs already, else the cluster that RAY_ADDRESS names, else one that is started
    here for as long as this takes. What happens is printed line by line, and kept in the run's folder.

    Args:
        model: a trained classifier that takes float32 images (N, C, H, W) and gives logits (N, classes), an object; or
            a name, as the option `--model` takes it. Ray sends an object to its processes as it sends all objects
            (cloudpickle), with the code of its classes; what that code imports must be importable there too. Of it only
            the weights are written down, and no pickle.
        train: images to train on, in any form that `ice_ray.prune` takes; or a name, as the option `--data` takes it.
        val: images that decide, which the model was not trained on; half of them are kept back for the final score,
            unless there is `test`. Not with a name, which has its own.
        test: images for the final score alone.
        target: the share of the dense model to keep: `macs=0.5`, `params=0.4`, `latency=0.6` or
            `onnx-latency=0.6`.
        ratio: in its place the share of each prunable layer's filters to remove, inside (0, 1). [default: 0.5]
        trials: of the space at most so many points, drawn in seeded order. [default: all of them]
        space: grid of hyperparameters, by name or as a YAML file. [default: the pipeline's own small one]
        pipeline: what decides, by name or `package.module:Class`. [default: ice]
        config: the pipeline's `Config`. [default: its defaults]
        preset: defaults by name, such as `paper-cifar10`, for all that is not given here.
        weights: a file of trained weights, for a model by name or an object without its own.
        preprocessing: mean and std of uint8 images (floats go with neither), padding and flips. [default: ImageNet's
            mean and std; small images of a name are padded and flipped as the jobs do it, objects are not]
        search: all options of stage 1 (`SearchConfig`), such as `clock`, `objective`, `gpus` of a trial.
        replay: all options of stage 2 (`ReplayConfig`), such as `workers`; False: stage 1 alone.
        storage: folder of runs, or an address: `s3://bucket/path`. On a cluster one that all nodes see.
        name: the run's, below it. [default: carries the UTC time]
        resume: go on with the run of that name where it was interrupted: with the same model, data and options.
        options: every other option of the jobs by its name (`batch_size`, `precision`, `seed`, `decide_on`, `log_to`,
            `wait_for_resources`, `verbose`) and those of the pipeline (`criterion`, `repair`, `final`).

    Raises:
        UserError: wrong input, in one line that names the argument.
        RunError: the run cannot go on; it is kept, and `resume=True` goes on with it.

    Source: ICE-Pruning's Algorithm 2; its hyperparameters are searched as its section on them says, on subsamples.

    Example::

        study = ice_ray.search(net, train_loader, val_loader, target="macs=0.5", trials=12)
        print(study)             # trials, front and winner; dense against pruned
        study.trials             # a pandas DataFrame
        study.model              # your own class, smaller
        study.result.export("pruned.onnx")
    """
    words = {"target": target, "ratio": ratio, "trials": trials, "space": space, "pipeline": pipeline}
    words |= {"preset": preset, "weights": weights, "storage": storage, "name": name} | options
    with told_in_arguments():
        run = _described(model, train, words, config, search, replay, resume)
        _check_data(train, val, test, options, preprocessing)
        with ExitStack() as session:
            splits: dict[str, ImageSource] = {}
            if not isinstance(train, str):
                session.enter_context(ray_session(run.verbose))  # for Ray Data, and to hold the images
                named = {"train": train, "val": val, "test": test}
                splits = {
                    each: given_images(images, each, hold=each != "train")
                    for each, images in named.items()
                    if images is not None
                }
            given = Given(
                model=model if isinstance(model, nn.Module) else None,
                data=HeldDataset(splits) if splits else None,
                data_digest=_digest(splits),
                preprocessing=preprocessing,
                code=_code(model, train, test, run, words),
            )
            job = search_job if replay is False else prune_job
            folder = job(run, given)
    return Study(folder.path, (lambda: model) if isinstance(model, nn.Module) else None, given)


def _described(
    model: nn.Module | str,
    train: Any,
    words: Mapping[str, Any],
    config: PipelineConfig | None,
    stage_1: SearchConfig | None,
    stage_2: ReplayConfig | bool,
    resume: bool,
) -> RunConfig[Any]:
    """The run, as a command line would describe it."""
    given = {key: value for key, value in words.items() if value is not None}
    for key in ("pipeline", "preset", "target", "space", "weights", "name"):
        if key in given and not isinstance(given[key], (str, Path)):
            raise UserError(f"{key}={given[key]!r:.80} must be a string")
    rungs_of(given.get("target"), given.get("ratio"))
    preset, pipeline = given.pop("preset", None), given.pop("pipeline", None)
    base = default_run(pipeline or "ice") if preset is None else load_preset(preset, pipeline)
    fields = {each.name for each in dataclasses.fields(RunConfig)} - set(_BY_THEIR_OWN_NAME)
    own = {each.name for each in dataclasses.fields(base.options)}
    trials, given_options = given.pop("trials", None), {key: given[key] for key in given if key in own}
    for key in given:
        if key not in fields | own:
            known = [*fields, *own, *keywords_of(search)]
            raise UserError(f"search has no argument '{key}' ({nearest(key, list(set(known)))})")
    if not isinstance(model, (nn.Module, str)):
        raise UserError(f"model={model!r:.80} must be a torch.nn.Module, or a model's name")
    if stage_1 is not None and not isinstance(stage_1, SearchConfig):
        raise UserError(f"search={stage_1!r:.80} must be a SearchConfig")
    if not isinstance(stage_2, (ReplayConfig, bool)):
        raise UserError(f"replay={stage_2!r:.80} must be a ReplayConfig, True or False")
    values = {each.name: getattr(base, each.name) for each in dataclasses.fields(base)}
    values |= {key: value for key, value in given.items() if key in fields}
    values |= {
        "model": name_of(model) if isinstance(model, nn.Module) else model,
        "data": train if isinstance(train, str) else OBJECTS,
        "options": pipeline_config(base.pipeline, base.options if config is None else config, given_options),
        "space": None if values["space"] is None else str(values["space"]),
        "storage": str(values["storage"]),
        "resume": resume,
        "search": stage_1 or base.search,
        "replay": stage_2 if isinstance(stage_2, ReplayConfig) else base.replay,
    }
    kind: type[RunConfig[Any]] = run_kind(base.pipeline)
    run = validated(kind, values)
    return run if trials is None else dataclasses.replace(run, search=_with_trials(run, trials))


def _with_trials(run: RunConfig[Any], trials: object) -> SearchConfig:
    """So many trials; of a grid no more than it has points."""
    count = whole("trials", trials)
    if run.search.algorithm == "grid":
        space = load_space(run.space or "default", run.pipeline).fixing(run.options.idle_hyperparameters)
        count = min(count, len(space.points()))
    return dataclasses.replace(run.search, trials=count)


def _check_data(
    train: Any, val: Any, test: Any, options: Mapping[str, Any], preprocessing: Preprocessing | None
) -> None:
    check_preprocessing(preprocessing)
    if preprocessing is not None and (both := [name for name in _IN_PREPROCESSING if name in options]):
        raise UserError(f"{both[0]}: preprocessing says that: give one of them")
    if isinstance(train, str):
        for name, images in (("val", val), ("test", test)):
            if images is not None:
                raise UserError(f"{name}: data '{train}', a name, has images of its own for that: leave {name} out")
        return
    if val is None and options.get("decide_on") != "train":
        raise UserError(
            "val: no validation images: give images that the model was not trained on, for example a part of them by "
            "torch.utils.data.random_split; or, if it was trained on none of train, decide_on='train'"
        )
    if by_name := [name for name in _OF_DATA_BY_NAME if name in options]:
        raise UserError(f"{by_name[0]} is for data by name; objects are taken as they are")


def _digest(splits: Mapping[str, ImageSource]) -> str:
    """Of the images that are held; those that are read for every pass are not read once more for this."""
    held = [images.fingerprint() for images in splits.values() if isinstance(images, ImageSet)]
    return "-".join(held)


def _code(model: nn.Module | str, train: Any, test: Any, run: RunConfig[Any], words: Mapping[str, Any]) -> str:
    """The line that begins this run anew, for whoever reads its report."""
    data = [repr(train)] if isinstance(train, str) else ["train", "val", *(["test"] if test is not None else [])]
    own = {key: value for key, value in words.items() if value is not None and key != "name"}
    named = [f"{key}={str(value) if isinstance(value, Path) else value!r}" for key, value in own.items()]
    shown = [repr(model) if isinstance(model, str) else "model", *data, *named, f"name={run.name!r}"]
    return f"ice_ray.search({', '.join(shown)})"
