"""The embedded world: generated benchmarks and fallible authors. `rdlib.study.pretrain` makes its base models."""
