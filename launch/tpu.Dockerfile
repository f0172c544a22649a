# Image of bsjax for TPU hosts (GKE).
#
#   docker build --file launch/tpu.Dockerfile --tag bsjax:tpu .
#
# in a clone; only what is named below is copied, configs that are not committed among it.
FROM python:3.12.12-slim-bookworm

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 1000 bsjax
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY bsjax bsjax
COPY configs configs
COPY launch launch
# gcsfs is what paths on gs:// are read by.
RUN pip install ".[tpu]" gcsfs

# A host without a working TPU is a mistake and no slow run.
ENV JAX_PLATFORMS=tpu,cpu
USER 1000
WORKDIR /home/bsjax
ENTRYPOINT ["bsjax"]
