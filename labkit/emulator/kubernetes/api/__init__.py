"""Answer the API server's requests.

`requests` parses a request, and `protobuf` decodes a body in that format. `paths` answers requests for paths that
aren't resources (health, `discovery`). `routes` passes a request for a resource on to one of these modules:
- `resources` has the verbs that every kind has.
- `scale` has the subresource `scale` of Deployments and ReplicaSets.
- `access_reviews` answers reviews and requests for tokens, which are never stored.
- `streams` passes exec, attach and logs on to a kubelet.

A patch is first applied (`patches`). Then each write passes `admission`, `validation` and `managers`. Admission also
includes `node_restriction` and `escalation`; each of these checks gets the write as a `review`. A list may be answered
as a table (`tables`), and a watch is answered by `watches`.
"""
