"""Answer the requests that clients send to the API server.

`requests` parses a request, and `protobuf` decodes a protobuf body. `paths` answers requests for paths that aren't
resources (health, `discovery`). `routes` passes a request for a resource on to one of these modules:
- `resources` has the verbs that every kind has.
- `scale` has the subresource `scale` of Deployments and ReplicaSets.
- `access_reviews` answers reviews and requests for tokens, which are never stored.
- `streams` passes exec, attach and logs on to a kubelet.

A patch is first applied (`patches`). Then each write passes `admission`, `validation` and `managers`. Admission also
calls `node_restriction` and `escalation`. All checks of admission get the write as a `review`.

If the client wants a table, `tables` makes it from the listed objects. `watches` answers a watch.
"""
