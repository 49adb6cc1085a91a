"""What outlives the lab's server of AWS: moto's state (`kept`), and the gate's own (`own`)."""
