# Two images from one project: `--target api` and `--target operator`.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS base
# The code goes into a folder of its own, found by a .pth file: a change of the code changes that layer alone.
RUN python3 -m venv --without-pip /opt/venv \
 && /opt/venv/bin/python -c 'import site; open(site.getsitepackages()[0] + "/ragkube.pth", "w").write("/opt/ragkube/lib\n")'

FROM base AS package
WORKDIR /src
RUN python3 -m venv /opt/build && /opt/build/bin/pip install --no-cache-dir 'hatchling>=1.27,<2'
COPY pyproject.toml README.md LICENSE ./
COPY api api
COPY operator operator
# Bytecode that is valid whatever the files' times are, so that nothing is compiled at start.
RUN /opt/build/bin/pip install --no-deps --no-build-isolation --no-compile --target /opt/ragkube/lib . \
 && rm -r /opt/ragkube/lib/bin \
 && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/ragkube/lib

FROM base AS operator
COPY requirements/operator.txt /opt/ragkube/requirements.txt
RUN pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check --root-user-action ignore \
      --require-hashes --only-binary :all: -r /opt/ragkube/requirements.txt
COPY --from=package /opt/ragkube/lib /opt/ragkube/lib
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /opt/ragkube
USER 65532:65532
ENTRYPOINT ["python", "-m", "ragkube_operator"]

FROM base AS api
COPY requirements/api.txt /opt/ragkube/requirements.txt
RUN pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check --root-user-action ignore \
      --require-hashes --only-binary :all: -r /opt/ragkube/requirements.txt
COPY --from=package /opt/ragkube/lib /opt/ragkube/lib
COPY docs /opt/ragkube/docs
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /opt/ragkube
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["python", "-m", "ragkube_api"]
