"""A machine on which the documentation's commands can be run: everything below one folder, and a world around it."""

import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from click.testing import CliRunner
from daemons import COMMAND, SECONDS, Daemon
from e2e.mesh import Member
from nameserver import NameServer, a
from nameserver import Reply as DnsReply
from standins.certificates import Authority
from standins.homeserver import Homeserver
from standins.mailbox import Mailbox
from standins.ports import free_port
from standins.proxy import Proxy
from store_tools import write
from sydent_files import SydentFile, configuration
from tools import tool
from twisted.internet import reactor
from twisted.names import dns

from sydentish.actions.invites import mail_key
from sydentish.actions.statements import Statements
from sydentish.cli import main
from sydentish.cli.printing import now_ms
from sydentish.domain.accounts import hash_secret
from sydentish.domain.invites import Invitation, InviteDetails, InviteMail
from sydentish.domain.threepids import EMAIL, Threepid
from sydentish.keyfiles import load_keys
from sydentish.store import accounts, invites, outbox
from sydentish.store.migrate import migrate_sqlite, shipped_steps
from sydentish.store.sqlite import SqliteTx

# As the documentation has them.
SERVER, PEER, HOMESERVER = "id.example.org", "id.example.net", "example.org"
ALICE, ADDRESS, SPAMMER = f"@alice:{HOMESERVER}", "alice@example.org", "@spammer:example.com"
DEAD_ROW = 17
DAY_MS = 24 * 3600 * 1000
TOKEN = "YW5kIG5vIGNvdyB3YXMgaGFybWVk"

_CONFIG = """\
[general]
server_name = {server}
server_name_aliases = localhost
public_base_url = https://localhost:{proxy}
data_dir = {root}/var/lib/sydentish
[http]
listeners = tcp:{port}:interface=127.0.0.1
trusted_proxies = 127.0.0.1
metrics_listeners = tcp:{metrics}:interface=127.0.0.1
internal_listeners = unix:{root}/run/sydentish/internal.sock:mode=660
internal_token_file = {root}/etc/sydentish/internal-token
[email]
smtp_host = 127.0.0.1
smtp_port = {smtp}
smtp_security = plain
[sms]
gateways = main
[sms main]
kind = log
[homeservers]
ca_file = {root}/etc/ca.pem
dns_servers = 127.0.0.1:{dns}
allowed_addresses = 127.0.0.0/8
"""
_PEERS = """
[replication]
listeners = tcp:{port}:interface=127.0.0.1
certificate_file = {root}/etc/sydentish/tls.pem
ca_file = {root}/etc/ca.pem
[peer {peer}]
url = {url}
keys = ed25519:0 {key}
"""
# `sydentish`, and what systemd and runuser do, for this machine. A server that is started is there when this returns.
_PROGRAMS = {
    "sydentish": """\
case " $* " in
*" import-sydent "*) exec {command} "$@" --data-dir {root}/var/lib/sydentish ;;
*" serve "*) shift; exec systemctl start "$@" ;;
*" -c "* | *" --config "*) exec {command} "$@" ;;
*) exec {command} "$@" -c {root}/etc/sydentish/sydentish.conf ;;
esac
""",
    "systemctl": """\
pid=$(cat {root}/run/pid 2>/dev/null || true)
stop() {{
    [ -z "$pid" ] || {{ kill -TERM "$pid" && tail --pid="$pid" -s 0.1 -f /dev/null; rm {root}/run/pid; }}
}}
case "$1" in
reload) kill -HUP "$pid" ;;
status) kill -0 "$pid" ;;
stop) stop ;;
start | restart | enable)
    stop
    : >{root}/run/log
    setsid {command} serve -c {root}/etc/sydentish/sydentish.conf >{root}/run/log 2>&1 </dev/null &
    echo $! >{root}/run/pid
    tail --pid=$! -n +1 -f {root}/run/log | grep -q -m 1 'is ready' || {{ cat {root}/run/log >&2; exit 1; }}
    ;;
*) echo "systemctl $*: not here" >&2; exit 1 ;;
esac
""",
    "runuser": 'shift 3\nexec "$@"\n',
    "curl": """\
exec {curl} "$@" -w '%{{stderr}}' -w '%{{http_code}} %{{url_effective}}\\n' 2>>{root}/run/answers
""",
}
_TOOLS = {"cat": "coreutils", "openssl": "openssl"}


