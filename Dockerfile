# A CPU server. Usage:
#   docker run -v $PWD:/models:ro -p 127.0.0.1:8000:8000 smallfry-serve --embeddings /models/glove.sfq
FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY docker/requirements docker/requirements
RUN pip install --quiet --no-cache-dir --root-user-action=ignore --require-hashes --only-binary=:all: \
    -r docker/requirements/build.txt
COPY pyproject.toml CMakeLists.txt README.md LICENSE ./
COPY include include
COPY native native
COPY smallfry smallfry
COPY service service
# Without the native module the package still installs but is slower; fail the build instead.
RUN pip wheel --quiet --no-cache-dir --no-build-isolation --no-deps --wheel-dir /wheels . \
 && files=$(python -m zipfile -l /wheels/smallfry-*.whl) \
 && case $files in *smallfry/_native*) ;; *) echo 'the native module was not built' >&2; exit 1 ;; esac

FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
LABEL org.opencontainers.image.title="smallfry-serve" \
      org.opencontainers.image.description="Embedding tables at 1 to 16 bits a value, served over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN --mount=type=bind,from=build,source=/src/docker/requirements,target=/requirements \
    pip install --quiet --no-cache-dir --root-user-action=ignore --require-hashes --only-binary=:all: \
    -r /requirements/server.txt
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --quiet --no-cache-dir --root-user-action=ignore --no-index --no-deps /wheels/smallfry-*.whl
ENV SMALLFRY_HOST=0.0.0.0 \
    SMALLFRY_PORT=8000 \
    PYTHONUNBUFFERED=1
EXPOSE 8000
USER 10001:10001
WORKDIR /models
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-m", "service.process.healthcheck"]
# A SIGTERM that arrives before the server has a handler waits for it, instead of being lost.
ENTRYPOINT ["env", "--block-signal=TERM", "smallfry-serve"]
