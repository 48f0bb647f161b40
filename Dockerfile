# The book on a CPU, for `docker build` and for Binder, which gives the user's name and number.
#   docker build --build-arg TORCH_INDEX=<the CPU index that torch's installation page names> -t nodecore .
#   docker run --rm -p 8888:8888 nodecore
FROM python:3.11-slim-bookworm

RUN apt-get update \
  && apt-get install --yes --no-install-recommends g++ git make \
  && rm -rf /var/lib/apt/lists/*

ARG NB_USER=reader
ARG NB_UID=1000
RUN useradd --create-home --uid ${NB_UID} ${NB_USER}
USER ${NB_USER}
WORKDIR /home/${NB_USER}/nodecore
COPY --chown=${NB_UID} . .

# Without an index torch comes with CUDA, about 6 GB.
ARG TORCH_INDEX=""
RUN python -m venv .venv \
  && .venv/bin/pip install --no-cache-dir ${TORCH_INDEX:+--index-url ${TORCH_INDEX}} "torch<2.15" \
  && PIP_NO_CACHE_DIR=1 make .venv/.ready LOCK=requirements.txt

ENV PATH="/home/${NB_USER}/nodecore/.venv/bin:${PATH}"
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser"]
