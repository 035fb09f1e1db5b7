"""The HTTP interface: each module reads requests, asks the service, and writes answers."""
