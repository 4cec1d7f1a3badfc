"""How much memory a model takes, and the ways to hold it in less."""
