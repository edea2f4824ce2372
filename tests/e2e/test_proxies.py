"""The examples for reverse proxies, in real ones in front of a real server."""

import asyncio
import http.client
import os
import ssl
import subprocess
import time
from contextlib import closing
from pathlib import Path

import orjson
import pytest
import pytest_twisted
from cli.doctoring import Patient
from daemons import BASE, SECONDS, Daemon
from standins.certificates import Authority
from standins.ports import free_port
from tools import tool
from twisted.internet.threads import deferToThread

EXAMPLES = Path(__file__).parents[2] / "docs" / "proxy"
# Clients are at another address of this machine than the proxy, which is the only one that is trusted.
CLIENT = "127.0.0.2"
PUBLIC = "[http]\ntrusted_proxies = 127.0.0.1\nv1_trusted_networks = 127.0.0.1\n[budgets]\nv1_requests_per_source = {budget}\n"
NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; access_log {folder}/access.log;
    include {folder}/sydentish.conf;
}}
"""
# What the operator does not write: that there is no port 80, and nobody to ask for a certificate.
CADDY = "\n{{\n\thttp_port {other}\n\thttps_port {port}\n\tauto_https disable_redirects\n\tadmin off\n"


class Proxy:
    """A reverse proxy as a process, with an example of ours as its configuration."""

    def __init__(self, folder: Path, backend: int) -> None:
        self.folder = folder
        self.port = free_port()
        authority = Authority()
        authority.issue("localhost").write(folder / "both.pem")
        self.context = ssl.create_default_context(cafile=str(authority.write_ca(folder / "ca.pem")))
        self.backend = backend
        self.process: subprocess.Popen | None = None

    def start(self, kind: str) -> None:
        arguments = getattr(self, kind)()
        environment = {**os.environ, "HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder)}
        with (self.folder / "output").open("wb") as output:
            self.process = subprocess.Popen(
                arguments, stdout=output, stderr=subprocess.STDOUT, env=environment
            )

    def nginx(self) -> list[str]:
        example = (EXAMPLES / "nginx.conf").read_text()
        changes = {
            "listen 443 ssl http2;": f"listen 127.0.0.1:{self.port} ssl http2;",
            "listen [::]:443 ssl http2;": "",
            "server_name id.example.org;": "server_name localhost;",
            "/etc/letsencrypt/live/id.example.org/fullchain.pem": f"{self.folder}/both.pem",
            "/etc/letsencrypt/live/id.example.org/privkey.pem": f"{self.folder}/both.pem",
            "server 127.0.0.1:8090;": f"server 127.0.0.1:{self.backend};",
            "/var/log/nginx/sydentish-error.log": f"{self.folder}/sydentish-error.log",
        }
        (self.folder / "sydentish.conf").write_text(changed(example, changes))
        config = self.folder / "nginx.conf"
        config.write_text(NGINX.format(folder=self.folder))
        return [tool("nginx", "nginx-light"), "-p", str(self.folder), "-c", str(config)]

    def caddy(self) -> list[str]:
        example = (EXAMPLES / "Caddyfile").read_text()
        certificate = f"\ttls {self.folder}/both.pem {self.folder}/both.pem\n\tbind 127.0.0.1\n"
        changes = {
            "\n{\n": CADDY.format(port=self.port, other=free_port()),
            "\nid.example.org {\n": f"\nlocalhost {{\n{certificate}",
            "127.0.0.1:8090\n\t}": f"127.0.0.1:{self.backend}\n\t}}",
        }
        config = self.folder / "Caddyfile"
        config.write_text(changed(example, changes))
        return [tool("caddy", "caddy"), "run", "--adapter", "caddyfile", "--config", str(config)]

    def ask(self, method, path, body=b"", **headers):
        """Status, headers as a list, and body; the path is sent as it is."""
        connection = http.client.HTTPSConnection(
            "localhost", self.port, context=self.context, timeout=SECONDS, source_address=(CLIENT, 0)
        )
        with closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()

    def wait(self) -> None:
        """Returns once it takes connections."""
        until = time.monotonic() + SECONDS
        while True:
            try:
                self.ask("GET", "/")
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    pytest.fail((self.folder / "output").read_text())
                # There is no event to wait for: only trying tells.
                asyncio.run(asyncio.sleep(0.05))
            else:
                return

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(SECONDS)


def changed(text, changes):
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


@pytest_twisted.async_yield_fixture(params=["nginx", "caddy"])
async def proxy(request, tmp_path):
    daemon = Daemon(tmp_path, PUBLIC.format(budget="5/1h"))
    await daemon.start()
    folder = tmp_path / "proxy"
    folder.mkdir()
    proxy = Proxy(folder, daemon.port)
    proxy.daemon = daemon
    proxy.start(request.param)
    await deferToThread(proxy.wait)
    yield proxy
    await deferToThread(proxy.stop)
    await daemon.clean_up()


@pytest_twisted.ensureDeferred
async def test_all_that_a_client_needs_gets_through(proxy):
    def checked():
        status, headers, _ = proxy.ask("GET", f"{BASE}/v2", Origin="https://app.example.org")
        assert status == 200
        assert [value for name, value in headers if name.lower() == "access-control-allow-origin"] == ["*"]
        status, headers, _ = proxy.ask(
            "OPTIONS", f"{BASE}/v2/account/register", Origin="https://x.example.org"
        )
        assert status in {200, 204}
        assert [value for name, value in headers if name.lower() == "access-control-allow-origin"] == ["*"]
        # Matched before it is decoded, with the query as it was.
        for path in ("ed25519:0", "ed25519%3A0"):
            status, _, body = proxy.ask("GET", f"{BASE}/v2/pubkey/{path}")
            assert (status, "public_key" in orjson.loads(body)) == (200, True), body
        key = orjson.loads(body)["public_key"].replace("+", "%2B").replace("/", "%2F")
        _, _, body = proxy.ask("GET", f"{BASE}/v2/pubkey/isvalid?public_key={key}")
        assert orjson.loads(body) == {"valid": True}
        status, _, body = proxy.ask("GET", f"{BASE}/v2/account", Authorization="Bearer unknown")
        assert (status, orjson.loads(body)["errcode"]) == (401, "M_UNAUTHORIZED")
        # A large look-up arrives whole, and is refused for its token.
        large = orjson.dumps({"addresses": ["a" * 43] * 80_000, "algorithm": "sha256", "pepper": "x"})
        assert 3_500_000 < len(large) < 4 << 20
        status, _, body = proxy.ask("POST", f"{BASE}/v2/lookup", large, Authorization="Bearer unknown")
        assert (status, orjson.loads(body)["errcode"]) == (401, "M_UNAUTHORIZED")
        # Nothing else is served there.
        assert proxy.ask("GET", "/metrics")[0] == 404
        assert proxy.ask("GET", "/_matrix/identityother")[0] == 404

    await deferToThread(checked)


@pytest_twisted.ensureDeferred
async def test_what_a_client_says_of_its_address_does_not_count(proxy):
    """The budget per source is that of the proxy's own word; a forged one would give a new budget each time."""

    def checked():
        path, body = f"{BASE}/api/v1/sign-ed25519", b"mxid=@a:b.example.org&token=x&private_key=" + b"A" * 43
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        statuses = [
            proxy.ask("POST", path, body, **form, **{"X-Forwarded-For": f"203.0.113.{number}"})[0]
            for number in range(7)
        ]
        assert 429 not in statuses[:5]
        assert statuses[5:] == [429] * 2

    await deferToThread(checked)


@pytest_twisted.ensureDeferred
async def test_no_token_of_a_link_stands_in_a_log_of_the_proxy(proxy):
    link = f"{BASE}/v2/validate/email/submitToken?sid=1&client_secret=verysecret&token=verysecret"
    await deferToThread(proxy.ask, "GET", link)
    await proxy.daemon.end()
    # Now nobody answers behind it, which it has to tell somebody.
    assert (await deferToThread(proxy.ask, "GET", link))[0] == 502
    found = [
        path for path in proxy.folder.rglob("*") if path.is_file() and b"verysecret" in path.read_bytes()
    ]
    assert found == []


@pytest_twisted.ensureDeferred
async def test_the_doctor_has_nothing_against_the_examples(proxy, tmp_path):
    listener = f"tcp:{proxy.daemon.port}:interface=127.0.0.1"
    patient = Patient(tmp_path, proxy.daemon.folder / "data", f"https://localhost:{proxy.port}", listener)
    patient.env["SSL_CERT_FILE"] = str(proxy.folder / "ca.pem")
    patient.sections = ["trusted_proxies = 127.0.0.1"]
    findings = await patient.seen()
    assert len(findings) > 8
    assert [each for each in findings if each.result != "ok"] == []
