"""Faust agents: thin shells that read, decide, write and send. The interesting ifs are in app.core."""
