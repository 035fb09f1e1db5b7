"""The chat service: HTTP, a page and an agent, over one Runtime and one store.

It decides who may see and start what. What a run is, and how it ended, the Runtime decides.
"""
