"""The proxies compared: each adds the same token to the same calls, by its own documentation's means."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Final

from bench.figures import LARGE_BUFFERS, REFERENCE
from bench.servers import HOST, Prepare, find_program
from bench.workloads import SOCKETS, Kind, Workload

PEERS: Final = Path(__file__).parent / "peers"
GO_CACHE: Final = Path(__file__).parents[2] / ".make" / "go-cache"
TOKEN: Final = "bench-token"
ACCESS_LOG: Final = "bearerd, access log"

NGINX: Final = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr warn;
events { worker_connections 8192; }
http {
  access_log off;
  client_body_temp_path temp;
  proxy_temp_path temp;
  fastcgi_temp_path temp;
  uwsgi_temp_path temp;
  scgi_temp_path temp;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
  %s
}
"""
# A call without the token is not what is measured: the upstream refuses it, and wrk counts it as failed.
NGINX_UPSTREAM: Final = """
  server {
    listen %(host)s:%(port)d;
    if ($http_authorization != "Bearer %(token)s") { return 401; }
    default_type application/json;
    location / { return 200 '{"ok": true}'; }
    location ~ ^/[0-9]+m$ { root %(bodies)s; }
  }
"""
NGINX_PROXY: Final = """
  upstream api {
    server %(host)s:%(upstream)d;
    keepalive 64;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
  }
  map $http_upgrade $connection_upgrade {
    default upgrade;
    "" "";
  }
  server {
    listen %(host)s:%(port)d;
    client_max_body_size 0;
    location / {
      proxy_pass http://api;
      proxy_http_version 1.1;
      proxy_buffering off;
      proxy_request_buffering off;
      %(buffers)s
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header Authorization "Bearer %(token)s";
    }
  }
"""
# Unbuffered, nginx reads as much at a time as the buffer for a head holds: a page, if nothing else is said.
NGINX_BUFFERS: Final = "proxy_buffer_size 64k; proxy_buffers 8 64k; client_body_buffer_size 64k;"
BEARERD: Final = """
[listen]
port = %(port)d
[log]
access = %(access)s
level = "info"
[accounts.bench]
token = "%(token)s"
[routes."/"]
upstream = "http://%(host)s:%(upstream)d"
"""
ENVOY: Final = """
static_resources:
  listeners:
  - address: {socket_address: {address: %(host)s, port_value: %(port)d}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          generate_request_id: false
          upgrade_configs: [{upgrade_type: websocket}]
          route_config:
            virtual_hosts:
            - name: api
              domains: ["*"]
              routes: [{match: {prefix: /}, route: {cluster: api, timeout: 0s}}]
          http_filters:
          - name: envoy.filters.http.credential_injector
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.credential_injector.v3.CredentialInjector
              overwrite: true
              credential:
                name: envoy.http.injected_credentials.generic
                typed_config:
                  "@type": type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic
                  credential:
                    name: token
                    sds_config: {path_config_source: {path: %(folder)s/token.yaml}, resource_api_version: V3}
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              suppress_envoy_headers: true
  clusters:
  - name: api
    type: STATIC
    circuit_breakers: {thresholds: [{max_connections: 8192, max_requests: 8192, max_pending_requests: 8192}]}
    load_assignment:
      cluster_name: api
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: %(host)s, port_value: %(upstream)d}}}
"""
ENVOY_TOKEN: Final = """
resources:
- "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
  name: token
  generic_secret: {secret: {inline_string: "Bearer %s"}}
"""


def prepare_upstream(folder: Path, port: int, _: int, *, bodies: Path) -> list[str]:
    """For short calls and large responses, which nobody serves cheaper than nginx."""
    return _prepare_nginx(
        folder, NGINX_UPSTREAM % {"host": HOST, "port": port, "token": TOKEN, "bodies": bodies}
    )


def prepare_own_upstream(folder: Path, port: int, _: int) -> list[str]:
    """For what lasts: streams, sockets, large requests."""
    return [build_program(folder, "upstream.go"), f"{HOST}:{port}", TOKEN]


def prepare_nginx(folder: Path, port: int, upstream: int, *, buffers: str = "") -> list[str]:
    values = {"host": HOST, "port": port, "upstream": upstream, "token": TOKEN, "buffers": buffers}
    return _prepare_nginx(folder, NGINX_PROXY % values)


