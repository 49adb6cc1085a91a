"""The simulator behind the moto target. Each lab has one background process. Only this package imports moto.

The modules, from the top down:

- server.py: the process itself (``python -m labkit.simulator``). It starts every listener.
- pytest_plugin.py: fixtures for other projects' tests. in_tests.py: the lab of one test session.
- cluster.py: the lab's own clusters. joined_cluster.py: a cluster that joined the lab (the kind target).
- snapshots.py: the lab's state in one file.
- running_lab.py: the parts that all clusters share, such as the ports and the public issuer.
- cluster_folder.py: a cluster's files in the lab's folder. joined_folder.py: the files about clusters that joined.
- clients.py: clients of a running lab's AWS and clusters. sessions.py: the AWS sessions of these clients.
- process.py: start a lab's server, find it again and end it.
- control.py: the requests that commands send to the server.
- aws/ and kubernetes/: the simulator's two halves. Neither half imports the other.
- folder.py, listener.py, clock.py, certificates.py, identifiers.py, open_files.py, database.py: the basis for all
  other modules.
"""
