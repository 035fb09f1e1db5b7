"""The writers of Office's formats: `word` and `slides` from the tree, `sheets` from rows."""
