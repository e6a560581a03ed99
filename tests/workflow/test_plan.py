"""A run's description checked against its data and model: no Ray."""

import pytest

from ice_ray.config.command_line import parse
from ice_ray.config.inspect_job import InspectConfig
from ice_ray.config.run import RunConfig
from ice_ray.workflow.inspection import inspect_job
from ice_ray.workflow.jobs import prune_job, run
from ice_ray.workflow.plan import make_plan


@pytest.mark.parametrize(
    ("words", "batch"),
    [
        ("", 32),  # digits: trials have half of the images
        ("--search.subsample 0.2 --replay.subsample 0.3", 32),
        ("--search.subsample 0.3 --replay.subsample 0.3", 128),
        ("--search.subsample 0.3 --replay.subsample 0.3 --batch-size 64", 64),
        ("--search.subsample 0.3 --replay.subsample 0.2", 128),
        ("--batch-size 16", 16),
        ("--search.subsample 0.3 --replay.subsample 0.3 --search.batch-size 24", 24),
    ],
)
def test_trials_with_the_replays_images_take_its_batches(words, batch):
    plan = make_plan(parse(RunConfig, words.split(), "p"))
    assert plan.search_settings.recipe.batch_size == batch


DEADLY = """
import os, signal
import torch
from torch import nn

class Dies(torch.autograd.Function):
    @staticmethod
    def forward(context, maps):
        return maps.clone()

    @staticmethod
    def backward(context, gradient):
        os.kill(os.getpid(), signal.SIGSEGV)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten())
        self.head = nn.Linear(128, 10)

    def forward(self, images):
        return self.head(Dies.apply(self.body(images)))

def build():
    return Net()
"""


@pytest.mark.parametrize(
    ("job", "kind", "program"),
    [(prune_job, RunConfig, "ice_prune.py"), (inspect_job, InspectConfig, "ice_inspect.py")],
)
def test_a_network_that_ends_its_process_ends_the_job_in_one_line(job, kind, program, tmp_path, monkeypatch, capsys):
    (tmp_path / "deadly_network.py").write_text(DEADLY)
    monkeypatch.chdir(tmp_path)
    size = ["--image-size", "8"] if kind is InspectConfig else []
    assert run(job, kind, program, ["--model", "deadly_network:build", *size]) == 2
    line = capsys.readouterr().err.strip()
    assert "model 'deadly_network:build' ended the process that looked at it (SIGSEGV, a segmentation fault)" in line
    assert len(line.splitlines()) == 1
