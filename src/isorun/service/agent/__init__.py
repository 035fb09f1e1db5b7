"""The agent: one loop over a model that speaks the chat completions protocol, and a script that plays one.

`model` asks an endpoint, `loop` lets it write programs and reads back what became of them, `scripted` is an endpoint
that plays the demo conversation. Nothing here knows of HTTP requests of ours, of users or of the store: the service
gives history and a way to run, and gets new messages.
"""
