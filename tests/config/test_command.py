"""A job's description and the command line that gives it."""

import dataclasses
import shlex

import pytest

from ice_ray.config.command import command_of
from ice_ray.config.command_line import parse
from ice_ray.config.jobs import ReplayJobConfig
from ice_ray.config.run import RunConfig
from ice_ray.files import write_json
from ice_ray.invocation import job_words

GIVEN = {
    "nothing": "",
    "a preset and what differs from it": "--preset small --ratio 0.6 --search.trials 5 --name 'a b'",
    "a preset's own value said again": "--preset paper-cifar10 --weights w.pth --search.objective eq2",
    "a pipeline with defaults of its own": "--pipeline baseline --repair bn --fine-tune.replay-epochs 2",
    "a target in place of a preset's ratio": "--preset paper-cifar10 --weights w.pth --target macs=0.5",
    "yes in place of a preset's no": "--preset paper-cifar10 --weights w.pth --prune.coupled yes",
    "no in place of nothing": "--prune.coupled no",
    "lists, numbers and switches": "--mean 0.1 0.2 0.3 --prune.include 'layer1.*' 'layer2.*' --search.no-share-work "
    "--freeze.stem --fine-tune.no-distil --seed 3 --lr-tolerance 0",
    "what a finished run is not told": "--name x --verbose --log-to mlflow wandb --export onnx",
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_the_command_of_a_run_gives_the_run(given):
    config = parse(RunConfig, shlex.split(given), "p")
    words = shlex.split(command_of("prune", config).removeprefix(shlex.join(job_words("prune"))))
    assert parse(RunConfig, words, "p") == config
    resumed = dataclasses.replace(config, name="x", resume=True)
    assert "--resume" not in command_of("prune", resumed)


def test_the_command_of_a_replay_says_what_its_search_did_not(tmp_path):
    best = tmp_path / "best.json"
    searched = parse(RunConfig, ["--pipeline", "baseline", "--fine-tune.epochs", "2"], "p")
    write_json(best, {"config": searched.as_dict()})
    job = parse(
        ReplayJobConfig, ["--config", str(best), "--trial", "3", "--replay.workers", "1", "--repair", "bn"], "p"
    )
    assert job.options.fine_tune.epochs == 2
    words = f"--config {best} --trial 3 --repair bn --replay.workers 1"
    assert command_of("replay", job) == f"{shlex.join(job_words('replay'))} {words}"
    assert parse(ReplayJobConfig, shlex.split(words), "p") == job


@pytest.mark.parametrize(
    ("given", "target", "ratio"),
    [
        ("", "macs=0.5", 0.5),
        ("--ratio 0.7", None, 0.7),
        ("--ratio 0.5", None, 0.5),
        ("--target params=0.3 --name smaller", "params=0.3", 0.5),
        ("--trial 2 --name other --export onnx torch", "macs=0.5", 0.5),
    ],
)
def test_a_replay_with_other_settings(tmp_path, given, target, ratio):
    """What is pruned is the search's, unless either option says otherwise; the command says it again."""
    best = tmp_path / "best.json"
    write_json(best, {"config": parse(RunConfig, ["--target", "macs=0.5"], "p").as_dict()})
    job = parse(ReplayJobConfig, ["--config", str(best), *given.split()], "p")
    assert (job.target, job.options.ratio) == (target, ratio)
    words = command_of("replay", job).removeprefix(shlex.join(job_words("replay")))
    assert parse(ReplayJobConfig, shlex.split(words), "p") == job
