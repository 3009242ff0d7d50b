"""RagDeployment files: read, checked in the API server's words, rendered."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from ragkube_operator.cli_output import USAGE, CliError, Output
from ragkube_operator.crd import RagDeployment, SpecError, parse

GROUP, KIND = "ragkube.dev", "RagDeployment"
_LARGEST = 4 * 1024 * 1024


@dataclass(frozen=True)
class Manifest:
    """One RagDeployment of a file, defaulted and valid."""

    file: Path
    name: str
    deployment: RagDeployment


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping: YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f'key "{key}" stands twice', key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def load_one(
    file: Path, name: str | None = None, *, namespace: str | None = None
) -> tuple[Manifest, list[str]]:
    """The file's RagDeployment, and the other objects in it, as ``Kind name``.

    Raises:
        CliError: the file is unreadable, holds none or several, or the manifest is wrong.
    """
    objects = read(file)
    ours = [entry for entry in objects if _is_ours(entry)]
    others = [f"{entry.get('kind')} {_name(entry)}" for entry in objects if not _is_ours(entry)]
    if not ours:
        raise CliError(_none_found(file, objects), exit_code=USAGE)
    names = [_name(entry) for entry in ours]
    if name is not None and name not in names:
        raise CliError(f"{file} holds no {KIND} {name!r}; it holds {', '.join(names)}", exit_code=USAGE)
    chosen = [entry for entry in ours if name in {None, _name(entry)}]
    if len(chosen) > 1:
        msg = f"{file} holds {len(chosen)} {KIND}s ({', '.join(names)}); choose one with --name"
        raise CliError(msg, exit_code=USAGE)
    if namespace is not None and isinstance(chosen[0].get("metadata"), dict):
        chosen[0]["metadata"]["namespace"] = namespace
    return _parsed(file, chosen[0]), others


def read(file: Path) -> list[dict[str, Any]]:
    """Every object in a YAML or JSON file.

    Raises:
        CliError: it cannot be read, is no YAML, or holds something else than objects.
    """
    try:
        with file.open("rb") as stream:
            body = stream.read(_LARGEST + 1)
    except OSError as error:
        raise CliError(f"cannot read {file}: {error.strerror}", exit_code=USAGE) from error
    if len(body) > _LARGEST:
        raise CliError(f"{file} is larger than 4 MiB: no manifest is", exit_code=USAGE)
    return list(_objects(file, body))


def _objects(file: Path, body: bytes) -> Iterator[dict[str, Any]]:
    try:
        entries = list(yaml.load_all(body.decode(), _Loader))
    except UnicodeDecodeError as error:
        raise CliError(f"{file} is no text file", exit_code=USAGE) from error
    except yaml.YAMLError as error:
        raise CliError(f"{file} is no valid YAML: {_where(error)}", exit_code=USAGE) from error
    except RecursionError as error:
        raise CliError(f"{file} is nested too deeply", exit_code=USAGE) from error
    for entry in entries:
        if entry is None:
            continue
        if not isinstance(entry, dict):
            raise CliError(f"{file} holds a {type(entry).__name__} where an object belongs", exit_code=USAGE)
        if entry.get("kind") == "List" and isinstance(entry.get("items"), list):
            yield from (item for item in entry["items"] if isinstance(item, dict))
        else:
            yield entry


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else str(problem)


def _is_ours(entry: Mapping[str, Any]) -> bool:
    return entry.get("kind") == KIND and str(entry.get("apiVersion", "")).split("/")[0] == GROUP


def _name(entry: Mapping[str, Any]) -> str:
    metadata = entry.get("metadata")
    return str(metadata.get("name", "?")) if isinstance(metadata, Mapping) else "?"


def _none_found(file: Path, objects: Sequence[Mapping[str, Any]]) -> str:
    if not objects:
        return f"{file} is empty; it should hold a {KIND}"
    kinds = sorted({f"{entry.get('apiVersion')} {entry.get('kind')}" for entry in objects})
    near = get_close_matches(KIND, [str(entry.get("kind")) for entry in objects], n=1)
    hint = f"; did you mean kind: {KIND}, apiVersion: {GROUP}/v1alpha1?" if near else ""
    return f"{file} holds no {KIND} of {GROUP}, only {', '.join(kinds)}{hint}"


def _parsed(file: Path, entry: dict[str, Any]) -> Manifest:
    name = _name(entry)
    try:
        return Manifest(file, name, parse(entry))
    except SpecError as error:
        raise CliError(
            f'{file}: {KIND} "{name}" is invalid', exit_code=USAGE, details=str(error).splitlines()
        ) from error


def validate(files: Sequence[Path], output: Output) -> bool:
    """Check every RagDeployment in the files; False when one is wrong."""
    good = True
    for file in files:
        try:
            good = _validate(file, output) and good
        except CliError as error:
            output.fail(error)
            good = False
    return good


def _validate(file: Path, output: Output) -> bool:
    objects = read(file)
    ours = [entry for entry in objects if _is_ours(entry)]
    if not ours:
        raise CliError(_none_found(file, objects), exit_code=USAGE)
    good = True
    for entry in ours:
        try:
            output.line(f'{file}: {KIND} "{_parsed(file, entry).name}" is valid')
        except CliError as error:
            output.fail(error)
            good = False
    return good


def version() -> str:
    """Of the installed package."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("ragkube")
    except PackageNotFoundError:
        return "0.0.0"


def rendered(file: Path, *, name: str | None, namespace: str | None, api_image: str | None) -> str:
    """What the operator would apply for this file, as YAML in order of application."""
    from ragkube_operator import render

    manifest, _ = load_one(file, name, namespace=namespace)
    own = version()
    context = render.Context(api_image=api_image or f"ragkube/api:{own}", operator_version=own)
    objects = render.render(manifest.deployment, context)
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, explicit_start=True, width=110)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, so that a settings file can be read and compared; no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
