"""Dead letters as people work with them: found, shown, and sent back into the stream."""
