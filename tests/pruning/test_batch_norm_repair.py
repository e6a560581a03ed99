"""Batch norms recalibrated: what torch itself would have found."""

import torch
from repairing import Chain, calibration, conv_to_conv, pictures
from torch import nn

from ice_ray.distributed import SingleProcess
from ice_ray.repair.batch_norms import recalibrate


def test_recalibrated_statistics_are_those_of_a_pass_over_all_images():
    """Oracle: torch's own, in training mode on one batch of all images."""
    torch.manual_seed(0)
    model, _ = conv_to_conv()
    expected = Chain(*model.parts)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    for norm in (expected.parts[1], expected.parts[4]):
        norm.momentum = 1.0
    expected.train()
    expected(pictures())
    wanted = {key: value.clone() for key, value in expected.state_dict().items() if "running" in key}
    model.load_state_dict(state)
    for norm in (model.parts[1], model.parts[4]):
        norm.momentum = 0.1
    model.eval()
    recalibrate(model, calibration(pictures(), 48), SingleProcess())
    found = model.state_dict()
    assert all(torch.allclose(found[key], value, atol=1e-6) for key, value in wanted.items())
    assert int(found["parts.1.num_batches_tracked"]) == int(state["parts.1.num_batches_tracked"])
    assert not any(module.training for module in model.modules())
    # In pieces the first norm reads the same, whatever the pieces.
    model.load_state_dict(state)
    recalibrate(model, calibration(pictures(), 7), SingleProcess())
    for key in ("parts.1.running_mean", "parts.1.running_var"):
        torch.testing.assert_close(model.state_dict()[key], wanted[key], atol=1e-6, rtol=1e-5)


def test_norms_before_the_first_pruned_layer_stay():
    torch.manual_seed(0)
    model = Chain(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    recalibrate(model, calibration(pictures(), 16), SingleProcess(), "parts.3")
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"parts.4.running_mean", "parts.4.running_var"}


def test_a_batch_of_one_value_is_counted_but_does_not_normalise():
    torch.manual_seed(0)
    model = Chain(nn.Conv2d(3, 4, 10), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    images = pictures(17)
    recalibrate(model, calibration(images, 16), SingleProcess())
    read = model.parts[0](images).flatten(1).detach()
    torch.testing.assert_close(model.parts[1].running_mean, read.mean(0), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model.parts[1].running_var, read.var(0), atol=1e-6, rtol=1e-5)
