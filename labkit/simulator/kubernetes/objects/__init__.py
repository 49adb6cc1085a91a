"""The API server's storage, and what the server knows about each kind of object.

- `storage` has all objects of one server, in memory and in a file.
- `writes` changes and deletes objects.
- `kinds` lists the kinds. `schema` lists the fields of each kind's type.
- `status` has the API's error answers.
- `defaults`, `services`, `selectors`, `pods` and `quantities` work on single objects and their fields.
"""
