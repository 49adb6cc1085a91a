"""The node: a kubelet that runs containers as processes of this machine. It uses only the cluster's API.

`node` watches the pods that are bound to the node. `kubelet` is the node's HTTPS endpoint. `client` calls the API.

`pod_life` runs one pod. `container_life` runs one container, with its probes and its hooks (`handlers`). Both use
`pod`, which has the pod's status (`pod_status`), `volumes` and `container_logs`.

At a container's start, `images` finds its program, `container_environment` makes its variables, and `mounts` prepares
its volumes. `processes` starts programs, and `program_streams` connects their input and output.
"""
