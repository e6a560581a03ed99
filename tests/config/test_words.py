"""What is on the command line and is wrong is told in our words; a path is the same however it is written."""

import json
import re
import shlex

import pytest

from ice_ray.address import storage_path
from ice_ray.config.command import command_of
from ice_ray.config.command_line import parse
from ice_ray.config.jobs import ExportConfig, InspectConfig, ReplayJobConfig, ReportConfig
from ice_ray.config.option_words import in_options
from ice_ray.config.preset import named_presets
from ice_ray.config.run import RunConfig, default_run
from ice_ray.errors import UserError
from ice_ray.ingest.datasets import open_dataset
from ice_ray.invocation import job_words
from ice_ray.pipelines.aap import AapConfig
from ice_ray.pipelines.registry import PIPELINES
from ice_ray.pruning.config import LayerwisePruneConfig
from ice_ray.workflow.jobs import prune_job
from ice_ray.workflow.running import run


def refused(kind, *arguments):
    with pytest.raises(UserError) as caught:
        parse(kind, arguments, "p")
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "arguments", "said"),
    [
        (RunConfig, ["--ratoi", "0.5"], "unknown options: --ratoi, 0.5; similar: --ratio; see p --help"),
        (RunConfig, ["--ratoi", "0.5", "--nmae", "x"], "unknown options: --ratoi, 0.5, --nmae, x; similar: --ratio"),
        (RunConfig, ["--ratio", "half"], "--ratio takes a number, not 'half'; see p --help"),
        (RunConfig, ["--search.trials", "two"], "--search.trials takes a whole number, not 'two'"),
        (RunConfig, ["--mean", "a", "b", "c"], "--mean takes numbers, not 'a', 'b', 'c'"),
        (RunConfig, ["--search.clock", "sun"], "invalid choice 'sun' for argument '--search.clock'."),
        (RunConfig, ["--ratio"], "Missing value for argument '--ratio'."),
        (ReplayJobConfig, ["--config", "x", "--trial", "a"], "--trial takes a whole number, not 'a'"),
        (InspectConfig, ["--model", "x", "--image-size", "big"], "--image-size takes a whole number, not 'big'"),
        (RunConfig, ["--verbose=1"], "nothing takes the argument 1: one too many"),
        (ExportConfig, ["a", "b", "c"], "nothing takes the arguments b, c: one too many"),
        (ExportConfig, ["x", "--format", "tflite"], "invalid choice 'tflite' for argument '--format'."),
    ],
)
def test_no_frames_no_rules_no_types_of_python(kind, arguments, said):
    found = refused(kind, *arguments)
    assert found.startswith(said)
    assert not re.search(r"-{3}|class '|Tuple|[│╭╰]", found)


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--" + option, ""] for option in ("storage", "name", "weights", "space", "data", "model", "prune.ratios")),
        ["--storage="],
        ["--storage", "  "],
        ["--preset", ""],
        ["--search.warm-start="],
    ],
)
def test_an_empty_value_is_none(arguments):
    assert refused(RunConfig, *arguments) == f"{arguments[0].rstrip('=')} is empty: give a value, or leave it out"


def test_an_empty_place_is_none_elsewhere():
    assert "an argument is empty" in refused(ReportConfig, "a", "", "--target", "b")
    assert "--config is empty" in refused(ReplayJobConfig, "--config", "")
    assert "--target is empty" in refused(ExportConfig, "x", "--target=")
    with pytest.raises(UserError, match="--storage: the path is empty"):
        RunConfig(storage="")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--aap.rounds", "3"], "--aap.rounds is an option of --pipeline aap, not of ice"),
        (["--aap.rounds", "30"], "--aap.rounds is an option of --pipeline aap, not of ice"),
        (
            ["--imp.form", "structured", "--pipeline", "aap"],
            "--imp.form is an option of --pipeline imp and bimp, not of aap",
        ),
        (["--pipeline=baseline", "--threshold"], "--threshold is an option of --pipeline ice, not of baseline"),
        (["--pipeline", "baseline", "--no-threshold"], "--no-threshold is an option of --pipeline ice, not of"),
        (
            ["--pipeline", "aap", "--criterion=l1"],
            "--criterion is an option of --pipeline ice and baseline and one-shot,",
        ),
        (
            ["--pipeline", "one-shot", "--repair", "none"],
            "--repair is an option of --pipeline ice and baseline, not of",
        ),
        (["--pipeline", "imp", "--prune.round-to", "1"], "--prune.round-to is an option of"),
        (["--pipeline", "baseline", "--final.epochs", "0"], "--final.epochs is an option of --pipeline ice, not of"),
        (["--pipeline", "baseline", "--lr-tolerance", "0"], "--lr-tolerance is an option of --pipeline ice, not of"),
        (["--pipeline", "aap", "--calibration-images", "9"], "--calibration-images is an option of"),
        (["--pipeline", "one-shot", "--reconstruction-epochs=3"], "--reconstruction-epochs is an option of"),
        (["--pipeline", "bimp", "--fine-tune.epochs", "3"], "--fine-tune.epochs is an option of"),
        (["--pipeline", "baseline", "--freeze.stem"], "--freeze.stem is an option of --pipeline ice, not of baseline"),
    ],
)
def test_an_option_that_the_pipeline_would_not_read(arguments, said):
    assert refused(RunConfig, *arguments).startswith(said)


