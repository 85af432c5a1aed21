"""The demonstration: real conversations through the whole local stack, counted and checked at the end."""
