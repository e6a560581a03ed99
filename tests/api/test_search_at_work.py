"""Whole searches by Python: the same bytes as the job's, the user's own objects, and going on with them."""

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jobs_at_work import decisions, prune_here, pruned_weights
from torch import nn

import ice_ray
from ice_ray import ReplayConfig, SearchConfig, UserError
from ice_ray.cluster.session import ray_session

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
DOCS = Path(__file__).parents[2] / "docs" / "search.md"


class Net(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(width, width, 3), nn.ReLU())
        self.head = nn.Linear(width, 10)

    def forward(self, images):
        return self.head(self.second(self.first(images)).mean((2, 3)))


def digits(split):
    from sklearn.datasets import load_digits

    own = load_digits()
    images, labels = torch.tensor(own.images, dtype=torch.float32)[:, None] / 16 - 0.3, torch.tensor(own.target)
    return (images[:1200], labels[:1200]) if split == "train" else (images[1200:], labels[1200:])


def trained():
    torch.manual_seed(0)
    net, (images, labels) = Net(), digits("train")
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(10):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimizer.step()
    return net.eval()


WORK = SearchConfig(clock="work", work_speed=1e9)


def test_by_python_and_by_the_job_the_bytes_are_the_same(tmp_path):
    with ray_session():
        assert prune_here(tmp_path, "job", "--replay.workers", "1") == 0
        study = ice_ray.search(
            "cifar-resnet14", "digits", trials=2, search=WORK, replay=ReplayConfig(workers=1), precision="fp32",
            storage=tmp_path, name="python",
        )  # fmt: skip
    job = ice_ray.load_run(tmp_path / "job")
    timed = [name for name in job.trial_steps if name.endswith("seconds")]
    assert study.trial_steps.drop(columns=timed).equals(job.trial_steps.drop(columns=timed))
    one, other = (json.loads((run / "best.json").read_text())["config"] for run in (tmp_path / "job", study.path.local))
    assert one | {"name": None} == other | {"name": None}
    assert decisions(tmp_path / "job") == decisions(study.path.local)
    files = [run / "pruned_model" / "model.safetensors" for run in (tmp_path / "job", tmp_path / "python")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert study.model.state_dict().keys() == pruned_weights(tmp_path / "job").keys()


def test_objects_go_on_as_the_same_and_no_others(tmp_path):
    net, train, val = trained(), digits("train"), digits("val")
    own = {"trials": 2, "search": WORK, "replay": ReplayConfig(workers=1), "precision": "fp32", "storage": tmp_path}
    with ray_session():
        begun = ice_ray.search(net, train, val, name="own", **own | {"replay": False})
        assert not begun.is_pruned
        with pytest.raises(UserError, match="model is not the one that run 'own' began with"):
            ice_ray.search(Net(), train, val, name="own", resume=True, **own)
        with pytest.raises(UserError, match="are not the images that run 'own' began with"):
            ice_ray.search(net, (train[0] + 1, train[1]), val, name="own", resume=True, **own)
        with pytest.raises(UserError, match=r"was given its model as objects.*resume=True"):
            ice_ray.load_run(tmp_path / "own").replay()
        study = ice_ray.search(net, train, val, name="own", resume=True, **own)
        other = study.replay(trial=1 - study.winner.name, replay=ReplayConfig(workers=1))
        import ray

        assert ray.is_initialized()
    assert type(study.model) is Net
    assert other.result.parameters < other.result.original_parameters
    loaded = ice_ray.load_run(tmp_path / "own", builder=Net).model
    assert all(torch.equal(each, study.model.state_dict()[name]) for name, each in loaded.state_dict().items())
    assert json.loads((tmp_path / "own" / "best.json").read_text())["config"]["data"] == "objects"
    assert not [path for path in (tmp_path / "own").rglob("*.pkl") if "tune" not in path.parts]
    card = (tmp_path / "own" / "pruned_model" / "README.md").read_text()
    loading, exporting, made = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names = {"model": net}
    exec(loading + exporting, names)  # as they stand
    assert type(names["pruned"]) is Net and (tmp_path / "own" / "pruned_model" / "model.onnx").is_file()
    assert made.startswith("import ice_ray\n\nstudy = ice_ray.search(model, train, val, ")


def test_the_lines_of_the_page_run_in_a_script_of_the_user_s(tmp_path):
    (lines,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    source = Path(__file__).read_text()
    own = source[source.index("class Net") : source.index("WORK =")]
    script = tmp_path / "mine.py"
    script.write_text(
        f"import matplotlib\nmatplotlib.use('agg')\nimport torch\nfrom torch import nn\nimport ice_ray\n\n{own}\n"
        f"net, train_data, val_data = trained(), digits('train'), digits('val')\n{lines}\n"
        "assert type(again.model) is Net and type(other.model) is Net and len(study.trials) == 2\n"
    )
    ended = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": ""},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = html.unescape((tmp_path / "runs" / "first" / "report.html").read_text())
    assert "ice_ray.search(model, train, val, target='macs=0.6'" in report
