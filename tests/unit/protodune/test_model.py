"""The networks: sizes, arguments, rows, and that events never mix."""

from __future__ import annotations

import pytest
import torch

from hpcreco.config import ConfigError
from hpcreco.experiments.protodune.model import BinarySparseCellNet, SparseCellNet, build
from hpcreco.experiments.protodune.settings import CellNet, Named, Reading, Settings, Sources
from hpcreco.sparse import SparseError


def settings(model: str, arguments=None) -> Settings:
    return Settings(
        sources=Sources(paths=(), tpcs=()),
        reading=Reading(),
        model=Named(name=model, arguments=arguments or {}),
    )


def parameters(module) -> int:
    return sum(p.numel() for p in module.parameters())


def cellnet(**arguments) -> CellNet:
    return CellNet(
        **{"spatial_size": (64, 64, 64), "nChannels": 4, "nStrides": 3, "downsample_t": (2, 2), **arguments}
    )


def sample(events=2, rows=60, features=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.stack([torch.randperm(32**3, generator=generator)[:rows] for _ in range(events)])
    coords = torch.stack([xyz // 1024, xyz // 32 % 32, xyz % 32], dim=-1).reshape(-1, 3)
    slot = torch.arange(events).repeat_interleave(rows)[:, None]
    return torch.cat([slot, coords], dim=1).int(), torch.randn(events * rows, features, generator=generator)


@pytest.mark.parametrize(("levels", "expected"), [(4, 1_406_416), (5, 2_742_256)])
def test_backbone_has_the_originals_number_of_parameters(levels, expected):
    assert parameters(SparseCellNet(CellNet(nStrides=levels, downsample_t=(2, 2)))) == expected


def test_binary_network_has_the_originals_number_of_parameters():
    assert parameters(BinarySparseCellNet(CellNet(downsample_t=(2, 2)))) == 1_406_433


@pytest.mark.parametrize(("hidden", "expected"), [(0, 1_406_433), (1, 1_406_705), (2, 1_406_977)])
def test_charge_network_has_the_originals_number_of_parameters(hidden, expected):
    net = build(settings("cellnet_charge", {"downsample_t": (2, 2), "nHiddenLayers": hidden}))
    assert parameters(net) == expected


def test_charges_are_not_activated():
    net = build(settings("cellnet_charge", cellnet().model_dump())).eval()
    values = net(*sample())
    assert values.shape == (120, 1)
    assert (values < 0).any() or (values > 1).any() or values.std() > 0
    with torch.no_grad():
        net.regression[-1].bias.fill_(-1e3)
    assert (net(*sample()) < -900).all()


def test_planar_levels_do_not_look_along_the_drift():
    """With n_2D = nStrides the whole network sees one drift slice at a time."""
    net = BinarySparseCellNet(cellnet(n_2D=3)).eval()
    coords, features = sample(events=1)
    with torch.no_grad():
        before = net(coords, features)
        x = coords[:, 1]
        chosen = x == x[0]
        changed = features.clone()
        changed[~chosen] += 5
        after = net(coords, changed)
    assert torch.equal(before[chosen], after[chosen])
    assert not torch.allclose(before[~chosen], after[~chosen])


def test_output_rows_follow_input_rows():
    net = BinarySparseCellNet(cellnet()).double().eval()
    coords, features = sample()
    features = features.double()
    order = torch.randperm(len(coords), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        rows, shuffled = net(coords, features), net(coords[order], features[order])
    assert rows.shape == (len(coords), 1)
    torch.testing.assert_close(shuffled, rows[order], rtol=1e-12, atol=1e-12)
    assert ((rows > 0) & (rows < 1)).all()
    torch.testing.assert_close(rows, net.logits(coords, features).sigmoid())


def test_events_never_mix():
    net = BinarySparseCellNet(cellnet()).double().eval()
    coords, features = sample(events=3)
    one = coords[:, 0] == 1
    alone = coords[one].clone()
    alone[:, 0] = 0
    with torch.no_grad():
        together, single = net(coords, features.double()), net(alone, features[one].double())
    torch.testing.assert_close(single, together[one], rtol=1e-12, atol=1e-12)


def test_no_voxels_give_no_rows_and_zero_gradients():
    net = BinarySparseCellNet(cellnet())
    net(torch.zeros(0, 4, dtype=torch.int32), torch.zeros(0, 3)).sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in net.parameters())


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_2D": 1, "downsample_t": (4, 4)},
        {"reps": 1, "conv_kernel": 5, "leakiness": 0.33},
        {"downsample": (3, 2), "downsample_t": (2, 2)},
        {"nInputFeatures": 5, "nStrides": 1, "momentum": 0.9},
    ],
)
def test_every_argument_builds_a_network_that_learns(arguments):
    chosen = cellnet(**arguments)
    torch.manual_seed(0)
    net = BinarySparseCellNet(chosen)
    coords, features = sample(features=chosen.nInputFeatures)
    net(coords, features).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    assert net.backbone.norm.keep == chosen.momentum


def test_coordinates_outside_are_refused():
    coords, features = sample()
    with pytest.raises(SparseError):
        BinarySparseCellNet(cellnet(spatial_size=(16, 64, 64)))(coords, features)


def test_names():
    with pytest.raises(ConfigError, match="did you mean 'cellnet_binary'"):
        build(settings("cellnet_bin"))
    assert parameters(build(settings("torch.nn:Linear", {"in_features": 3, "out_features": 1}))) == 4
    with pytest.raises(ConfigError, match=r"model\.in_feature: .*did you mean 'in_features'"):
        build(settings("torch.nn:Linear", {"in_feature": 3}))
    with pytest.raises(ConfigError, match="not a torch.nn.Module"):
        build(settings("fractions:Fraction"))
