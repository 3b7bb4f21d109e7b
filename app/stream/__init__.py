"""The data plane: what Faust lacks to be fast and to lose nothing.

Faust gives group membership, assignment, agents and the worker's life; this package gives batches, the
acknowledgement barrier, row tables with a changelog, restore, timers and broadcast topics. It knows nothing of
segments or campaigns.
"""
