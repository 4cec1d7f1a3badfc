"""A tiny sentencepiece tokenizer in the form of SEED-Story's release, written to disk in a moment."""

import json
from pathlib import Path

import sentencepiece

WORDS = 310
LINES = [
    "The fox found a lantern near the mill.",
    "Bruno the bear laughed, and the light danced!",
    "[INST]The owl laughed.[INST]Bruno found the mill.",
]


def train_vocabulary(folder: Path) -> Path:
    """Writes `tokenizer.model` of `WORDS` tokens, with bytes for what it does not know, as Llama's."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 20),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=WORDS,
        model_type="bpe",
        byte_fallback=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return folder / "tokenizer.model"


def write_sentencepiece(folder: Path, image_tokens: list[str], *, legacy: bool = False) -> Path:
    """The folder `cvlm_llama2_tokenizer`, with image tokens in this order."""
    folder.mkdir(parents=True, exist_ok=True)
    train_vocabulary(folder)
    special = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    tokens = ((0, ["<unk>", "<s>", "</s>"]), (WORDS, image_tokens))
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": legacy,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<unk>",
        "additional_special_tokens": image_tokens,
        "added_tokens_decoder": {
            str(start + place): {"content": name, **special}
            for start, names in tokens
            for place, name in enumerate(names)
        },
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    added = {name: WORDS + place for place, name in enumerate(image_tokens)}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    return folder


class PlainTokenizer:
    """What SEED-Story's tokenizer does with a text, by sentencepiece alone; ids of image tokens are ours."""

    def __init__(self, vocabulary: Path, image_tokens: list[str]):
        self.pieces = sentencepiece.SentencePieceProcessor(model_file=str(vocabulary))
        self.images = {name: WORDS + place for place, name in enumerate(image_tokens)}

    def text(self, text: str) -> list[int]:
        """Ids of a text that begins: sentencepiece puts a space in front."""
        return self.pieces.encode(text)

    def after_token(self, text: str) -> list[int]:
        """Ids of a text behind a special token: nothing is put in front."""
        return self.pieces.encode("<unk>" + text)[len(self.pieces.encode("<unk>")) :]

    def encode(self, text: str) -> list[int]:
        """Ids of a text in which image tokens stand."""
        ids: list[int] = []
        begins = True
        while text:
            at, name = min(((text.find(name), name) for name in self.images if name in text), default=(len(text), ""))
            if text[:at]:
                ids += (self.text if begins else self.after_token)(text[:at])
            ids += [self.images[name]] if name else []
            text, begins = text[at + len(name) :], False
        return ids
