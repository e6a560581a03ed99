"""What can be pruned in a model, and with images the plan for it, before anything is run: `ice-ray inspect`."""

from __future__ import annotations

from contextlib import nullcontext

from ice_ray.cluster.session import ray_session
from ice_ray.config.jobs import InspectConfig
from ice_ray.data.images import PruningData
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.target import small_part
from ice_ray.errors import UserError
from ice_ray.ingest.datasets import Dataset, is_own_data, open_dataset, own_function
from ice_ray.ingest.roles import assign_roles
from ice_ray.models.frozen import describe_frozen
from ice_ray.models.registry import ModelSpec
from ice_ray.observe.anatomy import Inspection
from ice_ray.observe.live import waiting
from ice_ray.observe.terminal import say, show, warn
from ice_ray.workflow.given import NAMED
from ice_ray.workflow.jobs import name_own_code
from ice_ray.workflow.plan import UNTRAINED, calibration_of, find_for, image_shape_of, load_weights, open_network
from ice_ray.workflow.running import paths_named

_USUAL_SIZE, _USUAL_CLASSES = 32, 10


def inspect_job(config: InspectConfig) -> None:
    """Print the units with their widths before and after, what they come to, and what cannot be pruned and why."""
    name_own_code(config.run, NAMED)
    if is_own := is_own_data(config.run.data):
        own_function(config.run.data)  # a wrong name need not wait for Ray
    with ray_session(False) if is_own else nullcontext(), paths_named(), waiting("looking at the model"):
        inspection = _inspection(config)
    show(inspection.table)
    for line in inspection.lines:
        say(line)


def _inspection(config: InspectConfig) -> Inspection:
    run = config.run
    dataset = None if config.data is None else open_dataset(config.data, config.image_size)
    spec = ModelSpec(config.model, (config.num_classes or _USUAL_CLASSES) if dataset is None else dataset.classes)
    module = spec.build()
    if config.weights is not None:
        load_weights(module, config.weights)
    elif dataset is not None and config.target is not None and not spec.is_users_own:
        raise UserError(UNTRAINED)
    size = config.image_size or _USUAL_SIZE
    shape = (3, size, size) if dataset is None else image_shape_of(dataset, run)
    told = None if dataset is None else dataset.classes
    network, _ = open_network(module, config.model, shape, run.options.prune.selection, told)
    if network.frozen:
        say(describe_frozen(network.frozen, network.all_frozen))
    amounts, found = run.options.amounts, None
    if config.target is not None:
        if (objection := small_part(network)) is not None:
            warn(objection)
        images = None if dataset is None else _calibration(config, dataset, network)
        found = find_for(config.target, network, amounts, config.precision, images)
        amounts = found.on(amounts)
    return Inspection.of(network, amounts, config.model, found, "--data and --weights")


def _calibration(config: InspectConfig, dataset: Dataset, network: DenseNetwork) -> tuple[PruningData, int] | None:
    """Those that a run with these options would allocate by, and its seed."""
    run, roles = config.run, assign_roles(dataset, config.decide_on, config.seed)
    for note in dataset.notes:
        warn(f"data '{config.data}': {note}")
    return calibration_of(dataset, roles, run, NAMED, network.image_shape, network.layout)
