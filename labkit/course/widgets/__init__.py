"""The notebooks' views: the journey, a step's check, the token, questions, "Who gets in?", and the calls to AWS.

Each view renders as text and as plain HTML, for stored notebooks. A running notebook shows a widget instead: the same
HTML with colours, and a button that reads the live lab again.
"""

import re

ISSUER_ID = re.compile(r"\b[0-9A-F]{32}\b")
