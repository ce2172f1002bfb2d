# Penstock for NVIDIA GPUs. Takes the place of TGI's image: the same entry, PORT, /data and names.
#   docker build -t penstock .
#   docker run --gpus all --shm-size 1g -p 8080:80 -v models:/data penstock --model-id ORG/NAME
# A tag moves. To build on known bytes name its digest, which the label below repeats:
#   --build-arg BASE=python:3.11-slim-bookworm@sha256:...
ARG BASE=python:3.11-slim-bookworm
FROM $BASE AS build
WORKDIR /src
RUN python -m venv /opt/penstock
# what changes rarely comes first; every file is checked against its hash, from one index
COPY requirements.lock ./
RUN /opt/penstock/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md ./
COPY proto proto
COPY kernels kernels
COPY quantization quantization
COPY shard shard
COPY router router
COPY launcher launcher
COPY client client
RUN /opt/penstock/bin/pip install --no-cache-dir --no-deps .

FROM $BASE
ARG BASE
LABEL org.opencontainers.image.base.name=$BASE
# gcc: Triton compiles the stub that starts a kernel. curl: for health checks.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends curl gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
# Group 0 may write, for platforms that choose the user themselves.
RUN useradd --uid 1000 --gid 0 --no-create-home --home-dir /tmp penstock \
    && install --directory --owner=1000 --group=0 --mode=0775 /data
COPY --from=build /opt/penstock /opt/penstock
# The root file system may be read-only: what is written goes to /data and /tmp. TRITON_CACHE_DIR
# must not lie on a file system that is mounted noexec.
ENV PATH=/opt/penstock/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    HF_HOME=/data \
    TRITON_CACHE_DIR=/tmp/triton \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PORT=80
VOLUME /data
EXPOSE 80
USER 1000
ENTRYPOINT ["launcher"]
