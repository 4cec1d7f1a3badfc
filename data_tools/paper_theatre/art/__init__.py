"""Vector art of the paper theatre: pure functions that return SVG fragments on a 256 x 256 view box."""
