"""kubectl as a person uses it: with pipes and at a terminal."""

import json
import os
import re
import subprocess
from dataclasses import dataclass

import pexpect

from tests.simulator.kubernetes.node_lab import Host

PROMPT = r"[#$] $"
# kubectl before 1.33 logs this line if the API server's first, empty message arrives before kubectl has made its
# streams: https://github.com/kubernetes/kubernetes/pull/131203
OUTRUN = re.compile(r"^E\d{4} [^\n]*Unknown stream id \d, discarding message\r?\n", re.MULTILINE)


@dataclass
class Kubectl:
    """``as_user`` is the user that the administrator impersonates."""

    host: Host
    as_user: str = ""

    def __call__(self, *arguments: str, given: bytes = b"", code: int = 0) -> subprocess.CompletedProcess:
        """Run kubectl to its end; ``given`` goes to its standard input."""
        done = subprocess.run(
            self._command(*arguments), input=given, capture_output=True, timeout=60, env=self._environment, check=False
        )
        done.stderr = OUTRUN.sub("", done.stderr.decode()).encode()
        assert done.returncode == code, (done.stdout[-2000:], done.stderr)
        return done

    def out(self, *arguments: str, **options) -> str:
        return self(*arguments, **options).stdout.decode()

    def error(self, *arguments: str, code: int = 1) -> str:
        """Return the error output of a kubectl call that must fail."""
        return self(*arguments, code=code).stderr.decode()

    def started(self, *arguments: str) -> subprocess.Popen:
        """Start kubectl with pipes and don't wait for its end. Use it in a `with`."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self._command(*arguments), stdin=pipe, stdout=pipe, stderr=pipe, env=self._environment, bufsize=0
        )

    def at_terminal(self, *arguments: str, rows: int = 24, columns: int = 80) -> pexpect.spawn:
        program, *rest = self._command(*arguments)
        return pexpect.spawn(
            program, rest, env=self._environment, timeout=20, encoding="utf-8", dimensions=(rows, columns)
        )

    @property
    def _environment(self) -> dict[str, str]:
        file = self.host.folder / "kubeconfig"
        if not file.exists():
            folder, server = self.host.folder, self.host.api.api_client.configuration.host
            pem = str(folder / "admin.pem")
            config = {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "lab",
                "clusters": [
                    {"name": "lab", "cluster": {"server": server, "certificate-authority": str(folder / "ca.pem")}}
                ],
                "users": [{"name": "admin", "user": {"client-certificate": pem, "client-key": pem}}],
                "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "admin"}}],
            }
            file.write_text(json.dumps(config))
        return {"PATH": os.environ["PATH"], "HOME": str(self.host.folder), "KUBECONFIG": str(file)}

    def _command(self, *arguments: str) -> list[str]:
        return ["kubectl", *(["--as", self.as_user] if self.as_user else []), *arguments]


def end_of(child: pexpect.spawn) -> tuple[str, int]:
    """Wait for the end; return the rest of the output and the exit code."""
    child.expect(pexpect.EOF)
    child.close()
    return OUTRUN.sub("", child.before).replace("\r\n", "\n"), child.exitstatus
