"""The sender: takes decisions from `decisions`, gets them to a provider, and tells `events` what became of them."""
