"""The demo: sends real conversations through the whole local stack and checks that the figures add up."""
