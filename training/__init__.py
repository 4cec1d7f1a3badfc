"""How the weights come to be: one main per stage."""