def test_an_option_that_it_reads_is_taken():
    assert parse(RunConfig, ["--pipeline", "aap", "--aap.rounds", "3"], "p").options.aap.rounds == 3
    mine = ["--pipeline", "examples.pipeline:EveryFewSteps"]
    own = parse(RunConfig, [*mine, "--every", "3", "--repair", "bn"], "p")
    assert (own.options.every, own.options.repair) == (3, "bn")
    assert refused(RunConfig, *mine, "--every=0") == "--every 0 must be at least 1"
    with pytest.raises(UserError, match="options of --pipeline ice must be IceConfig"):
        RunConfig(options=AapConfig())


@pytest.mark.parametrize("preset", [None, *named_presets()])
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_pipeline_takes_its_own_words_and_any_preset(preset, pipeline):
    """What is refused, it does not read: by its code, none of these."""
    first = ["--pipeline", pipeline, *(["--preset", preset] if preset else [])]
    config = parse(RunConfig, first, "p")
    assert (
        parse(RunConfig, shlex.split(command_of("prune", config).removeprefix(shlex.join(job_words("prune")))), "p")
        == config
    )
    own = {
        "ice": "--threshold --alpha parameters --fine-tune.epochs 1 --final.epochs 0 --early-stopping.images 9",
        "baseline": "--criterion taylor --repair bn --calibration-images 9 --fine-tune.epochs 2",
        "one-shot": "--criterion taylor --calibration-images 9 --prune.round-to 1",
        "aap": "--aap.rounds 3 --fine-tune.schedule cosine --fine-tune.epochs 2 --fine-tune.replay-epochs 2",
        "imp": "--imp.form structured --fine-tune.no-distil --replay.subsample 0.5",
    }
    words = own.get(pipeline, own["imp" if pipeline == "bimp" else "ice"])
    assert parse(RunConfig, [*first, *words.split()], "p").pipeline == pipeline


def test_a_replay_takes_what_its_search_s_pipeline_reads(tmp_path):
    best = tmp_path / "best.json"
    best.write_text(json.dumps({"config": default_run("one-shot").as_dict()}))
    assert parse(ReplayJobConfig, ["--config", str(best), "--replay.workers", "1"], "p")
    said = refused(ReplayJobConfig, "--config", str(best), "--fine-tune.epochs", "3")
    assert said.startswith("--fine-tune.epochs is an option of --pipeline ice and baseline and aap, not of one-shot")


@pytest.mark.parametrize("name", ["~", "~me", "-x", ".", "a/b"])
def test_a_name_that_a_shell_would_take_for_something_else(name):
    assert refused(RunConfig, f"--name={name}") == f"--name '{name}' must be a plain folder name"


def test_home_is_home_behind_an_equals_sign_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["--storage=~/runs", "--weights=~/w.pth", "--data=imagefolder:~/photos", "--space=~/mine.yaml"]
    (tmp_path / "r.yaml").write_text("layer1.*: 0.25")
    config = parse(RunConfig, [*words, "--prune.ratios=~/r.yaml"], "p")
    assert config.storage == f"{tmp_path}/runs"
    assert config.weights == tmp_path / "w.pth"
    assert config.data == f"imagefolder:{tmp_path}/photos"
    assert config.space == f"{tmp_path}/mine.yaml"
    assert config.options.prune.ratios == ("layer1.*=0.25",)
    assert (
        config.deciding()
        == parse(
            RunConfig, [word.replace("~", str(tmp_path)) for word in words] + [f"--prune.ratios={tmp_path}/r.yaml"], "p"
        ).deciding()
    )
    assert storage_path("~/runs") == tmp_path / "runs"
    with pytest.raises(UserError, match=str(tmp_path / "none")):
        open_dataset("parquet:~/none")
    with pytest.raises(UserError, match="there is no such user here"):
        LayerwisePruneConfig(ratios=("~nobody-here/x",))


def test_nothing_is_made_of_a_tilde(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "runs" / "taken" / "notes").mkdir(parents=True)
    assert run(prune_job, RunConfig, "p", ["--storage=~/runs", "--name", "taken"]) == 2
    assert "home/runs/taken' exists" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_hyperparameter_is_not_taken_for_an_option():
    assert in_options(UserError("final_learning_rate where there are final_epochs")) == (
        "final_learning_rate where there are final_epochs"
    )
    assert in_options(UserError("give them one (final.rate)")) == "give them one (--final.rate)"


@pytest.mark.parametrize(
    ("given", "held"), [("", None), ("--prune.coupled yes", True), ("--preset paper-cifar10 --weights w.pth", False)]
)
def test_coupled_channels_go_where_they_are_asked_for(given, held):
    own = parse(RunConfig, given.split(), "p").options.prune
    assert own.coupled is held
    assert own.selection.coupled is bool(held)
