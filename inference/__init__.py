"""The library over many stories, and its measurement: batch generation, long stories, evaluation, benchmarks."""
