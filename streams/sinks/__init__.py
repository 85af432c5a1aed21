"""Where results go, one destination a file."""
