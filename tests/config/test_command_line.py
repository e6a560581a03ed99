"""The command line's surface, held by a snapshot; wrong input ends with 2, one line, and leaves nothing behind."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import ray
import safetensors.torch

from ice_ray.config.command_line import parse
from ice_ray.config.jobs import ReplayJobConfig
from ice_ray.config.run import RunConfig, config_from_dict, default_run, flat_options
from ice_ray.errors import UserError
from ice_ray.files import write_json
from ice_ray.ingest.datasets import open_dataset
from ice_ray.ingest.datasets.base import Dataset
from ice_ray.models.registry import ModelSpec
from ice_ray.observe.trials_table import write_trials
from ice_ray.pipelines.registry import PIPELINES
from ice_ray.trials.run import TrialResult, point_log
from ice_ray.trials.space import load_space
from ice_ray.workflow.jobs import prune_job, replay_job
from ice_ray.workflow.run_folder import RunFolder
from ice_ray.workflow.running import run

ROOT = Path(__file__).parent.parent.parent
SURFACE = Path(__file__).with_name("surface.txt")


def surface() -> str:
    """Every option with its default, a line each."""
    common = all_options(RunConfig()).items()
    lines = [f"{option} = {value}" for option, value in common]
    for pipeline in PIPELINES:
        lines += [f"[{pipeline}]"] * (pipeline != "ice")
        own = all_options(default_run(pipeline)).items()
        lines += [f"{option} = {value}" for option, value in own if (option, value) not in common]
    return "\n".join(lines) + "\n"


def all_options(config: RunConfig) -> dict[str, object]:
    return {f"--{option}": value for option, value in flat_options(config.as_dict()).items()}


def test_the_surface_is_as_written_down():
    """A deliberate change: write the new surface into surface.txt, and say so in the changelog."""
    assert surface() == SURFACE.read_text()


def printed_help(capsys, *arguments: str, program: str = "ice_prune.py") -> str:
    with pytest.raises(SystemExit) as end:
        parse(RunConfig, arguments, program)
    assert end.value.code == 0
    return capsys.readouterr().out


def test_every_option_of_the_surface_is_taken(capsys):
    text = printed_help(capsys, "--help-all")
    for option in all_options(RunConfig()):
        assert option in text


def test_a_description_survives_json():
    config = parse(
        RunConfig,
        [
            "--weights",
            "w.pth",
            "--search.trials",
            "6",
            "--search.warm-start",
            "best.json",
            "--mean",
            "0.1",
            "0.2",
            "0.3",
        ],
        "p",
    )
    assert config.mean == (0.1, 0.2, 0.3)
    assert config_from_dict(json.loads(json.dumps(config.as_dict())), "test") == config
    with pytest.raises(UserError, match="does not describe a run"):
        config_from_dict({"ratio": 0.5}, "test")


def test_what_decides_the_result_and_what_does_not():
    one = RunConfig()
    told = "--name x --search.concurrent 2 --replay.workers 4 --verbose --log-to wandb"
    same = parse(RunConfig, told.split(), "p")
    other = parse(RunConfig, ["--lr-tolerance", "0"], "p")
    assert one.deciding() == same.deciding() != other.deciding()


@pytest.fixture
def weights(tmp_path) -> str:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(ModelSpec("cifar-resnet8", 10).build().state_dict(), path)
    return str(path)


SILENT = "s3://bucket/x?endpoint_override=127.0.0.1:9&scheme=http"  # nobody listens there
WRONG = {
    "unknown option": (["--ratoi", "0.5"], "--ratoi"),
    "not a number": (["--ratio", "half"], "half"),
    "ratio 0": (["--ratio", "0"], "inside (0, 1)"),
    "ratio 1": (["--ratio", "1"], "inside (0, 1)"),
    "ratio nan": (["--ratio", "nan"], "inside (0, 1)"),
    "ratio empties": (["--ratio", "0.99"], "would empty layer layer1.0.conv1"),
    "ladder up": (["--target", "macs=0.6,0.8"], "must go down"),
    "ladder uneven": (["--target", "macs=0.8,0.6 params=0.9"], "as many shares of one quantity"),
    "ladder too fine": (["--model", "cifar-resnet8", "--target", "macs=0.5,0.4999"], "the rung above it has left"),
    "ladder of another": (["--pipeline", "imp", "--target", "macs=0.8,0.6"], "--pipeline imp takes --ratio"),
    "model": (["--model", "cifar-resnet21"], "nearest: cifar-resnet"),
    "model function": (["--model", "no_such:build"], "importable"),
    "data": (["--data", "digit"], "nearest: digits"),
    "data path": (["--data", "parquet:/no/such/place"], "no such folder"),
    "space": (["--space", "defautl"], "nearest: default"),
    "criterion": (["--criterion", "l9"], "nearest: l2, l1"),
    "choice": (["--search.clock", "sun"], "'wall', 'work'"),
    "trials": (["--search.trials", "0"], "at least 1"),
    "too many trials": (["--search.trials", "13"], "take 1 to"),
    "algorithm": (["--search.algorithm", "bo"], "'tpe'"),
    "random without trials": (["--search.algorithm", "random"], "random needs --search.trials"),
    "tpe without trials": (["--search.algorithm", "tpe"], "tpe needs --search.trials"),
    "concurrent": (["--search.concurrent", "0"], "at least 1"),
    "warm start": (["--search.warm-start", "no.json"], "--search.warm-start 'no.json': no such file"),
    "objective": (["--search.objective", "parato"], "nearest: pareto"),
    "objective function": (["--search.objective", "no_such:choose"], "objective 'no_such:choose': ModuleNotFoundError"),
    "no limit": (["--search.objective", "constrained"], "needs --search.max-drop"),
    "limit of another": (["--search.max-drop", "1"], "is for --search.objective constrained"),
    "limit nan": (["--search.objective", "constrained", "--search.max-drop", "nan"], "must be a number"),
    "subsample": (["--search.subsample", "1.5"], "(0, 1]"),
    "gpus": (["--search.gpus", "1.5"], "fraction"),
    "workers": (["--replay.workers", "0"], "at least 1"),
    "epochs": (["--fine-tune.replay-epochs", "0"], "at least 1"),
    "batch": (["--batch-size", "1"], "at least 2"),
    "own data": (["--data", "no_such:build"], "No module named 'no_such'"),
    "preset": (["--preset", "paper-cifar1O"], "nearest: paper-cifar10"),
    "preset without its data": (["--preset", "paper-imagenet"], "needs a path: imagenet:PATH"),
    "mean": (["--mean", "125", "122", "113"], "--mean 125 122 113 must be numbers in [0, 1]"),
    "two means": (["--mean", "0.5", "0.5"], "--mean has 2 and --std 3 numbers"),
    "no mean": (["--mean", "--std"], "--mean needs a value"),
    "one mean": (["--mean", "0.13"], "--mean has 1 and --std 3 numbers: give each one a channel"),
    "std": (["--std", "0.2", "0", "0.2"], "--std 0.2 0 0.2 must be numbers in (0, 1]"),
    "std nan": (["--std", "0.2", "nan", "0.2"], "must be numbers in (0, 1]"),
    "image size": (["--image-size", "1"], "at least 4"),
    "missing weights": (["--weights", "nothing.pth"], "no such file"),
    "resume nothing": (["--resume", "--name", "nothing"], "no run to resume"),
    "resume nameless": (["--resume"], "needs the --name"),
    "name": (["--name", "../up"], "plain folder name"),
    "storage": (["--storage", "hdfs://host/x"], "--storage: unknown kind of address 'hdfs'"),
    "storage's password": (["--storage", "s3://key:secret@bucket/x"], "--storage: s3:// with a user or a password"),
    "storage's key": (["--storage", "s3://bucket/x?access_key=k"], "not 'access_key'"),
    "storage elsewhere": (["--storage", "file://host/x"], "is no folder of this machine"),
    "storage that is silent": (["--storage", SILENT], "cannot be used (NETWORK_CONNECTION"),
    "replay gpus": (["--replay.gpus", "0.5"], "a fraction with 1 worker"),
    "target": (["--target", "flops=0.5"], "macs=, params=, latency= or onnx-latency="),
    "target share": (["--target", "macs=1.5"], "inside (0, 1)"),
    "target too far": (["--target", "params=0.001"], "out of reach"),
    "ratio and target": (["--target", "macs=0.5", "--ratio", "0.5"], "give one of them"),
    "include": (["--prune.include", "linear"], "linear cannot be pruned, nothing reads its filters"),
    "exclude": (["--prune.exclude", "layer9.*"], "matches no prunable layer"),
    "round to": (["--prune.round-to", "128"], "nothing would be removed"),
    "coupled": (["--prune.coupled", "maybe"], "--prune.coupled'. Expected one of ('yes', 'no')"),
    "ratios": (["--prune.ratios", "none.yaml"], "no such file"),
    "pipeline": (["--pipeline", "ise"], "nearest: ice"),
    "ablation of another": (
        ["--pipeline", "imp", "--no-freezing"],
        "--no-freezing is an option of --pipeline ice, not of imp",
    ),
    "repair of another": (
        ["--pipeline", "aap", "--repair", "bn"],
        "--repair is an option of --pipeline ice and baseline",
    ),
    "target of another": (["--pipeline", "imp", "--target", "macs=0.5"], "--pipeline imp takes --ratio"),
    "images for workers": (["--repair", "bn", "--calibration-images", "1"], "as many as --replay.workers"),
    "images for a fit": (["--calibration-images", "7"], "--calibration-images 7 must be at least 8 for repair"),
    "widths of another": (["--pipeline", "imp", "--prune.round-to", "8"], "--prune.round-to is an option of"),
    "old space": (["--space", "digits"], "space 'digits' is now 'default'"),
    "old pipeline": (["--pipeline", "ice-plus"], "pipeline 'ice-plus' is now ice, the default"),
    "space of another": (["--pipeline", "imp", "--space", "cifar10"], "unknown space 'cifar10' of pipeline imp"),
    "rounds": (["--pipeline", "aap", "--aap.rounds", "0"], "--aap.rounds 0 must be at least 1"),
    "dense schedule": (["--pipeline", "imp", "--imp.dense-schedule", "0.5:1"], "must rise from 0"),
    "schedule": (["--fine-tune.schedule", "step"], "'constant', 'cosine'"),
    "temperature": (["--fine-tune.temperature", "0"], "--fine-tune.temperature 0.0 must be above 0"),
    "smoothing": (["--fine-tune.label-smoothing", "1"], "[0, 1)"),
    "epochs of both stages": (["--fine-tune.epochs", "0"], "at least 1"),
    "torchvision": (["--model", "torchvision:resnet5O"], "nearest: resnet50"),
    "library image": (["--model", "torchvision:vit_b_16"], "does not take an image of 8x8"),
    "tracker": (["--log-to", "tensorboard"], "'mlflow', 'wandb'"),
    "freeze": (["--freeze.probe-learning-rate", "0"], "above 0"),
}


@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG)
def test_wrong_input_ends_with_2_one_line_and_no_folder(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(prune_job, RunConfig, "ice_prune.py", arguments) == 2
    line = capsys.readouterr().err.strip()
    assert said in line
    assert len(line.splitlines()) == 1
    assert line.startswith("ice_prune.py: ")
    assert not list(tmp_path.iterdir())
    assert not ray.is_initialized()


def test_a_model_that_does_not_fit_the_data_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd_models.py").write_text(
        "from ice_ray.models.registry import ModelSpec\n"
        "def five(): return ModelSpec('cifar-resnet8', 5).build()\n"
        "def broken(): return 1 / 0\n"
    )
    assert run(prune_job, RunConfig, "p", ["--model", "odd_models:five"]) == 2
    assert "needs logits of 10 classes" in capsys.readouterr().err
    assert run(prune_job, RunConfig, "p", ["--model", "odd_models:broken"]) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_weights_of_another_model_are_named(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(prune_job, RunConfig, "p", ["--model", "cifar-resnet20", "--weights", weights]) == 2
    assert "missing layer1.1.bn1.bias" in capsys.readouterr().err


def test_an_existing_name_and_a_changed_option_are_refused(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    RunFolder(tmp_path / "runs" / "a").create(RunConfig(name="a"), "")
    assert run(prune_job, RunConfig, "p", ["--name", "a"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert run(prune_job, RunConfig, "p", ["--name", "a", "--resume", "--ratio", "0.4"]) == 2
    assert "--ratio was 0.5 and is 0.4" in capsys.readouterr().err
    RunFolder(tmp_path / "runs" / "b").create(RunConfig(name="b", weights=Path(weights)), "")
    safetensors.torch.save_file(ModelSpec("cifar-resnet8", 9).build().state_dict(), weights)
    assert run(prune_job, RunConfig, "p", ["--name", "b", "--resume", "--weights", weights]) == 2
    assert "has changed" in capsys.readouterr().err


def test_points_other_than_the_run_began_with_are_refused(tmp_path, monkeypatch, capsys):
    """The warm start's file was written anew between the two."""
    monkeypatch.chdir(tmp_path)
    run_folder = RunFolder(tmp_path / "runs" / "a")
    options = ["--name", "a", "--search.warm-start", "best.json", "--search.trials", "2"]
    points = load_space("default").points()
    write_json(tmp_path / "best.json", {"hyperparameters": points[0].as_dict()})
    run_folder.create(parse(RunConfig, options, "p"), open_dataset("digits").labels_digest)
    point_log(run_folder.path, "ice").begin(points[1:3])
    assert run(prune_job, RunConfig, "p", [*options, "--resume"]) == 2
    assert "was begun with other points" in capsys.readouterr().err


