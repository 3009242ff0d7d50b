# Two images from one project: `--target api` and `--target operator`.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS base
ENV PATH=/opt/venv/bin:/opt/ragkube/lib/bin:$PATH \
    PYTHONUNBUFFERED=1

# What the code needs comes first and apart from it: a change of the code reuses these layers.
FROM base AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# the code goes into a folder of its own, found by a .pth file, so that it is a layer of its own in the image
RUN python3 -m venv /opt/venv \
 && python -c 'import site; open(site.getsitepackages()[0] + "/ragkube.pth", "w").write("/opt/ragkube/lib\n")'

FROM build AS build-api
COPY requirements/api.txt /tmp/requirements.txt
RUN pip install --require-hashes --only-binary :all: -r /tmp/requirements.txt \
 && pip uninstall -y pip

FROM build AS build-operator
COPY requirements/operator.txt /tmp/requirements.txt
RUN pip install --require-hashes --only-binary :all: -r /tmp/requirements.txt \
 && pip uninstall -y pip

FROM build AS package
WORKDIR /src
RUN pip install 'hatchling>=1.27,<2'
COPY pyproject.toml README.md LICENSE ./
COPY api api
COPY operator operator
# bytecode that is valid whatever the files' times are, so that nothing is compiled at start
RUN pip install --no-deps --no-build-isolation --no-compile --target /opt/ragkube/lib . \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/ragkube/lib

FROM base AS operator
COPY --from=build-operator /opt/venv /opt/venv
COPY --from=package /opt/ragkube/lib /opt/ragkube/lib
WORKDIR /opt/ragkube
USER 65532:65532
ENTRYPOINT ["python", "-m", "ragkube_operator"]

FROM base AS api
COPY --from=build-api /opt/venv /opt/venv
COPY --from=package /opt/ragkube/lib /opt/ragkube/lib
COPY docs /opt/ragkube/docs
WORKDIR /opt/ragkube
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["python", "-m", "ragkube_api"]
