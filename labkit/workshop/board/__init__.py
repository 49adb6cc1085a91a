"""The board: a service of the hub that shows a leader where everybody is, those who need help first.

`reporter` runs in each participant's server. It sends a `report` of the progress file: ids and counts, no texts. `rows`
orders the reports. `service` is the page and its log-in, and `access` asks the hub who a token belongs to. The page is
`templates/`; `static/` has htmx 2.0.11, unchanged from npm, with its licence. https://htmx.org

`hand` and `jupyter/` are the button in a notebook's toolbar that raises a hand.
"""
