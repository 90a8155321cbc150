"""The manifests: known to Kubernetes, and run by podman as pods.

Podman knows no sidecars among the init containers, and there is no network for pods here. So the sidecar runs beside the app,
both on this machine's own network, and what a kubelet would ask is asked by the test. Names of servers are replaced.
"""

import asyncio
import base64
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_bytes
from typing import Any, Final

import pytest

from bearerd.demo.authorization_server import Lifetimes
from bearerd.demo.world import APP_ID, CLIENT_ID, Demo
from container_apps import KEY, answers_in, check_neighbour, check_powerless, failures_in, tokens_in
from containers import IMAGE, PROJECT, Engine, check_confined
from faults import refused_port
from people import Person

FOLDER: Final = PROJECT / "docker" / "kubernetes"
GROUP: Final = 65532  # the fsGroup of the manifests
LIFETIME_S: Final = 10
LIFETIMES: Final = 3
LIMIT_S: Final = 120.0
Secrets = dict[str, dict[str, str]]
VAULT: Final = "bearerd-vault"


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.iterdir()))
def test_a_manifest_is_what_kubernetes_knows(name: str) -> None:
    validate = ("kubernetes-validate", "--strict", "-k", "1.30", str(FOLDER / name))
    ended = subprocess.run(validate, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@dataclass
class Pod:
    """A pod of one of the manifests, by podman."""

    engine: Engine
    name: str
    port: int
    probes: dict[str, list[str]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def app(self) -> str:
        return self._container("app")

    @property
    def sidecar(self) -> str:
        return self._container("bearerd")

    def _container(self, role: str) -> str:
        names = self.engine.podman("ps", "--all", "--format", "{{.Names}}").split()
        return next(name for name in names if name.startswith(self.name) and name.endswith(f"-{role}"))

    def passes(self, probe: str) -> bool:
        """Whether the probe of the manifest, run inside as a kubelet would, is content."""
        try:
            self.engine.podman("exec", self.sidecar, *self.probes[probe])
        except AssertionError:
            return False
        return True

    @property
    def log(self) -> str:
        return self.engine.log(self.app)

    @property
    def whole_log(self) -> str:
        return self.log + self.engine.log(self.sidecar)


def make_key(engine: Engine, folder: Path) -> tuple[str, str]:
    """The key of an app, as docs/containers.md has it, and the file with its hash."""
    folder.mkdir(mode=0o700)
    given = ("-e", "BEARERD_ACCOUNTS__ANY__TOKEN=none", "-e", "BEARERD_UPSTREAM=https://api.example.com")
    volume = f"--volume={folder}:/var/lib/bearerd"
    create = ("key", "create", "app", "--route", "/")
    made = engine.podman("run", "--rm", "--network=none", "--user=0", volume, *given, IMAGE, *create).strip()
    assert KEY.fullmatch(made), made
    return made, (folder / "client-keys.json").read_text()


def build_map(name: str, files: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": files}


def for_podman(documents: list[Any], pod: str) -> tuple[list[Any], dict[str, list[str]]]:
    """The documents, with the sidecar among the other containers; and its probes.

    This podman hands out secrets in base64, so they are configurations here. It keeps those, and empty
    folders, by name, whichever pod has them; so they are called after the pod.
    """
    (deployment,) = (document for document in documents if document["kind"] == "Deployment")
    deployment["metadata"]["name"] = pod
    deployment["spec"]["replicas"] = 1
    spec = deployment["spec"]["template"]["spec"]
    (sidecar,) = spec.pop("initContainers")
    assert sidecar["restartPolicy"] == "Always"
    probes = {
        kind: sidecar.pop(f"{kind}Probe")["exec"]["command"] for kind in ("startup", "readiness", "liveness")
    }
    spec["containers"].insert(0, sidecar)
    for volume in spec["volumes"]:
        if "secret" in volume:
            volume["configMap"] = {"name": f"{volume.pop('secret')['secretName']}-secret"}
        if "configMap" in volume:
            volume["configMap"]["name"] += f"-of-{pod}"
        elif "emptyDir" in volume:
            (mount,) = (mount for mount in sidecar["volumeMounts"] if mount["name"] == volume["name"])
            volume["name"] = mount["name"] = f"{volume['name']}-of-{pod}"
    for document in documents:
        if document["kind"] == "ConfigMap":
            document["metadata"]["name"] += f"-of-{pod}"
    # A claim that is there already is an error to podman; one that is not, it makes for the pod that has it.
    return [document for document in documents if document["kind"] != "PersistentVolumeClaim"], probes


@asynccontextmanager
async def playing(
    engine: Engine, folder: Path, manifest: str, pod: str, demo: Demo, secrets: Secrets
) -> AsyncIterator[Pod]:
    """A pod of the manifest, called `pod`, with the demo's servers in place of the manifest's."""
    port = refused_port()
    text = (FOLDER / manifest).read_text()
    for there, here in (
        ("https://login.example.com", demo.issuer),
        ("https://api.example.com/v1", demo.api_url),
        ('"my-client"', f'"{CLIENT_ID}"'),
        ('"my-cli"', f'"{APP_ID}"'),
        ('["openid", "offline_access"]', '["openid", "demo:read"]'),
        ("[listen]\n", f"[listen]\n    port = {port}\n"),
        ("http://127.0.0.1:6750", f"http://127.0.0.1:{port}"),
    ):
        text = text.replace(there, here)
    template, played = folder / f"{pod}.yaml", folder / f"{pod}-played.yaml"
    template.write_text(text)
    documents, probes = for_podman(engine.documents(template), pod)
    documents += [build_map(f"{name}-secret-of-{pod}", files) for name, files in secrets.items()]
    played.write_text("\n---\n".join(json.dumps(document) for document in documents))
    # In threads: the demo's servers are this loop's.
    await asyncio.to_thread(engine.podman, "kube", "play", "--network=host", played)
    try:
        yield Pod(engine, pod, port, probes)
    finally:
        await asyncio.to_thread(engine.podman, "kube", "down", played)
        for volume in engine.podman("volume", "ls", "--quiet").split():
            if volume.endswith(f"-of-{pod}"):  # what it has made of the configurations
                engine.podman("volume", "rm", volume)


async def until(pod: Pod, reached: Callable[[Pod], bool]) -> None:
    end = time.monotonic() + LIMIT_S  # of another process, so it is asked for again and again
    while not await asyncio.to_thread(reached, pod):
        assert time.monotonic() < end, pod.whole_log
        await asyncio.sleep(0.5)


def has_called(pod: Pod) -> bool:
    return answers_in(pod.log) != []


def has_outlived_tokens(pod: Pod) -> bool:
    return len(tokens_in(pod.log)) > LIFETIMES


async def log_in(pod: Pod) -> None:
    """By `bearerd login` in the sidecar, as docs/containers.md has it, and a browser of this machine."""
    login = await pod.engine.begin("exec", "--interactive", pod.sidecar, "bearerd", "login", "--no-browser")
    assert login.stdin is not None
    assert login.stdout is not None
    url = (await login.stdout.readline()).decode().strip()
    async with Person() as person:
        back = await person.log_in(url, f"{pod.url}/-/callback")
    login.stdin.write(f"{back}\n".encode())
    await login.stdin.drain()
    said, _ = await login.communicate()
    assert login.returncode == 0, said


def lay_out(folder: Path, files: dict[str, str]) -> Path:
    """A volume of a Secret or a ConfigMap as a kubelet leaves it for a pod with `fsGroup: 65532`."""
    version = folder / "..2001_12_31"
    version.mkdir(parents=True)
    (folder / "..data").symlink_to(version.name)
    for name, text in files.items():
        (version / name).write_text(text)
        (version / name).chmod(0o440)
        (folder / name).symlink_to(f"..data/{name}")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 0, GROUP, follow_symlinks=False)
    version.chmod(0o2755)
    folder.chmod(0o3777)
    return folder


def open_to_group(folder: Path, mode: int) -> Path:
    """An empty volume, as a kubelet leaves it for such a pod."""
    folder.mkdir()
    os.chown(folder, 0, GROUP)
    folder.chmod(mode)
    return folder


def test_volumes_as_a_kubelet_leaves_them_are_good_enough(engine: Engine, tmp_path: Path) -> None:
    """Podman makes others: without links, sticky folders and a group of the pod's."""
    _, hashes = make_key(engine, tmp_path / "keys")
    config = next(
        document["data"]
        for document in engine.documents(FOLDER / "shared-login.yaml")
        if document["kind"] == "ConfigMap"
    )
    key = base64.b64encode(token_bytes(32)).decode()
    secrets = lay_out(tmp_path / "secrets", {"vault-key": key, "client-keys.json": hashes})
    volumes = (
        f"--volume={lay_out(tmp_path / 'config', config)}:/etc/bearerd:ro",
        f"--volume={secrets}:/run/secrets/bearerd:ro",
        f"--volume={open_to_group(tmp_path / 'vault', 0o2775)}:/var/lib/bearerd",
        f"--volume={open_to_group(tmp_path / 'tmp', 0o2777)}:/tmp",
    )
    with engine.running(f"--env=BEARERD_LISTEN__PORT={refused_port()}", *volumes, IMAGE) as name:
        end = time.monotonic() + LIMIT_S
        while engine.health(name) != 0:
            assert engine.inspect("container", name)["State"]["Running"], engine.log(name)
            assert time.monotonic() < end, engine.log(name)
            time.sleep(0.5)
        assert "process 1" in engine.podman("exec", name, "bearerd", "status")
        engine.podman("exec", name, "bearerd", "doctor", "--offline")  # which fails where it finds a fault


async def test_a_pod_s_app_calls_with_its_sidecar_s_tokens_and_its_other_containers_cannot(
    engine: Engine, tmp_path: Path
) -> None:
    key, hashes = make_key(engine, tmp_path / "keys")
    async with Demo.start(Lifetimes(access_s=LIFETIME_S)) as demo:
        sidecars = {"client-secret": demo.client_secret.reveal(), "client-keys.json": hashes}
        secrets = {"bearerd": sidecars, "app": {"app-key": key}}
        async with playing(engine, tmp_path, "sidecar.yaml", "alone", demo, secrets) as pod:
            for probe in ("startup", "readiness", "liveness"):
                await until(pod, partial(Pod.passes, probe=probe))
            await until(pod, has_called)
            check_confined(engine, pod.sidecar)
            await asyncio.to_thread(check_neighbour, engine, pod.app, pod.url, key)
            check_powerless(engine, pod.app)
            assert "bearerd" in await asyncio.to_thread(
                engine.podman, "exec", pod.sidecar, "bearerd", "status"
            )
            await until(pod, has_outlived_tokens)
            assert failures_in(pod.log) == []

            await asyncio.to_thread(engine.podman, "stop", "--time=30", pod.sidecar)
            assert engine.inspect("container", pod.sidecar)["State"]["ExitCode"] == 0


async def test_pods_share_one_login_and_keep_it_over_a_restart(engine: Engine, tmp_path: Path) -> None:
    """The demo's server ends a login when a refresh token comes twice, and then the apps' calls would fail."""
    key, hashes = make_key(engine, tmp_path / "keys")
    sidecars = {"vault-key": base64.b64encode(token_bytes(32)).decode(), "client-keys.json": hashes}
    secrets = {"bearerd": sidecars, "app": {"app-key": key}}
    try:
        async with Demo.start(Lifetimes(access_s=LIFETIME_S)) as demo:
            play = partial(playing, engine, tmp_path, "shared-login.yaml", demo=demo, secrets=secrets)
            async with play("second") as second:
                async with play("first") as first:
                    await until(first, partial(Pod.passes, probe="startup"))
                    await log_in(first)
                    await until(first, has_outlived_tokens)
                    await until(second, has_outlived_tokens)
                    seen = {*tokens_in(first.log), *tokens_in(second.log)}
                    # One for the code, one for each token after the first, and one that no app has called with yet.
                    assert demo.authorization_server.token_requests <= len(seen) + 1
                    assert failures_in(first.log) == [], first.whole_log
                async with play("first") as again:
                    await until(again, has_called)
                    assert failures_in(again.log) == [], again.whole_log
                assert failures_in(second.log) == [], second.whole_log
    finally:
        engine.podman("volume", "rm", "--force", VAULT)
