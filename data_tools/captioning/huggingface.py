"""Chat models of a local Hugging Face folder: language models, vision-language models and plain picture captioners.

The reply is begun for the model (`{"text": "`) and ended at its closing quote, which is what lets even a model of
135 million parameters answer in JSON. Pages are asked for one at a time: for throughput on a GPU serve the same folder
with vLLM or another OpenAI-compatible server, and ask that one with many workers.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteriaList,
    StopStringCriteria,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from data_tools.captioning.backend_settings import HuggingFaceSettings
from data_tools.captioning.chat import Answer, Message, Question
from seedstory.modeling.base_lm import base_lm_folder

SMALL = 1_000_000_000  # parameters
STOPS = ('"}', '"\n}', '" }', '"]')


class HuggingFaceChat:
    """A `ChatModel` of a local folder.

    Args:
        settings: Which model, and where it runs.

    Raises:
        ValueError: It is not a model folder, or neither a chat model nor a picture captioner.
    """

    def __init__(self, settings: HuggingFaceSettings) -> None:
        folder = base_lm_folder(settings.model)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        local = {"local_files_only": True, "trust_remote_code": False}
        config = AutoConfig.from_pretrained(folder, **local)
        self.sees = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        kind = AutoModelForImageTextToText if self.sees else AutoModelForCausalLM
        self.processor = (AutoProcessor if self.sees else AutoTokenizer).from_pretrained(folder, **local)
        self.tokenizer = self.processor.tokenizer if self.sees else self.processor
        self.chats = bool(getattr(self.processor, "chat_template", None) or self.tokenizer.chat_template)
        if not self.chats and not self.sees:
            raise ValueError(f"{settings.model} has no chat template: choose a model tuned to follow instructions")
        self.device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model = kind.from_pretrained(folder, dtype="auto", use_safetensors=True, **local).to(self.device).eval()
        self.small = self.model.num_parameters() < SMALL
        self.penalty = settings.repetition_penalty
        self.name = Path(settings.model).name
        self.identity = json.dumps(["huggingface", _digest(folder), self.penalty])

    @torch.inference_mode()
    def answer(self, question: Question) -> Answer:
        """Writes the answer; the same question gets the same one, as long as hardware and libraries are the same."""
        opening = f'{{"{question.field}": "'
        images = [m.image.image(question.side) for m in question.messages if m.image is not None]
        if images and not self.sees:
            raise ValueError(f"{self.name} cannot see pictures: choose a vision-language model")
        if not self.chats and not images:
            raise ValueError(f"{self.name} only captions pictures: choose a chat model for this")
        inputs = self._inputs(question.messages, images, opening).to(self.device)
        stops = StoppingCriteriaList([StopStringCriteria(self.tokenizer, STOPS)]) if self.chats else None
        read = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
        sampling: dict[str, float] = {"do_sample": question.temperature > 0}
        if question.temperature > 0:
            sampling |= {"temperature": question.temperature, "top_p": question.top_p, "top_k": 0}
        with torch.random.fork_rng(devices=[self.device] if "cuda" in self.device else []):
            torch.manual_seed(question.seed)
            out = self.model.generate(
                **inputs,
                **sampling,
                max_new_tokens=question.max_tokens,
                logits_processor=LogitsProcessorList([self._penalty(read)]),
                stopping_criteria=stops,
                **self._padding(),
            )[0]
        written = out if self.model.config.is_encoder_decoder else out[read:]
        text = self.tokenizer.decode(written, skip_special_tokens=True)
        if self.chats:
            text = opening + text
        else:  # a captioner writes a phrase, not a sentence
            text = text.strip()
            text = json.dumps({question.field: text if text.endswith((".", "!", "?")) else f"{text}."})
        return Answer(text, read, len(written))

    def _inputs(self, messages: tuple[Message, ...], images: list[Any], opening: str) -> Any:
        if not self.chats:
            return self.processor(images=images[0], return_tensors="pt")
        turns = [{"role": m.role, "content": self._content(m)} for m in messages]
        try:
            prompt = self.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except TemplateError:  # of a model that knows no system turn: its words go before those of the user
            first, second, *rest = messages
            merged = Message("user", f"{first.text}\n\n{second.text}", second.image)
            turns = [{"role": m.role, "content": self._content(m)} for m in (merged, *rest)]
            prompt = self.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        # The template has written the special tokens already.
        text = {"text": prompt + opening, "add_special_tokens": False, "return_tensors": "pt"}
        return self.processor(**text, images=images) if images else self.processor(**text)

    def _padding(self) -> dict[str, int]:
        """Chat models often name no padding token, which `generate` warns of; captioners bring their own."""
        pad = self.tokenizer.pad_token_id
        return {"pad_token_id": self.tokenizer.eos_token_id if pad is None else pad} if self.chats else {}

    def _penalty(self, read: int) -> RepetitionPenaltyLogitsProcessor:
        """Prevents loops in the reply; words of the question may be repeated."""
        return RepetitionPenaltyLogitsProcessor(self.penalty, prompt_ignore_length=read or None)

    def _content(self, message: Message) -> str | list[dict[str, str]]:
        if not self.sees:
            return message.text
        text = [{"type": "text", "text": message.text}]
        return [{"type": "image"}, *text] if message.image is not None else text


def _digest(folder: Path) -> str:
    """SHA-256 over configuration, tokenizer and weights: two fine-tunings of one model never share answers."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".safetensors", ".jinja", ".model", ".txt"):
            with open(path, "rb") as file:
                total.update(f"{path.name} ".encode() + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