def _prepare_nginx(folder: Path, server: str) -> list[str]:
    (folder / "nginx.conf").write_text(NGINX % server)
    return [find_program("nginx"), "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"]


def prepare_bearerd(folder: Path, port: int, upstream: int, *, access: str = "false") -> list[str]:
    file = folder / "bearerd.toml"
    values = {"host": HOST, "port": port, "upstream": upstream, "token": TOKEN, "access": access}
    file.write_text(BEARERD % values)
    file.chmod(0o600)
    return [_beside_python("bearerd"), "run", "-c", str(file)]


def prepare_envoy(folder: Path, port: int, upstream: int) -> list[str]:
    values = {"host": HOST, "port": port, "upstream": upstream, "folder": folder}
    (folder / "envoy.yaml").write_text(ENVOY % values)
    (folder / "token.yaml").write_text(ENVOY_TOKEN % TOKEN)
    names = ("--service-node", "bench", "--service-cluster", "bench")
    quiet = ("--log-level", "error", "--concurrency", "1", "--use-dynamic-base-id")
    return [find_program("envoy"), "-c", str(folder / "envoy.yaml"), *names, *quiet]


def prepare_go(folder: Path, port: int, upstream: int) -> list[str]:
    return [build_program(folder, "proxy.go"), f"{HOST}:{port}", f"http://{HOST}:{upstream}", TOKEN]


def build_program(folder: Path, source: str) -> str:
    """A program of ours in Go, from its one file. What the compiler keeps is below the project's own folder."""
    program = folder / Path(source).stem
    settings = os.environ | {"GO111MODULE": "off", "GOCACHE": str(GO_CACHE), "GOFLAGS": ""}
    argv = [find_program("go"), "build", "-o", str(program), str(PEERS / source)]
    subprocess.run(argv, check=True, env=settings)
    return str(program)


def prepare_node(_: Path, port: int, upstream: int, *, script: str) -> list[str]:
    return [find_program("node"), str(PEERS / script), str(port), f"http://{HOST}:{upstream}", TOKEN]


def prepare_mitmproxy(folder: Path, port: int, upstream: int) -> list[str]:
    settings = ["--quiet", "--set", f"confdir={folder}", "--set", "connection_strategy=lazy"]
    mode = ["--mode", f"reverse:http://{HOST}:{upstream}", "--listen-host", HOST, "--listen-port", str(port)]
    return [
        "env",
        f"BENCH_TOKEN={TOKEN}",
        find_program("mitmdump"),
        *settings,
        *mode,
        "-s",
        str(PEERS / "mitmproxy_token.py"),
    ]


def prepare_aiohttp(_: Path, port: int, upstream: int) -> list[str]:
    return [sys.executable, str(PEERS / "aiohttp_proxy.py"), str(port), f"http://{HOST}:{upstream}", TOKEN]


def _beside_python(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


CONTESTANTS: Final[dict[str, Prepare]] = {
    REFERENCE: prepare_nginx,
    LARGE_BUFFERS: partial(prepare_nginx, buffers=NGINX_BUFFERS),
    "envoy": prepare_envoy,
    "go": prepare_go,
    "bearerd": prepare_bearerd,
    ACCESS_LOG: partial(prepare_bearerd, access="true"),
    "http-proxy": partial(prepare_node, script="http-proxy.js"),
    "fast-proxy": partial(prepare_node, script="fast-proxy.js"),
    "aiohttp": prepare_aiohttp,
    "mitmproxy": prepare_mitmproxy,
}

_NO_UPGRADES: Final = "forwards no upgrades"
CANNOT: Final[dict[tuple[str, str], str]] = {
    (SOCKETS.name, "fast-proxy"): _NO_UPGRADES,
    (SOCKETS.name, "aiohttp"): f"as written here, {_NO_UPGRADES}",
}
"""Why a proxy is not asked to do a workload."""

VARIANTS: Final[dict[str, Kind]] = {LARGE_BUFFERS: "bodies", ACCESS_LOG: "calls"}
"""Another setting of a proxy, and the only kind of workload in which it makes a difference."""


def takes(name: str, workload: Workload) -> bool:
    return VARIANTS.get(name, workload.kind) == workload.kind
