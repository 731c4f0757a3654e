# hpcreco for CPUs, with Horovod and MinkowskiEngine:
#   docker build --target cpu -t hpcreco:cpu .
#   docker run --rm -v "$PWD:/data" -w /data hpcreco:cpu hpcreco doctor
# The Python packages come from pip's default index, whose torch brings gigabytes of CUDA packages; give pip the index of
# PyTorch's CPU builds to leave them out: --build-arg PIP_EXTRA_INDEX_URL=...
FROM python:3.11-slim-bookworm AS cpu
ARG PIP_EXTRA_INDEX_URL=""
WORKDIR /opt/hpcreco
COPY pyproject.toml README.md LICENSE ./
COPY tools tools
COPY configs configs
COPY hpcreco hpcreco
# The same set-up as a checkout's: it installs the compiler and OpenBLAS, the locked packages, and builds the engines.
RUN PIP_EXTRA_INDEX_URL="$PIP_EXTRA_INDEX_URL" PIP_NO_CACHE_DIR=1 tools/setup horovod minkowski \
    && rm -rf /root/.cache /var/lib/apt/lists/*
# The image may run read-only and as any user.
ENV PATH=/opt/hpcreco/.venv/bin:$PATH NUMBA_CACHE_DIR=/tmp/hpcreco-numba
CMD ["hpcreco", "--help"]
