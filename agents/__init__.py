"""What is done with one conversation: pure steps and the analysers. No Kafka, Postgres, server or metrics."""
