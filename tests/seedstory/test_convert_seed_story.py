"""Tiny checkpoints in SEED-Story's form become a model that computes what they say, or are refused in one line."""

import dataclasses
import json
import re
import shutil

import pytest
import sentencepiece
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from seedstory.cli import app
from seedstory.convert.checkpoints import SafetensorsWriter, without_unused
from seedstory.convert.seed_story import SeedStoryConversion
from seedstory.convert.seed_story_keys import UNUSED
from seedstory.convert.seed_story_release import AGENT, DETOKENIZER, TOWER, SeedStoryRelease
from seedstory.convert.seed_story_tokenizer import write_base_tokenizer
from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.errors import ModelError
from seedstory.image import image_to_tensor
from seedstory.layout import StoryLayout
from seedstory.modeling.base_lm import load_tokenizer
from seedstory.modeling.story_model import StoryModel
from seedstory.modeling.vision_tower import load_vision_tower
from seedstory.pipeline import StoryPipeline
from tests.seedstory import seed_story_reference as reference
from tests.seedstory.seed_story_checkpoints import (
    IMAGE_TOKENS,
    SIZES,
    TEXT_TOKENS,
    random_weights,
    tiny_form,
    write_released,
)
from tests.seedstory.tiny_sentencepiece import write_sentencepiece
from tests.tiny_sdxl import tiny_unet, tiny_vae
from training.assemble import assemble

