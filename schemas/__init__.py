"""Message contracts: what travels on each topic, and how it is encoded.

Imports nothing of ours, so that a producer or a consumer written elsewhere in Python can use this package alone.
"""
