"""Runs and measures the library over many stories: batch generation, judge, evaluation."""
