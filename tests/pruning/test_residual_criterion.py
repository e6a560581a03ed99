"""Backward elimination on the refit's residual."""

import torch
from repairing import SHAPE, Case, Chain, calibration, pictures, repair_context, scoring, with_statistics
from torch import nn

from ice_ray.distributed import SingleProcess
from ice_ray.models.partial_forward import reads_and_gives
from ice_ray.models.trace import trace_layers
from ice_ray.pruning.anatomy import dissect
from ice_ray.pruning.criteria import criterion_named
from ice_ray.pruning.selection import lowest
from ice_ray.repair.batch_norms import recalibrate
from ice_ray.repair.calibration_images import judging
from ice_ray.repair.normal_equations import Positions, input_rows, output_rows, positions_of


def test_elimination_finds_the_filters_that_others_stand_in_for():
    """Of each pair of multiples one goes before any filter that nothing stands in for."""
    case = Case("batch norm and activation")
    with torch.no_grad():  # 3 and 7 are left single: only 0, 1, 2 have a double
        case.dense.parts[0].weight[7] = torch.randn(3, 3, 3)
    recalibrate(case.dense, calibration(pictures(), 48), SingleProcess())
    scores = criterion_named("residual").score(scoring("residual", case.context(case.dense)))[case.layer]
    gone = lowest(scores, 3)
    assert len({index % 4 for index in gone}) == 3
    assert not {3, 7} & set(gone)


def test_elimination_s_order_is_that_of_refits_made_one_by_one():
    """Oracle: at every step each filter left is tried by solving its least squares anew."""
    torch.manual_seed(3)
    model = with_statistics(Chain(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3)))
    traces = trace_layers(model, SHAPE)
    unit = dissect(model, SHAPE, traces).steps[0].units[0]
    norms = {trace.name: trace.norm for trace in traces}
    context = repair_context(model, model, (unit,), norms, list(norms), calibration(pictures(), 48))
    order = criterion_named("residual").score(scoring("residual", context))["parts.0"]
    given, output = reads_and_gives(model, "parts.2", pictures())
    positions = Positions.drawn(48, positions_of(model.parts[2], output), 16, (0, "parts.2", 0, 0), given.device)
    x = input_rows(model.parts[2], given, output.shape[2:], positions)[0].double()
    y = output_rows(model.parts[2], output, positions).double()
    fitted = (~judging(48)).repeat_interleave(16)
    x, y = x[fitted], y[fitted]
    x, y = x - x.mean(0), y - y.mean(0)
    left = list(range(6))
    while len(left) > 1:

        def error(filters: list[int]) -> float:
            columns = x.unflatten(1, (6, 9))[:, filters].flatten(1)
            return float((y - columns @ torch.linalg.lstsq(columns, y).solution).square().sum())

        goes = min(left, key=lambda which: error([each for each in left if each != which]))
        assert int(order[goes]) == 6 - len(left)
        left.remove(goes)
