"""One accepted run: its way to a result, the handle that its caller holds, and what is stored if it is lost."""
