"""The library over many stories, and its measurement: batch generation, judge, evaluation."""
