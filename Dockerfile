# One image for every process: `docker build -t nudge .`, then `docker run nudge worker`, `sender`, `topics create`, …
# Runs as an ordinary user on a read-only root; it writes to /var/lib/nudge alone (and to /tmp, if something must).

FROM python:3.11-slim-bookworm AS build
# What push services need; "[push,otel]" adds the export of traces.
ARG EXTRAS="[push]"
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The versions that the tests ran with; the hashes of the lock cannot be checked beside a folder. The core is compiled
# by mypyc, which is part of mypy and must see the types of what is installed; so a wheel is built in one environment
# and installed in another, which holds nothing of that and no pip.
RUN sed -e '/^ *--hash/d' -e 's/ *\\$//' requirements.lock > /tmp/constraints.txt \
    && python -m venv /opt/build \
    && /opt/build/bin/pip install --disable-pip-version-check --constraint /tmp/constraints.txt ".${EXTRAS}" mypy setuptools \
    && NUDGE_COMPILE=1 /opt/build/bin/pip wheel --disable-pip-version-check --no-build-isolation --no-deps --wheel-dir /dist . \
    && python -m venv --without-pip /opt/nudge \
    && set -- /dist/*.whl \
    && /opt/build/bin/pip --python /opt/nudge/bin/python install --disable-pip-version-check --constraint /tmp/constraints.txt "$1${EXTRAS}" \
    && /opt/nudge/bin/python -m compileall -q /opt/nudge/lib

FROM python:3.11-slim-bookworm
RUN groupadd --system --gid 10001 nudge \
    && useradd --system --uid 10001 --gid nudge --no-create-home --home-dir /var/lib/nudge nudge \
    && install -d -o nudge -g nudge -m 0750 /var/lib/nudge
COPY --from=build /opt/nudge /opt/nudge
ENV PATH=/opt/nudge/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NUDGE_DATA_DIR=/var/lib/nudge
WORKDIR /var/lib/nudge
VOLUME /var/lib/nudge
USER 10001:10001
EXPOSE 6066
STOPSIGNAL SIGTERM
# Liveness, not readiness: a process that waits for its broker must not be killed for it.
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=4 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:6066/livez', timeout=4)"]
ENTRYPOINT ["nudge"]
CMD ["--help"]
