"""Vision towers of transformers: features are those that the network itself gives for the patches of an image."""

import json
import shutil

import pytest
import torch
from PIL import Image
from transformers import AutoModel, CLIPImageProcessorPil, Siglip2ImageProcessorPil

from seedstory.errors import ModelError
from seedstory.image import image_to_tensor, to_square
from seedstory.modeling.pretrained_tower import PretrainedTower
from seedstory.modeling.vision_tower import load_vision_tower
from tests.seedstory.families import MEAN, NETWORKS, PATCH, SIZE, STD, write_network


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder for each network, as transformers writes it."""
    return {name: write_network(tmp_path_factory.mktemp("network"), name) for name in NETWORKS}


def picture(size=SIZE):
    noise = torch.rand(size // 4, size // 4, 3, generator=torch.Generator().manual_seed(1))
    return Image.fromarray((255 * noise).byte().numpy()).resize((size, size), Image.Resampling.NEAREST)


def patch_tokens(folder, name, image):
    """What transformers' own model and image processor give for the patches, `[1, G * G, D]`."""
    model = AutoModel.from_pretrained(folder).eval()
    model = getattr(model, "vision_model", model)
    kind = Siglip2ImageProcessorPil if name == "siglip2" else CLIPImageProcessorPil
    inputs = kind.from_pretrained(folder)(images=image, return_tensors="pt")
    with torch.no_grad():
        tokens = model(**inputs).last_hidden_state
    return tokens[:, -16:]


@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_the_networks_own_for_the_patches(folders, name):
    tower = PretrainedTower.from_network(folders[name])
    image = picture()
    with torch.no_grad():
        features = tower(image_to_tensor(image)[None])
    assert features.shape == (1, tower.num_features, tower.config.feature_dim) == (1, 16, 24)
    expected = torch.nn.functional.layer_norm(patch_tokens(folders[name], name, image), (24,))
    assert (features - expected).abs().max() < 1e-4
    assert not any(weight.requires_grad for weight in tower.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_saved_and_loaded_as_any_vision_tower(folders, name, tmp_path):
    tower = PretrainedTower.from_network(folders[name], grid_size=2)
    tower.save_pretrained(tmp_path)
    loaded = load_vision_tower(tmp_path)
    pixels = image_to_tensor(picture())[None]
    with torch.no_grad():
        assert torch.equal(tower(pixels), loaded(pixels))
        assert torch.equal(loaded.train()(pixels), loaded(pixels)), "nothing is drawn, even in training"
    assert isinstance(loaded, PretrainedTower) and loaded.num_features == 4
    assert torch.equal(loaded.blank_features(), loaded(torch.zeros(1, 3, SIZE, SIZE))[0])
    text = (tmp_path / "config.json").read_text()
    assert json.loads(text)["_class_name"] == "PretrainedTower" and str(folders[name]) not in text


@pytest.mark.parametrize("name", NETWORKS)
def test_another_size_of_image_gives_a_larger_grid(folders, name):
    larger, usual = (
        PretrainedTower.from_network(folders[name], image_size=48),
        PretrainedTower.from_network(folders[name]),
    )
    with torch.no_grad():
        features = larger(image_to_tensor(picture(48))[None])
        usual_features = usual(image_to_tensor(picture(48).resize((32, 32)))[None])
    assert features.shape == (1, 36, 24) and usual_features.shape == (1, 16, 24)
    assert torch.isfinite(features).all() and features.std(dim=1).mean() > 0.01, "places differ"
    with pytest.raises(ModelError, match=r"pixel_values must be \[B, 3, 48, 48\]"):
        larger(torch.zeros(1, 3, 48, 32))


@pytest.mark.parametrize("name", ["clip", "dinov3", "siglip2"])
def test_each_token_stands_where_its_patch_is(folders, name):
    tower = PretrainedTower.from_network(folders[name])
    base = torch.zeros(1, 3, SIZE, SIZE)
    changed = base.clone()
    changed[:, :, 2 * PATCH : 3 * PATCH, PATCH : 2 * PATCH] = torch.linspace(-1, 1, PATCH)  # row 2, column 1
    with torch.no_grad():
        change = (tower(changed) - tower(base)).norm(dim=-1)[0]
    assert change.argmax() == 2 * 4 + 1


def test_features_are_averaged_to_the_grid(folders):
    whole, coarse = (PretrainedTower.from_network(folders["dinov2"], grid_size=size) for size in (None, 2))
    pixels = image_to_tensor(to_square(picture(), SIZE))[None]
    with torch.no_grad():
        tokens = whole._encode((pixels + 1) / 2 * 1.0)
        assert tokens.shape[1] == 17
        normal = (pixels + 1) / 2 - torch.tensor(MEAN)[:, None, None]
        tokens = whole._encode(normal / torch.tensor(STD)[:, None, None])[:, 1:].unflatten(1, (2, 2, 2, 2))
        expected = torch.nn.functional.layer_norm(tokens.mean(dim=(2, 4)).flatten(1, 2), (24,))
        assert (coarse(pixels) - expected).abs().max() < 1e-5


def test_what_cannot_be_a_tower_is_refused_in_one_line(folders, tmp_path):
    for size, grid in ((4, None), (SIZE, 3), (SIZE, 8)):
        with pytest.raises(ModelError, match="choose another image_size or grid_size"):
            PretrainedTower.from_network(folders["clip"], image_size=size, grid_size=grid)
    shutil.copytree(folders["dinov2"], tmp_path / "network")
    (tmp_path / "network" / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="has no preprocessor_config.json, which says the mean and std of"):
        PretrainedTower.from_network(tmp_path / "network")
    config = folders["dinov2"] / "config.json"
    settings = json.loads(config.read_text())
    with pytest.raises(ModelError, match="model_type 'vit' is not supported: clip_vision_model, "):
        PretrainedTower({"model_type": "vit"}, SIZE, (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(ModelError, match="must be one of sdpa, eager"):
        PretrainedTower(settings | {"attn_implementation": "somebody/kernel"}, SIZE, (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(ModelError, match="patch_size must be one number"):
        PretrainedTower(settings | {"patch_size": [8, 16]}, SIZE, (0.5,) * 3, (0.5,) * 3)
    PretrainedTower.from_network(folders["dinov2"]).save_pretrained(tmp_path / "tower")
    settings = json.loads((tmp_path / "tower/config.json").read_text())
    for change, message in (
        ({"_class_name": "Detokenizer"}, "holds a Detokenizer, which is none of VisionTower"),
        ({"image_std": [0.2, 0.2, 0.0]}, "image_mean and image_std must be three numbers"),
        (
            {"network_config": settings["network_config"] | {"hidden_size": 48}},
            "feature_dim is 24, but the network has",
        ),
        ({"network_config": settings["network_config"] | {"num_hidden_layers": 3}}, "do not fit its configuration"),
    ):
        (tmp_path / "tower/config.json").write_text(json.dumps(settings | change))
        with pytest.raises(ModelError, match=message):
            load_vision_tower(tmp_path / "tower")
