"""Words for pictures: a description of what each picture shows, and a story told over the descriptions."""
