"""The worker: reads the input topics, lets the analyst work on the records, and commits what is finished."""
