"""Answer the requests that clients send to the API server.

`requests` parses a request, and `protobuf` decodes a protobuf body. `paths` answers requests for paths that aren't
resources (health, `discovery`). `routes` answers requests for the subresource `scale`, and passes other requests on to:
- `resources` has the verbs that every kind has.
- `access_reviews` answers reviews and requests for tokens, which are never stored.
- `streams` passes exec, attach and logs on to a kubelet.

A patch is first applied (`patches`). Then each write passes `admission`, `validation` and `managers`. Admission also
calls the built-in `admission_plugins`. All checks of admission get the write as a `Review`.

If the client wants a table, `tables` makes it from the listed objects. `watches` answers a watch.
"""
