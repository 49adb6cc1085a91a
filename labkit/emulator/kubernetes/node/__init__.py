"""The node: a kubelet that runs containers as processes of this machine. It uses nothing of the cluster but its API.

`node` watches the pods that are bound to it, and `kubelet` is its own HTTPS endpoint. `client` calls the API.

`pod_life` runs one pod. `container_life` runs one container, with its `probes` and its hooks (`handlers`). Both share
`pod`: the pod's status (`pod_status`), `volumes`, `container_logs` and `attachments`.

To start a container, `images` finds its program, `container_environment` its variables, and `mounts` its volumes.
`processes` starts the programs, and `program_streams` are their input and output. After its end, a container has a
`termination_message`.
"""
