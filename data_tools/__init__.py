"""How data comes to be: importers, captioning, narration, packing, checks, and the paper theatre."""
