"""Language models of other families from folders: round trips, tokenizers that do not quite fit, and refusals."""

import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from seedstory.cache import CachePolicy, KeyRotation
from seedstory.errors import ModelError
from seedstory.generation import GivenPage, SamplingConfig, StoryEngine
from seedstory.generation.native import native_unsupported_reason
from seedstory.layout import collate
from seedstory.modeling import StoryModel
from seedstory.modeling.base_lm import base_lm_config, load_base_lm
from seedstory.modeling.configuration import check_base_lm
from tests.seedstory.families import FAMILIES, family_lm, family_model
from tests.seedstory.tiny_language import SENTENCES, needs_native, tiny_lm, tiny_model, tiny_tokenizer

SIZES = {"num_visual_tokens": 4, "feature_tokens": 9, "feature_dim": 6, "lora_rank": 2}


def write_base(folder, name, extra=0, **settings):
    """A base language model on disk, its vocabulary `extra` rows larger than the tokenizer."""
    tokenizer = tiny_tokenizer()
    family_lm(name, len(tokenizer) + extra, **settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def losses(model):
    """Loss and features of a packed story."""
    images = torch.nn.functional.layer_norm(torch.randn(3, 9, 6, generator=torch.Generator().manual_seed(3)), (6,))
    batch = collate([model.layout.pack_story(SENTENCES)]) | {"context_features": images, "target_features": images}
    with torch.no_grad():
        output = model(**batch)
    return output.loss, output.features


@pytest.mark.parametrize("name", FAMILIES)
def test_saved_and_loaded_gives_the_same(tmp_path, name):
    base = write_base(tmp_path / "base", name, extra=40 if name in ("qwen2.5", "gemma3") else 0)
    model = StoryModel.from_base(base, dtype=torch.float32, **SIZES).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.05)
    model.save_pretrained(tmp_path / "ours")
    stored = load_file(tmp_path / "ours" / "model.safetensors")
    assert not [weight for weight in stored if weight.startswith("llm.") and "lora_" not in weight]
    assert stored["token_rows"].shape[0] == 6, "image tokens are rows of their own, also where the vocabulary has room"
    loaded = StoryModel.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    for one, two in zip(losses(model), losses(loaded), strict=True):
        assert (one - two).abs().max() < 1e-4
    tied = model.llm.config.tie_word_embeddings
    assert (loaded.image_start_head is None) == tied
    head, table = loaded.llm.get_output_embeddings().weight, loaded.llm.get_input_embeddings().weight
    assert (head is table) == tied


def test_a_padded_vocabulary_is_never_written():
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer, lm={"vocab_size": len(tokenizer) + 40}).merge_lora()
    scores = model.caption_logits(torch.randn(5, 32))
    assert scores.shape == (5, model.layout.image_start_id + 1) and model.layout.image_start_id == len(tokenizer) - 6


@pytest.mark.parametrize("decoding", ["eager", "native", "static"])
def test_special_tokens_without_embeddings_are_never_written(decoding):
    """Gemma 3's models of text have a tokenizer with one token more, `<image_soft_token>`, than embeddings."""
    tokenizer = tiny_tokenizer()
    count = len(tokenizer)
    tokenizer.add_tokens(["<image_soft_token>", "<other>"], special_tokens=True)
    model = tiny_model(tokenizer, lm={"vocab_size": count}).merge_lora()
    if decoding == "native":
        needs_native(model)
    assert model.layout.image_start_id == count + 2 and model.llm.config.vocab_size == count
    seen = []
    sampling = SamplingConfig(temperature=1.0, max_caption_tokens=6, text_guidance_scale=2.0)
    engine = StoryEngine(
        model, sampling=sampling, decoding=decoding, logits_processor=lambda page, ids, scores: seen.append(scores)
    )
    engine.start([GivenPage("The fox found a lantern.")], pages=3)
    pages = list(engine.pages())
    assert all(torch.isfinite(page.features).all() for page in pages) and seen
    for scores in seen:
        assert not scores.isnan().any() and scores.softmax(-1)[count : count + 2].sum() == 0
    with pytest.raises(ValueError, match="must not contain the special tokens <image_soft_token>"):
        engine.start([GivenPage("A <image_soft_token>")], pages=2)


