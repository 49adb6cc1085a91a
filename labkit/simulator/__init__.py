"""The emulator behind the moto target. Each lab has one background process. Only this package imports moto.

The modules, from the top down:

- process.py: start a lab's server, find it again and end it.
- server.py: the process itself (``python -m labkit.simulator``). It starts every listener.
- cluster.py: the lab's own clusters. joined_cluster.py: a cluster that joined the lab (the kind target).
- control.py: the requests that commands send to the server.
- running_lab.py: the parts that all clusters share.
- cluster_folder.py: a cluster's files in the lab's folder. joined_folder.py: the files about clusters that joined.
- aws/ and kubernetes/: the emulator's two halves. Neither half imports the other.
- folder.py, ports.py, listener.py, clock.py, certificates.py, identifiers.py, open_files.py, database.py: the
  basis for all other modules.
"""
