"""The node: a kubelet that runs containers as processes of this machine. It uses only the cluster's API.

`node` follows the pods that are bound to it, and `kubelet` is its own endpoint. `pod_life` runs one pod, and
`container_life` runs one container, with its `probes` and its hooks (`handlers`). Both use the pod's shared parts in
`pod`: its status (`pod_status`), `volumes`, `container_logs` and `attachments`. A container starts from `images`,
`container_environment` and `mounts`, and leaves a `termination_message`. `processes` and `program_streams` are the
programs themselves. `client` calls the API.
"""
