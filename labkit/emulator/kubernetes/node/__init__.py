"""The node: a kubelet that runs containers as processes of this machine. It uses the cluster only by its API.

`node` follows the pods that are bound to it, and `kubelet` is its own endpoint. `pod_life` runs one pod, and
`container_life` one container, with its `probes` and its hooks (`handlers`). They share a `pod`: `pod_status`,
`volumes`, `container_logs` and `attachments`. A container is made from `images`, `container_environment` and `mounts`,
and ends with a `termination_message`. `processes` and `program_streams` are the programs themselves. `client` calls the
API.
"""
