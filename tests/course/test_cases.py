"""Each case has a ticket as a user would write it, which doesn't give its fault away."""

import pytest

from labkit.course import cases, faults


@pytest.mark.parametrize("ticket", cases.TICKETS, ids=lambda ticket: ticket.fault)
def test_a_ticket_names_a_fault_of_the_catalogue_and_gives_no_part_away(ticket):
    assert ticket.fault in faults.CATALOGUE and ticket.part in cases.PARTS
    assert not [part for part in cases.PARTS[:-1] if part.lower() in ticket.text.lower()]
