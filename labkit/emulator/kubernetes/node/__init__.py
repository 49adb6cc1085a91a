"""The node: a kubelet that runs containers as processes of this machine. It knows the cluster by the API alone.

`node` follows the pods that are bound to it, and `kubelet` is its own endpoint. `pod_life` runs one pod,
`container_life` one container (with its `probes` and hooks, `handlers`); what they share is in `pod`: `pod_status`,
`volumes`, `container_logs` and `attachments`. A container is made from `images`, `container_environment` and
`mounts`, and ends with a `termination_message`. `processes` and `program_streams` are the programs themselves,
`client` the way to the API.
"""
