"""Words for images: a description of what each image shows, and a story narrated over the descriptions."""