def test_a_tokenizer_that_puts_a_space_before_every_text_keeps_captions():
    """As that of Llama 2, which was made from SentencePiece's."""
    plain = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        initial_alphabet=["\u2581"],
        show_progress=False,
    )
    plain.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    plain.decoder = decoders.Sequence(steps)
    plain.train_from_iterator(SENTENCES, trainer)
    stored = json.loads(plain.to_str())  # bytes are plain tokens of the vocabulary
    stored["added_tokens"] = stored["added_tokens"][:3]
    plain = Tokenizer.from_str(json.dumps(stored))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    model = tiny_model(tokenizer, lm={"tie_word_embeddings": False}).merge_lora()
    layout = model.layout
    for text in (*SENTENCES, "\u201eGr\u00fc\u00df dich!\u201c \u72d0\u72f8"):
        assert layout.caption_text(layout.caption_ids(text)) == text
    assert layout.tokenizer.decode(layout.page_label_ids(12)).strip() == "12:"
    policies = [CachePolicy(name="dense"), CachePolicy(name="recompute", window_pages=99)]
    written = []
    for policy in policies:
        engine = StoryEngine(model, policy, SamplingConfig(max_caption_tokens=5))
        engine.start([GivenPage(SENTENCES[0])], pages=3)
        written.append(list(engine.pages()))
    for one, two in zip(*written, strict=True):
        assert one.caption == two.caption and (one.features - two.features).abs().max() < 2e-5


def test_a_tokenizer_of_another_model_is_refused():
    tokenizer = tiny_tokenizer()
    lm = tiny_lm(len(tokenizer) - 3)
    with pytest.raises(ModelError, match="give the tokenizer that belongs to it"):
        StoryModel.from_base(lm, tokenizer=tokenizer, **SIZES)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no end-of-sequence token; set tokenizer.eos_token"):
        StoryModel.from_base(tiny_lm(400), tokenizer=tokenizer, **SIZES)


# ------------------------------------------------------------------------------------ multimodal checkpoints

_TEXT = {
    "vocab_size": 330,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.2,
    "pad_token_id": None,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
_VIT = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_QWEN_VIT = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 32}
_QWEN_IDS = {"image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 7, "vision_end_token_id": 8}
_MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
MULTIMODAL = {
    "Gemma3": {
        "text_config": _TEXT | {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 12},
        "vision_config": _VIT,
        "mm_tokens_per_image": 4,
        "image_token_index": 5,
    },
    "Qwen2_5_VL": {
        "text_config": _TEXT | _MROPE,
        "vision_config": _QWEN_VIT | {"fullatt_block_indexes": [0]},
        **_QWEN_IDS,
    },
    "Qwen3VL": {
        "text_config": _TEXT | _MROPE,
        "vision_config": _QWEN_VIT | {"deepstack_visual_indexes": [0]},
        **_QWEN_IDS,
    },
    "Mistral3": {
        "text_config": _TEXT | {"model_type": "mistral", "sliding_window": None},
        "vision_config": _VIT | {"model_type": "pixtral", "head_dim": 8},
        "image_token_index": 5,
    },
    "SmolVLM": {
        "text_config": _TEXT | {"model_type": "llama"},
        "vision_config": _VIT,
        "image_token_id": 5,
        "pad_token_id": 0,
    },
}


@pytest.mark.parametrize("name", MULTIMODAL)
def test_of_a_multimodal_checkpoint_the_language_model_is_read(tmp_path, name):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**MULTIMODAL[name])
    whole = getattr(transformers, f"{name}ForConditionalGeneration")(config).eval()
    whole.save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    part = load_base_lm(tmp_path / "base", torch.float32).eval()
    ids = torch.tensor([[9, 10, 11, 12, 300] * 5])
    with torch.no_grad():
        assert (whole(input_ids=ids).logits - part(input_ids=ids).logits).abs().max() < 1e-5
    assert not hasattr(part, "visual") and not hasattr(part.base_model, "vision_tower")
    model = StoryModel.from_base(tmp_path / "base", dtype=torch.float32, **SIZES).eval()
    assert all(".visual" not in weight and "vision" not in weight for weight, _ in model.named_parameters())
    model.save_pretrained(tmp_path / "ours")
    loaded = StoryModel.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    assert (losses(model)[1] - losses(loaded)[1]).abs().max() < 1e-4
    engine = StoryEngine(loaded, sampling=SamplingConfig(max_caption_tokens=3))
    engine.start([GivenPage(SENTENCES[0])], pages=2)
    assert len(list(engine.pages())) == 2
    with pytest.raises(ModelError, match="multimodal model: give its folder or Hub id"):
        StoryModel.from_base(whole, tokenizer=tiny_tokenizer(), **SIZES)


