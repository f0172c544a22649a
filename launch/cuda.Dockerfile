# Image of bsjax for NVIDIA GPUs (docker run --gpus all, GKE).
#
#   docker build --file launch/cuda.Dockerfile --tag bsjax:cuda .
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
RUN pip install ".[cuda12]" gcsfs

# CUDA and cuDNN come with jax; the driver is the host's, which these let in. A host without a
# working GPU is a mistake and no slow run.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility JAX_PLATFORMS=cuda,cpu
USER 1000
WORKDIR /home/bsjax
ENTRYPOINT ["bsjax"]
