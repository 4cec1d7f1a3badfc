"""A training step of stage 2 does not wait for its device: nothing that it computes is asked for its value."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from seedstory.layout import attention_mask, collate, find_places
from tests.seedstory.tiny_language import SENTENCES, tiny_model
from tests.training.tiny_data import write_parts
from training.backend import Backend
from training.mllm import MllmConfig, MllmStage
from training.optimizers import build_optimizer

# What gives the CPU a value, or a tensor whose size is one: on a GPU, all kernels before it have to end first.
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal", "repeat_interleave")


class Waited(AssertionError):
    pass


class NoWait(TorchDispatchMode):
    """Inside, whatever a GPU would have to be waited for is an error."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_", "_unsafe_index") else ()
        by_mask = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
        if by_mask or name.rstrip("_").startswith(WAITS):
            raise Waited(f"{func} needs a value of its device")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        lambda x: x.nonzero(),
        lambda x: x.__setitem__(x > 0, x[:1]),
    ],
)
def test_the_check_itself_sees_what_waits(wait):
    with pytest.raises(Waited), NoWait():
        wait(torch.ones(3))
    with NoWait():
        torch.ones(3)[torch.tensor([0, 2])].sum()


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return write_parts(tmp_path_factory.mktemp("parts"), stories=3, loose=20)


@pytest.mark.parametrize("head", ["regression", "flow"])
def test_a_step_of_stage_2_asks_for_no_value(parts, tmp_path, head):
    config = MllmConfig(
        data=str(parts / "data"),
        out=str(tmp_path),
        stage1=str(parts / "stage1"),
        base_lm=str(parts / "base"),
        recipe="theatre",
        loose_split="loose-train",
        steps=4,
        batch_size=2,
        feature_head=head,
        precision="fp32",
        device="cpu",
    )
    backend = Backend(config)
    stage = MllmStage(config, backend).train()
    optimizer = build_optimizer(stage.named_parameters(), config, stage.adam_names)
    for kind, samples in (("story", [(0, 0), (1, 2)]), ("own", [(2, 1), (3, 2)]), ("loose", [(4, 3), (5, 4)])):
        batch = backend.on_device(stage.batch(samples, kind))
        with NoWait():
            losses = stage(batch, 0.5)
            sum(losses.values()).backward()
            optimizer.step()
        assert all(torch.isfinite(loss) for loss in losses.values()) and losses["lm"] > 0
    backend.close()


def test_places_and_the_late_mask_change_nothing():
    model = tiny_model()
    packed = [model.layout.pack_story(SENTENCES), model.layout.pack_story(SENTENCES[:2], supervise_image=[False, True])]
    images = torch.randn(2, 5, 9, 6, generator=torch.Generator().manual_seed(0))
    features = {"context_features": images[0], "target_features": images[1]}
    batch, late = collate(packed), collate(packed, mask=False)
    mask = attention_mask(late.pop("branch"), late.pop("order"))
    assert torch.equal(mask, batch["attention_mask"]) and late.keys() == batch.keys() - {"attention_mask"}
    marks = ("labels", "context_mask", "query_mask", "target_mask")
    places = find_places(*(batch[name] for name in marks))
    assert [len(some) for some in places] == [20, 16, int((batch["labels"] != -100).sum()), 4]
    plain = model(**batch, **features)
    found = model(**late, **features, attention_mask=mask, places=places)
    assert torch.equal(plain.loss, found.loss) and torch.equal(plain.features, found.features)
    with pytest.raises(Waited), NoWait():
        model(**batch, **features)
    lost = places._replace(context=places.context[:-1])
    with pytest.raises(ValueError, match="has room for 19 tokens"):
        model(**batch, **features, places=lost)
