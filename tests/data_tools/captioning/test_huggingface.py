"""Local models: a tiny vision-language model that has really learned two colors, and tiny chat models."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    BlipProcessor,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from data_tools.captioning.answers import Answers
from data_tools.captioning.backend_settings import HuggingFaceSettings
from data_tools.captioning.backends import load
from data_tools.captioning.chat import Answer, AnswerError, Message, PromptImage, Question
from data_tools.captioning.huggingface import HuggingFaceChat
from data_tools.captioning.narration import ChatNarrator, NarrationStyle
from seedstory.storystream import read_jsonl
from tests.data_tools.captioning.test_commands import call, contents
from tests.seedstory.tiny_language import tiny_lm, tiny_tokenizer

CHAT = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
CHAT_WITHOUT_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT
# A model so small is spoken to in pictures only.
SEEING_CHAT = (
    "{% for m in messages %}{% for part in m.content %}{% if part.type == 'image' %}<image>\n{% endif %}"
    "{% endfor %}{% endfor %}assistant: "
)
COLORS = {"red": "A red page with nothing on it.", "blue": "This one is all of deep blue."}


def byte_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {
        token: i for i, token in enumerate(["<s>", "</s>", "<image>", *sorted(pre_tokenizers.ByteLevel.alphabet())])
    }
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>", "<image>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>", image_token="<image>"
    )


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA of a few thousand parameters, taught for a moment to tell red from blue."""
    folder = tmp_path_factory.mktemp("seeing")
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=1,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=2, vision_feature_layer=-1)
    model = LlavaForConditionalGeneration(config)
    size = {"height": 16, "width": 16}
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size=size, crop_size=size),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=SEEING_CHAT,
        num_additional_image_tokens=1,
    )
    texts = [f'assistant: {{"description": "{said}"}}' for said in COLORS.values()]
    images = [Image.new("RGB", (16, 16), color) for color in COLORS]
    inputs = [
        processor(text=f"<image>\n{said}", images=[seen], return_tensors="pt") for seen, said in zip(images, texts)
    ]
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(150):
        loss = sum(
            model(**one, labels=one["input_ids"].masked_fill(one["input_ids"] == 2, -100)).loss for one in inputs
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talking")
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHAT
    tiny_lm(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_seeing_model_describes_what_it_sees(seeing: Path, data: Path, tmp_path: Path) -> None:
    result = call("describe", data, "--out", tmp_path / "out", "--backend", "hf", "--model", seeing)
    assert result.exit_code == 0, result.output
    described = list(read_jsonl(tmp_path / "out/train.jsonl"))
    said = [[page["description"] for page in story.pages] for story in described]
    assert said[0] == [COLORS[c] for c in ("red", "blue", "red", "blue")]
    assert said[1] == [COLORS[c] for c in ("blue", "red", "blue", "red")]


def question(**changes: object) -> Question:
    given = {"messages": (Message("system", "Tell."), Message("user", "The fox.")), "field": "text", "max_tokens": 8}
    return Question(**(given | changes))


def test_the_reply_is_begun_for_the_model(talking: Path) -> None:
    model = HuggingFaceChat(HuggingFaceSettings(model=str(talking)))
    answer = model.answer(question())
    assert answer.text.startswith('{"text": "') and answer.reply_tokens <= 8
    prompt = 'system: Tell.\nuser: The fox.\nassistant: {"text": "'
    assert answer.prompt_tokens == len(model.tokenizer(prompt, add_special_tokens=False)["input_ids"])


def test_the_same_question_gets_the_same_answer(talking: Path) -> None:
    model = HuggingFaceChat(HuggingFaceSettings(model=str(talking)))
    sampled = [model.answer(question(temperature=1.0, seed=seed)).text for seed in (1, 2, 1)]
    assert sampled[0] == sampled[2] != sampled[1]
    state = torch.random.get_rng_state()
    model.answer(question(temperature=1.0))
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_template_without_system_turn_gets_its_words_in_the_first_one(talking: Path) -> None:
    model = HuggingFaceChat(HuggingFaceSettings(model=str(talking)))
    plain = model.answer(question(messages=(Message("user", "Tell.\n\nThe fox."),)))
    model.tokenizer.chat_template = CHAT_WITHOUT_SYSTEM
    assert model.answer(question()) == plain


def test_another_fine_tuning_has_another_identity(talking: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHAT
    tiny_lm(len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    one, other = (HuggingFaceChat(HuggingFaceSettings(model=str(folder))) for folder in (talking, tmp_path))
    assert one.identity != other.identity
    assert str(talking) not in one.identity


def test_wrong_models_are_reported(talking: Path, seeing: Path, tmp_path: Path, data: Path) -> None:
    image = PromptImage((data / "images/0/0.png").read_bytes(), "0.png")
    with pytest.raises(ValueError, match="cannot see pictures"):
        load(HuggingFaceSettings(model=str(talking)), tmp_path).answer(
            question(messages=(Message("user", "Look.", image),))
        )
    tokenizer = tiny_tokenizer()
    tiny_lm(len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no chat template"):
        HuggingFaceChat(HuggingFaceSettings(model=str(tmp_path)))


def test_random_words_are_dropped_and_a_second_run_is_free(talking: Path, data: Path, tmp_path: Path) -> None:
    words = ("--words", 1, 9)
    arguments = ("narrate", data, "--from", "caption", "--out", tmp_path / "told", "--model", talking, *words)
    first = call(*arguments)
    assert first.exit_code == 0, first.output
    before = contents(tmp_path / "told")
    again = call(*arguments)
    assert " 0 of them new" in again.output
    assert contents(tmp_path / "told") == before
    assert json.loads(next((tmp_path / "told/.answers").rglob("*.json")).read_text())["text"].startswith('{"text": "')


def test_a_plain_captioner_answers_in_json_too(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    half = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": len(tokenizer), "encoder_hidden_size": 16, "bos_token_id": 0, "eos_token_id": 1}
    text |= {"pad_token_id": 1, "sep_token_id": 1, "max_position_embeddings": 64}
    config = BlipConfig(text_config=half | text, vision_config=half | {"image_size": 16, "patch_size": 8})
    BlipForConditionalGeneration(config).save_pretrained(tmp_path / "blip")
    BlipProcessor(BlipImageProcessorPil(size={"height": 16, "width": 16}), tokenizer).save_pretrained(tmp_path / "blip")
    model = HuggingFaceChat(HuggingFaceSettings(model=str(tmp_path / "blip")))
    image = PromptImage((data / "images/0/0.png").read_bytes(), "0.png")
    answer = model.answer(question(messages=(Message("system", "Describe."), Message("user", "Look.", image))))
    assert json.loads(answer.text)["text"].endswith((".", "!", "?"))
    with pytest.raises(ValueError, match="only captions pictures"):
        model.answer(question())


def test_a_small_model_is_shown_an_example_and_asked_anew(talking: Path, tmp_path: Path) -> None:
    answers = Answers(load(HuggingFaceSettings(model=str(talking)), tmp_path), tmp_path)
    asked = []

    class Listening:
        name, identity, small = "listening", "listening", answers.model.small

        def answer(self, question: Question) -> Answer:
            asked.append(question)
            return Answer("nonsense")

    narrator = ChatNarrator(Answers(Listening(), tmp_path), NarrationStyle(seed=5))
    with pytest.raises(AnswerError, match="asked 3 times"):
        narrator.narrate("Mia", ["One.", "Two.", "Three."], ["a", "b", "c", "d", "e"])
    assert [question.seed for question in asked] == [5, 6, 7]
    assert asked[0].temperature < asked[1].temperature < asked[2].temperature
    assert len({question.messages for question in asked}) == 1  # a small model is not told its fault
    said = " ".join(message.text for message in asked[0].messages)
    assert "umbrella" in said and "Two." in said and "Three." in said
    assert "One." not in said and "shows: e" not in said and "Later" not in said
