"""The HTTP gateway: accepts conversations once the brokers have them, and serves insights."""
