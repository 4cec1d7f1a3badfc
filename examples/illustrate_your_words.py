"""Illustrates a text of your own: each paragraph becomes a page.

python examples/illustrate_your_words.py my_story.txt --out stories/mine
"""

import argparse
from pathlib import Path

from seedstory import StoryPipeline, write_html


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="a text file with a blank line between pages")
    parser.add_argument("--model", default="mini", help="mini, a model folder or a Hub id")
    parser.add_argument("--out", default="stories/mine")
    args = parser.parse_args()

    first, *others = [" ".join(part.split()) for part in args.text.read_text("utf-8").split("\n\n") if part.strip()]
    pipeline = StoryPipeline.from_pretrained(args.model)
    output = pipeline(first, pages=len(others) + 1, captions=others, out=args.out, overwrite=True)
    print(f"{len(output.pages)} pages: {write_html(output.story, f'{args.out}/index.html')}")


if __name__ == "__main__":
    main()
