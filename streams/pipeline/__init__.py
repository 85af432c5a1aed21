"""From the topic to the sinks: take, call the agents, deliver, finish, commit."""