@dataclass
class World:
    """What surrounds the machine."""

    authority: Authority = field(default_factory=Authority)
    names: NameServer = field(default_factory=NameServer)
    mailbox: Mailbox = field(default_factory=lambda: Mailbox(reactor=reactor))

    def __post_init__(self) -> None:
        self.homeserver = _Homeserver(self.authority.issue(HOMESERVER))
        self.homeserver.tokens["openid"] = ALICE

    def start(self) -> None:
        """Everybody listens."""
        self.homeserver.start(reactor)
        self.names.start()
        self.mailbox.start()
        service = dns.Record_SRV(0, 0, self.homeserver.port, HOMESERVER)
        self.names.zone = {(HOMESERVER, dns.A): a("127.0.0.1")}
        self.names.zone[f"_matrix-fed._tcp.{HOMESERVER}", dns.SRV] = DnsReply([(None, service)])

    async def stop(self) -> None:
        """Nobody listens."""
        await self.homeserver.stop()
        await self.names.stop()
        self.mailbox.stop()


class _Homeserver(Homeserver):
    @property
    def server_name(self) -> str:
        """Without its port: that is found by a SRV record."""
        return HOMESERVER


class Machine:
    """One folder that is the root of all paths, with nothing set up.

    Attributes:
        root: that folder.
        conf: where the configuration is, or is to be.
        env: what a shell there has in its environment, and nothing else.
    """

    def __init__(self, root: Path, world: World) -> None:
        self.root = root
        self.conf = root / "etc/sydentish/sydentish.conf"
        self.world = world
        self.port, self.metrics_port = free_port(), free_port()
        self.proxy = Proxy(f"http://127.0.0.1:{self.port}", world.authority.issue("localhost"))
        self.proxy.start(reactor)
        self.peer: Daemon | None = None
        for folder in (
            "bin",
            "etc/sydentish",
            "etc/sydent",
            "var/lib/sydentish",
            "var/lib/sydent",
            "var/backups",
        ):
            (root / folder).mkdir(parents=True)
        for folder in ("run/sydentish", "home"):
            (root / folder).mkdir(parents=True)
        (root / "var/lib/sydentish").chmod(0o700)
        world.authority.write_ca(root / "etc/ca.pem")
        self._keep("etc/sydentish/internal-token", "token-of-the-operator\n")
        self._write_programs()
        openid = {
            "access_token": "openid",
            "matrix_server_name": HOMESERVER,
            "expires_in": 3600,
            "token_type": "Bearer",
        }
        ca_file = str(root / "etc/ca.pem")
        self.env = {
            "PATH": str(root / "bin"),
            "HOME": str(root / "home"),
            "LANG": "C.UTF-8",
            "SSL_CERT_FILE": ca_file,
            "CURL_CA_BUNDLE": ca_file,
            "TOKEN": TOKEN,
            "openid": json.dumps(openid),
            **{name: os.environ[name] for name in ("COVERAGE_PROCESS_START",) if name in os.environ},
        }

    def _keep(self, path: str, secret: str) -> None:
        file = self.root / path
        file.touch(0o600)
        file.write_text(secret)

    def _write_programs(self) -> None:
        values = {"root": self.root, "command": COMMAND, "curl": tool("curl", "curl")}
        for name, text in _PROGRAMS.items():
            program = self.root / "bin" / name
            program.write_text(f"#!/bin/bash\nset -eu\nPATH=$PATH:/usr/bin:/bin\n{text.format(**values)}")
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
        for name, package in _TOOLS.items():
            (self.root / "bin" / name).symlink_to(tool(name, package))

    def at_home(self, text: str) -> str:
        """The same commands, with the paths and ports of this machine."""
        for there, here in (
            *((f"/{top}/", f"{self.root}/{top}/") for top in ("etc", "run", "var")),
            (f"https://{SERVER}/", f"https://localhost:{self.proxy.port}/"),
            ("http://127.0.0.1:8090/", f"http://127.0.0.1:{self.port}/"),
            ("http://127.0.0.1:9110/", f"http://127.0.0.1:{self.metrics_port}/"),
        ):
            text = text.replace(there, here)
        return text

    def configure(self) -> None:
        """Writes a configuration."""
        text = _CONFIG.format(
            server=SERVER,
            root=self.root,
            proxy=self.proxy.port,
            port=self.port,
            metrics=self.metrics_port,
            smtp=self.world.mailbox.port,
            dns=self.world.names.address[1],
        )
        self.conf.write_text(text)

    async def furnish(self) -> None:
        """A key, a peer that runs, and something of everything in the database."""
        self.configure()
        folder = self.root / "home/peer"
        folder.mkdir()
        member = Member(folder, PEER, self.world.authority)
        port = free_port()
        self._run("keys", "generate")
        key_dir = self.root / "var/lib/sydentish/keys"
        key = load_keys(key_dir, SERVER).active
        tls = self.root / "etc/sydentish/tls.pem"
        tls.touch(0o600)
        self.world.authority.issue("localhost", common_name=SERVER).write(tls)
        ours = {
            "root": self.root,
            "port": port,
            "peer": PEER,
            "url": member.replication_url,
            "key": member.public_key,
        }
        self.conf.write_text(self.conf.read_text() + _PEERS.format(**ours))
        member.configure(
            f"[peer {SERVER}]\nurl = https://localhost:{port}\nkeys = {key.key_id} {key.public_key}"
        )
        self.peer = member
        self._fill(load_keys(key_dir, SERVER))
        await member.start()

    def leave_a_sydent(self) -> None:
        """What a Sydent leaves behind."""
        file = SydentFile(self.root / "var/lib/sydent/sydent.db")
        file.bind(ADDRESS, ALICE, 1_600_000_000_000)
        file.add_peer(sent=1)
        file.add_account(ALICE, "token")
        (self.root / "etc/sydent/sydent.conf").write_text(configuration(file))

    def _run(self, *arguments: str) -> None:
        done = CliRunner().invoke(main, [*arguments, "-c", str(self.conf)])
        assert done.exit_code == 0, done.output

    def _fill(self, keys: object) -> None:
        path = self.root / "var/lib/sydentish/sydentish.db"
        now = now_ms()
        migrate_sqlite(path, 5000, now, shipped_steps())
        statements = Statements(keys=keys, validity_ms=10**12, random_bytes=os.urandom)

        def fill(tx: SqliteTx) -> None:
            accounts.add_account(tx, ALICE, now)
            accounts.add_token(tx, hash_secret(TOKEN), ALICE, now)
            statements.bind(tx, Threepid(EMAIL, "dora@example.org"), f"@dora:{HOMESERVER}", now - DAY_MS)
            (taken,) = outbox.lease(tx, "onbind", now, 1000, 1, failing=False)
            outbox.bury(tx, "onbind", taken, "HTTP 403", now - DAY_MS, answered=True)
            tx.run("UPDATE outbox SET outbox_id = ?", (DEAD_ROW,))
            statements.bind(tx, Threepid(EMAIL, ADDRESS), ALICE, now)
            token, friend = "token-of-the-invitation", Threepid(EMAIL, "friend@example.org")
            invites.add(
                tx, Invitation(token, friend, "!r:example.com", SPAMMER, now, now + 30 * DAY_MS), b"k" * 32
            )
            mail = InviteMail(
                address=friend.address,
                link="https://chat.example.org/",
                sender=SPAMMER,
                details=InviteDetails(),
            )
            outbox.add(
                tx,
                kind="invite",
                destination="relay-1",
                idempotency_key=mail_key(token),
                payload=mail.to_json(),
                now_ms=now,
            )

        write(path, fill)

    async def clean_up(self) -> None:
        """Nothing runs any more."""
        await self.proxy.stop()
        if self.peer is not None:
            await self.peer.clean_up()


def seconds_for(commands: int) -> int:
    """How long so many commands may take."""
    return SECONDS * (2 + commands)
