"""Modules that stand in for torch's, torchvision's and timm's attention compute the same."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2
from torchvision.models.vision_transformer import VisionTransformer

from ice_ray.models.attention import (
    CrossCovarianceAttention,
    MultiheadAttention,
    ShiftedWindowAttention,
    with_open_heads,
)


def drawn(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def opened(model):
    own = copy.deepcopy(model)
    with_open_heads(own)
    return own


def small_vit(**settings):
    return VisionTransformer(
        **{"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 64},
        **settings,
    )


def small_swin(**settings):
    return SwinTransformer([4, 4], 24, [2, 2], [3, 6], [4, 4], **settings)


SECOND = {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2}


@pytest.mark.parametrize("size", [32, 52])  # windows that fit, and such that are padded, shifted and cut again
@pytest.mark.parametrize("settings", [{}, SECOND], ids=["first version", "second version"])
def test_windowed_attention_computes_the_same(settings, size):
    model = drawn(small_swin(num_classes=5, **settings)).eval()
    own, images = opened(model), torch.randn(2, 3, size, size)
    assert sum(isinstance(module, ShiftedWindowAttention) for module in own.modules()) == 4
    torch.testing.assert_close(own(images), model(images), rtol=1e-5, atol=1e-5)
    assert own.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("path", ["edgenext.CrossCovarianceAttn", "xcit.XCA"])
def test_attention_over_channels_computes_the_same(path):
    timm = pytest.importorskip("timm", reason="timm is an extra of the package")
    place, _, name = path.partition(".")
    given = drawn(getattr(getattr(timm.models, place), name)(24, num_heads=4, qkv_bias=True)).eval()
    model = nn.Sequential(given)
    own, x = opened(model), torch.randn(2, 10, 24)
    assert isinstance(own[0], CrossCovarianceAttention)
    torch.testing.assert_close(own(x), model(x), rtol=1e-5, atol=1e-5)
    assert own.state_dict().keys() == model.state_dict().keys()


def test_a_vision_transformer_computes_the_same_in_training_too():
    model = drawn(small_vit(num_classes=5, dropout=0.0))
    own, images = opened(model), torch.randn(2, 3, 32, 32)
    model(images).sum().backward()
    own(images).sum().backward()
    before, after = (model.encoder.layers[0].self_attention for model in (model, own))
    torch.testing.assert_close(after.in_proj.weight.grad, before.in_proj_weight.grad, rtol=1e-4, atol=1e-5)


LENGTH, WIDTH, HEADS = 4, 12, 3
MASKS = {
    "none": {},
    "no weights": {"need_weights": False},
    "weights of each head": {"average_attn_weights": False},
    "causal": {"attn_mask": torch.triu(torch.ones(LENGTH, LENGTH), 1).bool()},
    "padding": {"key_padding_mask": torch.arange(LENGTH).expand(LENGTH, LENGTH) > 2},
    "added to each head": {"attn_mask": torch.randn(LENGTH * HEADS, LENGTH, LENGTH), "need_weights": False},
}


@pytest.mark.parametrize("keywords", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_multihead_attention_computes_the_same(keywords, batch_first, bias):
    whole = nn.Sequential(drawn(nn.MultiheadAttention(WIDTH, HEADS, bias=bias, batch_first=batch_first))).eval()
    own = opened(whole)
    assert isinstance(own[0], MultiheadAttention)
    query, key = torch.randn(2, LENGTH, LENGTH, WIDTH).unbind()
    for given in ((query, query, query), (query, key, key)):
        wanted, found = whole[0](*given, **keywords), own[0](*given, **keywords)
        torch.testing.assert_close(found[0], wanted[0])
        assert (found[1] is None) == (wanted[1] is None)
        if wanted[1] is not None:
            torch.testing.assert_close(found[1], wanted[1])
    if "mask" not in str(list(keywords)):
        alone = whole[0](query[0], query[0], query[0], **keywords)
        torch.testing.assert_close(own[0](query[0], query[0], query[0], **keywords)[0], alone[0])


def test_torch_s_encoder_layers_run_it_without_their_own_fast_path():
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 24, batch_first=True)
    encoder = drawn(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)).eval()
    own, given = opened(encoder), torch.randn(2, 5, WIDTH)
    with torch.no_grad():
        torch.testing.assert_close(own(given), encoder(given), rtol=1e-5, atol=1e-5)


def test_what_a_module_here_cannot_do_is_left_as_it_is():
    of_two_widths = nn.Sequential(nn.MultiheadAttention(WIDTH, HEADS, kdim=8))
    assert with_open_heads(of_two_widths) == {}
    assert type(of_two_widths[0]) is nn.MultiheadAttention
