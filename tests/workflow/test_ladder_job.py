"""`ice-ray prune` down a ladder: an interruption keeps the rungs that are done, and the run goes on below them."""

import json
import os
import signal
import subprocess
from functools import partial

import pytest
from jobs_at_work import ROOT, command, ended_well

import ice_ray

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LADDER = (
    "--model",
    "cifar-resnet8",
    "--space",
    "no-training",
    "--search.trials",
    "1",
    "--replay.workers",
    "1",
    "--name",
    "ladder",
)


def test_an_interrupted_ladder_keeps_its_rungs_and_goes_on_below_them(tmp_path):
    asked = command("ice_prune.py", tmp_path, *LADDER, "--target", "macs=0.8,0.5", "--export", "torch")
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what a script starts in the background ignores it
    process = subprocess.Popen(asked, stdout=subprocess.PIPE, text=True, cwd=ROOT, preexec_fn=heard)
    assert process.stdout is not None
    assert any(line.startswith("rung 2 of 2") for line in process.stdout)
    os.kill(process.pid, signal.SIGINT)
    said = process.stdout.read()
    assert process.wait() == 130
    assert "interrupted; the run is kept" in said
    run = tmp_path / "ladder"
    upper = run / "rungs" / "macs=0.8"
    first = (upper / "pruned_model" / "model.safetensors").read_bytes()
    assert not (run / "pruned_model").exists()

    end = ended_well([*asked, "--resume"]).stdout
    assert "rung 1 of 2" not in end
    assert "a ladder of 2 rungs" in end
    assert (upper / "pruned_model" / "model.safetensors").read_bytes() == first
    assert (run / "ladder.png").read_bytes().startswith(b"\x89PNG")
    above = None
    for folder, share in ((upper, 0.8), (run, 0.5)):
        summary = json.loads((folder / "summary.json").read_text())
        kept = json.loads((folder / "pruned_model" / "model.json").read_text())["kept"]
        assert summary["pruned"]["multiply_adds"] <= share * summary["dense"]["multiply_adds"]
        assert summary["config"]["target"] == f"macs={share}"
        assert summary["steps"][-1]["accuracy"] == summary["pruned"]["validation_accuracy"]
        assert (folder / "pruned_model" / "model.pt2").is_file()
        assert (folder / "report.html").is_file()
        assert above is None or all(set(kept[layer]) <= set(above[layer]) for layer in above)
        assert ice_ray.load_run(folder).result.name == f"macs={share}"
        above = kept
    rungs = ice_ray.load_run(run).result.rungs
    assert [rung.name for rung in rungs] == ["macs=0.8", "macs=0.5"]
    assert rungs[0].model.state_dict().keys() == rungs[1].model.state_dict().keys()
    assert "a ladder of 2 rungs" in str(rungs[1])
