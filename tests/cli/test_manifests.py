"""``ragkube validate``, ``render`` and what ``run`` says of a wrong file: sentences, in the API server's words."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from support.command import REPOSITORY, Command, Write

HEAD = "apiVersion: ragkube.dev/v1alpha1\nkind: RagDeployment\nmetadata: {name: docs}\n"

WRONG: dict[str, tuple[str | bytes, list[str]]] = {
    "a value out of range": (
        HEAD + "spec: {api: {replicas: 0}, retrieval: {alpha: 2}}",
        [
            'error: {file}: RagDeployment "docs" is invalid',
            "  spec.api.replicas: Invalid value: 0: spec.api.replicas in body should be greater than or equal to 1",
            "  spec.retrieval.alpha: Invalid value: 2: spec.retrieval.alpha in body should be less than or equal to 1",
        ],
    ),
    "an unknown field": (
        HEAD + "spec: {retreival: {k: 3}}",
        [
            'error: {file}: RagDeployment "docs" is invalid',
            '  unknown field "spec.retreival": did you mean "retrieval"?',
        ],
    ),
    "a wrong type": (
        HEAD + "spec: {api: {replicas: two}}",
        [
            'error: {file}: RagDeployment "docs" is invalid',
            '  spec.api.replicas: Invalid value: "string": spec.api.replicas in body must be of type integer: "string"',
        ],
    ),
    "an unsupported value": (
        HEAD + "spec: {llm: {type: OpenAI}}",
        [
            'error: {file}: RagDeployment "docs" is invalid',
            '  spec.llm.type: Unsupported value: "OpenAI": supported values: "Extractive", "Anthropic"',
        ],
    ),
    "fields that contradict each other": (
        HEAD + "spec: {auth: {mode: None, adminKeySecretRef: {name: a, key: b}}}",
        [
            'error: {file}: RagDeployment "docs" is invalid',
            ("  spec.auth.adminKeySecretRef: Forbidden: "
            "adminKeySecretRef is used only with mode ApiKey: remove it or change mode"),
        ],
    ),
    "no YAML": ("a: [1", ["error: {file} is no valid YAML: line 1, column 6: expected ',' or ']', but got '<stream end>'"]),
    "a key twice": (HEAD + "spec: {paused: true, paused: false}", ['error: {file} is no valid YAML: line 4, column 22: key "paused" stands twice']),
    "nothing": ("", ["error: {file} is empty; it should hold a RagDeployment"]),
    "a list": ("- 1", ["error: {file} holds a list where an object belongs"]),
    "no text": (b"\xff\xfe\x00", ["error: {file} is no text file"]),
    "another kind": (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}",
        ["error: {file} holds no RagDeployment of ragkube.dev, only v1 ConfigMap"],
    ),
    "a misspelled kind": (
        "apiVersion: ragkube.dev/v1alpha1\nkind: RagDeploymnet\nmetadata: {name: a}",
        [
            ("error: {file} holds no RagDeployment of ragkube.dev, only ragkube.dev/v1alpha1 RagDeploymnet; "
            "did you mean kind: RagDeployment, apiVersion: ragkube.dev/v1alpha1?")
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("command", ["validate", "run"])
@pytest.mark.proves("K2")
def test_a_wrong_file_is_refused_in_the_same_words(
    ragkube: Command, tmp_path: Path, command: str, case: str
) -> None:
    content, expected = WRONG[case]
    file = tmp_path / "wrong.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = ragkube(command, file)
    assert result.stderr.splitlines() == [line.format(file=file) for line in expected]
    assert result.returncode == 2
    assert not (tmp_path / ".ragkube").exists()


def test_a_file_that_cannot_be_read_is_a_sentence(ragkube: Command, tmp_path: Path) -> None:
    result = ragkube("run", "missing.yaml")
    assert (result.returncode, result.stderr) == (
        2,
        "error: cannot read missing.yaml: No such file or directory\n",
    )
    assert "Is a directory" in ragkube("validate", tmp_path).stderr


def test_several_in_one_file_need_a_name(ragkube: Command, tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(f"{HEAD}---\n{HEAD.replace('docs', 'other')}")
    result = ragkube("run", file)
    assert result.returncode == 2
    assert result.stderr == f"error: {file} holds 2 RagDeployments (docs, other); choose one with --name\n"
    assert ragkube("validate", file).stdout.count("is valid") == 2
    assert "name: other-api" in ragkube("render", file, "--name", "other").stdout
    assert (
        "holds no RagDeployment 'third'; it holds docs, other"
        in ragkube("render", file, "--name", "third").stderr
    )


def test_validate_goes_on_after_a_wrong_file(ragkube: Command, manifest: Write) -> None:
    wrong, good = manifest({"paused": "yes"}, file="wrong.yaml"), manifest(file="good.yaml")
    result = ragkube("validate", wrong, good)
    assert result.returncode == 2
    assert f'{good}: RagDeployment "docs" is valid' in result.stdout
    assert "spec.paused" in result.stderr


@pytest.mark.parametrize(
    "sample", sorted((REPOSITORY / "manifests" / "samples").glob("*.yaml")), ids=lambda path: path.name
)
@pytest.mark.proves("K2")
def test_every_sample_is_valid_and_renders(ragkube: Command, sample: Path) -> None:
    assert ragkube("validate", sample).returncode == 0
    first, second = ragkube("render", sample), ragkube("render", sample)
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    kinds = [entry["kind"] for entry in yaml.safe_load_all(first.stdout)]
    assert kinds.index("ServiceAccount") < kinds.index("Service") < kinds.index("Deployment")
    assert "Secret" not in kinds


def test_render_can_place_the_objects_elsewhere(ragkube: Command, manifest: Write) -> None:
    result = ragkube("render", manifest(), "-n", "team", "--api-image", "registry.example/api:1")
    objects = list(yaml.safe_load_all(result.stdout))
    assert {entry["metadata"]["namespace"] for entry in objects} == {"team"}
    assert "registry.example/api:1" in result.stdout
