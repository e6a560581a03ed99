"""The lines of Python that the pages print, as printed there, in order."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import ice_ray

ROOT = Path(__file__).parents[2]


class Residual(nn.Module):
    """One block with a shortcut, on grey images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.first, self.norm = nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = x + self.second(F.relu(self.norm(self.first(x))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def lines(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def run(page: str, names: dict[str, Any]) -> dict[str, Any]:
    for block in lines(page):
        exec(block, names)
    return names


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_readme_s_five(capsys):
    (block,) = lines("README.md")
    assert len([line for line in block.splitlines() if line.strip()]) == 5
    torch.manual_seed(0)
    model = Residual().eval()
    images = torch.randn(96, 1, 12, 12)
    labels = model(images).argmax(1)
    names = {
        "model": model,
        "train_loader": DataLoader(TensorDataset(images[:64], labels[:64]), batch_size=16, shuffle=True),
        "val_loader": DataLoader(TensorDataset(images[64:], labels[64:]), batch_size=16),
    }
    result = run("README.md", names)["result"]
    assert type(result.model) is Residual and result.model.first.out_channels < 16
    assert "multiply-adds" in capsys.readouterr().out
    again = ice_ray.load_pruned("pruned", builder=Residual)
    assert torch.equal(again(images), result.model.cpu()(images))
    assert Path("pruned.onnx").stat().st_size > 0


def test_those_of_the_page_on_data(capsys):
    block, _ = lines("docs/data.md")
    names = run("docs/data.md", {})
    assert callable(names["digits"])  # which tests/workflow/test_own_models.py gives to a job
    assert capsys.readouterr().out.strip() == block.rpartition("# ")[2].strip()
