"""What a controller manager and a scheduler do."""
