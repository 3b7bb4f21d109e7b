"""Trying a policy out on what has happened, before anybody is touched by it."""