ATTENTION = "llm.base_model.model.model.layers.1.self_attn.q_proj"
FOLDERS = ("vision_tower", "detokenizer/adapter", "detokenizer/unet")
Q_PROJ = "model.layers.1.self_attn.q_proj"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The files, their weights, and a model folder of them in float32."""
    folder = tmp_path_factory.mktemp("released")
    files, weights = write_released(folder)
    convert(files, folder / "model")
    return files, weights, folder / "model"


def convert(files, out, **options):
    options = {"dtype": torch.float32, "form": tiny_form()} | options
    SeedStoryConversion(files, **options).write(out)


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def same(one, two):
    torch.testing.assert_close(one, two, rtol=0, atol=1e-5)


@torch.no_grad()
def test_tower_and_adapter_compute_what_the_released_weights_say(made):
    _, weights, folder = made
    tower, detokenizer = load_vision_tower(folder / "vision_tower"), Detokenizer.from_pretrained(folder / "detokenizer")
    plain = {name: tensor.float() for name, tensor in weights["vision_tower"].items()}
    pixels, features = random(2, 3, 32, 32), random(2, 16, 24)
    same(tower.encode(pixels), reference.vision_tower(plain, pixels, 2, 4))
    blank = reference.vision_tower(plain, torch.zeros(1, 3, 32, 32), 2, 4)
    same(detokenizer.adapter.blank_features, blank[0])
    own = reference.part(weights["detokenizer"], "resampler.")
    for ours, theirs in zip(detokenizer.adapter.resample(features), reference.sdxl_resampler(own, features, 4)):
        same(ours, theirs)


@torch.no_grad()
def test_the_unet_is_that_of_sdxl_with_trained_keys_and_values(made):
    files, weights, folder = made
    base = load_file(f"{files.sdxl}/unet/diffusion_pytorch_model.safetensors")
    assert len([*(folder / "detokenizer/unet").glob("*.safetensors")]) == 1
    unet = load_file(folder / "detokenizer/unet/diffusion_pytorch_model.safetensors")
    trained = {name.removeprefix("unet."): t for name, t in weights["detokenizer"].items() if name.startswith("unet.")}
    assert len(trained) == 2 * 2 * 2 * 4 and set(trained) < set(base) == set(unet)
    assert all(torch.equal(unet[name], trained.get(name, base[name])) for name in base)


@torch.no_grad()
def test_the_language_model_has_lora_added_and_the_trained_norms(made):
    _, weights, folder = made
    agent = weights["agent"]
    base = load_file(folder / "story_model/base_lm/model.safetensors")
    down, up = (agent[f"{ATTENTION}.lora_{one}.default.weight"] for one in "AB")
    expected = agent[f"{ATTENTION}.weight"].double() + 2.0 * up.double() @ down.double()
    same(base[f"{Q_PROJ}.weight"], expected.float())
    for name in ("layers.1.input_layernorm", "norm"):
        assert torch.equal(
            base[f"model.{name}.weight"], agent[f"llm.base_model.model.model.{name}.modules_to_save.default.weight"]
        )
    model = StoryModel.from_pretrained(folder / "story_model", dtype=torch.float32)
    embedding = agent["llm.base_model.model.model.embed_tokens.weight"]
    head = agent["llm.base_model.model.lm_head.weight"]
    features, hidden = random(2, 16, 24), random(2, 4, 24)
    for side, ours, x in (("input", model.embed_images, features), ("output", model.decode_features, hidden)):
        own = {name: tensor.float() for name, tensor in reference.part(agent, f"{side}_resampler.").items()}
        same(ours(x), reference.cross_attention(own, x, 4, 1e-5))
    layout = model.layout
    for name in IMAGE_TOKENS:  # released ids are in another order
        ours = torch.tensor(layout.tokenizer.convert_tokens_to_ids(name))
        assert torch.equal(model.embed_tokens(ours), embedding[TEXT_TOKENS + IMAGE_TOKENS.index(name)])
    logits = model.caption_logits(random(3, 24))
    assert logits.shape == (3, TEXT_TOKENS + 1)
    same(logits, random(3, 24) @ torch.cat([head[:TEXT_TOKENS], head[[TEXT_TOKENS + IMAGE_TOKENS.index("<img>")]]]).T)


@torch.no_grad()
def test_lora_may_be_kept_apart_and_gives_the_same(made, tmp_path):
    files, weights, folder = made
    convert(files, tmp_path / "model", keep_lora=True)
    stored = load_file(tmp_path / "model/story_model/base_lm/model.safetensors")
    assert torch.equal(stored[f"{Q_PROJ}.weight"], weights["agent"][f"{ATTENTION}.weight"].float())
    kept = StoryModel.from_pretrained(tmp_path / "model/story_model", dtype=torch.float32, merge=False).eval()
    merged = StoryModel.from_pretrained(folder / "story_model", dtype=torch.float32)
    assert kept.has_lora and not merged.has_lora and kept.config.lora_rank == SIZES.lora_rank
    x = random(1, 7, 24)
    same(kept.hidden_states(x), merged.hidden_states(x))


def test_a_converted_model_writes_and_draws_a_story(made):
    pipeline = StoryPipeline.from_pretrained(made[2], dtype=torch.float32, device="cpu", decoding="eager")
    story = pipeline("The fox found a lantern.", pages=2, max_caption_tokens=4, num_inference_steps=1)
    assert [page.image.size for page in story.pages] == [(16, 16)] * 2
    assert pipeline.identity.fingerprint
    wide = Image.effect_noise((80, 40), 90).convert("RGB")
    opening = pipeline("A picture.", wide, pages=1).pages[0]
    pixels = image_to_tensor(wide.resize((32, 32), Image.Resampling.BILINEAR))[None]  # as the release reads it
    with torch.no_grad():
        same(opening.features, pipeline.vision_tower(pixels)[0])


def test_weights_are_rounded_once_to_the_type_that_is_asked_for(made, tmp_path):
    files, weights, exact = made
    convert(files, tmp_path / "half", dtype=torch.bfloat16)
    network = "diffusion_pytorch_model"
    for part in ("story_model/base_lm/model", *(f"{x}/{network}" for x in FOLDERS)):
        half, full = (load_file(folder / f"{part}.safetensors") for folder in (tmp_path / "half", exact))
        assert all(torch.equal(half[name], full[name].bfloat16()) for name in full), part
    own = load_file(tmp_path / "half/story_model/model.safetensors")
    query = weights["agent"]["input_resampler.query"]
    assert query.dtype == torch.float32 and torch.equal(own["input_resampler.queries"], query)


def test_the_tower_is_also_read_from_the_files_of_qwen_vl_chat(made, tmp_path):
    files, weights, folder = made
    chat = tmp_path / "Qwen-VL-Chat"
    chat.mkdir()
    tower = [(f"transformer.visual.{name}", tensor) for name, tensor in weights["vision_tower"].items()]
    parts = [{"transformer.wte.weight": torch.zeros(2, 2)}, dict(tower[:9]), dict(tower[9:])]
    parts[1]["transformer.h.0.attn.bias"] = torch.zeros(2)
    names = [f"pytorch_model-{number + 1:05d}-of-00003.bin" for number in range(3)]
    for name, part in zip(names, parts, strict=True):
        torch.save(part, chat / name)
    (chat / names[0]).write_bytes(b"not read")
    index = {"weight_map": {weight: name for name, part in zip(names, parts, strict=True) for weight in part}}
    (chat / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    convert(dataclasses.replace(files, vision_tower=chat), tmp_path / "model")
    one, other = (
        load_file(f"{x}/vision_tower/diffusion_pytorch_model.safetensors") for x in (folder, tmp_path / "model")
    )
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    index["weight_map"][tower[0][0]] = "../agent.bin"
    (chat / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="name of a checkpoint file"):
        convert(dataclasses.replace(files, vision_tower=chat), tmp_path / "other")
    with pytest.raises(ValueError, match="has no index of checkpoint files"):
        convert(dataclasses.replace(files, vision_tower=files.tokenizer), tmp_path / "other")


def test_a_model_comes_back_as_the_released_files_bit_by_bit(made, tmp_path):
    files, weights, merged = made
    convert(files, tmp_path / "model", keep_lora=True, dtype=None)
    arguments = ["--tokenizer", str(files.tokenizer), "--out", str(tmp_path / "back")]
    run = CliRunner().invoke(app, ["convert", "to-seed-story", str(tmp_path / "model"), *arguments])
    assert run.exit_code == 0, run.output
    for name, file in (("agent", AGENT), ("vision_tower", TOWER), ("detokenizer", DETOKENIZER)):
        back = torch.load(tmp_path / "back" / file, weights_only=True)
        expected = without_unused(weights[name], UNUSED)
        assert back.keys() == expected.keys()
        for one, tensor in expected.items():
            assert back[one].dtype == tensor.dtype and torch.equal(back[one], tensor), one
    again = dataclasses.replace(files, agent=tmp_path / "back" / AGENT)  # the conversion takes what was written
    convert(again, tmp_path / "again", keep_lora=True, dtype=None)
    for one in (tmp_path / "model").rglob("*.safetensors"):
        assert one.read_bytes() == (tmp_path / "again" / one.relative_to(tmp_path / "model")).read_bytes(), one
    assert CliRunner().invoke(app, ["convert", "to-seed-story", str(merged), *arguments]).exit_code != 0
    with pytest.raises(ValueError, match="LoRA was added to the weights"):
        SeedStoryRelease(merged, files.tokenizer)
    with pytest.raises(ValueError, match="not a model of SEED-Story's form: its resampler is a transformer"):
        SeedStoryRelease("mini", files.tokenizer)


def test_what_was_trained_further_is_in_the_released_files(made, tmp_path):
    files = made[0]
    convert(files, tmp_path / "model", keep_lora=True, dtype=None)
    file = tmp_path / "model/story_model/model.safetensors"
    own = {name: tensor + 1 for name, tensor in load_file(file).items()}
    save_file(own, file)
    SeedStoryRelease(tmp_path / "model", files.tokenizer, whole_unet=True).write(tmp_path / "back")
    agent = torch.load(tmp_path / "back" / AGENT, weights_only=True)
    names = StoryLayout.token_names(SIZES.visual_tokens)
    places = torch.tensor([TEXT_TOKENS + IMAGE_TOKENS.index(name) for name in names])
    assert torch.equal(agent["llm.base_model.model.model.embed_tokens.weight"][places], own["token_rows"])
    head = agent["llm.base_model.model.lm_head.weight"]
    assert torch.equal(head[places[:1]], own["image_start_head"])
    assert torch.equal(agent["output_resampler.query"], own["output_resampler.queries"])
    detokenizer = torch.load(tmp_path / "back" / DETOKENIZER, weights_only=True)
    assert sum(name.startswith("unet.") for name in detokenizer) == len(tiny_unet().state_dict())


def change(name, edit):
    """Edits the weights of one file."""

    def apply(folder):
        weights = torch.load(folder / f"{name}.bin")
        edit(weights)
        torch.save(weights, folder / f"{name}.bin")

    return apply


def added_tokens(edit):
    def apply(folder):
        path = folder / "tokenizer" / "added_tokens.json"
        tokens = json.loads(path.read_text())
        edit(tokens)
        path.write_text(json.dumps(tokens))

    return apply


class Hostile:
    """Runs what it likes when it is unpickled without care."""

    def __reduce__(self):
        return exec, ("raise SystemExit('it ran')",)


FAULTS = {
    "missing": (
        change("agent", lambda w: w.pop(f"{ATTENTION}.lora_A.default.weight")),
        r"agent\.bin is not SEED-Story's agent: of its weights are 1 missing: "
        + re.escape(f"{ATTENTION}.lora_A.default.weight")
        + "$",
    ),
    "not expected": (
        change("vision_tower", lambda w: w.update(cls_token=torch.zeros(3))),
        r"vision_tower\.bin is not SEED-Story's vision tower: of its weights are 1 not expected: cls_token$",
    ),
    "misshapen": (
        change("detokenizer", lambda w: w.update({"resampler.latents": torch.zeros(1, 5, 31)})),
        r"of its weights are 1 misshapen: resampler\.latents is \[1, 5, 31\] and not \[1, 5, 32\]$",
    ),
    "half of the norms": (
        change("agent", lambda w: w.pop("llm.base_model.model.model.norm.modules_to_save.default.weight")),
        r"1 missing: llm\.base_model\.model\.model\.norm\.modules_to_save\.default\.weight$",
    ),
    "names twice": (
        change("agent", lambda w: w.update({f"module.{ATTENTION}.weight": w[f"{ATTENTION}.weight"]})),
        r"agent\.bin has weights twice, with and without what a wrapper adds",
    ),
    "all names": (
        change("vision_tower", lambda w: [w.update({f"visual.{n}": w.pop(n)}) for n in list(w)]),
        r"42 missing: .*, and 37 more; 42 not expected: visual\.",
    ),
    "NaN": (
        change("agent", lambda w: w["input_resampler.query"].fill_(float("nan"))),
        r"agent\.bin is damaged: the weight input_resampler\.queries holds NaN",
    ),
    "cut short": (
        lambda folder: (folder / "agent.bin").write_bytes((folder / "agent.bin").read_bytes()[:5000]),
        r"agent\.bin cannot be read as a checkpoint \(",
    ),
    "no file": (lambda folder: (folder / "agent.bin").unlink(), r"there is no file .*agent\.bin: check the path"),
    "code": (lambda folder: torch.save({"a": Hostile()}, folder / "agent.bin"), r"agent\.bin cannot be read as a"),
    "no weights": (lambda folder: torch.save([1, 2], folder / "agent.bin"), "not a checkpoint of weights by name"),
    "a token": (added_tokens(lambda t: t.pop("<img_00002>")), r"added_tokens\.json lacks 1 image tokens \(<img_00002>"),
    "other ids": (added_tokens(lambda t: t.update({"<img>": 9})), "the ids of the image tokens must be the 6 from"),
    "no tokenizer": (lambda folder: shutil.rmtree(folder / "tokenizer"), r"it has no added_tokens\.json"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_in_one_line_and_nothing_is_written(made, tmp_path, fault):
    files = made[0]
    spoil, message = FAULTS[fault]
    for name in ("agent.bin", "vision_tower.bin", "detokenizer.bin"):
        shutil.copyfile(files.agent.parent / name, tmp_path / name)
    shutil.copytree(files.tokenizer, tmp_path / "tokenizer")
    spoil(tmp_path)
    spoiled = dataclasses.replace(
        files,
        agent=tmp_path / "agent.bin",
        vision_tower=tmp_path / "vision_tower.bin",
        detokenizer=tmp_path / "detokenizer.bin",
        tokenizer=tmp_path / "tokenizer",
    )
    with pytest.raises(ValueError, match=message) as raised:
        convert(spoiled, tmp_path / "out" / "model")
    assert "\n" not in str(raised.value) and not [*tmp_path.glob("out/**/*")]


def test_wrappers_and_newer_spellings_of_names_are_the_same_weights(made, tmp_path):
    files, weights, folder = made
    renamed = {}
    for name, tensor in weights["agent"].items():
        if "_proj.weight" in name and "resampler" not in name:
            name = name.replace("_proj.weight", "_proj.base_layer.weight")
        renamed[f"module.{name}"] = tensor
    torch.save(renamed, tmp_path / "agent.bin")
    conversion = SeedStoryConversion(
        dataclasses.replace(files, agent=tmp_path / "agent.bin"), dtype=torch.float32, form=tiny_form()
    )
    base = load_file(folder / "story_model/base_lm/model.safetensors")
    assert all(torch.equal(tensor.float(), base[name]) for name, tensor in conversion.language_weights())


def test_a_detokenizer_with_its_whole_unet_is_taken_too(made, tmp_path):
    files, weights, _ = made
    unet = {f"unet.{name}": tensor.shape for name, tensor in tiny_unet().state_dict().items()}
    whole = random_weights({name: (tuple(shape), torch.float32) for name, shape in unet.items()}, 9)
    own = {name: tensor for name, tensor in weights["detokenizer"].items() if name.startswith("resampler.")}
    torch.save(own | whole, tmp_path / "whole.bin")
    files = dataclasses.replace(files, detokenizer=tmp_path / "whole.bin")
    convert(files, tmp_path / "model")
    made_unet = UNet2DConditionModel.from_pretrained(tmp_path / "model/detokenizer/unet").state_dict()
    assert all(torch.equal(tensor, whole[f"unet.{name}"]) for name, tensor in made_unet.items())


def test_a_folder_that_exists_is_left_alone(made):
    with pytest.raises(ValueError, match="model exists: choose a new folder"):
        convert(made[0], made[2])


def test_what_cannot_be_written_is_said_in_one_line(tmp_path):
    writer = SafetensorsWriter(tmp_path / "gone", "model", tmp_path)
    writer.add("w", torch.zeros(3))
    with pytest.raises(ModelError, match="gone cannot be written to .*: is the disk full"):
        writer.close()


def test_the_tokenizer_is_checked_before_anything_is_written(made, tmp_path):
    shutil.copytree(made[0].tokenizer, tmp_path / "tokenizer")
    for name in ("tokenizer.json", "tokenizer.model"):
        (tmp_path / "tokenizer" / name).unlink(missing_ok=True)
    files = dataclasses.replace(made[0], tokenizer=tmp_path / "tokenizer")
    with pytest.raises(ModelError, match="holds no tokenizer"):
        SeedStoryConversion(files, form=tiny_form())


def test_sdxl_in_half_precision_alone_is_taken(made, tmp_path):
    shutil.copytree(made[0].sdxl, tmp_path / "sdxl")
    for part, network in (("vae", tiny_vae()), ("unet", tiny_unet())):
        for file in (tmp_path / "sdxl" / part).glob("*.safetensors"):
            file.unlink()
        network.half().save_pretrained(tmp_path / "sdxl" / part, variant="fp16")
    convert(dataclasses.replace(made[0], sdxl=str(tmp_path / "sdxl")), tmp_path / "model")
    assert Detokenizer.from_pretrained(tmp_path / "model/detokenizer").form == "sdxl"


def test_an_assembled_model_keeps_the_language_model_beside_it(made, tmp_path):
    assemble(made[2], made[2], tmp_path / "model")
    assert (tmp_path / "model/story_model/base_lm/tokenizer.json").is_file()
    assert StoryPipeline.from_pretrained(tmp_path / "model", device="cpu").identity.fingerprint


def test_large_networks_are_written_in_several_files(tmp_path):
    writer = SafetensorsWriter(tmp_path, "model", tmp_path, limit=100)
    tensors = {f"w{index}": torch.full((10,), float(index)) for index in range(5)}
    for name, tensor in tensors.items():
        writer.add(name, tensor)
    assert writer.close() == 200
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 200 and set(index["weight_map"]) == set(tensors)
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == sorted(set(index["weight_map"].values()))
    for name, file in index["weight_map"].items():
        assert torch.equal(load_file(tmp_path / file)[name], tensors[name])


def test_the_command_checks_everything_and_writes_only_when_it_is_asked_to(made, tmp_path, monkeypatch):
    files = made[0]
    monkeypatch.setattr("seedstory.convert.seed_story.SeedStoryForm", tiny_form)
    options = ["--agent", files.agent, "--vision-tower", files.vision_tower, "--detokenizer", files.detokenizer]
    options += ["--tokenizer", files.tokenizer, "--sdxl", files.sdxl, "--out", tmp_path / "model"]

    def run(*more):
        return CliRunner().invoke(app, ["convert", "seed-story", *map(str, options), *more])

    checked = run("--dry-run")
    assert checked.exit_code == 0 and "Nothing was written" in checked.output and not (tmp_path / "model").exists()
    assert re.search(r"agent: \d+ tensors, [\d,]+ parameters in ", checked.output)
    assert run("--dtype", "int4").exit_code != 0 and not [*tmp_path.iterdir()]
    written = run("--dtype", "float32", "--keep-lora")
    assert written.exit_code == 0 and (tmp_path / "model" / "model_index.json").is_file(), written.output
    assert run().exit_code != 0


def test_a_sentencepiece_vocabulary_gives_the_same_ids_as_sentencepiece(tmp_path):
    write_sentencepiece(tmp_path, IMAGE_TOKENS)
    (tmp_path / "base").mkdir()
    write_base_tokenizer(tmp_path, tmp_path / "base", 310)
    tokenizer = load_tokenizer(tmp_path / "base")
    plain = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    for text in ("The fox laughed near Bruno!", "a ñandú, 3 mills", "two  spaces"):
        assert tokenizer.encode(text, add_special_tokens=False) == plain.encode(text)
    layout = StoryLayout.extend(tokenizer, SIZES.visual_tokens)
    assert layout.image_start_id == 310 and (layout.bos_id, layout.eos_id) == (1, 2)
    with pytest.raises(ValueError, match="holds a tokenizer of 310 tokens, the agent's has 309"):
        write_base_tokenizer(tmp_path, tmp_path / "base", 309)
