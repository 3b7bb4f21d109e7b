"""For operators: dead letters looked at and replayed, and what is wrong with an installation."""
