"""`make test-kind`: the target's contract and the notebooks on a cluster that exists.

`LABKIT_KUBECONFIG` and `LABKIT_CONTEXT` name it. Without them it is one of `kind_existing`, and the notebooks alone:
`make test` holds that one to the contract.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.targets import suite
from tests.targets.kind_existing import running


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="labkit-kind-") as folder, contextlib.ExitStack() as stack:
        given = {"LABKIT_TARGET": "kind", "LABKIT_HOME": f"{folder}/.lab"}
        is_given = "LABKIT_KUBECONFIG" in os.environ
        if is_given:
            given["LABKIT_KUBECONFIG"] = str(Path(os.environ["LABKIT_KUBECONFIG"]).expanduser().absolute())
        else:
            kubeconfig = stack.enter_context(running(Path(folder) / "existing"))
            given |= {"LABKIT_KUBECONFIG": str(kubeconfig), "LABKIT_CONTEXT": "existing"}
        environment = {**os.environ, **given}
        stack.callback(ended, environment)
        failed = suite.contract(environment) if is_given else 0
        return suite.notebooks(environment) or failed


def ended(environment: dict[str, str]) -> None:
    """The lab's webhooks are not left in the cluster."""
    code = "from labkit.targets import kind; kind.down()"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


if __name__ == "__main__":
    sys.exit(main())
