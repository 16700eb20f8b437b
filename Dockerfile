# What README.md does, in a container: docker build -t rdlib . && docker run rdlib (or: docker run rdlib make test)
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /rdlib
COPY . .
# An index of CPU builds spares the CUDA build of torch: docker build --build-arg PIP_EXTRA_INDEX_URL=<index> ...
ARG PIP_EXTRA_INDEX_URL
RUN make env
CMD ["make", "study"]
