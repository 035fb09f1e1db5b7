"""Files that outlive their run: saved where the caller says, or carried from run to run of a session."""
