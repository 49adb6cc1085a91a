"""The simulator: what the moto target runs on, one background process a lab. The only part that knows moto.

From the top down:

- process.py: the server as others see it. It starts one, finds it again and ends it.
- server.py: the process itself (``python -m labkit.emulator``), which brings up all that listens.
- cluster.py: the lab's own clusters. joined_cluster.py: a cluster that joined the lab (the kind target).
- control.py: how a command asks the server.
- running_lab.py: what these share. cluster_folder.py, joined_folder.py: what the lab's folder keeps of them.
- aws/ and kubernetes/: the two halves, which do not know each other.
- folder.py, ports.py, listener.py, clock.py, certificates.py, identifiers.py, open_files.py, database.py: the
  ground.
"""
