# hpcreco with Horovod and MinkowskiEngine:
#   docker build --target cpu -t hpcreco:cpu .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" -w /data hpcreco:cpu hpcreco doctor
# tools/image build does this with whatever builds images on your machine, and without asking any package index twice.
# The cpu target takes the torch that pip finds: on PyPI that is one with gigabytes of CUDA packages. Give pip the index of
# PyTorch's CPU builds to leave them out: --build-arg PIP_EXTRA_INDEX_URL=...
ARG BASE=debian:12-slim

FROM ${BASE} AS runtime
# Where apt and pip look, and where engine wheels are kept, during the build; tools/image sets them, nothing stays.
ARG APT_CONFIG
COPY tools/setup /opt/hpcreco/tools/setup
# The link serves runtimes that keep the host's PATH.
RUN /opt/hpcreco/tools/setup --libraries \
    && rm -rf /opt/hpcreco/tools \
    && ln -s /opt/hpcreco/.venv/bin/hpcreco /usr/local/bin/hpcreco
ENV PATH=/opt/hpcreco/.venv/bin:$PATH
CMD ["hpcreco", "--help"]
LABEL org.opencontainers.image.title=hpcreco \
      org.opencontainers.image.description="Train and run particle-physics reconstruction networks on HPC systems" \
      org.opencontainers.image.licenses=BSD-3-Clause
HEALTHCHECK --interval=1h --timeout=3m CMD ["hpcreco", "doctor"]

# The same set-up as a checkout's, less what only builds and tests.
FROM runtime AS sources
WORKDIR /opt/hpcreco
COPY pyproject.toml README.md LICENSE ./
COPY tools tools
COPY jobs jobs
COPY configs configs
COPY hpcreco hpcreco

FROM sources AS built-cpu
ARG APT_CONFIG
ARG PIP_CONFIG_FILE
ARG PIP_EXTRA_INDEX_URL
ARG XDG_CACHE_HOME
ARG TORCH=""
RUN HPCRECO_TORCH=$TORCH tools/setup --runtime horovod minkowski

FROM runtime AS cpu
COPY --from=built-cpu /opt/hpcreco/LICENSE /opt/hpcreco/LICENSE
COPY --from=built-cpu /opt/hpcreco/configs /opt/hpcreco/configs
COPY --from=built-cpu /opt/hpcreco/jobs /opt/hpcreco/jobs
COPY --from=built-cpu /opt/hpcreco/.venv /opt/hpcreco/.venv
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.source=$SOURCE
RUN echo "$REVISION" >"$(echo /opt/hpcreco/.venv/lib/python3*/site-packages/hpcreco)/_commit"
USER 65534:65534

FROM sources AS built-gpu
ARG APT_CONFIG
ARG PIP_CONFIG_FILE
ARG PIP_EXTRA_INDEX_URL
ARG XDG_CACHE_HOME
ARG TORCH=2.11.0
ARG CUDA=13.0
RUN HPCRECO_TORCH=$TORCH HPCRECO_CUDA=$CUDA tools/setup --runtime horovod minkowski

FROM runtime AS gpu
COPY --from=built-gpu /opt/hpcreco/LICENSE /opt/hpcreco/LICENSE
COPY --from=built-gpu /opt/hpcreco/configs /opt/hpcreco/configs
COPY --from=built-gpu /opt/hpcreco/jobs /opt/hpcreco/jobs
COPY --from=built-gpu /opt/hpcreco/.venv /opt/hpcreco/.venv
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.source=$SOURCE
RUN echo "$REVISION" >"$(echo /opt/hpcreco/.venv/lib/python3*/site-packages/hpcreco)/_commit"
USER 65534:65534
