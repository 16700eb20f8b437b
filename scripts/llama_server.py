"""A llama.cpp server: `.venv-llama/bin/python scripts/llama_server.py MODEL.gguf --alias NAME --port 8080`.

It is llama.cpp's own server, out of PyPI's `xllamacpp`; the options are called as `llama-server`'s. One thread is the
default: two threads wait for each other at every token, and beside other work on two cores came to a tenth of one's
speed.
"""

import argparse
import time

import xllamacpp


def parameters(options):
    """The options as llama.cpp's server wants them."""
    found = xllamacpp.CommonParams()
    found.model.path, found.model_alias = options.model, {options.alias or options.model}
    found.hostnames, found.port = [options.host], options.port
    found.n_parallel, found.n_ctx = options.parallel, options.ctx_size
    found.kv_unified = options.kv_unified
    found.n_threads_http = options.parallel + 4  # beside the slots, for who asks meanwhile
    for part in (found.cpuparams, found.cpuparams_batch):
        part.n_threads = options.threads
    return found


def main():
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description="A llama.cpp server, by xllamacpp.")
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--alias", help="the name that it is served as")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--parallel", type=int, default=4, help="slots: the most samples a request may ask for")
    parser.add_argument("--ctx-size", type=int, default=8192, help="tokens of all slots together")
    parser.add_argument("--kv-unified", action="store_true", help="one cache of all slots; else each has its own")
    parser.add_argument("--threads", type=int, default=1)
    server = xllamacpp.Server(parameters(parser.parse_args()))
    print(f"Serving at {server.listening_address}/v1.", flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
