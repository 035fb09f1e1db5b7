"""The command `isorun`: one small module per command, each importing what is heavy only when it runs."""