def test_a_trial_that_did_not_finish_is_not_replayed(tmp_path, capsys):
    point = load_space("default").points()[0]
    folder = RunFolder(tmp_path)
    write_json(folder.best, {"config": RunConfig().as_dict(), "hyperparameters": point.as_dict()})
    arguments = ["--config", str(folder.best), "--trial"]
    assert run(replay_job, ReplayJobConfig, "p", [*arguments, "0"]) == 2
    assert "trials.parquet': no such file" in capsys.readouterr().err
    write_trials(folder.trials, [TrialResult(0, point, (), "", "here"), TrialResult(1, point, (), "diverged", "here")])
    for trial, said in (
        ("1", "--trial 1 is no finished trial of the search: diverged (finished: 0)"),
        ("7", "--trial 7"),
    ):
        assert run(replay_job, ReplayJobConfig, "p", [*arguments, trial]) == 2
        assert said in capsys.readouterr().err
    assert not ray.is_initialized()


def test_real_command_lines_end_the_same_way(tmp_path):
    program = ROOT / "jobs" / "ice_prune.py"
    ended = subprocess.run(
        [sys.executable, program, "--ratio", "2"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    said = "--ratio 2.0 must be a number inside (0, 1), the share of filters to remove"
    assert ended.stderr.strip() == f"ice_prune.py: {said}"
    replay = ROOT / "jobs" / "ice_replay.py"
    ended = subprocess.run(
        [sys.executable, replay, "--config", "best.json"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "no such file" in ended.stderr
    assert not list(tmp_path.iterdir())


def test_the_replay_job_needs_its_config():
    with pytest.raises(UserError, match="--config"):
        parse(ReplayJobConfig, [], "ice_replay.py")


def test_labels_are_checked_against_what_decides(tmp_path):
    class Odd(Dataset):
        class_names = ("no", "yes")

        def __init__(self):
            self.labels = {"train": np.array([0, 1]), "test": np.array([2])}

        def read(self, split, rows):
            yield from ()

    with pytest.raises(UserError, match="label 2"):
        Odd().check_labels("odd")