def test_a_multimodal_checkpoint_without_parts_of_its_language_model_is_damaged(tmp_path):
    config = transformers.Gemma3Config(**MULTIMODAL["Gemma3"])
    transformers.Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in weights if name.endswith("layers.1.mlp.up_proj.weight"))
    save_file({name: weight for name, weight in weights.items() if name != lost}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="is damaged: it describes"):
        base_lm_config(tmp_path)


# ------------------------------------------------------------------------------------------------ LoRA, and refusals


def test_lora_goes_where_it_is_asked_for_or_says_what_is_wrong():
    model = tiny_model(lora_targets=["q_proj", "v_proj"])
    assert {name.split(".")[-4] for name, _ in model.llm.named_parameters() if "lora_A" in name} == {"q_proj", "v_proj"}
    with pytest.raises(ModelError, match=r"lora_targets \['c_attn'\] do not fit the base LM: Target modules"):
        tiny_model(lora_targets=["c_attn"])
    for name in ("lm_head", "embed_tokens"):  # merged into a tied head, it would change the embeddings
        with pytest.raises(ModelError, match="lora_targets must name layers of the blocks"):
            tiny_model(lora_targets=["q_proj", name])


def test_lora_and_int8_leave_the_tied_embeddings_alone():
    for name in ("gemma3", "smollm3"):
        model = family_model(name)
        before = model.llm.get_input_embeddings().weight.clone()
        model.merge_lora().quantize("int8")
        assert torch.equal(model.llm.get_input_embeddings().weight, before)
        engine = StoryEngine(model, sampling=SamplingConfig(max_caption_tokens=3), decoding="eager")
        engine.start([GivenPage(SENTENCES[0])], pages=2)
        assert all(torch.isfinite(page.features).all() for page in engine.pages())


def test_partly_rotated_heads_are_moved_partly():
    model = tiny_model(family="phi3", lm={"partial_rotary_factor": 0.5, "pad_token_id": None}).merge_lora()
    assert [len(rotation.inverse_frequencies) for rotation in KeyRotation.of_layers(model.llm)] == [2, 2]
    assert "built differently" in native_unsupported_reason(model)
    assert StoryEngine(model).decoding == "eager"


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("Gemma2", {}, "caps its attention scores"),
        ("Gemma3Text", {"use_bidirectional_attention": True, "pad_token_id": None}, "attends in both directions"),
        ("Gemma3Text", {"final_logit_softcapping": 30.0}, "rescales its logits"),
        ("Gemma3n", {}, "layers that share a cache"),
        ("Llama4Text", {}, "layers of the type chunked_attention"),
        ("Qwen3Next", {}, "layers of the type linear_attention"),
        ("Cohere2", {}, "rescales its logits"),
        ("Granite", {"logits_scaling": 8.0}, "rescales its logits"),
    ],
)
def test_a_model_on_which_stories_would_be_wrong_is_refused_in_one_line(family, settings, message):
    kind = "Gemma3nTextConfig" if family == "Gemma3n" else f"{family}Config"
    config = getattr(transformers, kind)(**settings)
    with pytest.raises(ModelError, match=message) as raised:
        check_base_lm(config)
    assert "\n" not in str(raised.value)


def test_weights_of_another_family_in_a_folder_are_refused(tmp_path):
    one, two = write_base(tmp_path / "gemma3", "gemma3"), write_base(tmp_path / "llama", "llama2")
    shutil.copy(two / "model.safetensors", one / "model.safetensors")
    with pytest.raises(ModelError):
        load_base_lm(one, torch.float32)
    model = StoryModel.from_base(two, dtype=torch.float32, **SIZES)
    model.save_pretrained(tmp_path / "ours")
    other = AutoModelForCausalLM.from_config(family_lm("mistral", 336).config)
    with pytest.raises(ModelError, match="was trained on a base LM with model_type=llama"):
        StoryModel.from_pretrained(tmp_path / "ours", base_model=other)
