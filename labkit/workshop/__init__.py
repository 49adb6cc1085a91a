"""A workshop: a class of participants on one machine, each in a lab of their own, behind one JupyterHub.

Only this package imports JupyterHub, which comes with the extra `labkit[workshop]`. How the modules fit together:

- `settings` reads workshop.yaml, in which a leader says what the workshop is. Everything else takes its `Workshop`.
- `machine` checks what the workshop needs of this machine. `running` starts, stops and describes it: `up`, `down`,
  `status`, `forget`. `keeper` is the background process that starts the proxy and the hub, and starts them again when
  one of them ends. `proxy/` pins configurable-http-proxy, which npm installs into the workshop's folder.
- `hub` is the hub's configuration: jupyterhub_config.py calls its `configure`. `login` decides who may come in, with
  the words of `words`, which `labkit workshop cards` prints.
- `spawner` starts a participant's server in the hub's process. It asks `seats` for the participant's number, which
  decides the uid and the address, `networks` for a network namespace, `homes` for a home of limited size, `limits`
  for a control group, and `sandbox` for bubblewrap's arguments.
- `server` is Jupyter's server inside the sandbox: `labkit lab` with the hub's log-in.
- `board/` shows leaders where everybody is: a service of the hub, and what each server reports to it.
- `leading` gives the class orders by way of the board: break, mend, and go to a notebook.
- `exporting` writes what the class takes home; `packing` packs it inside each participant's sandbox.
- `guide/` writes the leader's guide and slides.
- `participant` is a person without a browser, over HTTP and WebSocket. `rehearsal` plays a class of them, and measures;
  the tests use them, too.
- `values` writes the values of a Helm chart, for a class on a cluster. `Dockerfile` and `image.sh` are its image.
"""

from typing import TYPE_CHECKING

from labkit import at_first_use

if TYPE_CHECKING:
    from labkit.workshop import exporting, guide, leading, running
    from labkit.workshop.hub import configure
    from labkit.workshop.rehearsal import rehearse
    from labkit.workshop.server import launch
    from labkit.workshop.settings import Workshop, read, require_extra, write_examples
    from labkit.workshop.values import helm_values
    from labkit.workshop.words import cards
else:
    __getattr__ = at_first_use(__name__, {
        "exporting": ["exporting"],
        "guide": ["guide"],
        "hub": ["configure"],
        "leading": ["leading"],
        "rehearsal": ["rehearse"],
        "running": ["running"],
        "server": ["launch"],
        "settings": ["Workshop", "read", "require_extra", "write_examples"],
        "values": ["helm_values"],
        "words": ["cards"],
    })  # fmt: skip
