"""`make test-eks`: run the notebooks with the target eks on the simulator, reached by AWS_ENDPOINT_URL.

`make test` runs the target's contract. With `LABKIT_ACCOUNT_ID`, `LABKIT_CLUSTER`, `LABKIT_REGION`, `LABKIT_BUCKET` and
`LABKIT_CONFIRM=yes`, the notebooks run in that account and cluster, with this terminal's own AWS settings. The run's
resources are removed afterwards.
"""

import contextlib
import os
import sys
import tempfile

import labkit
from labkit import simulator, targets
from labkit.run_parameters import Parameters
from labkit.simulator import Folder, environment
from tests import forked_commands
from tests.targets import suite
from tests.targets.internet import internet


def main() -> int:
    if "LABKIT_ACCOUNT_ID" in os.environ:
        return on_the_account()
    with tempfile.TemporaryDirectory(prefix="labkit-eks-") as folder, contextlib.ExitStack() as stack:
        stack.callback(forked_commands.begin())
        os.environ["LABKIT_HOME"] = f"{folder}/.lab"
        with labkit.Lab.open() as lab:
            account_id = lab.account_id
        stack.callback(simulator.stop, Folder.find())
        state = simulator.State.read(Folder.find())
        net = stack.enter_context(internet(state.issuers))
        variables = environment.closed(os.environ) | environment.variables(
            Folder.find(), state.endpoint_url, state.region
        )
        variables |= {"HTTPS_PROXY": net.url, "HTTP_PROXY": net.url, "SSL_CERT_FILE": str(state.ca_file)}
        given = {"LABKIT_TARGET": "eks", "LABKIT_ACCOUNT_ID": account_id, "LABKIT_CONFIRM": "yes"}
        failed = suite.notebooks(variables | given)
        if strangers := set(net.requested) - set(state.issuers):
            print(f"The notebooks asked the internet for {', '.join(sorted(strangers))}.")
        return failed or int(bool(strangers))


def on_the_account() -> int:
    """Run the notebooks in the named account, and remove the run's resources; return the exit code."""
    names = {name: f"LABKIT_{name.upper()}" for name in Parameters.names()}
    given = {name: os.environ[variable] for name, variable in names.items() if variable in os.environ}
    parameters = Parameters.checked(**{**given, "target": "eks"})
    print(targets.target("eks").plan(parameters), flush=True)
    if parameters.confirm != "yes":
        print("Nothing was made. To run the notebooks there:  LABKIT_CONFIRM=yes make test-eks")
        return 1
    try:
        return suite.notebooks({**os.environ, "LABKIT_TARGET": "eks"})
    finally:
        with labkit.Lab(parameters, targets.connect(parameters)) as lab:
            lab.remove()


if __name__ == "__main__":
    sys.exit(main())
