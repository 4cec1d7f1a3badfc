"""Generates a story from a sentence and shows its progress.

python examples/first_story.py --text "Mia the fox found a lantern." --out stories/lantern
"""

import argparse

from seedstory import StoryPipeline, write_html


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", default="Mia the fox found a lantern in the forest.")
    parser.add_argument("--pages", type=int, default=4)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--model", default="mini", help="mini, a model folder or a Hub id")
    parser.add_argument("--out", default="stories/lantern")
    args = parser.parse_args()

    pipeline = StoryPipeline.from_pretrained(args.model)
    output = pipeline(
        args.text,
        pages=args.pages,
        seed=args.seed,
        out=args.out,
        overwrite=True,
        callback_on_page=lambda page: print(f"[{page.number}/{args.pages}] {page.caption}"),
    )
    book = write_html(output.story, f"{args.out}/index.html")
    print(f"{output.title}: open {book} in a browser")


if __name__ == "__main__":
    main()
