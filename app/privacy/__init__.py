"""Privacy at the edge and by command: pseudonyms of users, and their erasure."""
