"""Worker processes: tools that do not run in the supervisor run in them, one call at a time.

`modes` decides which tool runs where. In the supervisor `dispatch` is one tool of one run, `pool` has the workers,
`handle` is one worker, and `spawner_client` asks for new ones. `spawner` and `process` run in processes of their own.
"""
