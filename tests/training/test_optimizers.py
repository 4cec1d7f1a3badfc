"""Muon, AdamW and the averaged weights."""

import copy

import pytest
import torch
from torch import nn

from training.optimizers import AveragedWeights, MuonAdamW, _stacks, learning_rate, orthogonalize


@pytest.mark.parametrize("shape", [(8, 8), (16, 4), (5, 40)])
def test_orthogonalized_matrices_have_singular_values_near_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(matrix))
    assert values.min() > 0.4 and values.max() < 1.4


def test_matrices_go_to_muon_and_the_rest_to_adam():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LayerNorm(4))
    table = nn.Embedding(5, 4)
    optimizer = MuonAdamW([*module.named_parameters(), ("table", table.weight)], adam_names=("table",))
    muon, adam = optimizer.param_groups
    assert [tuple(p.shape) for p in muon["params"]] == [(4, 3, 3, 3)]
    assert {tuple(p.shape) for p in adam["params"]} == {(4,), (5, 4)}


def test_the_optimizer_fits_a_linear_map():
    torch.manual_seed(0)
    truth, model = nn.Linear(6, 6), nn.Linear(6, 6)
    optimizer = MuonAdamW(model.named_parameters(), muon_lr=0.05, adam_lr=0.02, weight_decay=0.0)
    inputs = torch.randn(64, 6)
    rates = {group["kind"]: group["lr"] for group in optimizer.param_groups}
    losses = []
    for step in range(150):
        for group in optimizer.param_groups:
            group["lr"] = rates[group["kind"]] * learning_rate(step / 150)
        loss = (model(inputs) - truth(inputs)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 100


def test_schedule_warms_up_and_cools_down():
    rates = [learning_rate(progress) for progress in (0.0, 0.01, 0.02, 0.5, 1.0)]
    assert rates[0] < rates[1] < rates[2] > rates[3] > rates[4] == pytest.approx(0.02)


def test_averaged_weights_are_applied_and_taken_back():
    module = nn.Linear(2, 2)
    average = AveragedWeights(dict(module.named_parameters()))
    before = module.weight.detach().clone()
    with torch.no_grad():
        module.weight += 1
    average.update(step=0)
    trained = module.weight.detach().clone()
    with average.applied():
        assert (module.weight > before).all() and (module.weight < trained).all()
    assert torch.equal(module.weight, trained)


def test_weights_that_are_changed_together_change_as_alone():
    """Also those that have a gradient in some steps only, and stacks that are cut."""
    torch.manual_seed(0)
    shapes = [(6, 4), (4, 6), (6, 4), (5,), (3, 2, 3, 3), (6, 4), (5,)]
    together = [(f"{number}", nn.Parameter(torch.randn(shape))) for number, shape in enumerate(shapes)]
    alone = copy.deepcopy(together)
    settings = {"muon_lr": 0.1, "adam_lr": 0.1, "weight_decay": 0.1, "adam_names": ("2",)}
    one = MuonAdamW(together, **settings)
    others = [MuonAdamW([named], **settings) for named in alone]
    for step in range(4):
        for number, ((_, weight), (_, other)) in enumerate(zip(together, alone, strict=True)):
            weight.grad = other.grad = torch.randn_like(weight) if (step + number) % 3 else None
        one.step()
        for other in others:
            other.step()
    for (_, weight), (_, other) in zip(together, alone, strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-6, atol=1e-6)
    assert len(_stacks([(6, 4)] * 5 + [(4, 6)], most=50)) == 4


def test_a_step_makes_no_new_moments():
    weights = [("matrix", nn.Parameter(torch.randn(8, 4))), ("bias", nn.Parameter(torch.randn(4)))]
    optimizer = MuonAdamW(weights)
    for made in (3, 0):
        for _, weight in weights:
            weight.grad = torch.ones_like(weight)
        with torch.profiler.profile() as seen:
            optimizer.step()
        assert sum(event.count for event in seen.key_averages() if event.key == "aten::zeros_like") == made
