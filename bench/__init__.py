"""Benchmarks: `make bench`, or single parts by `make bench BENCH_PARTS="a d"`.

    a  sampling 30 responses a question: ours against transformers.generate
    b  one PPO update: ours against the PPOTrainer of TRL 1.12.0
    c  the whole micro study: use of the cores, share of each stage, start-up
    d  extraction, vote and labelling of up to 10 million responses
    e  `make study` where all is done, and `make figures`
    f  the vLLM engine against vLLM itself
    g  the portable numerical mode against torch's own choice
    h  one PPO update with a large vocabulary: tiles of logits against whole ones, and against TRL 1.12.0
    i  memory of PPO with adapters: one base against a body for each network
    j  sampling from a real model of 0.5B: ours against transformers.generate and a llama.cpp server

What is compared runs in turn, on one machine, in one run, the order changing from round to round; a result is the
median of the rounds' own ratios, so that a machine that slows down slows both. Each part writes `results/<part>.csv`,
a row a result, and `results/<part>.json`, which says where the numbers come from; docs/speed.md shows the rows.
"""
