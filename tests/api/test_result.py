"""What `prune` and runs give back: figures, tables, the saved and the exported model."""

import subprocess
import sys

import pytest
import torch
from ice_runs import PAPER
from torch import nn

import ice_ray
from ice_ray import IceHyperparameters, Result, UserError, load_pruned, prune


class Net(nn.Module):
    """A residual, a concatenation, a group norm and a gate; its width is an argument without a default."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.inner, self.outer = nn.Conv2d(width, 2 * width, 3, padding=1), nn.Conv2d(2 * width, width, 3, padding=1)
        self.norm = nn.GroupNorm(4, 2 * width)
        self.left, self.right = nn.Conv2d(width, width, 3, stride=2), nn.Conv2d(width, width, 1, stride=2)
        self.gate = nn.Linear(width, width)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, images):
        x = self.stem(images).relu()
        x = x + self.outer(self.norm(self.inner(x)).relu())
        x = x * self.gate(x.mean((2, 3))).sigmoid()[:, :, None, None]
        return self.head(torch.cat([self.left(x).relu().mean((2, 3)), self.right(x).relu().mean((2, 3))], dim=1))


@pytest.fixture(scope="module")
def dense():
    torch.manual_seed(0)
    return Net(width=8).eval()


@pytest.fixture(scope="module")
def result(dense, data):
    point = IceHyperparameters(1.0, 0.3, 0.02, 5e-3, 0.15, 50)
    with pytest.warns(UserWarning, match="no better than chance"):
        return prune(dense, data, ratio=0.5, hyperparameters=point, device="cpu", batch_size=64, **PAPER)


def test_figures_are_those_of_the_two_models(dense, result):
    assert isinstance(result.model, Net)
    assert result.parameters == sum(each.numel() for each in result.model.parameters()) < result.original_parameters
    assert result.original_parameters == sum(each.numel() for each in dense.parameters())
    assert 0 < result.macs < result.original_macs
    assert result.accuracy == result.records[-1].accuracy
    assert result.image_shape == (3, 8, 8)
    modules = dict(result.model.named_modules())
    assert result.widths
    assert all(getattr(modules[layer], "out_channels", None) == width for layer, width in result.widths.items())


def test_it_shows_itself(result):
    line = repr(result)
    assert line.startswith("Result(Net: accuracy ")
    assert f"{result.original_parameters:,} to {result.parameters:,}" in line
    text = str(result)
    assert "\x1b" not in text
    assert "Net: " in text
    for value in (f"{result.accuracy:.2f}", f"{result.parameters:,}", f"{result.macs:,}"):
        assert value in text
        assert f">{value}</td>" in result._repr_html_()


def test_steps_as_a_table(result):
    frame = result.steps
    assert list(frame.index) == [record.step for record in result.records]
    assert list(frame["accuracy"]) == [record.accuracy for record in result.records]


def test_a_plot_shows_every_step(result):
    import matplotlib as mpl

    mpl.use("Agg")
    axes = result.plot()
    shown = axes.get_lines()[0].get_xydata()
    assert [list(point) for point in shown[1:]] == [[100 * r.unpruned_share, r.accuracy] for r in result.records]
    assert list(shown[0]) == [100, result.original_accuracy]
    assert result.plot(axes) is axes


@pytest.mark.parametrize("builder", [lambda: Net(width=8), lambda num_classes: Net(width=8)])
def test_what_is_saved_comes_back_bit_for_bit(result, tmp_path, builder):
    folder = result.save(tmp_path / "kept" / "model")
    loaded = load_pruned(folder, builder=builder)
    state, own = loaded.state_dict(), result.model.state_dict()
    assert state.keys() == own.keys()
    assert all(torch.equal(state[name], own[name]) for name in own)
    images = torch.randn(5, 3, 8, 8)
    with torch.inference_mode():
        assert torch.equal(loaded(images), result.model(images))


@pytest.mark.parametrize("name", ["deep/down/model.pt2", "Model.PT2"])
def test_an_exported_file_makes_its_folders_whatever_the_case_of_its_suffix(result, tmp_path, name):
    file = result.export(tmp_path / name)
    images = torch.randn(5, 3, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(torch.export.load(file).module()(images), result.model(images))


def test_a_builder_that_gives_the_dense_model_itself_leaves_it_whole(dense, result, tmp_path):
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    load_pruned(result.save(tmp_path), builder=lambda: dense)
    assert all(torch.equal(tensor, before[name]) for name, tensor in dense.state_dict().items())


@pytest.mark.parametrize(
    ("builder", "said"),
    [
        (None, "give that function, load_pruned\\(path, builder="),
        (Net, r"builder 'Net' cannot be called with nothing.*builder=lambda: Net\(\.\.\.\)"),
        (3, "builder is of type int"),
        (Net(8), "builder is of type Net: give a function or class"),
        (lambda: Net(4), "layer 'inner' cannot have filter 15: it has 8"),
        (lambda: "net", "what the builder returns is of type str"),
    ],
)
def test_a_builder_that_does_not_fit_is_refused_in_one_line(result, tmp_path, builder, said):
    with pytest.raises(UserError, match=said) as error:
        load_pruned(result.save(tmp_path), builder=builder)
    assert "\n" not in str(error.value)


def test_what_is_saved_is_what_the_model_holds_by_then(result, tmp_path):
    changed = Result(ice_ray.load_pruned(result.save(tmp_path / "a"), lambda: Net(8)), (), 0.0, result.description)
    with torch.no_grad():
        changed.model.head.bias.add_(1)
    loaded = load_pruned(changed.save(tmp_path / "b"), lambda: Net(8))
    assert torch.equal(loaded.head.bias, changed.model.head.bias)


def test_of_a_run_it_is_the_same(result, tmp_path):
    folder = result.save(tmp_path)
    summary = {"steps": [record.as_dict() for record in result.records], "replay_pruning_seconds": 1.5}
    of_run = Result.of_run(folder, summary, builder=lambda: Net(8))
    assert of_run.records == result.records
    assert str(of_run).splitlines()[1:] == str(result).splitlines()[1:]  # the title has the seconds
    again = of_run.save(tmp_path / "again")
    assert (again / "model.json").read_text() == (folder / "model.json").read_text()


@pytest.mark.parametrize(
    ("name", "format"), [("model.pt2", "torch"), pytest.param("m.onnx", "onnx", marks=pytest.mark.slow)]
)
def test_the_suffix_chooses_the_format_and_the_model_stays(result, tmp_path, name, format):
    before = result.model.stem.weight.stride()
    file = result.export(tmp_path / name)
    assert result.model.stem.weight.stride() == before
    assert file.size() == ice_ray.export(result.save(tmp_path), format, builder=lambda: Net(8)).size() > 0


def test_another_suffix_or_place_is_refused(result, tmp_path):
    with pytest.raises(UserError, match=r"file .* must end in \.onnx or \.pt2"):
        result.export(tmp_path / "model.tflite")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        result.export(tmp_path / "file" / "model.pt2")
    with pytest.raises(UserError, match=r"folder .* is no folder"):
        result.save(tmp_path / "file")


def test_pandas_and_matplotlib_are_loaded_only_when_asked_for():
    program = (
        "import sys; from ice_ray import Result, prune; "
        "sys.exit(bool({'pandas', 'matplotlib', 'ray', 'IPython'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
