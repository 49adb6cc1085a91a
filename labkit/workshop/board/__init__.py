"""The board: a service of the hub that shows a leader where everybody is, those who need help first.

`reporter` runs in each participant's server. It sends a `report` of the progress file: ids and counts, no texts. `rows`
orders the reports. `service` is the page and its log-in, and `access` asks the hub who a token belongs to. The page is
`templates/`; `static/` has htmx 2.0.11, unchanged from npm, with its licence. https://htmx.org

`orders` has what the leader orders the labs to do, such as to break something. A lab gets it as the answer to a report.
`obeying` takes it up in the participant's server, and starts `changing`, which changes the lab. `notebook` and
`jupyter/` are the banner above a notebook about it, and the button that raises a hand. `sharing` lets leaders into the
server of a participant who says so.
"""
