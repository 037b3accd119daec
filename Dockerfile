# One small image for both roles. What differs is the command: `limpet gateway` or `limpet shard`.
# BASE may be any Linux image with CPython >= 3.11 (with venv and pip) as `python3`.
ARG BASE=python:3.13-slim

# ---- build: everything that is needed to install, and that the final image must not carry
FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
RUN python3 -m venv /opt/limpet
WORKDIR /src
# First the dependencies alone, so that a change of our code does not install them again.
COPY pyproject.toml ./
RUN python3 -c 'import tomllib; print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]))' \
      > requirements.txt \
 && /opt/limpet/bin/pip install --requirement requirements.txt
COPY . .
# Compiled now, because the final root is read-only and nothing could be cached there.
RUN /opt/limpet/bin/pip install --no-deps . \
 && /opt/limpet/bin/python -m compileall -q /opt/limpet/lib

# ---- final
FROM ${BASE}
LABEL org.opencontainers.image.title="Limpet" \
      org.opencontainers.image.description="Durable Objects for Python, on your own machines." \
      org.opencontainers.image.licenses="Apache-2.0"
# A numeric user, so that an orchestrator can see that it is not root. The two directories are made here,
# so that the named volumes that are mounted over them start with that owner and mode.
RUN mkdir -p /data /run/limpet && chown 10001:10001 /data /run/limpet && chmod 0700 /data /run/limpet
COPY --from=build /opt/limpet /opt/limpet
ENV PATH=/opt/limpet/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    DATA_DIR=/data \
    RUN_DIR=/run/limpet
USER 10001:10001
WORKDIR /data
EXPOSE 8787
STOPSIGNAL SIGTERM
CMD ["limpet", "up"]
