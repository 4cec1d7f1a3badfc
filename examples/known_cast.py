"""Gives the cache the names of the cast, and keeps words out of the story.

python examples/known_cast.py --cast Mia Otto --never dark storm
"""

import argparse

import torch

from seedstory import StoryPipeline
from seedstory.salience import by_cast


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cast", nargs="+", default=["Mia", "Otto"], help="names whose introductions the cache keeps")
    parser.add_argument("--never", nargs="*", default=["storm"], help="words that no page may hold")
    parser.add_argument("--pages", type=int, default=4)
    parser.add_argument("--model", default="mini", help="mini, a model folder or a Hub id")
    args = parser.parse_args()

    pipeline = StoryPipeline.from_pretrained(args.model, salience=by_cast(args.cast))
    tokenizer = pipeline.story_model.layout.tokenizer
    first = {tokenizer.encode(f" {word}", add_special_tokens=False)[0] for word in args.never}

    def keep_out(page: int, ids: list[int], scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        scores[list(first)] = -torch.inf
        return scores

    output = pipeline(
        f"{' and '.join(args.cast)} went out.", pages=args.pages, logits_processor=keep_out if first else None
    )
    print("\n".join(output.captions))


if __name__ == "__main__":
    main()
