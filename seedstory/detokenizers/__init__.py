"""Networks that turn visual tokens into pictures."""
