"""The simulator behind the moto target. Each lab has one background process. Only this package imports moto.

This module is the door: everybody else imports from here alone. A name is imported from its module when it's first
used.

- A lab's server: `start`, `stop`, `forget`. `State` is what a running server says of itself, `ask` asks it, and
  `silent` and `unreachable` are the answers to a user if it doesn't answer. `snapshots` saves and restores a lab.
- Files: `Folder` is a lab's folder, with its clock and the documents that its issuers publish (`ISSUER_DOCUMENTS`).
  `ClusterFolder` has the files of a lab's own cluster, `JoinedFolder` and `Facts` those of a cluster that joined.
- Ways in: `session` and `BoundSession` (AWS), `api_client` (a cluster), `kubeconfig`, `environment` (the variables of a
  terminal), `client_context` and `Authority` (TLS), `Trail` (the calls).
- Clusters: `ensure_cluster`, `active_cluster`, and the names and tags that the lab gives them.
- A lab for tests: `in_tests.running`. The pytest plugin's fixture `irsa_lab` is one for the session.
- What the API server does with a document, without a server: `with_defaults`, `object_selector`.
"""

from typing import TYPE_CHECKING

from labkit import at_first_use

if TYPE_CHECKING:
    from labkit.simulator import environment, in_tests, kubeconfig, snapshots
    from labkit.simulator.aws.trail import Trail
    from labkit.simulator.certificates import Authority, client_context
    from labkit.simulator.clients import (
        CLUSTER_ROLE,
        active_cluster,
        api_client,
        ensure_cluster,
        session,
        set_hop_limit,
    )
    from labkit.simulator.cluster_folder import ClusterFolder
    from labkit.simulator.control import ask
    from labkit.simulator.folder import IMDS, Folder
    from labkit.simulator.identifiers import Identifiers
    from labkit.simulator.joined_folder import (
        JOINED,
        Facts,
        JoinedFolder,
        is_of_a_lab,
        is_of_this_lab,
        webhook_selector,
    )
    from labkit.simulator.kubernetes.objects.defaults import with_defaults
    from labkit.simulator.kubernetes.objects.selectors import object_selector
    from labkit.simulator.lab_network import NETWORK_WEBHOOK
    from labkit.simulator.names import NODE_POLICIES, node_role_name
    from labkit.simulator.open_files import allow_open_files
    from labkit.simulator.process import ACCOUNT_ID, TARGET_TAG, State, forget, silent, start, stop, unreachable
    from labkit.simulator.published import ISSUER_DOCUMENTS
    from labkit.simulator.sessions import BoundSession, load_client
else:
    __getattr__ = at_first_use(__name__, {
        "aws.trail": ["Trail"],
        "certificates": ["Authority", "client_context"],
        "clients": ["CLUSTER_ROLE", "active_cluster", "api_client", "ensure_cluster", "session", "set_hop_limit"],
        "cluster_folder": ["ClusterFolder"],
        "control": ["ask"],
        "environment": ["environment"],
        "folder": ["IMDS", "Folder"],
        "identifiers": ["Identifiers"],
        "in_tests": ["in_tests"],
        "joined_folder": ["JOINED", "Facts", "JoinedFolder", "is_of_a_lab", "is_of_this_lab", "webhook_selector"],
        "kubeconfig": ["kubeconfig"],
        "kubernetes.objects.defaults": ["with_defaults"],
        "kubernetes.objects.selectors": ["object_selector"],
        "lab_network": ["NETWORK_WEBHOOK"],
        "names": ["NODE_POLICIES", "node_role_name"],
        "open_files": ["allow_open_files"],
        "process": ["ACCOUNT_ID", "TARGET_TAG", "State", "forget", "silent", "start", "stop", "unreachable"],
        "published": ["ISSUER_DOCUMENTS"],
        "sessions": ["BoundSession", "load_client"],
        "snapshots": ["snapshots"],
    })  # fmt: skip
