"""Makes data sets: importers, captioning, narration, packing, checks, and the paper theatre."""
