"""The embedded world: generated benchmarks, fallible authors, and the recipe of the four base models."""
