"""The audit: reconciles the records of the topics with the rows of Postgres."""
