"""How segments overlap: which say the same, which lie inside another, which are too small to be worth having."""
