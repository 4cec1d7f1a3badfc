"""Writes several stories in a batch, then renders their images.

python examples/many_stories.py "Mia the fox found a key." "Otto the bear could not sleep." --out stories/many
"""

import argparse

from seedstory import StoryPipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("openings", nargs="+", help="the first sentence of each story")
    parser.add_argument("--pages", type=int, default=4)
    parser.add_argument("--model", default="mini", help="mini, a model folder or a Hub id")
    parser.add_argument("--out", default="stories/many")
    args = parser.parse_args()

    pipeline = StoryPipeline.from_pretrained(args.model)
    folders = [f"{args.out}/{number}" for number in range(1, len(args.openings) + 1)]
    requests = [
        {"text": text, "pages": args.pages, "seed": seed, "out": folder, "overwrite": True}
        for seed, (text, folder) in enumerate(zip(args.openings, folders, strict=True))
    ]
    for number, page in pipeline.write_batch(requests):
        print(f"story {number + 1}, page {page.number}: {page.caption}")
    for folder in folders:
        images = sum(1 for _ in pipeline.resume(folder, render_batch=args.pages))
        print(f"{folder}: {images} images")


if __name__ == "__main__":
    main()
