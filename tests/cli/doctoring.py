"""What the tests of `doctor` have in common: its configuration, its run, and what it has found."""

import json
import os
import subprocess
from pathlib import Path

from daemons import COMMAND, SECONDS, Process
from twisted.internet import reactor

from sydentish.cli.doctor.clocks import Clocks
from sydentish.cli.doctor.findings import Finding
from sydentish.cli.doctor.public import PublicUrl
from sydentish.config import load
from sydentish.keyfiles import load_keys
from sydentish.parts.world import make_world

SERVER = "id.example.org"


class Patient:
    """A configuration in a folder, which `doctor` reads; the server with it may run elsewhere in this test.

    Attributes:
        homeservers: what stands in that section. Name servers are given: those of the machine are read again and
            again by Twisted, as long as the process lives, and a test lives less long.
        sections: what else stands in it.
        env: what is added to the environment.
    """

    def __init__(self, folder, data, public_base_url, listener):
        self.conf = folder / "doctor.conf"
        self.data = data
        self.public_base_url = public_base_url
        self.listener = listener
        self.homeservers = ["dns_servers = 127.0.0.1:1"]
        self.sections = []
        self.env = {}

    def write(self):
        general = [
            f"server_name = {SERVER}",
            f"public_base_url = {self.public_base_url}",
            "server_name_aliases = localhost",
            f"data_dir = {self.data}",
        ]
        http = [f"listeners = {self.listener}"]
        # What is added goes on where this ends.
        sections = ["[homeservers]", *self.homeservers, "[general]", *general, "[http]", *http]
        self.conf.write_text("\n".join([*sections, *self.sections, ""]))

    async def ask(self, *options):
        """Status and output, beside servers in this process."""
        self.write()
        process = Process("doctor", *options, "-c", str(self.conf), env=self.env)
        status = await process.ended.addTimeout(2 * SECONDS, reactor)
        assert "Traceback" not in process.output, process.output
        return status, process.output

    async def examined(self, *options):
        """What it finds, and that its status is right."""
        status, output = await self.ask("--json", *options)
        return judged(status, json.loads(output))

    def config(self):
        """The same configuration, read in this process."""
        self.write()
        return load(self.conf, self.env)

    async def seen(self, seconds=SECONDS):
        """What is found of the server and its public URL, without a process: that takes its time."""
        config, clocks = self.config(), Clocks()
        keys = load_keys(config.general.key_dir, SERVER)
        ca_file = self.env.get("SSL_CERT_FILE")
        public = PublicUrl(
            config,
            make_world(reactor),
            keys=keys,
            clocks=clocks,
            ca_file=ca_file and Path(ca_file),
            seconds=seconds,
        )
        return [*await public.findings(), *clocks.findings(make_world(reactor).now_ms())]

    def examined_alone(self, *options):
        """The same, where nothing in this process is connected to."""
        self.write()
        done = subprocess.run(
            [COMMAND, "doctor", "--json", *options, "-c", str(self.conf)],
            capture_output=True,
            text=True,
            timeout=2 * SECONDS,
            check=False,
            env={**os.environ, **self.env},
        )
        assert "Traceback" not in done.stderr, done.stderr
        return judged(done.returncode, json.loads(done.stdout))


def judged(status, told):
    findings = [Finding(**each) for each in told["findings"]]
    well = all(each.result != "failed" for each in findings)
    assert (status, told["ok"]) == (0 if well else 1, well)
    return findings


def of(findings, check):
    """The findings of one check, in short."""
    return [f"{each.result}: {each.told}; {each.remedy}" for each in findings if each.check == check]


def one(findings, check):
    (found,) = of(findings, check)
    return found


def failures(findings):
    """Which checks have failed, but for the mail relay, of which most tests have none."""
    return [each.check for each in findings if each.result == "failed" and each.check != "mail relay"]
